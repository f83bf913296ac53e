"""CIFAR-10, CIFAR-100 and MNIST by torchvision: from disk, or downloaded when missing."""

import contextlib
import errno
import socket
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch

from maskbench import system
from maskbench.data.image_set import ImageSet, resize, split_flags
from maskbench.errors import InputError

PATIENCE = 15.0  # seconds of silence after which a download is given up
# errors of the disk; those of the network come without a number, or with another
_NOT_WRITTEN = {errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}


def torchvision_set(name: str, data_dir: Path, image_size: int) -> ImageSet:
    from maskbench.data.torchvision_import import torchvision

    kind = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST"}[name]
    with contextlib.suppress(OSError):  # torchvision will say so
        data_dir.mkdir(parents=True, exist_ok=True)
    # what another process is still downloading would look damaged
    waiting = f"--data-dir {data_dir}: waiting for another process that reads or downloads there"
    with system.held(data_dir, ".download.lock", waiting):
        parts = [_torchvision_part(getattr(torchvision.datasets, kind), data_dir, train) for train in (True, False)]
    if name == "mnist":
        images = torch.cat([part.data for part in parts])[:, None]
    else:
        images = torch.from_numpy(np.concatenate([part.data for part in parts])).permute(0, 3, 1, 2)
    labels = torch.cat([torch.as_tensor(part.targets, dtype=torch.int64) for part in parts])
    classes, sizes = list(parts[0].classes), [len(part.data) for part in parts]
    if labels.min() < 0 or labels.max() >= len(classes):  # torchvision does not look
        raise InputError(f"--data-dir {data_dir}: the labels of {name} are damaged; delete its files")
    return ImageSet(name, resize(images, image_size), labels, split_flags(*sizes), classes)


def _torchvision_part(dataset: type, data_dir: Path, train: bool):
    """One split from disk; what is missing or fails its MD5 is downloaded first."""
    try:
        return dataset(data_dir, train=train, download=False)
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # torchvision has no narrower promise for damaged bytes
        if not str(error).startswith("Dataset not found"):
            raise InputError(
                f"--data-dir {data_dir}: the files of {dataset.__name__} are damaged "
                f"({error or type(error).__name__}); delete them, then they are downloaded again"
            ) from None
    sources = getattr(dataset, "mirrors", None) or [dataset.url]
    print(f"{dataset.__name__}: downloading from {sources[0]} to {data_dir}", flush=True)
    patience, before = socket.getdefaulttimeout(), {*data_dir.rglob("*.gz")}
    socket.setdefaulttimeout(PATIENCE)
    try:
        return dataset(data_dir, train=train, download=True)
    except (RuntimeError, OSError, ValueError, HTTPException) as error:
        for path in {*data_dir.rglob("*.gz")} - before:  # half of what was to come
            with contextlib.suppress(OSError):
                path.unlink()
        if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
            raise InputError(
                f"--data-dir {data_dir}: {dataset.__name__} is missing or damaged there and cannot be written "
                f"({error.strerror}); make room, or choose another --data-dir"
            ) from None
        raise InputError(
            f"{dataset.__name__} is missing or damaged in --data-dir {data_dir} and cannot be downloaded ({error}); "
            "connect to the network, mend the proxy that the environment names, or put torchvision's files there"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)
