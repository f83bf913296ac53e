"""Images in: every dataset as one uint8 tensor with labels, class names and splits.

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

Grey images become RGB, and every image becomes ``image_size`` x ``image_size``. The images of a folder are put in a
fixed random order, as they come class by class.
"""

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from maskbench.children import die_with_parent
from maskbench.errors import InputError

NAMES = ("cifar10", "cifar100", "mnist", "photos", "digits")
TRAIN, TEST = 0, 1

_PHOTO_CROPS = {TRAIN: 20_000, TEST: 2_000}
_DIGITS_TRAIN = 1_437
# what a desktop leaves in every folder; anything else that is not an image is an error, not a gap in the set
_DESKTOP_FILES = {"thumbs.db", "desktop.ini"}
_LARGEST_PICTURE = 89_000_000  # pixels, what Pillow warns of; decoded, 270 MB
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
    """A whole dataset in memory, the training part first.

    Attributes:
        name: what ``--dataset`` said.
        images: uint8 ``[N, 3, S, S]``, RGB.
        labels: int64 ``[N]``, indices into ``classes``.
        split: uint8 ``[N]``, 0 for training, 1 for test.
        classes: one name per class.
    """

    name: str
    images: Tensor
    labels: Tensor
    split: Tensor
    classes: list[str]

    def rows(self, split: int) -> Tensor:
        """Indices (int64) of the images of one split."""
        return torch.nonzero(self.split == split).flatten()


def load(
    name: str, data_dir: Path | str = "data", image_size: int = 32, workers: int = 0, flag: str = "--dataset"
) -> ImageSet:
    """Load a dataset by its ``--dataset`` name.

    Args:
        name: one of ``NAMES`` or ``folder:PATH``.
        data_dir: where torchvision's datasets are, or are downloaded to.
        image_size: side of the images in pixels.
        workers: processes that decode a folder's files; 0 decodes in this one.
        flag: where the user gave the name, for complaints.

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
        return _folder(name, image_size, workers, flag)
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


def _folder(name: str, image_size: int, workers: int, flag: str) -> ImageSet:
    """``PATH/train/<class>/*`` and ``PATH/test/<class>/*``, or ``PATH/<class>/*`` divided 4 : 1."""
    root = Path(name.removeprefix("folder:"))
    if not root.is_dir():
        raise InputError(f"{flag} {name}: {root} is not a folder")
    names = {path.name for path in root.iterdir() if path.is_dir()}
    divided = names >= {"train", "test"}
    if not divided and names and names <= _PART_NAMES:
        raise InputError(f"{flag} {name}: has {' and '.join(sorted(names))}; the parts must be called train and test")
    parts = [_FolderImages(part, image_size) for part in ((root / "train", root / "test") if divided else (root,))]
    if any(part.classes != parts[0].classes for part in parts):
        raise InputError(f"{flag} {name}: train and test must have the same class folders")
    count = sum(len(part) for part in parts)
    _check_memory(f"{flag} {name}", count * 3 * image_size**2)

    images = torch.empty(count, 3, image_size, image_size, dtype=torch.uint8)
    at = 0
    with tqdm(total=count, desc=f"reading {root}", unit="img") as bar:
        for part in parts:
            for batch in DataLoader(
                part, batch_size=64, num_workers=workers, collate_fn=list, worker_init_fn=die_with_parent
            ):
                for image in batch:
                    if isinstance(image, InputError):
                        raise image
                    images[at] = image
                    at += 1
                bar.update(len(batch))
    labels = torch.tensor([label for part in parts for _, label in part.samples])
    # a folder comes class by class: a fixed shuffle, so that the first fifth of a part holds every class
    sizes = [len(part) for part in parts] if divided else [count - count // 5, count // 5]
    random = np.random.RandomState(0)
    if divided:
        order = np.concatenate((random.permutation(sizes[0]), sizes[0] + random.permutation(sizes[1])))
    else:
        order = random.permutation(count)
    order = torch.from_numpy(order)
    images, labels, split = images[order], labels[order], _split_flags(*sizes)
    return ImageSet(name, images, labels, split, parts[0].classes)


class _FolderImages(Dataset):
    """A folder of class folders, decoded one image at a time to uint8 ``[3, S, S]``.

    A file that cannot be decoded gives an InputError as its item: raised in a worker process it would come out
    wrapped in a traceback.
    """

    def __init__(self, root: Path, image_size: int):
        from maskbench.vision import torchvision

        try:
            folder = torchvision.datasets.ImageFolder(root)
        except FileNotFoundError as error:
            raise InputError(f"{root}: expected a folder of images for each class ({error})") from None
        self.samples, self.classes, self.image_size = folder.samples, folder.classes, image_size
        known = {path for path, _ in self.samples}
        for path in root.rglob("*"):
            dotted = any(part.startswith(".") for part in path.relative_to(root).parts)
            hidden = dotted or path.name.lower() in _DESKTOP_FILES
            if path.is_file() and str(path) not in known and not hidden:
                endings = " ".join(torchvision.datasets.folder.IMG_EXTENSIONS)
                raise InputError(f"{path}: not an image in a class folder ({endings}); convert it or move it away")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor | InputError:
        from PIL import Image

        path = self.samples[index][0]
        try:
            with Image.open(path) as image:
                if image.width * image.height > _LARGEST_PICTURE:
                    return InputError(f"{path}: {image.width} x {image.height} pixels are too many; make it smaller")
                if image.mode == "F" and not np.isfinite(np.asarray(image)).all():
                    return InputError(f"{path}: holds values that are not finite; mend it or move it away")
                if image.mode.startswith(("I", "F")):  # conversion would cut off what is out of the range 0 to 255
                    return InputError(f"{path}: has more than 8 bits a channel; convert it to 8")
                pixels = np.asarray(image.convert("RGB"))
        except Exception as error:  # of hostile bytes the decoders promise nothing narrower
            reason = error or type(error).__name__
            return InputError(f"{path}: cannot be read as an image ({reason}); mend it or move it away")
        return _resize(torch.tensor(pixels).permute(2, 0, 1)[None], self.image_size)[0]


def _check_memory(what: str, needed: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory // 2:
        raise InputError(
            f"{what}: its pixels take {needed / 2**30:.1f} GiB, and this machine has {memory / 2**30:.1f} GiB of "
            "memory; use a smaller --image-size or fewer images"
        )


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
