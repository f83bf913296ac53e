"""The masked set: what an owner hands out. Latent vectors and labels, nothing else."""

import re
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from maskbench import files
from maskbench.datasets import TEST, TRAIN
from maskbench.errors import InputError

FORMAT = "maskbench.masked"
METHODS = ("aae", "untrained", "pca", "random-projection", "identity")
KEYED = "+key"  # ends the method of masks that a secret key turned, see maskbench.key

_LAYOUT = {  # dtype and number of dimensions of the tensors
    "gaussian": (torch.float32, 2),
    "categorical": (torch.float32, 2),
    "labels": (torch.int64, 1),
    "split": (torch.uint8, 1),
    "source": (torch.int64, 1),
    "view": (torch.uint8, 1),
}


@dataclass(frozen=True)
class MaskedSet:
    """A masked dataset of N rows.

    Attributes:
        method: one of ``METHODS``, followed by ``+key`` where a secret key turned the masks.
        encoder: sha256 of what masked (the encoder's weights, the PCA's matrix, ...).
        dataset: the name ``--dataset`` gave.
        classes: one name per class.
        gaussian: float32 ``[N, G]``.
        categorical: float32 ``[N, K]``; K may be 0.
        labels: int64 ``[N]``.
        split: uint8 ``[N]``, 0 training, 1 test.
        source: int64 ``[N]``, index of the image in its dataset, training part first.
        view: uint8 ``[N]``, 0 the image itself, 1 and up its masked augmented copies.
    """

    method: str
    encoder: str
    dataset: str
    classes: list[str]
    gaussian: Tensor
    categorical: Tensor
    labels: Tensor
    split: Tensor
    source: Tensor
    view: Tensor

    @property
    def width(self) -> int:
        """G + K, the length of a masked vector."""
        return self.gaussian.shape[1] + self.categorical.shape[1]

    def features(self, rows: Tensor) -> Tensor:
        """Both parts of some rows (int64 ``[M]``) side by side, what classifiers read: float32 ``[M, G + K]``."""
        return torch.cat((self.gaussian[rows], self.categorical[rows]), 1)

    def validation_rows(self) -> Tensor:
        """bool ``[N]``: rows of training images that the MLP validates on.

        The first 10,000 training images of CIFAR-100 and MNIST (paper, section "Classification"), the
        first fifth elsewhere and where fewer were masked. Augmented copies of these images are among them.
        """
        training = self.source[self.split == TRAIN].unique()  # sorted: the dataset's own order
        count = len(training) // 5
        if self.dataset in ("cifar100", "mnist"):
            count = min(count, 10_000)
        return (self.split == TRAIN) & torch.isin(self.source, training[:count])


def save(masked: MaskedSet, path: Path) -> None:
    """Write a masked set, whole or not at all, with nothing in it but its fields.

    Raises:
        InputError: :func:`load` would refuse it, or it cannot be written.
    """
    _check(masked, path)
    content = {field.name: getattr(masked, field.name) for field in fields(masked)}
    # files.save writes values, no objects with attributes, and refuses a tensor that brings more than its numbers
    files.save({"format": FORMAT, "version": files.VERSION, **content}, path)


def load(path: Path) -> MaskedSet:
    """Read a masked set and check every field; InputError names what is wrong."""
    return parse(files.load(path, FORMAT), path)


def parse(content: dict, path: Path) -> MaskedSet:
    """The masked set in what :func:`maskbench.files.load` read; ``path`` is for complaints."""
    names = {field.name for field in fields(MaskedSet)}
    if missing := names - content.keys():
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}")
    if extra := content.keys() - names - {"format", "version"}:
        raise InputError(f"{path}: holds more than a masked set does ({', '.join(sorted(map(files.shown, extra)))})")
    masked = MaskedSet(**{name: content[name] for name in names})
    _check(masked, path)
    return masked


def _check(masked: MaskedSet, path: Path) -> None:
    if not isinstance(masked.method, str) or masked.method.removesuffix(KEYED) not in METHODS:
        raise InputError(f"{path}: method is none of {', '.join(METHODS)}, nor one with {KEYED}")
    if not isinstance(masked.encoder, str) or not re.fullmatch(r"[0-9a-f]{64}", masked.encoder):
        raise InputError(f"{path}: encoder is not a sha256")
    if not isinstance(masked.dataset, str):
        raise InputError(f"{path}: dataset is not text")
    if not isinstance(masked.classes, list) or not all(
        type(name) is str and name.isprintable() for name in masked.classes
    ):
        raise InputError(f"{path}: classes is not a list of names of printable characters")
    rows = len(masked.labels) if isinstance(masked.labels, Tensor) and masked.labels.dim() else 0
    for name, (dtype, dims) in _LAYOUT.items():
        value = getattr(masked, name)
        plain = type(value) is Tensor and value.layout == torch.strided and not vars(value)
        if not plain or value.dtype != dtype or value.dim() != dims or len(value) != rows:
            raise InputError(f"{path}: {name} is not {dtype} with {dims} dimension(s) and {rows} rows")
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
    order = masked.source.argsort()
    source, split, labels = masked.source[order], masked.split[order], masked.labels[order]
    if ((source[1:] == source[:-1]) & ((split[1:] != split[:-1]) | (labels[1:] != labels[:-1]))).any():
        raise InputError(f"{path}: an image and its copies differ in split or label")
