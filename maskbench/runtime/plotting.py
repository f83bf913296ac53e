"""What every picture shares: no screen, an image without axes, a file written whole."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
from torch import Tensor

from maskbench.storage import atomic

__all__ = ["plt", "show", "write"]


def show(axis, image: Tensor) -> None:
    """Draw a float image ``[3, S, S]`` in [0, 1]."""
    axis.imshow(image.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def write(figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and close it."""
    with atomic.writing(path) as file:
        figure.savefig(file, format="png", dpi=130)
    plt.close(figure)
