"""What the instances of one training share."""

from dataclasses import dataclass

from maskbench.training.images import TrainingImages
from maskbench.training.settings import Settings


@dataclass(frozen=True)
class Run:
    """What the instances of one start of ``train_aae.py`` share.

    Attributes:
        settings: see there.
        epochs: to be trained in all.
        images: that are trained and validated on.
        environment: what else the bits of the weights depend on, see :mod:`maskbench.training.resume`.
        threads: of an instance that does not resume.
        compile: whether ``torch.compile`` makes the networks.
        tensorboard: whether event files are written.
        checkpoint_minutes: the longest time between two checkpoints.
    """

    settings: Settings
    epochs: int
    images: TrainingImages
    environment: dict[str, str]
    threads: int = 1
    compile: bool = False
    tensorboard: bool = False
    checkpoint_minutes: float = 10.0

    @property
    def batches(self) -> int:
        """Mini-batches an epoch; a last incomplete one is dropped."""
        return len(self.images.train) // self.settings.batch_size
