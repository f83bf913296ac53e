"""Our ``.pt`` files: written whole, and read without running what may be inside them.

Every file is checked by :mod:`maskbench.storage.pt_contents` and read with ``torch.load(weights_only=True)``.
"""

import hashlib
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskbench import system
from maskbench.errors import InputError, is_of_memory, require
from maskbench.storage import pt_contents
from maskbench.storage.atomic import writing

VERSION = 1  # of every .pt format that says nothing else
PRIVATE_FORMATS = ("maskbench.decoder", "maskbench.checkpoint")  # with either, masks turn back into pictures


def save(content: dict[str, Any], path: Path, private: bool = False) -> None:
    """Write a ``.pt`` file whole, and none that :func:`load` would refuse.

    Args:
        content: text keys; values are numbers, text, tensors, and lists, tuples and dictionaries of them.
        private: as in :func:`writing`.

    Raises:
        InputError: the content is something else, or as in :func:`writing`.
    """
    with writing(path, private) as file:
        torch.save(_plain(content), file)
        file.flush()
        try:
            pt_contents.check(file)
        except ValueError as error:
            raise InputError(f"{path}: would not be read again ({error}); nothing was written") from None


def _plain(value: Any) -> Any:
    """The same on the CPU, as plain types; a tensor takes none of the memory around it along."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        return value.clone() if value.untyped_storage().nbytes() != value.nbytes else value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def load(path: Path, wanted: str, version: int = VERSION, mapped: bool = False) -> dict[str, Any]:
    """Read one of our ``.pt`` files without running what may be inside it.

    Args:
        path: the file.
        wanted: its ``format`` field, such as ``maskbench.masked``.
        version: its ``version`` field.
        mapped: leave its tensors on the disk until they are read, where the system may take their memory back.

    Raises:
        InputError: missing, damaged, something else, or of another version.
    """
    content = read(path, mapped)
    found = content["format"]
    if found != wanted:
        warning = "; it is private, keep it to yourself: with it masks turn back into pictures"
        raise InputError(f"{path}: holds {found}, expected {wanted}{warning if found in PRIVATE_FORMATS else ''}")
    stated = content.get("version")
    if type(stated) is not int or stated != version:
        if stated is None:
            raise InputError(f"{path}: lacks its version; restore it or make it again (maskbench.save writes masks)")
        advice = "make it again" if type(stated) is int and stated < version else "update maskbench"
        raise InputError(f"{path}: version {shown(stated)}, this maskbench reads {version}; {advice}")
    return content


def read(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Read any of our ``.pt`` files: a dictionary whose ``format`` is text; nothing else in it is checked.

    Raises:
        InputError: missing, damaged, or not ours.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would keep us waiting
            raise InputError(f"{path}: is a folder or a device, expected a file")
        with open(path, "rb") as file:
            pt_contents.check(file)
            file.seek(0)
            source = path if mapped else file
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (InputError, PermissionError, MemoryError):
        raise
    except pt_contents.EditedError as error:
        raise InputError(f"{path}: {error} before torch.save (maskbench.save writes masks)") from None
    except Exception as error:  # neither zipfile nor torch.load has a narrower promise for hostile or cut-off bytes
        if is_of_memory(error):
            raise MemoryError from None
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise InputError(f"{path}: damaged, or not a maskbench file ({reason}); restore it or make it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("format"), str):
        raise InputError(f"{path}: is not a maskbench file; restore it or make it again")
    return content


def is_large(path: Path) -> bool:
    """Whether a file is large beside the memory, so that its tensors are better left on the disk."""
    try:
        return path.stat().st_size > system.memory() / 4
    except OSError:  # which read says better
        return False


def shown(value: Any) -> str:
    """A value of a file for a message: short, whatever it is."""
    if isinstance(value, list) and all(type(item) is float for item in value[:8]):
        return " ".join(map(str, value[:8]))
    return str(value)[:60] if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"


def check_matches(wanted: Any, found: Any, name: str) -> None:
    """The same names, shapes, dtypes and types all the way down, and finite values.

    Args:
        wanted: a value of the kind that is expected; numbers, text and the tensors' contents may differ.
        found: what a file holds.
        name: what it is, for complaints.

    Raises:
        ValueError: they differ.
    """
    require(
        type(found) is type(wanted) or (isinstance(wanted, dict) and isinstance(found, dict)), f"{name}: wrong type"
    )
    if isinstance(wanted, Tensor):
        check_tensor(found, wanted.shape, wanted.dtype, name)
    elif isinstance(wanted, dict):
        require(wanted.keys() == found.keys(), f"{name}: other entries than this network has")
        for key in wanted:
            check_matches(wanted[key], found[key], f"{name}.{key}")
    elif isinstance(wanted, (list, tuple)):
        require(len(wanted) == len(found), f"{name}: wrong length")
        for a, b in zip(wanted, found, strict=True):
            check_matches(a, b, name)
    elif isinstance(wanted, float):
        require(math.isfinite(found), f"{name}: not finite")


def first_not_finite(states: dict[str, Any], name: str = "") -> str | None:
    """Name of the first tensor in nested dictionaries that holds a value that is not finite, or None."""
    for key, value in states.items():
        path = f"{name}.{key}" if name else str(key)
        if isinstance(value, dict) and (found := first_not_finite(value, path)):
            return found
        if isinstance(value, Tensor) and not value.isfinite().all():
            return path
    return None


def check_tensor(value: Any, shape: Sequence[int], dtype: torch.dtype, name: str) -> None:
    """ValueError unless ``value`` is a tensor of this shape and dtype whose values are finite."""
    fits = isinstance(value, Tensor) and value.shape == torch.Size(shape) and value.dtype == dtype
    require(fits, f"{name}: wrong shape or type")
    require(bool(value.isfinite().all()), f"{name}: values that are not finite")


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes: which encoder (or matrix) this is."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
