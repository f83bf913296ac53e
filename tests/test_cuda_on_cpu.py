"""The device code of the CUDA kernels, run on the CPU by cuda_on_cpu.h: its bits, its order, its races."""

import ctypes
import faulthandler
import itertools
import math
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from ops_common import COMPILER, DTYPES, logits, needs_compiler, needs_kernels, state
from test_sample_prior import ROW_OF_LN_1
from torch import Tensor

FLAGS = ("-std=c++20", "-O1")
LIBRARY_FLAGS = ("-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno")
THREADS = 256  # of a block
GUARD = 64  # cells on either side of a buffer
LEFT_ALONE = -12345.0  # in them
BARRIER = "  __syncthreads();\n"
registered = torch.ops.maskbench

pytestmark = [needs_kernels, needs_compiler]


def compiled(csrc: Path, folder: Path, *flags: str) -> Path:
    """The kernels' device code and its launches."""
    command = [*COMPILER, *FLAGS, *flags, f"-I{csrc}/cuda", str(ROOT / "tests" / "cuda_on_cpu.cpp")]
    subprocess.run([*command, "-o", str(folder / "built")], check=True, timeout=120)
    return folder / "built"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> ctypes.CDLL:
    return ctypes.CDLL(str(compiled(ROOT / "csrc", tmp_path_factory.mktemp("kernels"), *LIBRARY_FLAGS)))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Path:
    """The sources with all of FAULTS in them, each there where ``planted`` is its number: compiled once for all."""
    csrc = tmp_path_factory.mktemp("faulty") / "csrc"
    shutil.copytree(ROOT / "csrc", csrc)
    for number, fault in enumerate(FAULTS.values(), start=1):
        path = csrc / "cuda" / fault.file
        assert path.read_text().count(fault.right) == 1, fault.right
        path.write_text(path.read_text().replace(fault.right, fault.wrong.replace("FAULT", f"(planted == {number})")))
    return csrc


@pytest.fixture(scope="module")
def faulty_kernels(faulty) -> ctypes.CDLL:
    return ctypes.CDLL(str(compiled(faulty, faulty.parent, *LIBRARY_FLAGS)))


@pytest.fixture(scope="module")
def watched(faulty, tmp_path_factory) -> Path:
    """The program that ThreadSanitizer looks at."""
    return compiled(faulty, tmp_path_factory.mktemp("watched"), "-fsanitize=thread", "-DWATCHED")


def pointer(tensor: Tensor, before: int = 0) -> ctypes.c_void_p:
    """To the tensor's first number, or to where it would be with so many before it, or so many fewer."""
    return ctypes.c_void_p(tensor.data_ptr() - before * tensor.element_size())


def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """What a kernel writes into: no numbers, between cells that it must leave alone."""
    whole = torch.full((math.prod(shape) + 2 * GUARD,), LEFT_ALONE, dtype=dtype)
    return whole[GUARD:-GUARD].view(shape).fill_(torch.nan)


def check_guards(*buffers: Tensor) -> None:
    for whole in (part._base for part in buffers):
        assert (torch.cat((whole[:GUARD], whole[-GUARD:])) == LEFT_ALONE).all(), "a guard cell was written"


def shuffled(blocks: int, seed: int = 0) -> Tensor:
    return torch.randperm(blocks, generator=torch.Generator().manual_seed(blocks + seed))


def draws(
    kernels: ctypes.CDLL, state: Tensor, rows: int, sizes: tuple[int, int], first_row: int, grid: int
) -> list[Tensor]:
    parts = [buffer(rows, size) for size in sizes]
    numbers = [ctypes.c_int64(number) for number in (rows, *sizes, first_row, grid)]
    blocks = shuffled(grid)
    kernels.sample_prior(pointer(state), *numbers, pointer(blocks), ctypes.c_int64(grid), *map(pointer, parts))
    check_guards(*parts)
    return parts


def losses(kernels: ctypes.CDLL, real: Tensor, fake: Tensor | None, blocks: Tensor) -> tuple[Tensor, Tensor]:
    grid, parts = len(blocks), 1 if fake is None else 2
    sums, ticket = buffer(grid, dtype=torch.float64), torch.tensor([7], dtype=torch.int32)  # as memory comes: not zero
    loss, gradients = buffer(1, dtype=real.dtype), buffer(parts, *real.shape, dtype=real.dtype)
    numbers = [ctypes.c_int64(number) for number in (real.numel(), parts, real.shape[1], grid)]
    forward = getattr(kernels, f"bce_forward_{'float' if real.dtype == torch.float32 else 'double'}")
    logits = pointer(real), pointer(real if fake is None else fake)
    places = map(pointer, (gradients, loss, sums, ticket))
    forward(*logits, *numbers, pointer(blocks), ctypes.c_int64(grid), *places)
    check_guards(sums, loss, gradients)
    return loss[0], gradients


