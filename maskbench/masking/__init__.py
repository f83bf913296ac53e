"""Masking methods, and what is done around them: a secret key, augmented copies, shards.

A method is one file that defines a :class:`MaskingMethod`, and one line of ``METHODS``; docs/extending.md adds one.
"""

from collections.abc import Callable

from maskbench.errors import InputError
from maskbench.masking.autoencoder import Autoencoder
from maskbench.masking.identity import Identity
from maskbench.masking.method import MaskingMethod, Recipe
from maskbench.masking.pca import Pca
from maskbench.masking.random_projection import RandomProjection
from maskbench.masking.untrained import Untrained

# --method: what makes it
METHODS: dict[str, Callable[[Recipe], MaskingMethod]] = {
    "aae": Autoencoder.make,
    "pca": Pca.make,
    "random-projection": RandomProjection.make,
    "untrained": Untrained.make,
    "identity": Identity.make,
}
BASELINES = ("identity", "pca", "random-projection", "untrained")  # what results/ compare the paper's method with

__all__ = ["BASELINES", "METHODS", "Autoencoder", "MaskingMethod", "Recipe", "make"]


def make(name: str, recipe: Recipe) -> MaskingMethod:
    """The method of this name, made from a recipe.

    Raises:
        InputError: an unknown name, or the method cannot be made from this recipe.
    """
    if name not in METHODS:
        raise InputError(f"{name}: no masking method; choose from {', '.join(METHODS)}")
    return METHODS[name](recipe)
