"""Images in: every dataset as uint8 pixels with labels, class names and splits.

========== =========================================== ================================ ===========
name       what                                        training part                    test part
========== =========================================== ================================ ===========
cifar10    torchvision's, downloaded when missing      50,000                           10,000
cifar100   torchvision's, downloaded when missing      50,000                           10,000
mnist      torchvision's, downloaded when missing      60,000                           10,000
photos     crops of scikit-learn's photographs         20,000                           2,000
digits     scikit-learn's handwritten digits           1,437                            360
folder:P   torchvision's ImageFolder                   P/train, or four fifths of P     P/test, or one fifth
========== =========================================== ================================ ===========

Grey images become RGB, and every image becomes ``image_size`` x ``image_size``. The images of a folder are turned
upright (EXIF) and put in a fixed random order, as they come class by class. A folder whose pixels are too many for the
memory is not loaded: its files are decoded whenever they are needed, by worker processes.
"""

import contextlib
import fcntl
import hashlib
import os
import signal
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from maskbench import distributed
from maskbench.children import die_with_parent
from maskbench.errors import InputError

NAMES = ("cifar10", "cifar100", "mnist", "photos", "digits")
TRAIN, TEST = 0, 1

_PHOTO_CROPS = {TRAIN: 20_000, TEST: 2_000}
_DIGITS_TRAIN = 1_437
# what a desktop leaves in every folder; anything else that is not an image is an error, not a gap in the set
_DESKTOP_FILES = {"thumbs.db", "desktop.ini"}
_LARGEST_PICTURE = 89_000_000  # pixels, what Pillow warns of; decoded, 270 MB
_AT_ONCE = 64  # files of a folder that a worker decodes between two messages
_AHEAD = 4  # mini-batches that a worker has ready
_PART_NAMES = {"train", "test", "val", "valid", "validation"}


# superclasses of CIFAR-100 and their classes (Krizhevsky, "Learning multiple layers of features", 2009)
CIFAR100_SUPERCLASSES = {
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}


@dataclass(frozen=True)
class ImageSet:
    """A dataset, the training part first.

    Attributes:
        name: what ``--dataset`` said.
        images: uint8 ``[N, 3, S, S]``, RGB; see :func:`batches` for those that are not in memory.
        labels: int64 ``[N]``, indices into ``classes``.
        split: uint8 ``[N]``, 0 for training, 1 for test.
        classes: one name per class.
    """

    name: str
    images: "Tensor | FolderImages"
    labels: Tensor
    split: Tensor
    classes: list[str]

    def rows(self, split: int) -> Tensor:
        """Indices (int64) of the images of one split."""
        return torch.nonzero(self.split == split).flatten()


def load(
    name: str,
    data_dir: Path | str = "data",
    image_size: int = 32,
    workers: int = 0,
    skip_corrupt: bool = False,
    flag: str = "--dataset",
    stream: bool = False,
) -> ImageSet:
    """Load a dataset by its ``--dataset`` name.

    Args:
        name: one of ``NAMES`` or ``folder:PATH``.
        data_dir: where torchvision's datasets are, or are downloaded to.
        image_size: side of the images in pixels.
        workers: processes that decode a folder's files; 0 decodes in this one.
        skip_corrupt: leave out files of a folder that cannot be decoded, and list them, instead of refusing them.
        flag: where the user gave the name, for complaints.
        stream: leave a folder's images in their files also where the memory is large enough: they are read once.

    Raises:
        InputError: unknown name, files missing, damaged or not images, download impossible.
    """
    if name in ("cifar10", "cifar100", "mnist"):
        images = _torchvision_set(name, Path(data_dir), image_size)
        if images.labels.min() < 0 or images.labels.max() >= len(images.classes):  # torchvision does not look
            raise InputError(f"--data-dir {data_dir}: the labels of {name} are damaged; delete its files")
        return images
    if name == "photos":
        return _photos(image_size)
    if name == "digits":
        return _digits(image_size)
    if name.startswith("folder:"):
        return _folder(name, image_size, workers, skip_corrupt, flag, stream)
    raise InputError(f"{flag} {name}: unknown; choose from {', '.join(NAMES)}, folder:PATH")


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


def select(images: "Tensor | FolderImages", rows: Tensor) -> "Tensor | FolderImages":
    """Some of the images, in this order; those that are not in memory stay where they are."""
    return images[rows] if isinstance(images, Tensor) else images.select(rows)


def batches(images: "Tensor | FolderImages", order: Tensor, batch_size: int, of_rank: bool = False) -> Iterator[Tensor]:
    """The pixels of every ``batch_size`` rows, uint8 ``[n, 3, S, S]`` on the images' device; the last may be fewer.

    Args:
        order: int64 ``[N]``, rows of ``images``.
        of_rank: of each batch only what is this process's, see :func:`maskbench.distributed.share`, and no batch where
            that is nothing.
    """
    order = order.to(images.device) if isinstance(images, Tensor) else order
    rows = order.split(batch_size) if len(order) else ()  # of nothing, split makes one empty part
    if of_rank:
        rows = (part for batch in rows if len(part := batch[distributed.share(len(batch))]))
    return (images[batch] for batch in rows) if isinstance(images, Tensor) else images.stream(rows)


