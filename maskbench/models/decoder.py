"""The decoder: the private key of an encoder's masks."""

import itertools
import math

import torch
from torch import Tensor, nn

from maskbench.models.heads import Contrast
from maskbench.models.layers import SLOPE, channels_last, convolve, multiply
from maskbench.models.sizes import depth, has_bfloat16
from maskbench.models.spectrum import Spectrum


class Decoder(nn.Module):
    """Latent vector -> image: the encoder's mirror, and the private key of its masks.

    The encoder's :class:`Contrast` is undone (in training the two share its parameters), then come a linear layer and
    the transposed convolutions, or, with ``frequencies``, the image of those frequencies and five 3x3
    convolutions that correct it, on a grid of 16 to 31 pixels a side (of images below 16, half of theirs).

    Args: as for :class:`Encoder`; with ``frequencies``, ``width`` is the channels of the correction.
    """

    def __init__(
        self,
        image_size: int = 32,
        width: int = 16,
        gaussian_dim: int = 384,
        categories: int = 20,
        frequencies: int = 0,
    ):
        super().__init__()
        self.config = dict(
            image_size=image_size,
            width=width,
            gaussian_dim=gaussian_dim,
            categories=categories,
            frequencies=frequencies,
        )
        stages = depth(image_size)
        self.gaussian_dim = gaussian_dim
        self.contrast = Contrast()
        if frequencies:
            self.spectrum = Spectrum(image_size, frequencies)
            self.linear = nn.Linear(gaussian_dim + categories, self.spectrum.length)
            scale = 2 ** (stages - 2)
            pixels = 3 * scale**2
            correction = [nn.PixelUnshuffle(scale), nn.Conv2d(pixels, width, 3, padding=1), nn.LeakyReLU(0.2)]
            for _ in range(3):
                correction += [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2)]
            last = nn.Conv2d(width, pixels, 3, padding=1)
            nn.init.zeros_(last.weight)  # it starts by correcting nothing
            nn.init.zeros_(last.bias)
            self.correction = nn.Sequential(*correction, last, nn.PixelShuffle(scale))
        else:
            self.spectrum = None
            channels = [3, *(width * 2**stage for stage in range(stages))][::-1]
            self.shape = (channels[0], image_size >> stages, image_size >> stages)
            self.linear = nn.Linear(gaussian_dim + categories, math.prod(self.shape))
            layers = []
            for before, after in itertools.pairwise(channels):
                layers += [nn.LeakyReLU(SLOPE), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
            self.convolutions = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Both parts side by side, float32 ``[N, G + K]`` -> images ``[N, 3, S, S]``.

        In [0, 1] in eval mode; in training mode not clamped, or saturated pixels would have no gradient.
        """
        return self.rebuild(self.unmask(latent))

    def rebuild(self, unmasked: Tensor) -> Tensor:
        """As :meth:`forward`, of what :meth:`unmask` gave: ``[N, G + K]`` -> images ``[N, 3, S, S]``."""
        features = multiply(self.linear, unmasked)
        if self.spectrum:
            images = self.spectrum.inverse(features)
            # in training the correction, small beside the image, bears rounding; most of a step's time is spent on it
            with torch.autocast(images.device.type, torch.bfloat16, self.training and has_bfloat16(images.device)):
                correction = self.correction(channels_last(images - 0.5))
            images = images + correction
        else:
            images = convolve(self.convolutions, features.unflatten(1, self.shape), up=True) + 0.5
        return images if self.training else images.clamp(0, 1)

    def unmask(self, latent: Tensor) -> Tensor:
        """The latent vector with the contrast undone, the one part of the heads that is not linear; ``[N, G + K]``."""
        gaussian, categorical = latent[:, : self.gaussian_dim], latent[:, self.gaussian_dim :]
        return torch.cat((self.contrast.inverse(gaussian), categorical), 1)
