"""The paper's mask: the encoder of an adversarial autoencoder, and its decoder as the way back."""

import torch
from torch import Tensor

from maskbench.errors import InputError
from maskbench.masking.method import MaskingMethod, Recipe
from maskbench.models import Decoder, Encoder, checkpoints


class Autoencoder(MaskingMethod):
    """A trained encoder, with its decoder where its owner is asked.

    Args:
        encoder: in eval mode.
        fingerprint: of its weights.
        decoder: of the same sizes, in eval mode.
    """

    name = "aae"

    def __init__(self, encoder: Encoder, fingerprint: str, decoder: Decoder | None = None):
        self.encoder, self.decoder, self.fingerprint = encoder, decoder, fingerprint
        self.image_size = encoder.config["image_size"]
        self.widths = encoder.config["gaussian_dim"], encoder.config["categories"]
        if decoder is not None:
            self.rebuild = lambda gaussian, categorical: decoder(torch.cat((gaussian, categorical), 1))

    @classmethod
    def make(cls, recipe: Recipe) -> "Autoencoder":
        """From the trained encoder of a recipe.

        Raises:
            InputError: the recipe names no file, or one that is no encoder, or has other sizes than the recipe's.
        """
        if recipe.encoder is None:
            raise InputError("aae: needs a trained encoder, and the recipe names none")
        if not recipe.encoder.exists():
            raise InputError(
                f"--encoder {recipe.encoder}: no such file; train one with python train_aae.py, or try "
                "results/weights/encoder.pt of maskbench's repository, which protects nobody: its decoder is public"
            )
        encoder, fingerprint = checkpoints.load_encoder(recipe.encoder)
        for name in ("image_size", "gaussian_dim", "categories"):
            wanted = getattr(recipe, name)
            if wanted not in (None, encoder.config[name]):
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag} {wanted}: {recipe.encoder} was trained with {encoder.config[name]}")
        return cls(encoder, fingerprint)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(images)

    def read(self, gaussian: Tensor, categorical: Tensor) -> Tensor:
        """With the contrast undone, which is all that is not linear in the Gaussian part's head."""
        return torch.cat((self.encoder.contrast.inverse(gaussian), categorical), 1)

    def to(self, device: torch.device) -> "Autoencoder":
        self.encoder.to(device)
        if self.decoder is not None:
            self.decoder.to(device)
        return self
