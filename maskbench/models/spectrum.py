"""The features of preset maskbench: an image's lowest frequencies."""

import math

import torch
from torch import Tensor, nn


class Spectrum(nn.Module):
    """The lowest frequencies of images: an orthonormal cosine transform (DCT-II), most of it thrown away.

    Principal components of natural images lie almost wholly in it, and it needs no weights: 400 of 1,024
    frequencies a colour lose 0.0001 of the MSE of 384 components.

    Args:
        image_size: side S of the images.
        frequencies: how many are kept of each colour, the lowest first; at most S^2.
    """

    def __init__(self, image_size: int, frequencies: int):
        super().__init__()
        frequencies = min(frequencies, image_size**2)
        self.length = 3 * frequencies
        self.side = min(image_size, math.ceil(math.sqrt(4 / math.pi * frequencies)) + 2)  # none of them lies outside
        # on the CPU even where modules are built without memory ("meta")
        pixels = torch.arange(image_size, dtype=torch.float64, device="cpu")
        numbers = pixels[: self.side]
        basis = torch.cos(math.pi / image_size * (pixels + 0.5) * numbers[:, None]) * math.sqrt(2 / image_size)
        basis[0] /= math.sqrt(2)
        squares, order = (numbers.square() + numbers.square()[:, None]).flatten().sort(stable=True)
        # none is trained or stored: they follow from the sizes
        self.register_buffer("basis", basis.float(), persistent=False)
        self.register_buffer("kept", order[:frequencies], persistent=False)
        self.register_buffer("squares", squares[:frequencies].float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 3, S, S]`` -> ``[N, length]``."""
        return (self.basis @ (images @ self.basis.T)).flatten(2)[..., self.kept].flatten(1)

    def natural_variances(self) -> Tensor:
        """How variances fall off over ``[length]`` in natural images, up to a factor: 1 / f^2."""
        return (1 / (1 + self.squares)).repeat(3)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """``[N, length]`` -> the images ``[N, 3, S, S]`` that have these frequencies and no others."""
        full = spectrum.new_zeros(len(spectrum), 3, self.side**2)
        full = full.index_copy(2, self.kept, spectrum.view(len(spectrum), 3, -1))
        return self.basis.T @ full.unflatten(2, (self.side, self.side)) @ self.basis
