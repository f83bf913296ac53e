"""The normalisation of a training step against plain PyTorch, on every instruction set that this processor has."""

import pytest
import torch
from ops_common import DTYPES, needs_kernels, numbers, value_and_gradients
from torch import Tensor

from maskbench import ops
from maskbench.models.heads import RadialGaussianization
from maskbench.ops import step as step_ops

pytestmark = needs_kernels

registered = torch.ops.maskbench


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "features"), [(16, 384), (2, 1), (7, 37)])
def test_radial_norm_matches_the_module(each_path, monkeypatch, rows, features, dtype):
    def thirty_steps() -> list[Tensor]:
        norm, results = RadialGaussianization(features).to(dtype), []
        for step in range(30):
            contrast = 0.2 + numbers(rows, 1, seed=100 + step, dtype=dtype).detach().abs()
            x = (1 + contrast * numbers(rows, features, seed=step, dtype=dtype).detach()).requires_grad_()
            results += value_and_gradients(norm(x), [x])
        return [*results, *norm.state_dict().values()]

    found = each_path(thirty_steps)
    assert ops.has_step_kernels(numbers(rows, features, dtype=dtype))
    monkeypatch.setattr(step_ops, "MOST_ROWS", 0)
    wanted = thirty_steps()
    for results in found.values():
        for one, other in zip(results, wanted, strict=True):
            tolerance = 1e-11 if dtype == torch.float64 else 2e-4  # 30 steps of rounding in the statistics
            assert (one - other).abs().max() <= tolerance * other.abs().max().clamp_min(1)


@pytest.mark.parametrize("length", [0.0, 1e-6])
def test_a_short_row_has_a_finite_gradient(length):
    """That of 1e-6 is scaled by a factor that is too small for float32."""
    norm = RadialGaussianization(1)
    norm.steps.fill_(100)
    norm.log_radius_variance.fill_(1e-9)
    x = torch.tensor([[1.0], [-1.0]]).repeat(128, 1)
    x[0] = length
    x.requires_grad_()
    found = value_and_gradients(norm(x), [x])
    assert all(tensor.isfinite().all() for tensor in found)
    assert length != 1e-6 or found[0][0] == 0


def test_radial_norm_cannot_be_differentiated_twice():
    norm, x = RadialGaussianization(4).double(), numbers(5, 4)
    (gradient,) = torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


def test_autograd_notices_that_the_statistics_change():
    norm, x = RadialGaussianization(4).double(), numbers(5, 4)
    result = (norm.center * x).sum()
    norm(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


def arguments(x: Tensor, features: int = 5, scalar: float | list[float] = 1.0) -> tuple:
    center, variance = torch.zeros(features), torch.ones(features)
    return x, center, variance, torch.tensor(scalar), torch.tensor(scalar), 0.1, 0.1, 1.0, 0.1


# what is called with x, the result and what was kept of the way there, and what is said
WRONG_CALLS = {
    "statistics of another size": (
        lambda x, y, kept: registered.radial_norm(*arguments(x, features=4)),
        r"\[5\], got float32 \[4\]",
    ),
    "scalars that are none": (
        lambda x, y, kept: registered.radial_norm(*arguments(x, scalar=[1.0])),
        r"scalars, got float32 \[1\]",
    ),
    "another dtype": (lambda x, y, kept: registered.radial_norm(*arguments(x.double())), "float64, got float32"),
    "a gradient of another shape": (
        lambda x, y, kept: registered.radial_norm_backward(y[1:], y, *kept),
        r"dy must be of y's shape, .* got float32 \[5, 5\] on cpu and float32 \[6, 5\] on cpu",
    ),
}


@pytest.mark.parametrize("what", WRONG_CALLS)
def test_direct_calls_are_safe(what):
    call, message = WRONG_CALLS[what]
    x = numbers(6, 5, dtype=torch.float32)
    with torch.no_grad():
        y, *kept = registered.radial_norm_forward(*arguments(x))
        with pytest.raises(ValueError, match=message):
            call(x, y, kept)
