"""A baseline: the strongest principal components of public images."""

import torch
from torch import Tensor

from maskbench.masking.linear import LinearMethod, public_pixels
from maskbench.masking.method import Recipe


class Pca(LinearMethod):
    """The projection on principal components; its transpose is the way back."""

    name = "pca"

    @classmethod
    def make(cls, recipe: Recipe) -> "Pca":
        from sklearn.decomposition import PCA

        pixels = public_pixels(recipe, cls.name)
        # the exact decomposition of the small covariance matrix: fast when there are far more images than pixels
        model = PCA(recipe.numbers(), svd_solver="covariance_eigh").fit(pixels)
        matrix = torch.from_numpy(model.components_).to(torch.float32)
        return cls(torch.from_numpy(pixels.mean(0)), matrix, recipe.sizes()["image_size"])

    def rebuild(self, gaussian: Tensor, categorical: Tensor) -> Tensor:
        pixels = gaussian @ self.matrix + self.mean
        return pixels.clamp(0, 1).unflatten(1, (3, self.image_size, self.image_size))
