"""What a masking method is: one small interface, which every script and the audit use alike."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """What a masking method is made from; what is None has the method's own default.

    Attributes:
        public: gives public images, uint8 ``[N, 3, S, S]``; called by methods that are fitted to images.
        image_size: side S of the images in pixels.
        gaussian_dim: length G of the Gaussian part.
        categories: length K of the categorical part.
        seed: of every random choice.
        preset: whose networks an untrained encoder has, see ``maskbench.models.PRESETS``.
        encoder: the file of a trained encoder.
    """

    public: Callable[[], Tensor]
    image_size: int | None = None
    gaussian_dim: int | None = None
    categories: int | None = None
    seed: int = 0
    preset: str = "paper"
    encoder: Path | None = None

    def sizes(self) -> dict[str, int]:
        """``image_size``, ``gaussian_dim`` and ``categories``, the paper's where nothing is said."""
        return {
            "image_size": self.image_size or 32,
            "gaussian_dim": self.gaussian_dim or 384,
            "categories": self.categories or 20,
        }

    def numbers(self) -> int:
        """G + K: what methods without categories put into one part."""
        sizes = self.sizes()
        return sizes["gaussian_dim"] + sizes["categories"]


class MaskingMethod(ABC):
    """Images in, latent vectors out.

    Attributes:
        name: as in a masked file.
        image_size: side S of the images that it takes.
        widths: lengths (G, K) of the Gaussian and of the categorical part; K may be 0.
        fingerprint: sha256 of what masks: weights, a matrix.
        rebuild: the owner's way back, ``(gaussian, categorical)`` -> images ``[N, 3, S, S]`` in [0, 1]; None where the
            method has none.
    """

    name: str
    image_size: int
    widths: tuple[int, int]
    fingerprint: str
    rebuild: Callable[[Tensor, Tensor], Tensor] | None = None

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 ``[N, 3, S, S]`` in [0, 1] -> both parts, ``[N, G]`` and ``[N, K]``; differentiable."""

    def read(self, gaussian: Tensor, categorical: Tensor) -> Tensor:
        """Both parts as ``[N, G + K]`` in the form that is easiest to attack, by what anyone knows of the method."""
        return torch.cat((gaussian, categorical), 1)

    def to(self, device: torch.device) -> "MaskingMethod":
        """Mask on this device from now on; returns itself."""
        return self
