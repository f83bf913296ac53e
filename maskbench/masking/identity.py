"""A baseline that masks nothing: the raw pixels."""

from torch import Tensor

from maskbench.masking.method import MaskingMethod, Recipe
from maskbench.storage import pt


class Identity(MaskingMethod):
    """The pixels as they are, 3 S S numbers in the Gaussian part."""

    name = "identity"

    def __init__(self, image_size: int):
        self.image_size = image_size
        self.widths = 3 * image_size**2, 0
        self.fingerprint = pt.fingerprint({})

    @classmethod
    def make(cls, recipe: Recipe) -> "Identity":
        return cls(recipe.sizes()["image_size"])

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.flatten(1), images.new_empty(len(images), 0)

    def rebuild(self, gaussian: Tensor, categorical: Tensor) -> Tensor:
        return gaussian.unflatten(1, (3, self.image_size, self.image_size))
