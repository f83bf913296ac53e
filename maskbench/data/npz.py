"""Images as NumPy arrays in one file: ``npz:FILE``.

The file holds ``images`` and ``labels``, and maybe ``split`` (0 training, 1 test) and ``classes`` (names). Or it has
the layout of MedMNIST: ``train_images``, ``train_labels``, the same of ``test`` and, where there is one, of ``val``.
Nothing in it is unpickled.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskbench.data import class_names
from maskbench.data.image_set import ImageSet, check_memory, four_to_one, resize, shuffled, split_flags
from maskbench.data.pixels import Reading, scaled
from maskbench.errors import InputError
from maskbench.runtime import command_line

_ONE = ("images", "labels", "split", "classes")
_MEDMNIST = (*(f"{part}_{what}" for part in ("train", "val", "test") for what in ("images", "labels")), "classes")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def npz(name: str, image_size: int, flag: str, reading: Reading) -> ImageSet:
    """The set in a file.

    Images are ``[N, H, W]`` or ``[N, H, W, C]`` with 1 or 3 channels, or 4 of uint8. They are uint8, floats in [0, 1],
    or anything else that the levels of ``reading`` scale. Labels are whole numbers ``[N]`` or ``[N, 1]``.

    Raises:
        InputError: the file is missing or damaged, or its arrays are others.
    """
    path = Path(os.path.expanduser(name.removeprefix("npz:")))  # no shell looks behind the colon
    if name == "npz:":
        raise InputError(f"{flag} npz: names no file; write its path behind the colon")
    if not path.is_file():
        raise InputError(f"{flag} {name}: {path} is not a file")
    arrays = _read(path)
    parts = [part for part in ("train_", "val_", "test_") if f"{part}images" in arrays] or [""]
    for part in parts:
        _check_images(arrays[f"{part}images"], f"{path}: {part}images")
    sizes = [len(arrays[f"{part}images"]) for part in parts]
    labels = [_whole(arrays, f"{part}labels", size, path) for part, size in zip(parts, sizes, strict=True)]
    classes, numbers = _classes(np.concatenate(labels), arrays.get("classes"), path)
    rows = torch.arange(len(numbers))
    if len(parts) > 1:
        sizes = [sum(sizes[:-1]), sizes[-1]]
    elif "split" in arrays:
        rows, sizes = _divided(_whole(arrays, "split", len(numbers), path), path)
    # as a folder: the first fifth of a part is to hold every class
    order = rows[shuffled(sizes)]
    labels = torch.from_numpy(numbers)[order]
    split = split_flags(*(sizes if len(sizes) == 2 else four_to_one(len(numbers))))
    for part, place in (("training", 0), ("test", 1)) if len(sizes) == 2 else ():
        for missing in np.setdiff1d(np.arange(len(classes)), labels[split == place].numpy())[:1]:
            raise InputError(f"{path}: class {classes[missing]} has no images in the {part} part; leave the class out")
    pixels = [_pixels(arrays.pop(f"{part}images"), image_size, reading, f"{path}: {part}images") for part in parts]
    return ImageSet(name, torch.cat(pixels)[order], labels, split, classes, reading)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file in one of both layouts; InputError where it has neither, or does not fit into memory."""
    try:
        with zipfile.ZipFile(path) as file:
            names = [name.removesuffix(".npy") for name in file.namelist()]
            layout = _layout(names, path)
            needed = 0
            for name in set(layout) & set(names):
                with file.open(f"{name}.npy") as member:
                    shape, _, dtype = _HEADERS[np.lib.format.read_magic(member)](member)
                    if dtype.hasobject:
                        raise InputError(
                            f"{path}: {name} holds Python objects, which are never read; save it as numbers or text"
                        )
                    needed += int(np.prod(shape, dtype=object)) * dtype.itemsize
            check_memory(f"npz:{path}", needed, "keep fewer or smaller images in it")
            arrays = {}
            for name in layout:
                if name in names:
                    with file.open(f"{name}.npy") as member:
                        arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    except (InputError, PermissionError, MemoryError):
        raise
    except Exception as error:  # neither zipfile nor NumPy has a narrower promise for hostile or cut-off bytes
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise InputError(f"{path}: damaged, or not a file of np.savez ({reason}); make it again") from None
    if others := sorted(set(names) - set(layout)):
        print(command_line.printable(f"npz:{path}: not read: {', '.join(others[:3])}{', ...' * (len(others) > 3)}"))
    if "val_images" in arrays and arrays["val_images"].shape[:1] == arrays["val_labels"].shape[:1] == (0,):
        del arrays["val_images"], arrays["val_labels"]  # who has none leaves it empty
    if "val_images" in arrays:
        print(command_line.printable(f"npz:{path}: the images of val join the training part"))
    return arrays


def _layout(names: list[str], path: Path) -> tuple[str, ...]:
    """The names of the layout that a file has; InputError where some that it needs are missing."""
    layout = _MEDMNIST if "train_images" in names else _ONE
    needed = (
        {"train_images", "train_labels", "test_images", "test_labels"} if layout is _MEDMNIST else {"images", "labels"}
    )
    if ("val_images" in names) != ("val_labels" in names) and layout is _MEDMNIST:
        needed |= {"val_images", "val_labels"}
    if missing := sorted(needed - set(names)):
        raise InputError(
            f"{path}: lacks {' and '.join(missing)}; a file has images and labels, or train_images, train_labels, "
            "test_images and test_labels"
        )
    other = _ONE if layout is _MEDMNIST else _MEDMNIST
    if both := sorted((set(other) - set(layout)) & set(names)):
        raise InputError(f"{path}: has {both[0]} beside {layout[0]}; leave one of them out")
    return layout


