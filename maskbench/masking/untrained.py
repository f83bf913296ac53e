"""A baseline: the encoder at its initial weights. What it keeps, no training has put there."""

import torch

from maskbench.masking.autoencoder import Autoencoder
from maskbench.masking.method import Recipe
from maskbench.models import Encoder
from maskbench.runtime.seeding import seeded
from maskbench.storage import pt


class Untrained(Autoencoder):
    """An encoder whose weights are PyTorch's defaults under a seed."""

    name = "untrained"

    @classmethod
    def make(cls, recipe: Recipe) -> "Untrained":
        with torch.random.fork_rng(devices=()), seeded(recipe.seed):  # the caller's own stream goes on
            encoder = Encoder(recipe.preset, **recipe.sizes()).eval()
        return cls(encoder, pt.fingerprint(encoder.state_dict()))
