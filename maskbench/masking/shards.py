"""A dataset's masks, in one file or in several equal parts."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from maskbench.data import datasets, masked_set
from maskbench.data.image_set import ImageSet, to_float
from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError
from maskbench.masking.augmentation import augmented
from maskbench.masking.method import MaskingMethod
from maskbench.storage import atomic

Part = tuple[slice, tuple[Tensor, Tensor]]  # places in a shard, and both latent parts of the masks that belong there


@dataclass(frozen=True)
class Copies:
    """Augmented copies of the training images; one of a test image would be tested on.

    Attributes:
        names: what may happen to a copy, see :func:`maskbench.masking.augmentation.augmented`.
        count: copies of each image; 0 for none.
        seed: of their random numbers.
    """

    names: tuple[str, ...] = ()
    count: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Work:
    """What a masked set is made of: all of its shards are.

    Attributes:
        method: what masks, on the device that ``device`` names.
        images: the dataset.
        train, test: int64 rows of the dataset that are masked.
        copies: what is masked beside the images themselves.
        shards: into how many files.
        batch_size: images masked at once.
        device: where.
        sources: int64, what ``source`` says of the training and then of the test images; default: their rows.
    """

    method: MaskingMethod
    images: ImageSet
    train: Tensor
    test: Tensor
    copies: Copies = Copies()
    shards: int = 1
    batch_size: int = 500
    device: torch.device | str = "cpu"
    sources: Tensor | None = None

    @property
    def total(self) -> int:
        """Masks in all shards together."""
        return (1 + self.copies.count) * len(self.train) + len(self.test)

    def head(self) -> dict[str, object]:
        """What every shard says of the whole set."""
        return {
            "method": self.method.name,
            "encoder": self.method.fingerprint,
            # a folder's path stays at home; how its pictures were read does not: other shards are no part of this set
            "dataset": " ".join([self.images.name.split(":")[0], *self.images.reading.stated()]),
            "classes": self.images.classes,
        }


class Shard:
    """One of several equal parts of a dataset, and the places of its masks in its file.

    The masks of the images come first, training before test, then the first copies of the training images, and so on.

    Args:
        work: the whole.
        number: of this shard, from 0.
    """

    def __init__(self, work: Work, number: int):
        self.work, self.number = work, number
        self.train, test = (rows[number :: work.shards] for rows in (work.train, work.test))
        self.rows = torch.cat((self.train, test))
        sources = work.sources if work.sources is not None else torch.cat((work.train, work.test))
        parts = sources.split((len(work.train), len(work.test)))
        self.sources = torch.cat([part[number :: work.shards] for part in parts])

    def columns(self) -> dict[str, Tensor]:
        """What a masked set says of each mask beside its numbers."""
        views = [self.rows, *[self.train] * self.work.copies.count]
        sources = [self.sources, *[self.sources[: len(self.train)]] * self.work.copies.count]
        places = torch.cat(views)
        numbers = [torch.full((len(rows),), view, dtype=torch.uint8) for view, rows in enumerate(views)]
        images = self.work.images
        return {
            "labels": images.labels[places],
            "split": images.split[places],
            "source": torch.cat(sources),
            "view": torch.cat(numbers),
        }

    @torch.inference_mode()
    def masks(self) -> Iterator[Part]:
        """Run every view of the shard's images through the method, batch by batch."""
        work, copies = self.work, self.work.copies
        # drawn for all images at once: a copy depends neither on its batch nor on its shard
        generator = torch.Generator().manual_seed(copies.seed)
        views = [len(work.train) + len(work.test), *[len(work.train)] * copies.count]
        random = [torch.rand(rows, 3, generator=generator)[self.number :: work.shards].clone() for rows in views]
        done = 0
        for batch in datasets.batches(work.images.images, self.rows, work.batch_size):
            pixels = to_float(batch.to(work.device))
            yield slice(done, done + len(pixels)), work.method.encode(pixels)
            training = pixels[: max(0, len(self.train) - done)]
            for view in range(1, copies.count + 1) if len(training) else ():
                numbers = random[view][done : done + len(training)].to(work.device)
                first = len(self.rows) + (view - 1) * len(self.train) + done
                copy = augmented(training, copies.names, numbers)
                yield slice(first, first + len(training)), work.method.encode(copy)
            done += len(pixels)

    def mask(self, folder: Path | None = None, progress: tqdm | None = None) -> MaskedSet:
        """The shard's masked set.

        Args:
            folder: where the masks wait, in files without a name; in memory without it.
            progress: is told of every mask.
        """
        columns = self.columns()
        parts = [
            torch.empty(len(columns["view"]), width)
            if folder is None
            else atomic.scratch(len(columns["view"]), width, folder)
            for width in self.work.method.widths
        ]
        for places, of_batch in self.masks():
            for part, of_part in zip(parts, of_batch, strict=True):
                part[places] = of_part.cpu()
            if progress is not None:
                progress.update(len(of_batch[0]))
        return MaskedSet(**self.work.head(), **columns, gaussian=parts[0], categorical=parts[1])

    def is_in(self, path: Path) -> bool:
        """Whether the file is this shard: the same rows, and the first masks made again are those in it.

        Not where an image's file, or that of all, was written since.
        """
        if not path.exists() or self.work.images.written(self.rows) > path.stat().st_mtime:
            return False
        try:
            there = masked_set.load_file(path)
        except InputError:  # damaged: it is made again
            return False
        same = all(getattr(there, name) == value for name, value in self.work.head().items())
        same = same and all(torch.equal(getattr(there, name), column) for name, column in self.columns().items())
        # the second masks are copies, where there are any
        for places, of_batch in itertools.islice(self.masks(), 2) if same else ():
            for part, rows in zip((there.gaussian, there.categorical), of_batch, strict=True):
                if part[places].shape != rows.shape or not torch.allclose(part[places], rows.cpu(), 1e-3, 1e-3):
                    return False
        return same
