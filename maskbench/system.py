"""What differs between systems: everything that other systems than Linux lack is asked for here, and nowhere else.

- *Locks between processes* are filelock's: ``flock`` on Linux and macOS, the system's own on Windows. Without either a
  lock is a file that is there. On a file system without locks, or in a folder that may only be read, nothing is locked.
- *Room on the disk* is reserved before a file is mapped into memory. Where it cannot be (macOS, Windows), masks wait in
  memory.
- *A rename* is made while the file is open and locked, and flushed to the disk with its folder. Windows does neither.
- *Modes* keep a key from others. Windows has none, and a key is read whatever its mode says.
- *Forks* that go on computing with what their parent holds: on Linux alone.
- *Signals* are kept from children as they start, and children end with their parent, where the system can do that.
"""

import contextlib
import ctypes
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

RENAMES_OPEN_FILES = os.name != "nt"
HAS_MODES = os.name != "nt"
FORKS = sys.platform == "linux"  # macOS has forks, and libraries that crash in them
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def held(folder: Path, name: str = ".lock", waiting: str | None = None) -> Iterator[None]:
    """Hold a folder until the block ends.

    Args:
        name: of the file in it that is locked.
        waiting: a line to print where another process holds it, which is then waited for.

    Raises:
        BlockingIOError: another process holds it, and there is no such line.
    """
    path = folder / name
    lock = FileLock(path, timeout=0, mode=0o666)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except Timeout:
            if waiting is None:
                raise BlockingIOError(f"{folder} is held by another process") from None
            print(waiting, flush=True)
            lock.timeout = -1
            stack.enter_context(lock)
        except PermissionError:  # it may be another user's
            pass
        except (OSError, NotImplementedError):
            _remove(path)
        if lock.is_locked:
            stack.callback(_remove, path)
        yield


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows removes no file that is open
        path.unlink()


def lock_file(descriptor: int) -> bool:
    """Lock an open file as long as it is open; False where another process has, or where that cannot be."""
    with contextlib.suppress(OSError):
        return lock_descriptor(descriptor, blocking=False)
    return False


def reserve(descriptor: int, size: int) -> bool:
    """Make an open file so many bytes long, with room for them all on the disk; False where that cannot be asked for.

    Raises:
        OSError: no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # a file system that reserves nothing
            return False
        raise
    return True


def set_mode(path: Path | str, mode: int) -> None:
    """Say who may read a file or folder, where the file system knows modes: shares often refuse them.

    Raises:
        OSError: it cannot be said, as of a folder that is somebody else's.
    """
    try:
        os.chmod(path, mode)
    except OSError as error:
        unknown = error.errno in (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
        ours = os.name == "posix" and error.errno == errno.EPERM and os.stat(path).st_uid == os.geteuid()
        if not unknown and not ours:
            raise


def flush_folder(folder: Path) -> None:
    """Make a rename in a folder last through a power cut, where the file system can."""
    if os.name == "nt":  # it opens no folder
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP):
            raise


@contextlib.contextmanager
def children_deaf_to_ctrl_c() -> Iterator[None]:
    """Within the block, processes are started that Ctrl-C reaches through their parent alone."""
    mask = getattr(signal, "pthread_sigmask", None)
    if mask is None:
        yield
        return
    mask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        mask(signal.SIG_UNBLOCK, {signal.SIGINT})


def die_with_parent(_worker: int = 0) -> None:
    """For a child process to call: it is killed when its parent ends, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


BEFORE_EXEC = die_with_parent if os.name == "posix" else None  # subprocess's preexec_fn, which Windows refuses


def memory() -> float:
    """Bytes that this machine, or this process's container, has; infinite where the system does not say."""
    limits = [float("inf")]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # another system, no limit
            limits.append(int(Path(path).read_text()))
    return min(limits)
