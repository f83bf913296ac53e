"""What linear baselines share: a matrix over centred pixels."""

import numpy as np
import torch
from torch import Tensor

from maskbench.data.image_set import to_float
from maskbench.errors import InputError
from maskbench.masking.method import MaskingMethod, Recipe
from maskbench.storage import pt


class LinearMethod(MaskingMethod):
    """z = W (x - mean): one number a row of W, all in the Gaussian part.

    Args:
        mean: float32 ``[3 S S]``.
        matrix: W, float32 ``[numbers, 3 S S]``.
        image_size: S.
    """

    def __init__(self, mean: Tensor, matrix: Tensor, image_size: int):
        self.mean, self.matrix, self.image_size = mean, matrix, image_size
        self.widths = len(matrix), 0
        self.fingerprint = pt.fingerprint({"mean": mean, "matrix": matrix})

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return (images.flatten(1) - self.mean) @ self.matrix.T, images.new_empty(len(images), 0)

    def to(self, device: torch.device) -> "LinearMethod":
        self.mean, self.matrix = self.mean.to(device), self.matrix.to(device)
        return self


def public_pixels(recipe: Recipe, method: str) -> np.ndarray:
    """The pixels of a recipe's public images, float32 ``[N, 3 S S]``.

    Raises:
        InputError: fewer images or pixels than the mask is to have numbers.
    """
    images = recipe.public()
    pixels = to_float(images).flatten(1).numpy()
    if recipe.numbers() > min(pixels.shape):
        raise InputError(
            f"--method {method}: {recipe.numbers()} numbers need at least as many public images (--fit-on) and pixels, "
            f"here {len(pixels)} and {pixels.shape[1]}"
        )
    return pixels
