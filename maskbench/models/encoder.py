"""The encoder: it masks images."""

import itertools

import torch
from torch import Tensor, nn

from maskbench.models.heads import Contrast, one_hot
from maskbench.models.layers import SLOPE, BatchNorm, channels_last, convolve, multiply
from maskbench.models.patches import SmallConvolution
from maskbench.models.sizes import configuration, depth, has_bfloat16

# of batch normalisation: with 1e-5, seven layers on images that are all the same have infinite gradients
EPSILON = 1e-3


class Encoder(nn.Module):
    """Image -> latent vector in two parts (paper, section "Adversarial autoencoder").

    Features of the image, then two linear heads: one followed by :class:`Contrast`, the other by :func:`one_hot`. The
    features of preset ``paper`` are a stack of 4x4 convolutions of stride 2, each of which halves the side and doubles
    the channels. At the defaults that makes 455,942 parameters, the paper's "over 400 thousand". Those of preset
    ``invariant`` are :class:`PooledFeatures`. Both stacks deepen with the image until 4 to 7 pixels a side are left,
    but halve it three times at least: :func:`depth`.

    Args:
        preset: which features, in ``PRESETS``.
        image_size: side S of the images, 8 to 256, a multiple of 2 to the power of ``depth(S)``.
        gaussian_dim: length G of the Gaussian part; 0: the preset's.
        categories: length K of the categorical part.
        width: channels of the first convolution; 0: the preset's.
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
        self.pools = preset == "invariant"
        if not self.pools:
            stages = depth(image_size)
            channels = [3, *(width * 2**stage for stage in range(stages))]
            layers = []
            for before, after in itertools.pairwise(channels):
                layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
            self.features = nn.Sequential(*layers, nn.Flatten())
            features = channels[-1] * (image_size >> stages) ** 2
        else:
            self.features = PooledFeatures(image_size, width)
            features = self.features.length
        self.gaussian = nn.Linear(features, gaussian_dim)
        self.contrast = Contrast()
        self.categorical = nn.Linear(features, categories)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 ``[N, 3, S, S]`` in [0, 1] -> Gaussian part ``[N, G]``, categorical part ``[N, K]``, one-hot."""
        gaussian, logits = self.heads(images)
        return gaussian, one_hot(logits)

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, with the logits of the categories instead of the choice among them.

        The features of preset invariant learn from the Gaussian part alone: the choice among a few categories would
        coarsen them.
        """
        features = self.read(images)
        gaussian = self.contrast(multiply(self.gaussian, features))
        return gaussian, multiply(self.categorical, features.detach() if self.pools else features)

    def heads_of_views(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`heads`, without a trace in the running statistics, since masks are of images."""
        layers = [layer for layer in self.modules() if isinstance(layer, BatchNorm)]
        for layer in layers:
            layer.track_running_stats = False
        try:
            return self.heads(views)
        finally:
            for layer in layers:
                layer.track_running_stats = True

    def read(self, images: Tensor) -> Tensor:
        """The features that both heads read, ``[N, F]``."""
        if self.pools:
            return self.features(images)
        return convolve(self.features, images, up=False)


class PooledFeatures(nn.Module):
    """What an image shows, without where: convolutions, their mean over the image, and one hidden layer.

    Two convolutions a halving, each followed by batch normalisation and ReLU; from 32 to 256 channels at the default
    width, and at most those.

    Args: as for :class:`Encoder`.
    """

    def __init__(self, image_size: int, width: int):
        super().__init__()
        layers, before = [], 3
        for stage in range(depth(image_size)):
            after = width * min(2 ** (stage + 1), 8)
            first, kernel = (width, 4) if stage == 0 else (after, 3)
            for convolution in (
                SmallConvolution(before, first, kernel, stride=2, padding=1, bias=False),
                SmallConvolution(first, after, 3, padding=1, bias=False),
            ):
                layers += [convolution, BatchNorm(convolution.out_channels, EPSILON), nn.ReLU(inplace=True)]
            before = after
        self.convolutions = nn.Sequential(*layers)
        self.length = 2 * before
        self.hidden = nn.Sequential(
            nn.Linear(before, self.length, bias=False), BatchNorm(self.length, EPSILON), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        """float32 ``[N, 3, S, S]`` -> ``[N, length]``."""
        # in training rounding drowns in the random views; most of a step's time is spent here
        with torch.autocast(images.device.type, torch.bfloat16, self.training and has_bfloat16(images.device)):
            maps = self.convolutions(channels_last(images - 0.5))
        return self.hidden(maps.mean((2, 3), dtype=images.dtype))
