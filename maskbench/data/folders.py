"""A folder of images: ``folder:PATH``.

The images are put in a fixed random order, as they come class by class. A folder whose pixels are too many for the
memory is not loaded: its files are decoded whenever they are needed, by worker processes.
"""

import atexit
import errno
import hashlib
import os
import signal
import weakref
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from maskbench import system
from maskbench.data import folder_files
from maskbench.data.decoding import decode
from maskbench.data.folder_files import Files, Names
from maskbench.data.image_set import ImageSet, check_memory, four_to_one, shuffled, split_flags, time_written
from maskbench.data.pixels import AS_IT_IS, Reading, Undecided
from maskbench.errors import InputError
from maskbench.runtime import command_line, torchrun
from maskbench.system import die_with_parent

_AT_ONCE = 64  # files of a folder that a worker decodes between two messages
_AHEAD = 4  # mini-batches that a worker has ready
_CORRUPT = "; mend it, move it away or use --skip-corrupt"


def folder(
    name: str, image_size: int, workers: int, skip_corrupt: bool, flag: str, stream: bool, reading: Reading
) -> ImageSet:
    """``PATH/train/<class>/*`` and ``PATH/test/<class>/*``, or ``PATH/<class>/*`` divided 4 : 1."""
    root = Path(os.path.expanduser(name.removeprefix("folder:")))  # no shell looks behind the colon
    if name == "folder:":
        raise InputError(f"{flag} folder: names no folder; write its path behind the colon")
    if not root.is_dir():
        raise InputError(f"{flag} {name}: {root} is not a folder")
    files = folder_files.find(root)
    # a folder comes class by class: a fixed shuffle, so that the first fifth of a part holds every class
    order = shuffled(files.sizes)
    labels = torch.from_numpy(np.frombuffer(files.labels, dtype=np.int64))[order]
    split = split_flags(*files.sizes) if len(files.sizes) == 2 else split_flags(*four_to_one(len(files.paths)))

    images = FolderImages(root, files.paths, order, image_size, workers, reading)
    if not stream and 2 * torchrun.local_size() * images.nbytes <= system.memory():  # every process has its own copy
        images, good = images.load(skip_corrupt)
    elif skip_corrupt:
        images, good = images.without_corrupt()
    else:
        good = slice(None)
    _check_classes(name, files, labels, split, good)
    return ImageSet(name, images, labels[good], split[good], files.classes, reading)


def _check_classes(name: str, files: Files, labels: Tensor, split: Tensor, good: Tensor | slice) -> None:
    """InputError where no image of a class is left, or none in a part that a folder has for itself."""
    divided = len(files.sizes) == 2
    places = (labels + len(files.classes) * split.long() * divided).numpy()
    for place in np.setdiff1d(places, places[good])[:1]:
        part = (" in the training part", " in the test part")[place // len(files.classes)] if divided else ""
        lost = files.classes[place % len(files.classes)]
        raise InputError(
            f"{name}: none of the images of class {lost}{part} can be decoded; mend them or remove the class"
        )


class FolderImages:
    """The images of a folder as uint8 ``[N, 3, S, S]``, decoded whenever they are asked for.

    Args:
        root: the folder.
        paths: every file, below it.
        order: int64 ``[N]``, the files that are the images, in their order.
        image_size: side S that they are scaled to (bilinear, antialiased).
        workers: processes that decode; 0 decodes in this one.
        reading: how pictures are read that have more in them than 8 bits in three channels.
    """

    def __init__(self, root: Path, paths: Names, order: Tensor, image_size: int, workers: int, reading: Reading):
        self._root, self._paths, self._order = root, paths, order
        self._size, self._workers, self._reading = image_size, workers, reading
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
        order = self._order[rows]
        return FolderImages(self._root, self._paths, order, self._size, self._workers, self._reading).to(self.device)

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

    def written(self) -> float:
        """When the last of the files was written or put there, in seconds; 0 without any."""
        return max((time_written(self._root / self._paths[number]) for number in self._order.tolist()), default=0.0)

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
            print(command_line.printable(f"skipped: {error}".removesuffix(_CORRUPT)))
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
                    if isinstance(image, Undecided) or (isinstance(image, InputError) and not skip_corrupt):
                        raise image
                    if isinstance(image, InputError):
                        corrupt[row] = image
                    elif pixels is not None:
                        pixels[row] = torch.from_numpy(image.copy())
                done += len(images)
                progress.update(len(images))
        return corrupt

    def _decoded(self, rows: Iterable[Tensor], ahead: int) -> Iterator[list[np.ndarray | InputError]]:
        decoded = self._decode_all(rows, ahead)
        _unfinished.add(decoded)
        return decoded

    def _decode_all(self, rows: Iterable[Tensor], ahead: int) -> Generator[list[np.ndarray | InputError], None, None]:
        loader = DataLoader(
            self,
            batch_sampler=(batch.tolist() for batch in rows),
            num_workers=self._workers,
            collate_fn=list,
            worker_init_fn=_begin_worker,
            prefetch_factor=ahead if self._workers else None,
        )
        yield from loader

    def __getitems__(self, rows: list[int]) -> list[np.ndarray | InputError]:
        """What a worker decodes. Arrays, which travel through a pipe: containers often have little shared memory."""
        paths = [self._root / self._paths[number] for number in self._order[rows].tolist()]
        return [_decode(path, self._size, self._reading) for path in paths]


_unfinished: weakref.WeakSet[Generator] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """Python waits for workers at its exit, and these ignore the signal that it sends them first."""
    for decoded in list(_unfinished):
        decoded.close()


def _begin_worker(number: int) -> None:
    die_with_parent(number)
    for name in (signal.SIGINT, signal.SIGTERM):  # a signal to the whole group stops the parent, which ends its workers
        signal.signal(name, signal.SIG_IGN)


def _decode(path: Path, size: int, reading: Reading = AS_IT_IS) -> np.ndarray | InputError:
    """An image file as uint8 ``[3, size, size]``, see :func:`maskbench.data.decoding.decode`.

    What cannot be decoded gives an InputError: raised in a worker process it would come out wrapped in a traceback. It
    is a new one: with dask's package, frames come with what was raised, and would keep the loader and its workers.
    """
    try:
        return decode(path, size, reading)
    except InputError as error:
        return type(error)(*error.args)
    except PermissionError:
        return Undecided(f"{path}: may not be read; give yourself the right to, or move it away")
    except MemoryError:
        return Undecided(f"{path}: this machine's memory is not enough for it; use fewer --workers or move it away")
    except Exception as error:  # of hostile bytes the decoders promise nothing narrower
        # Errors of the system (a disk, a network, too many open files) have a number. Those of decoders have none, or
        # EINVAL, where broken bytes sent them to a place before the file's start.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            return Undecided(f"{path}: could not be read ({error.strerror}); mend that, then start again")
        reason = error or type(error).__name__
        return InputError(f"{path}: cannot be read as an image ({reason}){_CORRUPT}")
