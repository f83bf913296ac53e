"""What the tests of the ops share: which of them can run here, inputs, and comparisons."""

import itertools
import os
import shutil

import pytest
import torch
from torch import Tensor

from maskbench import ops

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")),
]

on_devices = pytest.mark.parametrize("device", DEVICES)
needs_kernels = pytest.mark.skipif(ops.backend("cpu") == "reference", reason="no compiled kernels in this run")
needs_cuda_kernels = pytest.mark.skipif(ops.backend("cuda") != "cuda", reason="no CUDA kernels in this run")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

COMPILER = os.environ.get("CXX", "c++").split()
PROGRAMS = [word for word in COMPILER if not word.startswith("-")]  # such as ccache g++
needs_compiler = pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="no C++ compiler")

DTYPES = [torch.float32, torch.float64]


def state(seed: int, offset: int = 0, device: str = "cpu") -> torch.Tensor:
    return torch.tensor([seed, offset], dtype=torch.int64, device=device)


def logits(*shape: int, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(device, dtype)


def assert_close(draws: torch.Tensor, oracle: torch.Tensor) -> None:
    """The promised bound on normals: 2e-6 * max(1, |x|)."""
    assert draws.shape == oracle.shape and draws.dtype == oracle.dtype and draws.is_contiguous()
    assert ((draws - oracle).abs() <= 2e-6 * oracle.abs().clamp(min=1)).all()


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def value_and_gradients(result: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [result, *torch.autograd.grad(result, inputs, numbers(*result.shape, seed=99, dtype=result.dtype))]


def assert_all_close(found: list[Tensor], wanted: list[Tensor]) -> None:
    """To rounding, of the largest number in each tensor: a sum of many is as exact as its summands."""
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.shape == other.shape and one.dtype == other.dtype and one.is_contiguous()
        if one.numel() > 0:
            bound = (1e-12 if one.dtype == torch.float64 else 1e-5) * other.abs().max()
            assert (one - other).abs().max() <= bound, number


def mlp_inputs(rows: int, sizes: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    layers = range(len(sizes) - 1)
    weights = [numbers(sizes[i + 1], sizes[i], seed=2 * i + 1, dtype=dtype) for i in layers]
    biases = [numbers(sizes[i + 1], seed=2 * i + 2, dtype=dtype) for i in layers]
    return numbers(rows, sizes[0], dtype=dtype), weights, biases


def stack_inputs(images: int, side: int, channels: tuple[int, ...], up: bool, dtype: torch.dtype) -> tuple:
    pairs = list(itertools.pairwise(channels))
    shapes = [(before, after) if up else (after, before) for before, after in pairs]
    weights = [numbers(*shape, 4, 4, seed=2 * i + 1, dtype=dtype) for i, shape in enumerate(shapes)]
    weights = [(w.detach() / (4 * w.shape[1] ** 0.5)).requires_grad_() for w in weights]
    biases = [numbers(after, seed=2 * i + 2, dtype=dtype) for i, (_, after) in enumerate(pairs)]
    return numbers(images, channels[0], side, side, dtype=dtype), weights, biases
