"""Files that are whole or not there, and that cannot run code when they are read.

Every file is written to a temporary name in the same folder, flushed to disk, then renamed, and the folder is flushed
too. Every ``.pt`` file is checked by ``maskbench.archive`` and read with ``torch.load(weights_only=True)``.
"""

import contextlib
import csv
import fcntl
import hashlib
import io
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from maskbench import archive
from maskbench.errors import InputError, require

VERSION = 1  # of every .pt format that says nothing else
PRIVATE_FORMATS = ("maskbench.decoder", "maskbench.checkpoint")  # with either, masks turn back into pictures
_PARTIAL = ".partial"  # how temporary names end


@contextlib.contextmanager
def writing(path: Path, private: bool = False) -> Iterator[BinaryIO]:
    """Open ``path`` for writing so that it appears whole, or not at all.

    Args:
        path: the file, in a folder that exists.
        private: only the owner may read it (mode 0600, from creation on).

    Raises:
        InputError: it cannot be written (disk full, no permission, folder gone); the file before it is kept.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, a file is to be written there; choose another name")
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PARTIAL)
        with os.fdopen(descriptor, "w+b") as file:
            _lock(descriptor)  # remove_leftovers spares a file that is being written
            yield file
            file.flush()
            os.fsync(descriptor)
            if not private:  # mkstemp starts at 0600
                os.fchmod(descriptor, 0o666 & ~_UMASK)
            os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):  # renamed already, or gone with its folder
                os.unlink(temporary)
        # torch wraps what the file said
        fault = error if isinstance(error, OSError) else error.__context__
        if isinstance(fault, OSError) and isinstance(error, (OSError, RuntimeError)):
            reason = fault.strerror or fault
            raise InputError(
                f"{path}: cannot be written ({reason}); mend that or choose another place. Nothing half-written is left"
            ) from None
        raise


def _lock(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed run left in a folder, and none that is being written."""
    for path in folder.glob(f".*{_PARTIAL}"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def make_folder(path: Path, private: bool = False) -> None:
    """Make a folder and those above it, and remove what a killed run left in it.

    Args:
        private: only the owner may look into it (mode 0700, from creation on).

    Raises:
        InputError: that cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
        if private:
            path.chmod(0o700)
    except OSError as error:
        raise InputError(f"{path}: cannot be made a folder ({error.strerror}); choose another place") from None
    remove_leftovers(path)


@contextlib.contextmanager
def output_folder(path: Path, flag: str = "--output-dir") -> Iterator[None]:
    """Make an output folder and hold it alone; where nothing was written in the end, it is gone again.

    Args:
        flag: what gave the path, for complaints.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_folder(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"{flag} {path}: another process is writing there; wait for it or choose another folder"
        ) from None
    except OSError:
        pass  # a file system without locks: nothing can be promised there
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # something is in it
                folder.rmdir()
        os.close(descriptor)


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
            archive.check(file)
        except ValueError as error:
            raise InputError(f"{path}: would not be read again ({error}); nothing was written") from None


def scratch(rows: int, columns: int, folder: Path) -> Tensor:
    """float32 ``[rows, columns]`` in a file without a name, so that the system can take its memory back.

    The file goes with the tensor; until then the folder's disk holds it beside what is written there.

    Raises:
        InputError: no room in the folder.
    """
    size = rows * columns
    if size == 0:
        return torch.empty(rows, columns)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=_PARTIAL) as file:
            _lock(file.fileno())  # remove_leftovers of another process spares it
            os.posix_fallocate(file.fileno(), 0, 4 * size)  # a hole that finds the disk full later would kill
            return torch.from_file(file.name, shared=True, size=size).view(rows, columns)
    except RuntimeError as error:  # torch's, of a file system that cannot map files
        raise InputError(f"{folder}: cannot hold the masks ({error}); choose another place") from None
    except OSError as error:
        raise InputError(f"{folder}: no room for {4 * size:,} bytes ({error.strerror}); choose another place") from None


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
            archive.check(file)
            file.seek(0)
            source = path if mapped else file
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (InputError, PermissionError, MemoryError):
        raise
    except Exception as error:  # neither zipfile nor torch.load has a narrower promise for hostile or cut-off bytes
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise InputError(f"{path}: damaged, or not a maskbench file ({reason}); restore it or make it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("format"), str):
        raise InputError(f"{path}: is not a maskbench file; restore it or make it again")
    return content


def shown(value: Any) -> str:
    """A value of a file for a message: short, whatever it is."""
    return str(value)[:60] if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"


def check_like(wanted: Any, found: Any, name: str) -> None:
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
            check_like(wanted[key], found[key], f"{name}.{key}")
    elif isinstance(wanted, (list, tuple)):
        require(len(wanted) == len(found), f"{name}: wrong length")
        for a, b in zip(wanted, found, strict=True):
            check_like(a, b, name)
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
    require(not name.endswith("variance") or bool((value >= 0).all()), f"{name}: negative variances")


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes: which encoder (or matrix) this is."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
