"""The adversaries of the encoder."""

import torch
from torch import Tensor, nn

from maskbench.models.layers import multiply


class Discriminator(nn.Module):
    """Tells prior draws from encoded images, one for each latent part.

    Args:
        features: F, how many numbers the latent part has.
        reads_length: also reads how long the vector is, :func:`standardised_length`. Three linear layers hardly see
            that, and one fresh threshold on it would tell codes from draws.
        hidden: width of the two hidden layers.
    """

    def __init__(self, features: int, reads_length: bool = False, hidden: int = 256):
        super().__init__()
        self.reads_length = reads_length
        self.layers = nn.Sequential(
            nn.Linear(features + reads_length, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """float32 ``[N, F]`` -> logits ``[N]``, high for what looks drawn from the prior."""
        return multiply(self.layers, self.read(latent)).squeeze(1)

    def read(self, latent: Tensor) -> Tensor:
        """What the layers are given: ``[N, F]`` -> ``[N, F]``, or ``[N, F + 1]`` with the length."""
        return torch.cat((latent, standardised_length(latent)), 1) if self.reads_length else latent


def standardised_length(vectors: Tensor) -> Tensor:
    """Euclidean length of each vector of ``[N, F]``, ``[N, 1]``: about a draw of N(0, 1) for draws of N(0, I)."""
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return 2**0.5 * (length - (vectors.shape[1] - 0.5) ** 0.5)
