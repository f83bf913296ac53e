"""The encoder: it masks images."""

import itertools

from torch import Tensor, nn

from maskbench.models.heads import Contrast, one_hot
from maskbench.models.layers import SLOPE, convolve, multiply
from maskbench.models.sizes import depth
from maskbench.models.spectrum import Spectrum


class Encoder(nn.Module):
    """Image -> latent vector in two parts (paper, section "Adversarial autoencoder").

    Features of the image, then two linear heads: one followed by :class:`Contrast`, the other by :func:`one_hot`. The
    features are a stack of 4x4 convolutions of stride 2, each of which halves the side and doubles the channels, or,
    with ``frequencies``, the image's lowest frequencies. The stack deepens with the image until 4 to 7 pixels a side
    are left, but has three convolutions at least: :func:`depth`. At the defaults that makes 455,942 parameters, the
    paper's "over 400 thousand".

    Args:
        image_size: side S of the images, 8 to 256, a multiple of 2 to the power of ``depth(S)``.
        width: channels of the first convolution.
        gaussian_dim: length G of the Gaussian part.
        categories: length K of the categorical part.
        frequencies: read this many frequencies of each colour (at most S^2) instead of convolutions; 0: convolutions.
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
        if frequencies:
            self.features = Spectrum(image_size, frequencies)
            features = self.features.length
        else:
            channels = [3, *(width * 2**stage for stage in range(stages))]
            layers = []
            for before, after in itertools.pairwise(channels):
                layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
            self.features = nn.Sequential(*layers, nn.Flatten())
            features = channels[-1] * (image_size >> stages) ** 2
        self.gaussian = nn.Linear(features, gaussian_dim)
        self.contrast = Contrast()
        self.categorical = nn.Linear(features, categories)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 ``[N, 3, S, S]`` in [0, 1] -> Gaussian part ``[N, G]``, categorical part ``[N, K]``, one-hot."""
        features = self.read(images)
        return self.contrast(multiply(self.gaussian, features)), one_hot(multiply(self.categorical, features))

    def read(self, images: Tensor) -> Tensor:
        """The features that both heads read, ``[N, F]``."""
        return self.features(images) if self.config["frequencies"] else convolve(self.features, images, up=False)
