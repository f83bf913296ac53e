"""One training on several processes, as torchrun starts them: each takes its rows of every mini-batch.

Whatever mixes rows (losses, gradients, the moments for the whitening) is summed over the processes, so N of them
compute what one does, to rounding. Ranks may have uneven shares, 16 rows over 3. On the CPU gloo carries the sums, on
GPUs nccl. One process that torchrun started joins a group of its own and sums nothing after that. In a process that
torchrun did not start, everything here does nothing.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from joblib import cpu_count
from torch import Tensor

from maskbench.errors import InputError

T = TypeVar("T")


def rank() -> int:
    """The number of this process, from 0; process 0 prints and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def started() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def told(name: str, default: int) -> int:
    """What torchrun says in the environment, such as RANK; without torchrun, whoever else says it, the default."""
    value = os.environ.get(name, "") if started() else ""
    return int(value) if value.isdecimal() else default


def local_size() -> int:
    """How many processes torchrun started on this machine."""
    return max(1, told("LOCAL_WORLD_SIZE", 1))


def spare_cores() -> int:
    """Cores that every process may use for workers beside its own, one at least."""
    return max(1, cpu_count() // local_size() - 1)


@contextlib.contextmanager
def processes(device: torch.device, patience: timedelta | None = None) -> Iterator[None]:
    """Join the processes that torchrun started beside this one, until the block ends; all but the first are silent.

    Args:
        device: where tensors will lie; each process of a machine takes a GPU of its own.
        patience: how long a process waits for another that is alive; default: torch's, 30 minutes on CPUs.

    Raises:
        InputError: fewer GPUs than processes, or the others cannot be reached.
    """
    if not started():
        yield
        return
    # An optimiser imports it anyway. Imported later, it keeps the process group alive in a default argument (torch
    # 2.13), and gloo's threads, which then outlive Python, abort the process at its end.
    import torch._dynamo

    if device.type == "cuda":
        if local_size() > torch.cuda.device_count():
            raise InputError(
                f"--nproc-per-node {local_size()}: this machine has {torch.cuda.device_count()} GPU(s); start as many "
                "processes, or use --device cpu"
            )
        torch.cuda.set_device(told("LOCAL_RANK", 0))
    with _reached():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=patience)
        # nccl connects at its first sum: here, so that what is wrong with it shows at once, and in one process, too
        dist.all_reduce(torch.ones((), device=device))
    try:
        with (
            open(os.devnull, "w", errors="replace") as nowhere,
            contextlib.redirect_stdout(sys.stdout if rank() == 0 else nowhere),
        ):
            yield
    finally:
        dist.destroy_process_group()


def share(count: int) -> slice:
    """Which of ``count`` rows are this rank's: as many as another's, or one more."""
    return slice(count * rank() // size(), count * (rank() + 1) // size())


def total(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Sums over the ranks of tensors of one dtype, the same bits on every rank; no gradient flows back."""
    if size() == 1:
        return tensors
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    with _reached():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return tuple(part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True))


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(_, x: Tensor) -> Tensor:
        return total(x)[0].clone()

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        return total(gradient)[0].clone()


def summed(x: Tensor) -> Tensor:
    """Sum over the ranks as :func:`total` gives it, with the gradient of what all ranks make of it."""
    return x if size() == 1 else _Summed.apply(x)


def mean(x: Tensor) -> Tensor:
    """Mean over the rows of all ranks, ``[n, ...]`` -> ``[...]``; no gradient flows back."""
    if size() == 1:
        return x.mean(0)
    sums, rows = total(x.sum(0), x.new_full((), len(x)))
    return sums / rows


def count(x: Tensor) -> int:
    """Rows of all ranks' tensors together."""
    return int(total(torch.tensor(len(x)))[0])


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every gradient by its sum over the ranks, in one message."""
    if size() > 1:
        gradients = [parameter.grad for parameter in parameters]
        for gradient, summed in zip(gradients, total(*gradients), strict=True):
            gradient.copy_(summed)


def largest(*numbers: int) -> list[int]:
    """Of each number the largest that any rank has."""
    if size() == 1:
        return list(numbers)
    found = torch.tensor(numbers)
    with _reached():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def from_all(value: T) -> list[T]:
    """What each rank has, in their order, on every rank."""
    found = [value]
    if size() > 1:
        found = [None] * size()
        with _reached():
            dist.all_gather_object(found, value)
    return found


def from_first(function: Callable[[], T]) -> T:
    """What ``function()`` gives on rank 0, where alone it is called; an InputError of it is raised on every rank."""
    if size() == 1:
        return function()
    result = None
    if rank() == 0:
        try:
            result = function()
        except InputError as error:
            result = error
    box = [result]
    with _reached():
        dist.broadcast_object_list(box, device=torch.device("cpu"))
    if isinstance(box[0], InputError):
        raise box[0]
    return box[0]


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """gloo's and nccl's many words for a process that is gone, in one line."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # of what the environment says, a ValueError
        reason = str(error).strip().split("\n")[0][-120:]
        raise InputError(
            f"another process of torchrun ended or cannot be reached ({reason}); what was saved is kept: start again, "
            "train_aae.py with --resume"
        ) from None
