"""The networks: encoder (the mask), decoder (the private key), discriminators, and the classifier of masks."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# --preset: the sizes that a name stands for
PRESETS = {"paper": {"width": 16}}

_SCALE = 8  # three stride-2 convolutions


class Encoder(nn.Module):
    """Image -> latent vector in two parts (paper, section "Adversarial autoencoder").

    Three 4x4 convolutions of stride 2, then two linear heads. At the defaults it has 455,940 parameters,
    the paper's "over 400 thousand".

    Both heads end in a batch normalisation without affine parameters: it keeps every Gaussian dimension
    at deviation 1 and every category in play from the first step, so the adversarial phase only has to
    shape the distribution and may be gentle with the reconstruction (see ``train_aae.py``).

    Args:
        image_size: side S of the images, a multiple of 8.
        width: channels of the first convolution; the next have twice and four times as many.
        gaussian_dim: length of the Gaussian part.
        categories: length of the categorical part.
    """

    def __init__(self, image_size: int = 32, width: int = 16, gaussian_dim: int = 384, categories: int = 20):
        super().__init__()
        self.config = dict(image_size=image_size, width=width, gaussian_dim=gaussian_dim, categories=categories)
        side = _side(image_size)
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        features = 4 * width * side**2
        self.gaussian = nn.Sequential(nn.Linear(features, gaussian_dim), nn.BatchNorm1d(gaussian_dim, affine=False))
        self.categorical = nn.Sequential(nn.Linear(features, categories), nn.BatchNorm1d(categories, affine=False))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 ``[N, 3, S, S]`` in [0, 1] -> Gaussian ``[N, G]``, categorical ``[N, K]`` (rows sum to 1)."""
        features = self.convolutions(images)
        return self.gaussian(features), self.categorical(features).softmax(1)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set the normalisations' statistics to their exact averages over ``batches`` of images.

        The running averages of training trail behind the weights ("precise batch normalisation": Wu and
        Johnson, "Rethinking 'Batch' in BatchNorm", 2021). ``batches`` may be any iterable of float32
        ``[N, 3, S, S]`` with N >= 2.
        """
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm1d)]
        training, momenta = self.training, [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
        self.train()
        for images in batches:
            self(images)
        self.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class Decoder(nn.Module):
    """Latent vector -> image: the encoder's transposed mirror, and the private key of its masks.

    Args: as for :class:`Encoder`.
    """

    def __init__(self, image_size: int = 32, width: int = 16, gaussian_dim: int = 384, categories: int = 20):
        super().__init__()
        self.config = dict(image_size=image_size, width=width, gaussian_dim=gaussian_dim, categories=categories)
        side = _side(image_size)
        self.layers = nn.Sequential(
            nn.Linear(gaussian_dim + categories, 4 * width * side**2),
            nn.Unflatten(1, (4 * width, side, side)),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Both parts side by side, float32 ``[N, G + K]`` -> images ``[N, 3, S, S]`` in [0, 1]."""
        return self.layers(latent)


class Discriminator(nn.Module):
    """Tells prior draws from encoded images, one for each latent part.

    Args:
        features: length of the latent part.
        hidden: width of the two hidden layers.
    """

    def __init__(self, features: int, hidden: int = 256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """float32 ``[N, features]`` -> logits ``[N]``, high for what looks drawn from the prior."""
        return self.layers(latent).squeeze(1)


class MaskClassifier(nn.Module):
    """Three linear layers with ReLU between; the softmax is in the cross-entropy (paper, "Classification").

    Args:
        features: length of a masked vector.
        classes: number of classes.
        hidden: width of the two hidden layers.
    """

    def __init__(self, features: int, classes: int, hidden: int = 256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def forward(self, masked: Tensor) -> Tensor:
        """float32 ``[N, features]`` -> logits ``[N, classes]``."""
        return self.layers(masked)


def _side(image_size: int) -> int:
    if image_size < _SCALE or image_size % _SCALE:
        raise ValueError(f"image_size must be a multiple of {_SCALE}, got {image_size}")
    return image_size // _SCALE
