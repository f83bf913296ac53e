"""A set of images with labels and splits, as every dataset is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskbench import system
from maskbench.data.pixels import AS_IT_IS, Reading
from maskbench.errors import InputError

if TYPE_CHECKING:
    from maskbench.data.folders import FolderImages

TRAIN, TEST = 0, 1


@dataclass(frozen=True)
class ImageSet:
    """A dataset, the training part first.

    Attributes:
        name: what ``--dataset`` said.
        images: uint8 ``[N, 3, S, S]``, RGB, or a folder's that are not in memory.
        labels: int64 ``[N]``, indices into ``classes``.
        split: uint8 ``[N]``, 0 for training, 1 for test.
        classes: one name per class.
        reading: how its pictures were read.
    """

    name: str
    images: "Tensor | FolderImages"
    labels: Tensor
    split: Tensor
    classes: list[str]
    reading: Reading = AS_IT_IS

    def rows(self, split: int) -> Tensor:
        """Indices (int64) of the images of one split."""
        return torch.nonzero(self.split == split).flatten()

    def written(self, rows: Tensor) -> float:
        """When the last of the user's own files behind these images was written or put there; 0 of a public set."""
        if not isinstance(self.images, Tensor):
            return self.images.select(rows).written()
        kind, _, path = self.name.partition(":")
        return time_written(Path(path).expanduser()) if kind == "npz" else 0.0


def time_written(path: Path) -> float:
    """When a file was written, or came to be there with an older date: seconds since 1970."""
    state = path.stat()
    return max(state.st_mtime, state.st_ctime)


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels to the models' float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def check_memory(what: str, needed: int, remedy: str = "use a smaller --image-size or fewer images") -> None:
    """InputError that names ``what`` where its pixels take more than half of the memory, in bytes."""
    memory = system.memory()
    if needed > memory // 2:
        raise InputError(
            f"{what}: its pixels take {needed / 2**30:.1f} GiB, and this machine has {memory / 2**30:.1f} GiB of "
            f"memory; {remedy}"
        )


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 ``[N, 1 or 3, H, W]`` to uint8 ``[N, 3, size, size]``: bilinear, antialiased when it shrinks."""
    if images.shape[-2:] != (size, size):
        check_memory(f"--image-size {size}", len(images) * 3 * size**2)
        images = torch.cat(
            [
                F.interpolate(chunk.to(torch.float32), (size, size), mode="bilinear", antialias=True)
                .round_()
                .clamp_(0, 255)
                .to(torch.uint8)
                for chunk in images.split(4096)
            ]
        )
    return images.expand(-1, 3, -1, -1).contiguous()


def split_flags(train: int, test: int) -> Tensor:
    """uint8: so many 0 for training, then so many 1 for testing."""
    return torch.cat((torch.zeros(train, dtype=torch.uint8), torch.ones(test, dtype=torch.uint8)))


def shuffled(sizes: Sequence[int]) -> Tensor:
    """int64: the rows of parts of these sizes, one after the other, each part in an order that never changes."""
    random = np.random.RandomState(0)  # its stream is frozen by NumPy's compatibility promise
    starts = np.cumsum([0, *sizes])
    return torch.from_numpy(
        np.concatenate([start + random.permutation(size) for start, size in zip(starts, sizes, strict=False)])
    )


def four_to_one(count: int) -> tuple[int, int]:
    """How many of a set that is not divided are for training and for testing."""
    return count - count // 5, count // 5
