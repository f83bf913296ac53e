"""Images in: every dataset as uint8 pixels with labels, class names and splits.

========== =========================================== ================================ ===========
name       what                                        training part                    test part
========== =========================================== ================================ ===========
cifar10    torchvision's, downloaded when missing      50,000                           10,000
cifar100   torchvision's, downloaded when missing      50,000                           10,000
mnist      torchvision's, downloaded when missing      60,000                           10,000
photos     crops of scikit-learn's photographs         20,000                           2,000
digits     scikit-learn's handwritten digits           1,437                            360
folder:P   pictures, in one folder a class             P/train, or four fifths of P     P/test, or one fifth
npz:F      NumPy arrays                                what F says, or four fifths     the rest
========== =========================================== ================================ ===========

Grey images become RGB, and every image becomes ``image_size`` x ``image_size``.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskbench.data.bundled_sets import digits, photos
from maskbench.data.folders import FolderImages, folder
from maskbench.data.image_set import TEST, TRAIN, ImageSet
from maskbench.data.npz import npz
from maskbench.data.pixels import AS_IT_IS, Reading
from maskbench.data.torchvision_sets import torchvision_set
from maskbench.errors import InputError
from maskbench.runtime import torchrun

# --dataset: what makes the set, from --data-dir and the side of its images
LOADERS: dict[str, Callable[[Path, int], ImageSet]] = {
    "cifar10": functools.partial(torchvision_set, "cifar10"),
    "cifar100": functools.partial(torchvision_set, "cifar100"),
    "mnist": functools.partial(torchvision_set, "mnist"),
    "photos": lambda _, image_size: photos(image_size),
    "digits": lambda _, image_size: digits(image_size),
}


def load(
    name: str,
    data_dir: Path | str = "data",
    image_size: int = 32,
    workers: int = 0,
    skip_corrupt: bool = False,
    flag: str = "--dataset",
    stream: bool = False,
    reading: Reading = AS_IT_IS,
) -> ImageSet:
    """Load a dataset by its ``--dataset`` name.

    Args:
        name: in ``LOADERS``, or ``folder:PATH`` or ``npz:FILE``.
        data_dir: where torchvision's datasets are, or are downloaded to.
        image_size: side of the images in pixels.
        workers: processes that decode a folder's files; 0 decodes in this one.
        skip_corrupt: leave out files of a folder that cannot be decoded, and list them, instead of refusing them.
        flag: where the user gave the name, for complaints.
        stream: leave a folder's images in their files also where the memory is large enough: they are read once.
        reading: how pictures of the user's own are read that have more in them than 8 bits in three opaque channels.

    Raises:
        InputError: unknown name, files missing, damaged or not images, download impossible.
    """
    if name in LOADERS:
        return LOADERS[name](Path(data_dir), image_size)
    if name.startswith("folder:"):
        return folder(name, image_size, workers, skip_corrupt, flag, stream, reading)
    if name.startswith("npz:"):
        return npz(name, image_size, flag, reading)
    raise InputError(f"{flag} {name}: unknown; choose from {', '.join(LOADERS)}, folder:PATH, npz:FILE")


def autoencoder_split(images: ImageSet, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Training and validation indices for the autoencoder.

    The training part is divided 4 : 1 by one fixed permutation (CIFAR-10: 40,000 / 10,000); the crops of
    ``photos`` come divided already. ``limit`` keeps the first ``limit`` and ``limit // 4`` of them.
    """
    rows = images.rows(TRAIN)
    if images.name == "photos":
        train, validation = rows, images.rows(TEST)
    else:
        # RandomState's stream is frozen by NumPy's compatibility promise, so this split never changes
        rows = rows[torch.from_numpy(np.random.RandomState(0).permutation(len(rows)))]
        held_out = len(rows) // 5
        train, validation = rows[held_out:], rows[:held_out]
    return _limited(train, validation, limit)


def labelled_split(images: ImageSet, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Training and test indices of a labelled set, in the dataset's own order; ``limit`` as above."""
    return _limited(images.rows(TRAIN), images.rows(TEST), limit)


def _limited(train: Tensor, held_out: Tensor, limit: int | None) -> tuple[Tensor, Tensor]:
    return (train, held_out) if limit is None else (train[:limit], held_out[: limit // 4])


def select(images: Tensor | FolderImages, rows: Tensor) -> Tensor | FolderImages:
    """Some of the images, in this order; those that are not in memory stay where they are."""
    return images[rows] if isinstance(images, Tensor) else images.select(rows)


def parts(order: Tensor, batch_size: int, of_rank: bool = False) -> Iterator[Tensor]:
    """The rows of every mini-batch, as :func:`batches` takes them."""
    for batch in order.split(batch_size) if len(order) else ():  # of nothing, split makes one empty part
        part = batch[torchrun.share(len(batch))] if of_rank else batch
        if len(part):
            yield part


def batches(images: Tensor | FolderImages, order: Tensor, batch_size: int, of_rank: bool = False) -> Iterator[Tensor]:
    """The pixels of every ``batch_size`` rows, uint8 ``[n, 3, S, S]`` on the images' device; the last may be fewer.

    Args:
        order: int64 ``[N]``, rows of ``images``.
        of_rank: of each batch only what is this process's, see :func:`maskbench.runtime.torchrun.share`, and no batch
            where that is nothing.
    """
    rows = parts(order.to(images.device) if isinstance(images, Tensor) else order, batch_size, of_rank)
    return (images[batch] for batch in rows) if isinstance(images, Tensor) else images.stream(rows)


def large_batch(image_size: int) -> int:
    """Images at once where none is trained on: 500, fewer where they are larger than 32 x 32."""
    return max(1, min(500, 500 * 32**2 // image_size**2))