def check_draws(kernels: ctypes.CDLL, rows: int, sizes: tuple[int, int], grids: Sequence[int]) -> None:
    for grid in grids:
        found = draws(kernels, state(1234, 5), rows, sizes, 7, grid)
        wanted = registered.sample_prior(state(1234, 5), rows, *sizes, 7)
        assert all(map(torch.equal, found, wanted)), grid


def check_losses(
    kernels: ctypes.CDLL, real: Tensor, fake: Tensor | None, grids: Sequence[int], orders: int = 2
) -> None:
    """In any order of the blocks: one loss, rounded, and the gradients of the CPU kernel."""
    _, gradients = registered.bce_forward(real, fake)
    exact = F.softplus(-real.double()).mean(1).sum() + (0 if fake is None else F.softplus(fake.double()).mean(1).sum())
    single = real.dtype == torch.float32
    for grid in grids:
        up = torch.arange(grid)
        several = (up.flip(0), shuffled(grid), up, shuffled(grid, 1), shuffled(grid, 2))[: min(orders, grid)]
        found = [losses(kernels, real, fake, order) for order in several]
        for value, gradient in found:
            assert torch.equal(value, found[0][0]) or (value.isnan() and exact.isnan())
            bound = 1e-7 if single else 1e-13  # float: the sum is rounded once
            torch.testing.assert_close(value.double(), exact, rtol=bound, atol=0, equal_nan=True)
            if single:
                assert torch.equal(gradient.nan_to_num(7), gradients.nan_to_num(7)), grid
            torch.testing.assert_close(gradient, gradients, rtol=1e-14, atol=0, equal_nan=True)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [logits(*shape, seed=seed, dtype=dtype) for seed in range(2)]


