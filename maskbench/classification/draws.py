"""Draws of classes, and which images of them are trained on and tested."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError

MEND = (
    "Give such a class more images, or folders train/ and test/ with some in each (a folder without them is divided at "
    "random)"
)


@dataclass(frozen=True)
class Draw:
    """One repeat: its classes (sorted labels), and the seed of everything else that is random in it."""

    classes: np.ndarray
    seed: int


@dataclass(frozen=True)
class DrawData:
    """What is trained on and tested for one draw: all that a worker is given of the masked set.

    Attributes:
        count: of classes. (Another name than ``classes``, which cloudpickle takes for torch.classes and cannot send.)
        seed: of the draw.
        features: float32 ``[rows, F]`` of each part.
        labels: int64 ``[rows]`` of each part, 0 to ``count`` - 1.
        source: int64 ``[rows]`` of each part, the image of each row.
    """

    count: int
    seed: int
    features: dict[str, Tensor]
    labels: dict[str, Tensor]
    source: dict[str, Tensor]


def draw_classes(seed: int, eligible: np.ndarray, count: int, repeat: int) -> Draw:
    """One stream a (class count, repeat): more repeats, or another method, change no earlier draw."""
    random = np.random.default_rng([seed, count, repeat])
    chosen = np.sort(random.choice(eligible, count, replace=False))
    return Draw(chosen, int(random.integers(2**31)))


def data_parts(data: MaskedSet) -> dict[str, Tensor]:
    """Row numbers of the MLP's training, validation and test parts; only training has augmented copies."""
    return {part: data.rows(part) for part in ("train", "validation", "test")}


def eligible_classes(data: MaskedSet, parts: dict[str, Tensor]) -> np.ndarray:
    """Classes that have images in every part, and enough of them to be divided 8 : 2."""
    images = torch.bincount(data.labels[data.view == 0], minlength=len(data.classes))
    eligible = images >= 5
    for rows in parts.values():
        eligible &= torch.bincount(data.labels[rows], minlength=len(data.classes)) > 0
    return torch.nonzero(eligible).flatten().numpy()


def left_out(data: MaskedSet, parts: dict[str, Tensor], eligible: np.ndarray) -> str:
    """The classes that are never drawn, and why, in a few words; empty where all are."""
    said = []
    images = torch.bincount(data.labels[data.view == 0], minlength=len(data.classes))
    for label in sorted({*range(len(data.classes))} - {*eligible.tolist()}):
        lacks = [name for name, rows in parts.items() if not (data.labels[rows] == label).any()]
        without = f", none for {' and '.join(lacks)}" if lacks and images[label] else ""
        said.append(f"{data.classes[label]} ({images[label]} images{without})")
    return ", ".join(said[:5]) + (f" and {len(said) - 5} more" if len(said) > 5 else "")


def class_count(text: str, data: MaskedSet, parts: dict[str, Tensor], eligible: np.ndarray, path: Path) -> int:
    """``--classes`` as a number; InputError where there are not so many."""
    count = len(eligible) if text == "all" else int(text)
    if count > len(eligible) or count < 2:
        lacking = left_out(data, parts, eligible)
        raise InputError(
            f"--classes {text}: {path} has {len(data.classes)} classes, {len(eligible)} of them with five images or "
            "more, some in each of training, validation and test part; two or more are needed"
            + (f". Left out: {lacking}. {MEND}" if lacking else "")
        )
    return count


def mlp_data(data: MaskedSet, parts: dict[str, Tensor], draw: Draw) -> DrawData:
    """The rows of a draw's classes in each of the MLP's parts."""
    classes = torch.from_numpy(draw.classes)
    return draw_data(data, draw, {name: rows[torch.isin(data.labels[rows], classes)] for name, rows in parts.items()})


def tree_data(data: MaskedSet, draw: Draw) -> DrawData:
    """The images of a draw's classes, training and test part together, divided 8 : 2."""
    from sklearn.model_selection import train_test_split

    of_classes = torch.isin(data.labels, torch.from_numpy(draw.classes))
    images = torch.nonzero(of_classes & (data.view == 0)).flatten()
    train, test = train_test_split(images, test_size=0.2, stratify=data.labels[images], random_state=draw.seed)
    return draw_data(data, draw, {"train": train, "test": test})


def draw_data(data: MaskedSet, draw: Draw, parts: dict[str, Tensor]) -> DrawData:
    """The rows of each part, read."""
    classes = torch.from_numpy(draw.classes)
    return DrawData(
        count=len(classes),
        seed=draw.seed,
        features={name: data.features(rows) for name, rows in parts.items()},
        labels={name: torch.searchsorted(classes, data.labels[rows]) for name, rows in parts.items()},
        source={name: data.source[rows] for name, rows in parts.items()},
    )


def epoch_steps(data: MaskedSet, parts: dict[str, Tensor], count: int, batch_size: int) -> int:
    """Mini-batches an epoch, for every draw of as many classes: as many as the images of average classes fill."""
    images = len(data.source[parts["train"]].unique()) * count / len(data.labels[parts["train"]].unique())
    return max(1, int(images / batch_size))
