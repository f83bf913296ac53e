"""The adversaries of the encoder."""

from torch import Tensor, nn

from maskbench.models.layers import multiply


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
        return multiply(self.layers, latent).squeeze(1)
