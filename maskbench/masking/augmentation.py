"""Random copies of images: flips and shifts."""

from collections.abc import Sequence

import torch
from torch import Tensor

NAMES = ("flip", "shift")
SHIFT = 2  # pixels


def augmented(images: Tensor, names: Sequence[str], random: Tensor) -> Tensor:
    """A random copy of every image.

    Args:
        images: ``[N, 3, S, S]``.
        names: what may happen to an image: ``flip`` swaps left and right in half of the copies, ``shift`` moves by up
            to SHIFT pixels each way, and the border repeats into what that uncovers.
        random: uniform in [0, 1), ``[N, 3]``.

    Returns:
        ``[N, 3, S, S]``.
    """
    size = images.shape[-1]
    steps = torch.arange(size, device=images.device)
    rows, columns = steps.expand(2, len(images), size)
    if "flip" in names:
        columns = torch.where(random[:, :1] < 0.5, columns.flip(1), columns)
    if "shift" in names:
        down, right = ((2 * SHIFT + 1) * random[:, 1:]).long().sub(SHIFT).T[:, :, None]
        rows, columns = (rows - down).clamp(0, size - 1), (columns - right).clamp(0, size - 1)
    every = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
