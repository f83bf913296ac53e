"""The device code of the CUDA kernels, run on the CPU by cuda_on_cpu.h: its bits, its order, its races."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from ops_common import needs_kernels
from torch import Tensor

from maskbench.ops import reference

COMPILER = os.environ.get("CXX", "c++").split()
FLAGS = ("-std=c++20", "-O1", "-pthread")
THREADS = 256  # of a block
registered = torch.ops.maskbench

pytestmark = [
    needs_kernels,
    pytest.mark.skipif(not shutil.which(COMPILER[-1]), reason="no C++ compiler"),
]


def compiled(folder: Path, *flags: str, fault: tuple[str, str, str] | None = None) -> Path:
    """The kernels' device code and its launches; ``fault`` replaces text in one of its files."""
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    if fault:
        file, right, wrong = fault
        path = folder / "csrc" / "cuda" / file
        assert path.read_text().count(right) == 1, right
        path.write_text(path.read_text().replace(right, wrong))
    command = [*COMPILER, *FLAGS, *flags, f"-I{folder}/csrc/cuda", str(ROOT / "tests" / "cuda_on_cpu.cpp")]
    subprocess.run([*command, "-o", str(folder / "built")], check=True)
    return folder / "built"


def library(folder: Path, fault: tuple[str, str, str] | None = None) -> ctypes.CDLL:
    return ctypes.CDLL(str(compiled(folder, "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", fault=fault)))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> ctypes.CDLL:
    return library(tmp_path_factory.mktemp("kernels"))


def pointer(tensor: Tensor, before: int = 0) -> ctypes.c_void_p:
    """To the tensor's first number, or to where it would be with so many before it."""
    return ctypes.c_void_p(tensor.data_ptr() - before * tensor.element_size())


def draws(kernels: ctypes.CDLL, rows: int, sizes: tuple[int, int], first_row: int, grid: int) -> tuple[Tensor, Tensor]:
    state, blocks = torch.tensor([3, 7]), torch.randperm(grid)
    parts = [torch.full((rows, size), torch.nan) for size in sizes]
    numbers = [ctypes.c_int64(number) for number in (rows, *sizes, first_row, grid)]
    kernels.sample_prior(pointer(state), *numbers, pointer(blocks), ctypes.c_int64(grid), *map(pointer, parts))
    return tuple(parts)


def losses(kernels: ctypes.CDLL, real: Tensor, fake: Tensor | None, blocks: Tensor) -> tuple[Tensor, Tensor]:
    parts = 1 if fake is None else 2
    loss, gradients = real.new_full((), torch.nan), real.new_full((parts, *real.shape), torch.nan)
    numbers = [ctypes.c_int64(number) for number in (real.numel(), parts, real.shape[1], len(blocks))]
    forward = getattr(kernels, f"bce_forward_{'float' if real.dtype == torch.float32 else 'double'}")
    forward(pointer(real), pointer(real if fake is None else fake), *numbers, *map(pointer, (blocks, gradients, loss)))
    return loss, gradients


def check_draws(kernels: ctypes.CDLL) -> None:
    for rows, *sizes in ((1, 1, 1), (7, 30, 5), (64, 384, 20), (13, 2, 50), (40, 3, 3), (300, 8, 4)):
        for first_row, grid in ((0, 1), (5, 2), (2**40, 3), (0, 40)):  # fewer blocks than work, and more
            found = draws(kernels, rows, sizes, first_row, grid)
            wanted = registered.sample_prior(torch.tensor([3, 7]), rows, *sizes, first_row)
            assert all(map(torch.equal, found, wanted)), (rows, sizes, first_row, grid)


def check_losses(kernels: ctypes.CDLL) -> None:
    for shape, dtype in (((1, 1), torch.float32), ((2, 700), torch.float32), ((2, 1025), torch.float64)):
        real, fake = 4 * torch.randn(2, *shape, dtype=dtype)
        for other in (fake, None):
            wanted, gradients = registered.bce_forward(real, other)
            exact = reference.discriminator_loss(real.double(), fake.double()) if other is not None else None
            for grid in (1, 2, 5):
                orders = [torch.arange(grid), torch.arange(grid).flip(0), torch.randperm(grid)]
                found = [losses(kernels, real, other, order) for order in orders]
                torch.testing.assert_close(found[0][0], wanted, rtol=2e-7, atol=0)
                if exact is not None:
                    torch.testing.assert_close(found[0][0].double(), exact, rtol=1e-6, atol=0)
                for loss, gradient in found:
                    assert torch.equal(loss, found[0][0]), (shape, grid)
                    assert dtype == torch.float64 or torch.equal(gradient, gradients), (shape, grid)
                    torch.testing.assert_close(gradient, gradients, rtol=1e-14, atol=0)


def test_draws_have_the_bits_of_the_cpu_kernel(kernels):
    check_draws(kernels)


def test_losses_do_not_depend_on_the_order_of_blocks(kernels):
    check_losses(kernels)


def test_draws_past_2_to_31_numbers(kernels):
    """Only the blocks that draw some rows there; the memory begins with the first of them."""
    size, categories = 384, 20
    quads = size // 4 + categories // 4
    row = 2**31 // size + 3
    blocks = torch.arange(row * quads // THREADS, (row + 4) * quads // THREADS + 1)
    first, last = blocks[0].item() * THREADS // quads, ((blocks[-1].item() + 1) * THREADS - 1) // quads
    batch, parts = 2 * row, [torch.full((last + 1 - first, width), torch.nan) for width in (size, categories)]
    grid = -(-batch * quads // THREADS)
    numbers = [ctypes.c_int64(number) for number in (batch, size, categories, 0, grid)]
    places = [pointer(part, before=first * part.shape[1]) for part in parts]
    state = torch.tensor([3, 7])
    kernels.sample_prior(pointer(state), *numbers, pointer(blocks), ctypes.c_int64(len(blocks)), *places)
    wanted = registered.sample_prior(state, 4, size, categories, row)
    for part, values in zip(parts, wanted, strict=True):
        assert torch.equal(part[row - first : row - first + 4], values)


def test_no_thread_races_another(tmp_path):
    subprocess.run([compiled(tmp_path, "-fsanitize=thread")], check=True)


FAULTS = {
    "a stride": ("bce_kernel.h", "gridDim.x) * kThreads) {", "gridDim.x) * (kThreads - 1)) {"),
    "a tail": ("sample_prior_kernel.h", "column + i < width", "column + i + 1 < width"),
    "a ticket": ("bce_kernel.h", "== gridDim.x - 1;", "== gridDim.x - 2;"),
    "a lane": ("bce_kernel.h", "int offset = 16; offset > 0", "int offset = 16; offset > 1"),
    "a quad": ("sample_prior_kernel.h", "quad -= quads;", "quad = 0;"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(tmp_path, name):
    kernels = library(tmp_path, FAULTS[name])
    with pytest.raises(AssertionError):
        check_draws(kernels)
        check_losses(kernels)


def test_a_missing_barrier_is_a_race(tmp_path):
    fault = ("bce_kernel.h", "  __syncthreads();\n  double sum", "  double sum")
    result = subprocess.run([compiled(tmp_path, "-fsanitize=thread", fault=fault)], capture_output=True, text=True)
    assert result.returncode and "data race" in result.stderr
