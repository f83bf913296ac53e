"""A folder of images: ``folder:PATH``.

The images are turned upright (EXIF) and put in a fixed random order, as they come class by class. A folder whose pixels
are too many for the memory is not loaded: its files are decoded whenever they are needed, by worker processes.
"""

import hashlib
import os
import signal
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from maskbench.data.image_set import ImageSet, check_memory, split_flags
from maskbench.errors import InputError
from maskbench.runtime import system, torchrun
from maskbench.runtime.system import die_with_parent

# what a desktop leaves in every folder; anything else that is not an image is an error, not a gap in the set
_DESKTOP_FILES = {"thumbs.db", "desktop.ini"}
_LARGEST_PICTURE = 89_000_000  # pixels, what Pillow warns of; decoded, 270 MB
_AT_ONCE = 64  # files of a folder that a worker decodes between two messages
_AHEAD = 4  # mini-batches that a worker has ready
_PART_NAMES = {"train", "test", "val", "valid", "validation"}


def folder(name: str, image_size: int, workers: int, skip_corrupt: bool, flag: str, stream: bool) -> ImageSet:
    """``PATH/train/<class>/*`` and ``PATH/test/<class>/*``, or ``PATH/<class>/*`` divided 4 : 1."""
    root = Path(name.removeprefix("folder:"))
    if not root.is_dir():
        raise InputError(f"{flag} {name}: {root} is not a folder")
    names = {path.name for path in root.iterdir() if path.is_dir()}
    divided = names >= {"train", "test"}
    if not divided and names and names <= _PART_NAMES:
        raise InputError(f"{flag} {name}: has {' and '.join(sorted(names))}; the parts must be called train and test")
    paths, labels, classes = _Names(), array("q"), []
    sizes = []
    for part in (root / "train", root / "test") if divided else (root,):
        found = _list_images(part, root, paths, labels)
        if classes and found != classes:
            raise InputError(f"{flag} {name}: train and test must have the same class folders")
        classes = found
        sizes.append(len(paths) - sum(sizes))
    # a folder comes class by class: a fixed shuffle, so that the first fifth of a part holds every class
    random = np.random.RandomState(0)
    order = np.concatenate(
        [start + random.permutation(size) for start, size in zip((0, sizes[0]), sizes, strict=False)]
    )
    order = torch.from_numpy(order)
    labels = torch.from_numpy(np.frombuffer(labels, dtype=np.int64))[order]
    split = split_flags(*(sizes if divided else (len(paths) - len(paths) // 5, len(paths) // 5)))

    images = FolderImages(root, paths, order, image_size, workers)
    if not stream and 2 * torchrun.local_size() * images.nbytes <= system.memory():  # every process has its own copy
        images, good = images.load(skip_corrupt)
    elif skip_corrupt:
        images, good = images.without_corrupt()
    else:
        good = slice(None)
    return ImageSet(name, images, labels[good], split[good], classes)


def _list_images(part: Path, root: Path, paths: "_Names", labels: array) -> list[str]:
    """Append the images of the class folders in ``part`` and their labels; gives the classes."""
    from maskbench.data.torchvision_import import torchvision

    endings = torchvision.datasets.folder.IMG_EXTENSIONS
    try:
        classes, _ = torchvision.datasets.folder.find_classes(part)
    except FileNotFoundError as error:
        raise InputError(f"{part}: expected a folder of images for each class ({error})") from None
    for label, folder in [(-1, part), *((number, part / name) for number, name in enumerate(classes))]:
        before = len(paths)
        for path in _files(folder, deep=label >= 0):
            hidden = any(piece.startswith(".") for piece in path.relative_to(part).parts)
            if label >= 0 and path.name.lower().endswith(endings):
                paths.append(str(path.relative_to(root)))
                labels.append(label)
            elif not hidden and path.name.lower() not in _DESKTOP_FILES:
                raise InputError(
                    f"{path}: not an image in a class folder ({' '.join(endings)}); convert it or move it away"
                )
        if label >= 0 and len(paths) == before:
            raise InputError(f"{folder}: a class folder without images ({' '.join(endings)}); fill it or remove it")
    return classes


def _files(folder: Path, deep: bool) -> Iterator[Path]:
    """The files of a folder in order, with ``deep`` also of those below it."""
    for place, folders, names in os.walk(folder, followlinks=True):
        yield from (Path(place, name) for name in sorted(names))
        folders.sort()
        if not deep:
            return


class _Names:
    """Many names in one block of memory: a list would take several times as much, and once more in every worker."""

    def __init__(self):
        self._bytes, self._ends = bytearray(), array("q", [0])

    def append(self, name: str) -> None:
        self._bytes += os.fsencode(name)
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        return os.fsdecode(bytes(self._bytes[self._ends[number] : self._ends[number + 1]]))


class FolderImages:
    """The images of a folder as uint8 ``[N, 3, S, S]``, decoded whenever they are asked for.

    Args:
        root: the folder.
        paths: every file, below it.
        order: int64 ``[N]``, the files that are the images, in their order.
        image_size: side S that they are scaled to (bilinear, antialiased).
        workers: processes that decode; 0 decodes in this one.
    """

    def __init__(self, root: Path, paths: _Names, order: Tensor, image_size: int, workers: int):
        self._root, self._paths, self._order = root, paths, order
        self._size, self._workers = image_size, workers
        self.shape = torch.Size((len(order), 3, image_size, image_size))
        self.nbytes = self.shape.numel()
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Some images in memory; InputError where one cannot be decoded, or the memory is too small for them."""
        return self.select(rows).load()[0].to(self.device)

    def select(self, rows: Tensor | slice) -> "FolderImages":
        """Some of the images, not decoded yet."""
        return FolderImages(self._root, self._paths, self._order[rows], self._size, self._workers).to(self.device)

    def to(self, device: torch.device) -> "FolderImages":
        """Give pixels on this device from now on."""
        self.device = device
        return self

    def fingerprint(self) -> str:
        """sha256 over the files' names and sizes in bytes, in order: their pixels are too many to be read for it."""
        digest = hashlib.sha256()
        for number in self._order.tolist():
            name = self._paths[number]
            digest.update(f"{name}\0{os.stat(self._root / name).st_size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def stream(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pixels of every batch of rows, decoded ahead of time; InputError where a file cannot be decoded."""
        for images in self._decoded(rows, _AHEAD):
            for image in images:
                if isinstance(image, InputError):
                    raise image
            yield torch.from_numpy(np.stack(images)).to(self.device)

    def load(self, skip_corrupt: bool = False) -> tuple[Tensor, Tensor]:
        """All pixels, and the rows (int64) that they are: all, or with ``skip_corrupt`` those that can be decoded."""
        check_memory(f"folder:{self._root}", self.nbytes)
        pixels = torch.empty(self.shape, dtype=torch.uint8)
        corrupt = self._read(range(len(self)), skip_corrupt, pixels)
        good = self._without(corrupt)
        return pixels[good] if corrupt else pixels, good

    def without_corrupt(self) -> tuple["FolderImages", Tensor]:
        """Those of the images that can be decoded, and their rows (int64); processes of torchrun share the work."""
        parts = torchrun.from_all(self._read(range(len(self))[torchrun.share(len(self))], True))
        good = self._without({row: error for part in parts for row, error in part.items()})
        return self.select(good), good

    def _without(self, corrupt: dict[int, InputError]) -> Tensor:
        for error in corrupt.values():
            print(f"skipped: {error}")
        if len(corrupt) == len(self):
            raise InputError(f"folder:{self._root}: none of its images can be decoded")
        good = torch.ones(len(self), dtype=torch.bool)
        good[list(corrupt)] = False
        return torch.nonzero(good).flatten()

    def _read(self, rows: range, skip_corrupt: bool, pixels: Tensor | None = None) -> dict[int, InputError]:
        """Decode images, into ``pixels`` where given; which cannot be, and why."""
        corrupt, done = {}, rows.start
        parts = torch.arange(rows.start, rows.stop).split(_AT_ONCE)
        with tqdm(total=len(rows), desc=f"reading {self._root}", unit="img", disable=torchrun.rank() > 0) as progress:
            for images in self._decoded(parts, 1):
                for row, image in enumerate(images, done):
                    if isinstance(image, InputError) and not skip_corrupt:
                        raise image
                    if isinstance(image, InputError):
                        corrupt[row] = image
                    elif pixels is not None:
                        pixels[row] = torch.from_numpy(image.copy())
                done += len(images)
                progress.update(len(images))
        return corrupt

    def _decoded(self, rows: Iterable[Tensor], ahead: int) -> Iterator[list[np.ndarray | InputError]]:
        loader = DataLoader(
            self,
            batch_sampler=(batch.tolist() for batch in rows),
            num_workers=self._workers,
            collate_fn=list,
            worker_init_fn=_begin_worker,
            prefetch_factor=ahead if self._workers else None,
        )
        return iter(loader)

    def __getitems__(self, rows: list[int]) -> list[np.ndarray | InputError]:
        """What a worker decodes. Arrays, which travel through a pipe: containers often have little shared memory."""
        return [_decode(self._root / self._paths[number], self._size) for number in self._order[rows].tolist()]


def _begin_worker(number: int) -> None:
    die_with_parent(number)
    for name in (signal.SIGINT, signal.SIGTERM):  # a signal to the whole group stops the parent, which ends its workers
        signal.signal(name, signal.SIG_IGN)


def _decode(path: Path, size: int) -> np.ndarray | InputError:
    """An image file as uint8 ``[3, size, size]``, upright.

    What cannot be decoded gives an InputError: raised in a worker process it would come out wrapped in a traceback.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.width * image.height > _LARGEST_PICTURE:
                return InputError(f"{path}: {image.width} x {image.height} pixels are too many; make it smaller")
            if image.mode == "F" and not np.isfinite(np.asarray(image)).all():
                return InputError(f"{path}: holds values that are not finite; mend it or move it away")
            if image.mode.startswith(("I", "F")):  # conversion would cut off what is out of the range 0 to 255
                return InputError(f"{path}: has more than 8 bits a channel; convert it to 8")
            image.draft(None, (2 * size, 2 * size))  # a JPEG is decoded at a fraction of its size, no smaller than this
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    except Exception as error:  # of hostile bytes the decoders promise nothing narrower
        reason = error or type(error).__name__
        return InputError(f"{path}: cannot be read as an image ({reason}); mend it, move it away or use --skip-corrupt")
