"""The masked set: what an owner hands out. Latent vectors and labels, nothing else.

A set lies in one file, or in shards ``name-00000-of-00008.pt``, each of which is a masked file by itself.
"""

import glob
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskbench.data import class_names
from maskbench.data.image_set import TEST, TRAIN
from maskbench.errors import InputError
from maskbench.storage import atomic, pt

FORMAT = "maskbench.masked"
KEYED = "+key"  # ends the method of masks that a secret key turned, see maskbench.masking.key
NOISY = "+noise"  # followed by what noise kept of each code, see maskbench.masking.noise
# one that this copy has not may have masked it
_METHOD = re.compile(r"(?P<base>[a-z0-9]+(-[a-z0-9]+)*)(\+noise(?P<kept>1|0(\.\d{1,6})?))?(\+key)?")

_LAYOUT = {  # dtype and number of dimensions of the tensors
    "gaussian": (torch.float32, 2),
    "categorical": (torch.float32, 2),
    "labels": (torch.int64, 1),
    "split": (torch.uint8, 1),
    "source": (torch.int64, 1),
    "view": (torch.uint8, 1),
}
_JOINED = "; of two sets that were joined, count on: second['source'] + first['source'].max() + 1"
_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
MOST_SHARDS = 99_999


@dataclass(frozen=True)
class MaskedSet:
    """A masked dataset of N rows.

    Attributes:
        method: name of the masking method, followed by ``+noise`` and what is kept of each code where noise was added,
            and by ``+key`` where a secret key turned the masks.
        encoder: sha256 of what masked (the encoder's weights, the PCA's matrix, ...).
        dataset: the name ``--dataset`` gave.
        classes: one name per class.
        gaussian: float32 ``[N, G]``, of shards to be indexed by rows only.
        categorical: float32 ``[N, K]``; K may be 0.
        labels: int64 ``[N]``.
        split: uint8 ``[N]``, 0 training, 1 test.
        source: int64 ``[N]``, index of the image in its dataset, training part first; with noise, in a secret order.
        view: uint8 ``[N]``, 0 the image itself, 1 and up its masked augmented copies.
    """

    method: str
    encoder: str
    dataset: str
    classes: list[str]
    gaussian: "Tensor | ShardedRows"
    categorical: "Tensor | ShardedRows"
    labels: Tensor
    split: Tensor
    source: Tensor
    view: Tensor

    @property
    def base_method(self) -> str:
        """The masking method's name, without noise and key."""
        return parts_of(self.method)[0]

    @property
    def kept(self) -> float | None:
        """What noise left of each code, 0 to 1; None without noise."""
        return parts_of(self.method)[1]

    @property
    def width(self) -> int:
        """G + K, the length of a masked vector."""
        return self.gaussian.shape[1] + self.categorical.shape[1]

    @property
    def views(self) -> int:
        """How many masks an image has at most: its own, and those of its augmented copies."""
        return int(self.view.max()) + 1

    def features(self, rows: Tensor) -> Tensor:
        """Both parts of some rows (int64 ``[M]``) side by side, what classifiers read: float32 ``[M, G + K]``."""
        return torch.cat((self.gaussian[rows], self.categorical[rows]), 1)

    def rows(self, part: str) -> Tensor:
        """Row numbers (int64) of a part as the MLP has them; only ``train`` has augmented copies.

        Args:
            part: ``train``, ``validation`` (training images that are held out, see :meth:`validation_rows`) or
                ``test``.
        """
        held_out, original = self.validation_rows(), self.view == 0
        if part == "train":
            chosen = (self.split == TRAIN) & ~held_out
        elif part == "validation":
            chosen = held_out & original
        elif part == "test":
            chosen = (self.split == TEST) & original
        else:
            raise ValueError(f"part must be train, validation or test, got {part!r}")
        return torch.nonzero(chosen).flatten()

    def numpy(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """What scikit-learn takes of a part, see :meth:`rows`: float32 ``[M, G + K]`` and labels int64 ``[M]``."""
        rows = self.rows(part)
        return self.features(rows).numpy(), self.labels[rows].numpy()

    def validation_rows(self) -> Tensor:
        """bool ``[N]``: rows of training images that the MLP validates on.

        The first 10,000 training images of CIFAR-100 and MNIST (paper, section "Classification"), the first fifth
        elsewhere and where fewer were masked; with noise, of a secret order. Augmented copies of these images are among
        them.
        """
        training = self.source[self.split == TRAIN].unique()  # sorted
        count = len(training) // 5
        if self.dataset in ("cifar100", "mnist"):
            count = min(count, 10_000)
        return (self.split == TRAIN) & torch.isin(self.source, training[:count])


def parts_of(method: str) -> tuple[str, float | None, bool]:
    """What a method's name is made of: the masking method, what noise kept of each code or None, whether it is keyed.

    Raises:
        ValueError: not the name of a method.
    """
    found = _METHOD.fullmatch(method)
    if not found:
        raise ValueError(f"{method}: not the name of a method")
    return found["base"], None if found["kept"] is None else float(found["kept"]), method.endswith(KEYED)


def save(masked: MaskedSet | Mapping[str, object], path: Path | str) -> None:
    """Write a masked set, whole or not at all, with nothing in it but its fields.

    Args:
        masked: the set, or what ``torch.load`` makes of its file.

    Raises:
        InputError: :func:`load` would refuse it, or it cannot be written.
    """
    path = Path(path)
    if isinstance(masked, MaskedSet) and isinstance(masked.gaussian, ShardedRows):
        every = torch.arange(len(masked.labels))
        masked = replace(masked, gaussian=masked.gaussian[every], categorical=masked.categorical[every])
    masked = parse(masked, path) if isinstance(masked, Mapping) else _checked(masked, path)
    content = {field.name: getattr(masked, field.name) for field in fields(masked)}
    # pt.save writes values, no objects with attributes, and refuses a tensor that brings more than its numbers
    pt.save({"format": FORMAT, "version": pt.VERSION, **content}, path)


def load_file(path: Path) -> MaskedSet:
    """Read one masked file and check every field; InputError names what is wrong.

    Where it is large beside the memory, its vectors stay on the disk: do not write over the file while they are used.
    """
    return parse(pt.load(path, FORMAT, mapped=pt.is_large(path)), path)


def load(path: Path | str) -> MaskedSet:
    """Read the masked set that a path names, see :func:`files_of`, and check it.

    Of shards, the vectors stay on the disk. Rows are ordered by view, then by source, as in one file: what reads them
    cannot tell into how many the set was divided.

    Raises:
        InputError: a file is damaged or not a masked one, or the shards are not of one set.
    """
    paths = files_of(Path(path))
    if len(paths) == 1:
        return load_file(paths[0])
    heads, columns, widths = [], {name: [] for name in ("labels", "split", "source", "view")}, []
    for path in paths:
        shard = load_file(path)
        heads.append((shard.method, shard.encoder, shard.dataset, shard.classes))
        widths.append((shard.gaussian.shape[1], shard.categorical.shape[1]))
        if (heads[-1], widths[-1]) != (heads[0], widths[0]):
            raise InputError(f"{path}: is not of one set with {paths[0]}; mask again with mask_dataset.py")
        for name, parts in columns.items():
            parts.append(getattr(shard, name).clone())
    sizes = torch.tensor([len(part) for part in columns["view"]])
    columns = {name: torch.cat(parts) for name, parts in columns.items()}
    file = torch.arange(len(paths), dtype=torch.int32).repeat_interleave(sizes)
    row = torch.cat([torch.arange(size, dtype=torch.int32) for size in sizes.tolist()])
    order = columns["source"].argsort(stable=True)
    order = order[columns["view"][order].argsort(stable=True)]
    columns = {name: column[order] for name, column in columns.items()}
    same = (columns["source"][1:] == columns["source"][:-1]) & (columns["view"][1:] == columns["view"][:-1])
    if same.any():
        raise InputError(f"{paths[0]} and others: an image is in two shards; mask again with mask_dataset.py")
    stamps = [_stamp(path) for path in paths]
    parts = [
        ShardedRows(paths, stamps, name, width, file[order], row[order])
        for name, width in zip(("gaussian", "categorical"), widths[0], strict=True)
    ]
    return MaskedSet(*heads[0], *parts, **columns)


class ShardedRows:
    """float32 ``[N, F]`` that lies in several files: ``[rows]`` reads these rows from them, and keeps nothing.

    Args:
        paths: masked files, checked before.
        stamps: of each, see :func:`_stamp`.
        field: what to read in them.
        width: F.
        file: int32 ``[N]``, which file each row is in.
        row: int32 ``[N]``, which of its rows it is.
    """

    def __init__(self, paths: list[Path], stamps: list[tuple], field: str, width: int, file: Tensor, row: Tensor):
        self._paths, self._stamps, self._field, self._file, self._row = paths, stamps, field, file, row
        self.shape = torch.Size((len(file), width))

    def __getitem__(self, rows: Tensor) -> Tensor:
        file, row = self._file[rows], self._row[rows].long()
        found = torch.empty(len(rows), self.shape[1])
        for number in file.unique().tolist():
            path = self._paths[number]
            if _stamp(path) != self._stamps[number]:
                raise InputError(f"{path}: was changed while it was read; start again")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            chosen = torch.nonzero(file == number).flatten()
            found[chosen] = content[self._field][row[chosen]]
        return found


def _stamp(path: Path) -> tuple[int, int, int]:
    """Tells a file from one that took its place."""
    try:
        state = os.stat(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    return state.st_ino, state.st_size, state.st_mtime_ns


def shard_paths(path: Path, count: int) -> list[Path]:
    """The files of a set that is divided into ``count``: the path itself, or ``name-00000-of-00008.pt`` and so on."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number:05}-of-{count:05}{path.suffix}") for number in range(count)]


def shard_of(path: Path) -> re.Match | None:
    """Of a file called like a shard the ``name``, ``number`` and ``count`` in its name."""
    match = _SHARD.fullmatch(path.stem)
    return match if match and int(match["count"]) > 1 else None


def set_name(path: Path) -> str:
    """A masked file's name without ending, and without the number of a shard."""
    shard = shard_of(path)
    return shard["name"] if shard else path.stem


def files_of(path: Path) -> list[Path]:
    """The files of the set that a path names: its own, or those of all shards where it is a shard, or a set's name.

    Raises:
        InputError: shards are missing, or there are sets of several counts.
    """
    shard = shard_of(path)
    if shard is None:
        found = [] if path.exists() else path.parent.glob(f"{glob.escape(path.stem)}-?????-of-?????{path.suffix}")
        counts = {match["count"] for name in found if (match := shard_of(name))}
        if len(counts) > 1:
            raise InputError(f"{path}: there are shards of {' and of '.join(sorted(counts))}; name one of them")
        if not counts:
            return [path]
        name, count = path.stem, int(counts.pop())
    else:
        name, count = shard["name"], int(shard["count"])
    paths = shard_paths(path.with_name(f"{name}{path.suffix}"), count)
    missing = [path.name for path in paths if not path.exists()]
    if missing and len(missing) < count:
        raise InputError(
            f"{path.parent}: of {count} shards {len(missing)} are missing, such as {missing[0]}; run mask_dataset.py "
            "again, which keeps those that are there"
        )
    return paths


def digest(path: Path) -> str:
    """sha256 of the bytes of the set that a path names, of shards over those of each."""
    found = [atomic.digest(path) for path in files_of(path)]
    return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()


def parse(content: Mapping[str, object], path: Path) -> MaskedSet:
    """The masked set in what :func:`maskbench.storage.pt.load` read; ``path`` is for complaints."""
    names = {field.name for field in fields(MaskedSet)}
    if missing := names - content.keys():
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}")
    if extra := content.keys() - names - {"format", "version"}:
        raise InputError(f"{path}: holds more than a masked set does ({', '.join(sorted(map(pt.shown, extra)))})")
    return _checked(MaskedSet(**{name: content[name] for name in names}), path)


def _checked(masked: MaskedSet, path: Path) -> MaskedSet:
    """The set with integers of the width that they have here; InputError names what else is wrong."""
    if not isinstance(masked.method, str) or not _METHOD.fullmatch(masked.method):
        raise InputError(f"{path}: method is not the name of a masking method, such as aae or aae{KEYED}")
    if not isinstance(masked.encoder, str) or not re.fullmatch(r"[0-9a-f]{64}", masked.encoder):
        raise InputError(f"{path}: encoder is not a sha256")
    if not isinstance(masked.dataset, str):
        raise InputError(f"{path}: dataset is not text")
    if not isinstance(masked.classes, list) or not all(
        type(name) is str and class_names.is_text(name) for name in masked.classes
    ):
        mend = "; list(classes) makes it one" if isinstance(masked.classes, tuple) else ""
        raise InputError(f"{path}: classes is not a list of names without control characters{mend}")
    for name in _LAYOUT:
        value = getattr(masked, name)
        if type(value) is not Tensor or value.layout != torch.strided or vars(value):
            mend = f"; torch.as_tensor({name}) makes it one" if isinstance(value, (list, tuple, np.ndarray)) else ""
            raise InputError(f"{path}: {name} is not a plain tensor, but {pt.shown(value)}{mend}")
    rows = len(masked.labels) if masked.labels.dim() else 0
    for name, (dtype, dims) in _LAYOUT.items():
        value = getattr(masked, name)
        shape = f"{path}: {name} has shape {list(value.shape)}"
        if value.dim() != dims:
            mend = f"; .flatten({dims - 1}) it" if value.dim() > dims else ""
            raise InputError(f"{shape}; {dims} dimension(s) are expected{mend}")
        if len(value) != rows:
            raise InputError(f"{shape}; {rows} rows are expected as labels has: choose the same rows of every tensor")
        if value.dtype != dtype and not dtype.is_floating_point and value.dtype in _WHOLE:
            limits = torch.iinfo(dtype)
            if rows and not limits.min <= int(value.min()) <= int(value.max()) <= limits.max:
                raise InputError(f"{path}: {name} holds numbers beyond {dtype}")
            masked = replace(masked, **{name: value.to(dtype)})
        elif name == "categorical" and value.dtype in _WHOLE and (value.long().abs() <= 1).all():
            masked = replace(masked, categorical=value.to(dtype))
        elif value.dtype != dtype:
            raise InputError(f"{path}: {name} is {value.dtype}, not {dtype}; .to({dtype}) makes it that")
    if rows == 0 or masked.width == 0:
        raise InputError(f"{path}: holds no rows, or rows of no numbers")
    # by their extremes, which take no memory
    if not all(
        bound.isfinite() for part in (masked.gaussian, masked.categorical) if part.numel() for bound in part.aminmax()
    ):
        raise InputError(f"{path}: its masked vectors hold values that are not finite")
    if masked.split.max() > TEST:
        raise InputError(f"{path}: split holds values other than 0 (train) and 1 (test)")
    if masked.labels.min() < 0 or masked.labels.max() >= len(masked.classes):
        raise InputError(f"{path}: holds labels outside its {len(masked.classes)} classes")
    if masked.source.min() < 0:
        raise InputError(f"{path}: source holds negative indices")
    order = masked.view.argsort(stable=True)
    order = order[masked.source[order].argsort(stable=True)]
    source, split, labels, view = masked.source[order], masked.split[order], masked.labels[order], masked.view[order]
    same = source[1:] == source[:-1]
    if (same & ((split[1:] != split[:-1]) | (labels[1:] != labels[:-1]))).any():
        raise InputError(f"{path}: an image and its copies differ in split or label{_JOINED}")
    # classifiers that divide by row would train on a mask that they are tested on
    if (same & (view[1:] == view[:-1])).any():
        raise InputError(f"{path}: holds two rows of one source and view; keep each row once{_JOINED}")
    return masked