def large_batch(image_size: int) -> int:
    """Images at once where none is trained on: 500, fewer where they are larger than 32 x 32."""
    return max(1, min(500, 500 * 32**2 // image_size**2))


def coarse_labels(images: ImageSet) -> Tensor:
    """The superclass of every image of CIFAR-100: int64 ``[N]``, indices into ``CIFAR100_SUPERCLASSES``."""
    number = {name: coarse for coarse, names in enumerate(CIFAR100_SUPERCLASSES.values()) for name in names.split()}
    return torch.tensor([number[name] for name in images.classes])[images.labels]


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels to the models' float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def _torchvision_set(name: str, data_dir: Path, image_size: int) -> ImageSet:
    from maskbench.vision import torchvision

    kind = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST"}[name]
    with contextlib.ExitStack() as stack:
        # one process at a time: what another one is still downloading would look damaged
        with contextlib.suppress(OSError):  # no such folder can be made, or a file system without locks
            data_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(data_dir, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        parts = [_torchvision_part(getattr(torchvision.datasets, kind), data_dir, train) for train in (True, False)]
    if name == "mnist":
        images = torch.cat([part.data for part in parts])[:, None]
    else:
        images = torch.from_numpy(np.concatenate([part.data for part in parts])).permute(0, 3, 1, 2)
    labels = torch.cat([torch.as_tensor(part.targets, dtype=torch.int64) for part in parts])
    sizes = [len(part.data) for part in parts]
    return ImageSet(name, _resize(images, image_size), labels, _split_flags(*sizes), list(parts[0].classes))


def _torchvision_part(dataset: type, data_dir: Path, train: bool):
    """One split from disk; what is missing or fails its MD5 is downloaded first."""
    try:
        return dataset(data_dir, train=train, download=False)
    except Exception as error:  # torchvision has no narrower promise for damaged bytes
        if not str(error).startswith("Dataset not found"):
            raise InputError(
                f"--data-dir {data_dir}: the files of {dataset.__name__} are damaged "
                f"({error or type(error).__name__}); delete them, then they are downloaded again"
            ) from None
    try:
        return dataset(data_dir, train=train, download=True)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{dataset.__name__} is missing or damaged in --data-dir {data_dir} and cannot be downloaded ({error}); "
            "connect to the network, or put torchvision's files there"
        ) from None


def _photos(image_size: int) -> ImageSet:
    """Random crops of two photographs: the left four fifths for training, the right fifth held out."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    largest = min(min(photograph.shape[0], photograph.shape[1] // 5) for photograph in photographs)
    if image_size > largest:
        raise InputError(f"--image-size {image_size}: photos has crops of up to {largest} pixels")
    random = np.random.RandomState(0)
    crops = []
    for split, count in _PHOTO_CROPS.items():
        for number in range(count):
            photograph = photographs[number % len(photographs)]
            border = photograph.shape[1] * 4 // 5
            region = photograph[:, :border] if split == TRAIN else photograph[:, border:]
            top = random.randint(region.shape[0] - image_size + 1)
            left = random.randint(region.shape[1] - image_size + 1)
            crops.append(region[top : top + image_size, left : left + image_size])
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    return ImageSet(
        "photos", images, torch.zeros(len(images), dtype=torch.int64), _split_flags(*_PHOTO_CROPS.values()), ["photo"]
    )


def _digits(image_size: int) -> ImageSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    split = _split_flags(_DIGITS_TRAIN, len(images) - _DIGITS_TRAIN)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    return ImageSet("digits", _resize(images, image_size), labels, split, [str(digit) for digit in range(10)])


def _folder(name: str, image_size: int, workers: int, skip_corrupt: bool, flag: str, stream: bool) -> ImageSet:
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
    split = _split_flags(*(sizes if divided else (len(paths) - len(paths) // 5, len(paths) // 5)))

    images = FolderImages(root, paths, order, image_size, workers)
    if not stream and 2 * distributed.local_size() * images.nbytes <= _memory():  # every process has its own copy
        images, good = images.load(skip_corrupt)
    elif skip_corrupt:
        images, good = images.without_corrupt()
    else:
        good = slice(None)
    return ImageSet(name, images, labels[good], split[good], classes)


def _list_images(part: Path, root: Path, paths: "_Names", labels: array) -> list[str]:
    """Append the images of the class folders in ``part`` and their labels; gives the classes."""
    from maskbench.vision import torchvision

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
        _check_memory(f"folder:{self._root}", self.nbytes)
        pixels = torch.empty(self.shape, dtype=torch.uint8)
        corrupt = self._read(range(len(self)), skip_corrupt, pixels)
        good = self._without(corrupt)
        return pixels[good] if corrupt else pixels, good

    def without_corrupt(self) -> tuple["FolderImages", Tensor]:
        """Those of the images that can be decoded, and their rows (int64); processes of torchrun share the work."""
        parts = distributed.from_all(self._read(range(len(self))[distributed.share(len(self))], True))
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
        with tqdm(
            total=len(rows), desc=f"reading {self._root}", unit="img", disable=distributed.rank() > 0
        ) as progress:
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


def _check_memory(what: str, needed: int) -> None:
    memory = _memory()
    if needed > memory // 2:
        raise InputError(
            f"{what}: its pixels take {needed / 2**30:.1f} GiB, and this machine has {memory / 2**30:.1f} GiB of "
            "memory; use a smaller --image-size or fewer images"
        )


def _memory() -> int:
    """Bytes that this machine, or this process's container, has."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # another system, no limit
            limits.append(int(Path(path).read_text()))
    return min(limits)


def _resize(images: Tensor, size: int) -> Tensor:
    """uint8 ``[N, 1 or 3, H, W]`` to uint8 ``[N, 3, size, size]``: bilinear, antialiased when it shrinks."""
    if images.shape[-2:] != (size, size):
        _check_memory(f"--image-size {size}", len(images) * 3 * size**2)
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


def _split_flags(train: int, test: int) -> Tensor:
    return torch.cat((torch.zeros(train, dtype=torch.uint8), torch.ones(test, dtype=torch.uint8)))
