"""The images of a training: loaded, divided, on the device, and known by a fingerprint."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from maskbench.data import datasets
from maskbench.data.folders import FolderImages
from maskbench.data.pixels import Reading
from maskbench.errors import InputError
from maskbench.runtime import torchrun
from maskbench.storage import pt
from maskbench.training.settings import Settings

Images = Tensor | FolderImages


class TrainingImages(NamedTuple):
    """uint8 images ``[N, 3, S, S]`` and ``[M, 3, S, S]``, and which images these are."""

    train: Images
    validation: Images
    fingerprint: str

    @property
    def in_memory(self) -> bool:
        return isinstance(self.train, Tensor)


def load_images(
    settings: Settings, data_dir: Path, workers: int, skip_corrupt: bool, device: torch.device
) -> TrainingImages:
    """The images that ``--dataset`` and ``--limit`` name.

    What fits into memory lies on the device as bytes: a mini-batch is one index, no loader, no workers.

    Raises:
        InputError: too few images, or not the same in every process.
    """
    reading = Reading.of(settings)
    images = datasets.load(settings.dataset, data_dir, settings.image_size, workers, skip_corrupt, reading=reading)
    train_rows, validation_rows = datasets.autoencoder_split(images, settings.limit)
    if len(train_rows) < settings.batch_size or len(validation_rows) < max(2, torchrun.size()):
        raise InputError(
            f"--dataset {settings.dataset}: {len(train_rows)} training and {len(validation_rows)} validation images "
            f"are too few for mini-batches of {settings.batch_size} in {torchrun.size()} process(es)"
        )
    train = datasets.select(images.images, train_rows).to(device)
    validation = datasets.select(images.images, validation_rows).to(device)
    if isinstance(train, Tensor):
        fingerprint = pt.fingerprint({"train": train, "validation": validation})
    else:  # by their files' names and sizes
        fingerprint = f"files {train.fingerprint()} {validation.fingerprint()}"
    if torchrun.from_first(lambda: fingerprint) != fingerprint:
        raise InputError(f"--dataset {settings.dataset}: process {torchrun.rank()} has other images than process 0")
    return TrainingImages(train, validation, fingerprint)


def large_batches(images: Images, most: int | None = None, of_rank: bool = True) -> Iterator[Tensor]:
    """Batches of the images, or the first ``most`` of them; this process's part, unless it works alone."""
    order = torch.arange(len(images))[:most]
    size = max(datasets.large_batch(images.shape[-1]), torchrun.size())  # an image for each process
    return datasets.batches(images, order, size, of_rank)
