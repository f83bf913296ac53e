"""What the MLP reads of masks, and in which order."""

import math

import torch
from torch import Tensor

from maskbench.classification.draws import DrawData


def standardised(draw: DrawData) -> dict[str, Tensor]:
    """What the MLP reads of each part.

    Every number is standardised by the training part, and weighted by its reliability there: what flips and shifts of
    an image change says little of what is in it.
    """
    mean, deviation = moments(draw.features["train"])
    features = {name: (part - mean) / deviation for name, part in draw.features.items()}
    weight = reliability(features["train"], draw.source["train"])
    weight = weight / weight.square().mean().sqrt().clamp_min(1e-6)
    return {name: weight * part for name, part in features.items()}


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each number of ``[N, F]``, both ``[F]``.

    The deviation of one that never changes is infinite: a category that no image has tells nothing.
    """
    deviation, mean = torch.std_mean(features, 0, correction=0)
    return mean, deviation.masked_fill(deviation < 1e-6, math.inf)


def reliability(features: Tensor, source: Tensor) -> Tensor:
    """How much of each number's variance lies between images, not between the views of one image: ``[F]``, 0 to 1.

    Args:
        features: ``[rows, F]``, of variance 1 (or constant).
        source: int64 ``[rows]``, the image of each row. With one view an image, every number is fully reliable.
    """
    _, image, views = source.unique(return_inverse=True, return_counts=True)
    mean = features.new_zeros(len(views), features.shape[1]).index_add_(0, image, features) / views[:, None]
    return 1 - (features - mean[image]).square().mean(0).clamp(0, 1)


class ImageStream:
    """Rows of a masked set, image by image: shuffled passes one after another, of each image a random view.

    Args:
        source: int64 ``[rows]``, the image of each row.
        generator: makes the choices.
    """

    def __init__(self, source: Tensor, generator: torch.Generator):
        _, image, self._views = source.unique(return_inverse=True, return_counts=True)
        self._rows = image.argsort(stable=True)
        self._first = self._views.cumsum(0) - self._views
        self._generator = generator
        self._ahead = self._rows[:0]

    def take(self, count: int) -> Tensor:
        """The next ``count`` rows, int64."""
        while len(self._ahead) < count:
            self._ahead = torch.cat((self._ahead, self._one_pass()))
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken

    def _one_pass(self) -> Tensor:
        count = len(self._views)
        view = (torch.rand(count, dtype=torch.float64, generator=self._generator) * self._views).long()
        return self._rows[(self._first + view)[torch.randperm(count, generator=self._generator)]]
