"""What a classifier of masks is told."""

from dataclasses import dataclass

import torch

from maskbench.ops import backend

COMPILED_ROWS = 64  # of a mini-batch, at most: PyTorch's products of larger ones are faster than the compiled epoch


@dataclass(frozen=True)
class Settings:
    """The flags of ``classify.py`` that change scores.

    Attributes:
        seed: of the draws of classes and of all that is random after them.
        epochs: of the MLP.
        batch_size: of the MLP.
        lr: the MLP's learning rate at the start.
        estimators: trees of the forest, stumps of AdaBoost.
    """

    seed: int = 0
    epochs: int = 100
    batch_size: int = 4
    lr: float = 1e-3
    estimators: int = 100

    def compiled(self, device: torch.device) -> bool:
        """Whether ``ops.train_mlps`` trains MLPs, one a core, or PyTorch several of them together."""
        return backend(device) == "cpu" and self.batch_size <= COMPILED_ROWS

    def inputs(self, method: str, device: torch.device) -> dict:
        """What determines a method's runs, beside the masked file and the draw."""
        import sklearn

        shared = {"method": method, "seed": self.seed, "torch": torch.__version__, "sklearn": sklearn.__version__}
        if method == "mlp":
            flags = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr}
            return shared | flags | {"device": device.type, "compiled": self.compiled(device)}
        return shared | {"estimators": self.estimators}
