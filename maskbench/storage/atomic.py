"""Files and folders that are whole or not there, and that one process holds at a time.

Every file is written to a temporary name in the same folder, flushed to disk, then renamed, and the folder is flushed
too.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from maskbench import system
from maskbench.errors import InputError

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
            system.lock_file(descriptor)  # remove_leftovers spares a file that is being written
            yield file
            file.flush()
            os.fsync(descriptor)
            if not private:  # mkstemp starts at 0600
                system.set_mode(temporary, 0o666 & ~_UMASK)
            if system.RENAMES_OPEN_FILES:
                os.replace(temporary, path)
        if not system.RENAMES_OPEN_FILES:
            os.replace(temporary, path)
        system.flush_folder(path.parent)
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


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed run left in a folder, and none that is being written."""
    for path in folder.glob(f".*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            with open(path, "r+b") as file:
                is_left = system.lock_file(file.fileno())
            if is_left:
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
            system.set_mode(path, 0o700)
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
    held = contextlib.ExitStack()
    try:
        held.enter_context(system.held(path))
    except BlockingIOError:
        raise InputError(
            f"{flag} {path}: another process is writing there; wait for it or choose another folder"
        ) from None
    try:
        yield
    finally:
        held.close()
        for folder in made:
            with contextlib.suppress(OSError):  # something is in it
                folder.rmdir()


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


_UMASK = _read_umask()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, UTF-8, with escapes for bytes of file names that are none."""
    with writing(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def scratch(rows: int, columns: int, folder: Path) -> Tensor:
    """float32 ``[rows, columns]`` in a file without a name, so that the system can take its memory back.

    The file goes with the tensor; until then the folder's disk holds it beside what is written there.

    Raises:
        InputError: no room in the folder.
    """
    size = rows * columns
    if size == 0 or any("\ud800" <= letter <= "\udfff" for letter in os.path.abspath(folder)):
        return torch.empty(rows, columns)  # torch opens no file whose name is not UTF-8
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=_PARTIAL) as file:
            system.lock_file(file.fileno())  # remove_leftovers of another process spares it
            if not system.reserve(file.fileno(), 4 * size):  # a hole that finds the disk full later would kill
                return torch.empty(rows, columns)
            return torch.from_file(file.name, shared=True, size=size).view(rows, columns)
    except RuntimeError as error:  # torch's, of a file system that cannot map files
        raise InputError(f"{folder}: cannot hold the masks ({error}); choose another place") from None
    except OSError as error:
        raise InputError(f"{folder}: no room for {4 * size:,} bytes ({error.strerror}); choose another place") from None


def digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
