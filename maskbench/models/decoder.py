"""The decoder: it rebuilds images from masks."""

import itertools
import math

import torch
from torch import Tensor, nn

from maskbench.models.heads import Contrast
from maskbench.models.layers import SLOPE, convolve, multiply
from maskbench.models.sizes import configuration, depth


class Decoder(nn.Module):
    """Latent vector -> image: the mirror of preset paper's encoder, and the private key of a mask.

    The encoder's :class:`Contrast` is undone (in training the two share its parameters), then come a linear layer and
    transposed convolutions.

    Args: as for :class:`Encoder`; ``preset`` is the encoder's.
    """

    def __init__(
        self,
        preset: str = "paper",
        image_size: int = 32,
        gaussian_dim: int = 0,
        categories: int = 20,
        width: int = 0,
    ):
        super().__init__()
        self.config = configuration(preset, image_size, gaussian_dim, categories, width)
        gaussian_dim, width = self.config["gaussian_dim"], self.config["width"]
        stages = depth(image_size)
        self.gaussian_dim = gaussian_dim
        self.contrast = Contrast()
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
        images = convolve(self.convolutions, features.unflatten(1, self.shape), up=True) + 0.5
        return images if self.training else images.clamp(0, 1)

    def unmask(self, latent: Tensor) -> Tensor:
        """The latent vector with the contrast undone, the one part of the heads that is not linear; ``[N, G + K]``."""
        gaussian, categorical = latent[:, : self.gaussian_dim], latent[:, self.gaussian_dim :]
        return torch.cat((self.contrast.inverse(gaussian), categorical), 1)
