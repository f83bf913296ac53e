"""What an audit is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskbench.data.masked_set import MaskedSet
from maskbench.data.pixels import AS_IT_IS, Reading

# masked set and names of classifiers -> mean and standard deviation of each one's accuracy over frontier.DRAWS draws
Accuracy = Callable[[MaskedSet, Sequence[str]], dict[str, tuple[float, float]]]


@dataclass(frozen=True)
class Settings:
    """What an audit is of, and where it goes.

    Attributes:
        dataset: what the autoencoders were trained on.
        private: a labelled set that is judged too, and whose masks are classified; or None.
        limit: keep the first ``limit`` training and ``limit // 4`` other images.
        seed: of baselines.
        output_dir: an existing folder.
        more_models: folders of other trained autoencoders, instances 0 and 1 in each, for accuracy against leakage.
        data_dir, workers, skip_corrupt, reading: as for :func:`maskbench.data.datasets.load`.
    """

    dataset: str
    private: str | None
    limit: int | None
    seed: int
    output_dir: Path
    more_models: Sequence[Path]
    data_dir: Path
    workers: int
    skip_corrupt: bool
    reading: Reading = AS_IT_IS