@pytest.mark.parametrize("gaussian_dim", [1, 2, 3, 5, 383, 384])
def test_draws_have_the_bits_of_the_cpu_kernel(kernels, gaussian_dim):
    for rows, categories in itertools.product((1, 3, 17, 41), (1, 2, 20, 1000)):
        quads = rows * (-(-gaussian_dim // 4) + -(-categories // 4))
        needed = -(-quads // THREADS)
        check_draws(kernels, rows, (gaussian_dim, categories), {1, 2, needed, needed + 1} if rows == 41 else {needed})


@pytest.mark.parametrize(
    ("seed", "offset", "rows", "sizes", "first_row"),
    [
        (-1, 0, 3, (5, 20), 0),
        (-(2**63), 2**63 - 1, 3, (5, 20), 0),
        (2**63 - 1, -1, 3, (5, 20), 0),
        (2**32, 2**32, 3, (5, 20), 2**32),  # words past the low half
        (3, 0, 3, (5, 20), 2**62),  # the block number wraps
        (0, 0, 1, (384, 20), ROW_OF_LN_1),
        (3, 7, 300, (8, 4), 2**40),
    ],
)
def test_draws_use_all_64_bits(kernels, seed, offset, rows, sizes, first_row):
    for grid in (1, 3):
        found = draws(kernels, state(seed, offset), rows, sizes, first_row, grid)
        assert all(map(torch.equal, found, registered.sample_prior(state(seed, offset), rows, *sizes, first_row)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 16), (2, 17), (3, 41), (2, 4097), (1, 70_001)])
def test_losses_do_not_depend_on_the_order_of_blocks(kernels, shape, dtype):
    """Of more than 256 blocks a thread of the last one adds up several."""
    real, fake = inputs(*shape, dtype=dtype)
    needed = -(-2 * real.numel() // THREADS)
    check_losses(kernels, real, fake, {1, 2, 5} | ({needed} if needed < 100 else {257, 600}))
    check_losses(kernels, real, None, (1, 3))


def test_losses_are_the_same_in_five_orders_of_blocks(kernels):
    """In double, since rounding to float would hide in which order sums were added."""
    check_losses(kernels, *inputs(2, 4097, dtype=torch.float64), (33,), orders=5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_of_extreme_logits_and_of_no_number(kernels, dtype):
    values = torch.tensor([-1e4, -100, -88, -87, -20, -1e-8, -0.0, 0.0, 1e-8, 20, 87, 88, 100, 1e4], dtype=dtype)
    for real in (values.repeat(2, 3), torch.full((1, 33), 15.0, dtype=dtype), torch.full((1, 33), 80.0, dtype=dtype)):
        check_losses(kernels, real, -real, (1, 2))
        check_losses(kernels, real, None, (1, 2))
    real, fake = inputs(2, 37, dtype=dtype)
    fake[1, 5] = torch.nan
    check_losses(kernels, real, fake, (1, 2))
    loss, gradients = losses(kernels, real, fake, shuffled(2))
    assert loss.isnan() and gradients[1, 1, 5].isnan() and gradients.isnan().sum() == 1


def test_blocks_for_work(kernels):
    """What csrc/cuda/launch.h asks for: all work in one wave, where it fits."""
    kernels.blocks_for.restype = ctypes.c_int64
    blocks = lambda *numbers: kernels.blocks_for(*map(ctypes.c_int64, numbers))  # noqa: E731
    assert [blocks(work, 792) for work in (1, 256, 257, 792 * 256, 2**40)] == [1, 1, 2, 792, 792]


def of_draws(kernels: ctypes.CDLL) -> None:
    for rows, sizes in ((1, (1, 1)), (41, (383, 20)), (300, (8, 4))):
        check_draws(kernels, rows, sizes, (1, 3))


def of_losses(kernels: ctypes.CDLL) -> None:
    check_losses(kernels, *inputs(2, 700), (1, 3))


def of_many_losses(kernels: ctypes.CDLL) -> None:
    check_losses(kernels, *inputs(1, 33_000), (257,), orders=1)


def of_large_draws(kernels: ctypes.CDLL) -> None:
    """Only the blocks that draw some rows there; the memory begins with the first of them."""
    size, quads = 384, 192  # of either part, of both
    row = 2**32 // quads + 3
    blocks = torch.arange(row * quads // THREADS, (row + 4) * quads // THREADS + 1)
    first, last = blocks[0].item() * THREADS // quads, ((blocks[-1].item() + 1) * THREADS - 1) // quads
    batch, parts = 2 * row, [buffer(last + 1 - first, size) for _ in range(2)]
    numbers = [ctypes.c_int64(number) for number in (batch, size, size, 0, -(-batch * quads // THREADS))]
    places = [pointer(part, before=first * size) for part in parts]
    rng_state = state(3, 7)
    kernels.sample_prior(pointer(rng_state), *numbers, pointer(blocks), ctypes.c_int64(len(blocks)), *places)
    check_guards(*parts)
    for part, wanted in zip(parts, registered.sample_prior(rng_state, 4, size, size, row), strict=True):
        assert torch.equal(part[row - first : row - first + 4], wanted)


def of_large_losses(kernels: ctypes.CDLL) -> None:
    """Two blocks of real logits, of fake ones and of both; the memory begins with the first of them."""
    rows, count = 2**31, 3 * 2**31
    values = logits(1, 2 * THREADS)
    _, of_few = registered.bce_forward(values, values)
    gradients = (of_few * (values.numel() / rows)).flatten(1)  # by a power of two: the same bits
    for block in (2**24 + 1, count // THREADS - 1, count // THREADS + 2**24 + 1):
        first, blocks = block * THREADS, torch.tensor([block, block + 1])
        sums, found, loss = buffer(2, dtype=torch.float64), buffer(values.numel()), buffer(1)
        ticket = torch.zeros(1, dtype=torch.int32)
        numbers = [ctypes.c_int64(number) for number in (count, 2, rows, 2 * count // THREADS + 5)]
        places = pointer(found, before=first), pointer(loss), pointer(sums, before=block), pointer(ticket)
        both = [pointer(values, before=first - begin) for begin in (0, count)]
        kernels.bce_forward_float(*both, *numbers, pointer(blocks), ctypes.c_int64(2), *places)
        check_guards(sums, found, loss)
        fake = torch.arange(first, first + values.numel()) >= count
        assert torch.equal(found, torch.where(fake, *gradients.flip(0)))
        exact = F.softplus(torch.where(fake, values, -values).double()).view(2, THREADS).sum(1)
        torch.testing.assert_close(sums, exact, rtol=1e-6, atol=0)
        assert loss.isnan().all() and ticket == 2


def in_a_child(check: Callable[[ctypes.CDLL], None], kernels: ctypes.CDLL) -> None:
    """A wrong address may be anybody's."""

    def run() -> None:
        faulthandler.disable()
        check(kernels)

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(120)
    if child.exitcode is None:
        child.kill()
        raise TimeoutError  # which is no fault that was found
    assert child.exitcode == 0


def of_threads(watched: Path, planted: int = 0) -> None:
    """The program, until ThreadSanitizer has found a race."""
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    result = subprocess.run([watched, str(planted)], env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


class Fault(NamedTuple):
    """Who finds it, where it is, what is replaced, and what is then said."""

    check: Callable
    file: str
    right: str
    wrong: str
    said: str | None = None


def narrow(check: Callable, file: str, expression: str, before: str = "") -> Fault:
    """An expression of 64 bits that has 32."""
    return Fault(check, file, before + expression, f"{before}(FAULT ? static_cast<int>({expression}) : {expression})")


def without_barrier(after: str) -> Fault:
    return Fault(of_threads, LOSSES, BARRIER + after, f"  if (!FAULT){BARRIER}{after}", "data race")


LOSSES, DRAWS = "bce_kernel.h", "sample_prior_kernel.h"
SUMS = "  if (threadIdx.x % 32 == 0) warp_sums"
THREAD, STRIDE = (f"static_cast<int64_t>({index}.x) * kThreads" for index in ("blockIdx", "gridDim"))
FAULTS = {
    "a stride": Fault(of_losses, LOSSES, f"{STRIDE}) {{", f"{STRIDE} - FAULT) {{"),
    "a tail that ends early": Fault(of_draws, DRAWS, "column + i < width", "column + i + FAULT < width"),
    "a tail that ends late": Fault(of_draws, DRAWS, " width) row[", " width + FAULT) row[", "guard cell"),
    "a tail of losses": Fault(of_losses, LOSSES, "i < parts * count;", "i < parts * count + FAULT;", "guard cell"),
    "a ticket": Fault(of_losses, LOSSES, "== gridDim.x - 1;", "== gridDim.x - 1 - FAULT;"),
    "a ticket that is not reset": Fault(of_losses, LOSSES, "(grid > 1) zero(", "(grid > (FAULT ? 9 : 1)) zero("),
    "a stride of sums": Fault(of_many_losses, LOSSES, "i += kThreads)", "i += kThreads + FAULT)"),
    "a lane": Fault(of_losses, LOSSES, "value, offset)", "value, offset ^ FAULT)"),
    "a quad": Fault(of_draws, DRAWS, "quad -= quads;", "quad = FAULT ? 0 : quad - quads;"),
    "a scale": Fault(of_losses, LOSSES, "static_cast<T>(rows)", "static_cast<T>(FAULT ? count : rows)"),
    "a step": Fault(of_draws, DRAWS, "threads / quads,", "threads / quads + FAULT,"),
    "a missing barrier of sums": without_barrier("  double sum = 0;\n  if"),
    "a missing barrier of the ticket": without_barrier("  if (!last) return;"),
    "a barrier of one thread": Fault(
        of_threads, LOSSES, SUMS, f"  if (FAULT && threadIdx.x == 9){BARRIER}{SUMS}", "different barriers"
    ),
    "a thread that goes on alone": Fault(
        of_threads, LOSSES, "(!last) return;", "(!last && (!FAULT || threadIdx.x)) return;", "never come"
    ),
    "a part of a warp": Fault(of_threads, LOSSES, "(0xFFFFFFFF,", "(0xFFFFFFFF >> FAULT,", "full mask"),
    "a wide store": Fault(of_threads, DRAWS, "(width % 4 == 0)", "(width % (FAULT ? 2 : 4) == 0)", "16 bytes"),
    "threads of draws": narrow(of_large_draws, DRAWS, THREAD),
    "threads of a grid": narrow(of_large_draws, DRAWS, "grid * kThreads"),
    "an offset of draws": narrow(of_large_draws, DRAWS, "row * width"),
    "threads of losses": narrow(of_large_losses, LOSSES, THREAD),
    "a long stride of losses": narrow(of_large_losses, LOSSES, STRIDE, "i += "),
    "an offset of fake logits": narrow(of_large_losses, LOSSES, "i - count"),
    "an offset of real logits": narrow(of_large_losses, LOSSES, "i", "real["),
    "an offset of gradients": narrow(of_large_losses, LOSSES, "i", "gradients["),
}


@pytest.mark.parametrize("check", [of_large_draws, of_large_losses])
def test_threads_and_numbers_past_2_to_32(kernels, check):
    in_a_child(check, kernels)


def test_no_thread_races_another(watched):
    of_threads(watched)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(request, name):
    check, number, said = FAULTS[name].check, 1 + list(FAULTS).index(name), FAULTS[name].said
    if check is of_threads:
        with pytest.raises(AssertionError, match=said):
            of_threads(request.getfixturevalue("watched"), number)
        return
    kernels = request.getfixturevalue("faulty_kernels")
    planted = ctypes.c_int.in_dll(kernels, "planted")
    planted.value = 0
    check(kernels)  # none of them is there unasked
    planted.value = number
    with pytest.raises(AssertionError, match=said):
        in_a_child(check, kernels) if check in (of_large_draws, of_large_losses) else check(kernels)
