"""Child processes that do not outlive their parent."""

import functools
import multiprocessing
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import torch.multiprocessing
from torch import Tensor
from tqdm import tqdm

from maskbench import system
from maskbench.runtime import command_line

_POLL = 0.2  # seconds until a signal is passed on
_SHARED = Path("/dev/shm")  # where Linux keeps memory that processes share


def can_share(*tensors: Tensor) -> bool:
    """Whether these fit into the memory that processes may share; containers often have little."""
    size = sum(tensor.nbytes for tensor in tensors)
    return not _SHARED.exists() or shutil.disk_usage(_SHARED).free > 1.1 * size


def run_in_parallel(work: Callable[..., None], calls: Sequence[tuple], jobs: int) -> None:
    """``work(*call)`` for every call in a process of its own, at most ``jobs`` at once, in order.

    Each process ends as a script does (:func:`maskbench.runtime.command_line.run`): with a line of its own where it
    fails. Where one fails, and at SIGINT or SIGTERM, no other is begun, and those that run are sent SIGTERM and waited
    for.

    Args:
        work: a function of an importable module or of the script that runs.
        calls: its arguments; tensors in them are shared, not copied.

    Raises:
        SystemExit: one failed, or a signal came.
    """
    context = torch.multiprocessing.get_context("spawn")
    lock = context.RLock()
    waiting, running = list(calls), []
    status, heard, passed_on = 0, [], 0

    def hear(number: int, _frame: object) -> None:
        heard.append(number)
        print("\nstopping every process; what is finished is kept", file=sys.stderr)

    before = {
        number: signal.signal(number, hear)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        while running or (waiting and not heard and not status):
            while waiting and len(running) < jobs and not heard and not status:
                process = context.Process(target=_child, args=(work, waiting.pop(0), lock))
                with system.children_deaf_to_ctrl_c():  # it reaches them through their parent, and only once
                    process.start()
                running.append(process)
            wait([process.sentinel for process in running], _POLL)
            ended = [process for process in running if process.exitcode is not None]
            running = [process for process in running if process not in ended]
            failed = [process.exitcode for process in ended if process.exitcode]
            if passed_on < len(heard) or (failed and not status and not heard):
                passed_on = len(heard)
                for process in running:
                    process.terminate()
            status = status or next(iter(failed), 0)
    finally:
        for process in running:
            process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        sys.exit(128 + heard[0])
    if status:
        sys.exit(status if status > 0 else 128 - status)


def _child(work: Callable[..., None], call: tuple, lock: object) -> None:
    system.die_with_parent()
    tqdm.set_lock(lock)  # progress bars of several processes in one terminal
    command_line.run(lambda: work(*call))


def in_forks(
    work: Callable[[int], dict[str, Tensor]], numbers: Sequence[int], jobs: int, folder: Path
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """``work(number)`` for each, in ``jobs`` forks of this process with one thread each; with one job in itself.

    Forks share the memory that is there when they begin.

    Args:
        work: anything that can be called: it is inherited, not sent.
        numbers: are begun in this order.
        folder: where forks put results, each until it is yielded, in a folder of their own.

    Yields:
        A number and its result, in the order in which they are finished.

    Raises:
        BrokenProcessPool: a fork was killed.
    """
    global _inherited
    if jobs == 1:
        yield from ((number, work(number)) for number in numbers)
        return
    others = multiprocessing.active_children()
    own_folder = tempfile.TemporaryDirectory(dir=folder)
    _inherited = work, Path(own_folder.name)
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _begin_fork)
    try:
        with system.children_deaf_to_ctrl_c():  # all are forked at the first call
            futures = {pool.submit(_call_inherited, number): number for number in numbers}
        for future in as_completed(futures):
            path = future.result()
            with np.load(path) as found:
                result = {name: torch.from_numpy(values) for name, values in found.items()}
            path.unlink()
            yield futures[future], result
    except BaseException:
        for fork in multiprocessing.active_children():
            if fork not in others:
                fork.kill()
        raise
    finally:
        _inherited = None
        pool.shutdown(cancel_futures=True)
        own_folder.cleanup()


_inherited: tuple[Callable[[int], dict[str, Tensor]], Path] | None = None  # the work, and where its results go


def _begin_fork() -> None:
    system.die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # to a whole group: it stops the parent, which ends its forks
    torch.set_num_threads(1)  # OpenMP's threads are not inherited, and it would wait for them
    tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)  # bars of several would overwrite each other


def _call_inherited(number: int) -> Path:
    """The file of the result. If a fork were killed while it sent a large one, its parent would wait for the rest."""
    work, folder = _inherited
    path = folder / f"{number}.npz"
    np.savez(path, **{name: values.numpy() for name, values in work(number).items()})
    return path
