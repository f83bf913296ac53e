"""Files that are whole or not there, and that cannot run code when they are read.

Every file is written to a temporary name in the same folder, flushed to disk, then renamed. Every
``.pt`` file is read with ``torch.load(weights_only=True)``.
"""

import contextlib
import csv
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from maskbench.errors import InputError

VERSION = 1  # of every .pt format


@contextlib.contextmanager
def writing(path: Path, private: bool = False) -> Iterator[BinaryIO]:
    """Open ``path`` for writing so that it appears whole, or not at all.

    Args:
        path: the file; its folder is made when missing.
        private: only the owner may read it (mode 0600, from creation on).
    """
    make_folder(path.parent)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, a file is to be written there; choose another name")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not private:  # mkstemp starts at 0600
            os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it; InputError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made a folder ({error.strerror}); choose another place") from None


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


_UMASK = _read_umask()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, UTF-8."""
    with writing(path) as file:
        file.write(text.encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a CSV file whole: a line of column names, then the rows."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())


def save(content: dict[str, Any], path: Path, private: bool = False) -> None:
    """Write a ``.pt`` file whole; ``private`` as in :func:`writing`."""
    with writing(path, private) as file:
        torch.save(content, file)


def load(path: Path, wanted: str) -> dict[str, Any]:
    """Read one of our ``.pt`` files without running what may be inside it.

    Args:
        path: the file.
        wanted: its ``format`` field, such as ``maskbench.masked``.

    Raises:
        InputError: missing, damaged, something else, or of a newer version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected a file ({wanted})") from None
    except PermissionError:
        raise
    except Exception as error:  # torch.load has no narrower promise for hostile or cut-off bytes
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise InputError(f"{path}: damaged, or not a {wanted} file ({reason}); restore it or make it again") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != wanted:
        found = found if isinstance(found, str) else "something else"
        raise InputError(f"{path}: holds {found}, expected {wanted}")
    if content.get("version") != VERSION:
        raise InputError(f"{path}: version {content.get('version')}, this maskbench reads {VERSION}; update maskbench")
    return content


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes: which encoder (or matrix) this is."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
