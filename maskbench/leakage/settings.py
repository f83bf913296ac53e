"""What an audit is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskbench.data.masked_set import MaskedSet
from maskbench.data.pixels import AS_IT_IS, Reading

# masked set and names of classifiers -> mean and standard deviation of each one's accuracy over frontier.DRAWS draws
Accuracy = Callable[[MaskedSet, Sequence[str]], dict[str, tuple[float, float]]]


@dataclass(frozen=True)
class Release:
    """What an owner who hands out masks says before the audit; the report judges by it.

    Attributes:
        masked: files, or names of shards, that are to be handed out; there is a page about each.
        recipient: who gets it.
        pairs: how many of the images behind masks an attacker may know.
        most_ssim: the SSIM of the best reconstruction that is accepted; None where nothing was said.
        most_named: the share of images named among candidates, likewise.
        most_linked: the share of other photographs that are linked, likewise.
        most_inferred: the accuracy of a withheld label, likewise.
    """

    masked: tuple[Path, ...] = ()
    recipient: str = ""
    pairs: int = 1000
    most_ssim: float | None = None
    most_named: float | None = None
    most_linked: float | None = None
    most_inferred: float | None = None


NOTHING_SAID = Release()


@dataclass(frozen=True)
class Settings:
    """What an audit is of, and where it goes.

    Attributes:
        dataset: what the autoencoders were trained on.
        private: a labelled set that is judged too, and whose masks are classified; or None.
        limit: keep the first ``limit`` training and ``limit // 4`` validation images, for attackers at most as many.
        seed: of baselines.
        output_dir: an existing folder.
        more_models: folders of other trained autoencoders, instances 0 and 1 in each, for accuracy against leakage.
        data_dir, workers, skip_corrupt, reading: as for :func:`maskbench.data.datasets.load`.
        masks: which are audited beside the autoencoder's own, see :func:`maskbench.leakage.audit.mask_name`.
        terms: of the release that the report is for.
        jobs: steps at once, each in a process with one thread.
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
    masks: Sequence[str] = ()
    terms: Release = NOTHING_SAID
    jobs: int = 1
