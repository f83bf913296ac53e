"""A baseline: the encoder at its initial weights. What it keeps, no training has put there."""

import torch

from maskbench.masking.autoencoder import Autoencoder
from maskbench.masking.method import Recipe
from maskbench.models import PRESETS, Encoder
from maskbench.storage import pt


class Untrained(Autoencoder):
    """An encoder whose weights are PyTorch's defaults under a seed."""

    name = "untrained"

    @classmethod
    def make(cls, recipe: Recipe) -> "Untrained":
        torch.manual_seed(recipe.seed)
        encoder = Encoder(**recipe.sizes(), **PRESETS[recipe.preset]).eval()
        return cls(encoder, pt.fingerprint(encoder.state_dict()))
