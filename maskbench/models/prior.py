"""The prior the encoder is pushed towards, as a module with a seed and a place in its stream."""

import torch
from torch import Tensor, nn

from maskbench import ops


class PriorSampler(nn.Module):
    """Draws mini-batches of both latent parts: N(0, I) of ``gaussian_dim``, one-hot of ``categories``.

    ``rng_state`` (int64, ``(seed, offset)``) is a buffer: it follows ``.to(device)`` and travels in a
    checkpoint. Each call uses the current offset and advances it by one, on the device.
    """

    rng_state: Tensor

    def __init__(self, gaussian_dim: int, categories: int, seed: int = 0):
        super().__init__()
        self.gaussian_dim = gaussian_dim
        self.categories = categories
        self.register_buffer("rng_state", torch.tensor([seed, 0], dtype=torch.int64))

    def forward(self, batch: int, first_row: int = 0) -> tuple[Tensor, Tensor]:
        """Draw ``(gaussian float32 [batch, gaussian_dim], one_hot float32 [batch, categories])``."""
        draws = ops.sample_prior(self.rng_state, batch, self.gaussian_dim, self.categories, first_row)
        self.rng_state[1] += 1
        return draws
