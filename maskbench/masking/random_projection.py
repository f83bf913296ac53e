"""A baseline: random directions, which keep distances (Johnson and Lindenstrauss, 1984)."""

import torch

from maskbench.masking.linear import LinearMethod, public_pixels
from maskbench.masking.method import Recipe


class RandomProjection(LinearMethod):
    """A matrix of normals, scikit-learn's, of pixels less the mean of public images."""

    name = "random-projection"

    @classmethod
    def make(cls, recipe: Recipe) -> "RandomProjection":
        from sklearn.random_projection import GaussianRandomProjection

        pixels = public_pixels(recipe, cls.name)
        model = GaussianRandomProjection(recipe.numbers(), random_state=recipe.seed).fit(pixels[:1])
        matrix = torch.from_numpy(model.components_).to(torch.float32)
        return cls(torch.from_numpy(pixels.mean(0)), matrix, recipe.sizes()["image_size"])