def _check_images(images: np.ndarray, what: str) -> None:
    """InputError where an array is of no shape or kind that images have."""
    channels = images.shape[3] if images.ndim == 4 else 1
    if images.ndim not in (3, 4) or channels not in (1, 3, 4) or 0 in images.shape:
        first = images.ndim == 4 and images.shape[1] in (1, 3, 4)
        hint = ": .transpose(0, 2, 3, 1) brings the channels to the end" if first else ""
        raise InputError(
            f"{what} has the shape {list(images.shape)}; give it [N, H, W] or [N, H, W, C] with 1, 3 or 4 channels"
            + hint
        )
    if images.dtype.kind not in "buif":
        raise InputError(f"{what} holds no numbers, but {images.dtype}; save pixels as uint8")
    if channels == 4 and images.dtype != np.uint8:
        raise InputError(f"{what} is transparent and not of uint8; save it as uint8, or with 3 channels")


def _pixels(images: np.ndarray, size: int, reading: Reading, what: str) -> Tensor:
    """Images of any kind to uint8 ``[N, 3, size, size]``."""
    levels = _levels(images, reading, what)
    check_memory(what, len(images) * 3 * size**2)
    pixels = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for rows in torch.arange(len(images)).split(max(1, 2**22 // (images.shape[1] * images.shape[2]))):
        some = images[rows[0] : rows[-1] + 1]
        some = some if levels is None else scaled(some, *levels)
        if some.ndim == 4 and some.shape[3] == 4:
            some = reading.over_ground(some[..., :3], some[..., 3])
        some = torch.from_numpy(np.ascontiguousarray(some))
        pixels[rows] = resize(some[:, None] if some.dim() == 3 else some.permute(0, 3, 1, 2), size)
    return pixels


def _levels(images: np.ndarray, reading: Reading, what: str) -> tuple[float, float] | None:
    """The values that become black and white; None where the pixels are bytes already."""
    if images.dtype == np.uint8:
        if images.max() == 1:  # a set of 0 alone may be meant
            raise InputError(
                f"{what}: is uint8 with no value above 1, which is all but black; save what is 0 or 1 as bool, and "
                "pixels from 0 to 1 as floats"
            )
        return None
    low, high = float(images.min()), float(images.max())
    if not np.isfinite((low, high)).all():
        raise InputError(f"{what}: holds values that are not finite; mend it")
    if images.dtype == np.bool_ or (reading.levels is None and images.dtype.kind == "f" and low >= 0 and high <= 1):
        return 0, 1
    if reading.levels is None:
        raise InputError(
            f"{what}: is {images.dtype} with values from {low:g} to {high:g}; taken as they are, they must be uint8 "
            "(.astype(np.uint8) where they are bytes), or floats from 0 to 1; say with --levels LOW HIGH which values "
            "are black and white"
        )
    return reading.levels[0], reading.levels[1]


def _whole(arrays: dict[str, np.ndarray], name: str, count: int, path: Path) -> np.ndarray:
    """The array of a name as one whole number an image, int64 ``[N]``."""
    values, what = arrays[name], f"{path}: {name}"
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.shape != (count,):
        raise InputError(f"{what} has the shape {list(values.shape)}; give one number for each of {count} images")
    if values.dtype.kind in "US":
        raise InputError(f"{what} holds text; give whole numbers{_numbered(name, values.dtype.kind)}")
    if values.dtype.kind not in "bui" or (values.dtype.kind == "u" and values.max() > np.iinfo(np.int64).max):
        raise InputError(f"{what} holds {values.dtype}; give whole numbers, such as .astype(np.int64)")
    return values.astype(np.int64)


def _numbered(name: str, kind: str) -> str:
    """What makes whole numbers of text."""
    text = ".astype(str)" * (kind == "S")  # names of classes are no bytes
    if name == "split":
        return f": (split{text} == 'test').astype(int) where that is the name of the test part"
    if name == "labels":
        return f": classes, labels = np.unique(labels{text}, return_inverse=True), and save both"
    # a number is to mean the same in all parts
    every = f"classes = np.unique(np.concatenate((train_labels, test_labels)){text})"
    return f": {every}, then of each part np.searchsorted(classes, {name}{text}), and save classes too"


def _divided(split: np.ndarray, path: Path) -> tuple[Tensor, list[int]]:
    """Rows of the training images and then of the test images, int64 ``[N]``, and how many there are of each."""
    if sorted(set(split.tolist())) != [0, 1]:
        raise InputError(f"{path}: split must hold 0 (training) and 1 (test), both and nothing else")
    rows = torch.from_numpy(np.argsort(split, kind="stable"))
    return rows, [int((split == 0).sum()), int((split == 1).sum())]


def _classes(numbers: np.ndarray, names: np.ndarray | None, path: Path) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and labels that are indices into them, int64 ``[N]``."""
    if names is None:
        there, labels = np.unique(numbers, return_inverse=True)
        return [str(number) for number in there], labels.reshape(-1).astype(np.int64)
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(f"{path}: classes must be text, one name a class")
    classes = names.tolist()
    for name in classes:
        if not class_names.is_text(name):
            raise InputError(f"{path}: the class name {class_names.shown(name)!r} has control characters; rename it")
    if pair := class_names.alike(classes):
        raise InputError(f"{path}: classes {pair[0]} and {pair[1]} are one name but for case or accents; rename one")
    if numbers.min() < 0 or numbers.max() >= len(classes):
        raise InputError(f"{path}: holds labels outside its {len(classes)} classes, which are counted from 0")
    for missing in np.setdiff1d(np.arange(len(classes)), numbers)[:1]:
        raise InputError(f"{path}: class {classes[missing]} has no images; leave it out")
    return classes, numbers
