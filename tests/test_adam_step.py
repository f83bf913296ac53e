"""A step of Adam by the compiled kernels against PyTorch's, on every instruction set that this processor has."""

import pytest
import torch
from ops_common import DTYPES, assert_all_close, needs_kernels, numbers
from torch import Tensor

from maskbench import ops

pytestmark = needs_kernels


def adam(weights: list[Tensor], **settings) -> torch.optim.Adam:
    groups = [{"params": weights[:2], "lr": 1e-2}, {"params": weights[2:], "lr": 3e-3}]
    return torch.optim.Adam(groups, betas=(0.9, 0.95), **settings)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_step_matches_pytorch(each_path, dtype):
    shapes = [(404, 170), (7,), (5, 3, 4, 4), (), (0, 3)]

    def steps(step) -> list[Tensor]:
        weights = [numbers(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]
        optimizer = adam(weights)
        for number in range(20):
            for i, weight in enumerate(weights):
                weight.grad = numbers(*weight.shape, seed=100 * number + i, dtype=dtype).detach()
            optimizer.param_groups[0]["lr"] *= 0.9
            step(optimizer)
        assert all(state["step"] == 20 for state in optimizer.state.values())
        moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
        return [*(weight.detach() for weight in weights), *moments]

    wanted = steps(lambda optimizer: optimizer.step())
    for found in each_path(lambda: steps(ops.adam_step)).values():
        assert_all_close(found, wanted)


def test_adam_goes_on_from_a_state_that_pytorch_made_and_the_other_way_round():
    weights = [numbers(30, 20, seed=i) for i in range(3)]
    twins = [weight.detach().clone().requires_grad_() for weight in weights]
    optimizer, twin = adam(weights, fused=True), adam(twins, fused=True)
    for number in range(4):
        for one, other in zip(weights, twins, strict=True):
            one.grad = numbers(30, 20, seed=50 + number).detach()
            other.grad = one.grad.clone()
        ops.adam_step(optimizer) if number % 2 else optimizer.step()
        twin.step()
    assert_all_close([w.detach() for w in weights], [w.detach() for w in twins])


def test_adam_with_more_than_the_kernel_knows_is_pytorchs():
    for settings in ({"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}):
        weights = [numbers(6, 5, seed=i) for i in range(3)]
        twins = [weight.detach().clone().requires_grad_() for weight in weights]
        for one, other in zip(weights, twins, strict=True):
            one.grad, other.grad = one.detach().sin(), one.detach().sin()
        ops.adam_step(adam(weights, **settings))
        adam(twins, **settings).step()
        assert all(torch.equal(a, b) for a, b in zip(weights, twins, strict=True))


def test_autograd_notices_that_the_weights_change():
    weight = numbers(3, 4)
    result = weight.square().sum()
    weight.grad = torch.ones_like(weight)
    ops.adam_step(torch.optim.Adam([weight]))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


# weights, gradients, means, squares, and what is said
FLAT = torch.zeros(4)
WRONG_CALLS = {
    "moments of another shape": (([FLAT], [FLAT], [FLAT], [FLAT[1:]]), r"weight 0.* float32 \[4\], got float32 \[3\]"),
    "weights with gaps": (([FLAT[::2]], [FLAT[:2]], [FLAT[:2]], [FLAT[:2]]), "weight 0 .* must be contiguous"),
    "a gradient too few": (([FLAT, FLAT], [FLAT], [FLAT, FLAT], [FLAT, FLAT]), "got 1 for 2 weights"),
}


@pytest.mark.parametrize("what", WRONG_CALLS)
def test_direct_calls_are_safe(what):
    tensors, message = WRONG_CALLS[what]
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        torch.ops.maskbench.adam_step(*tensors, 0.1, 0.9, 0.9, 1e-8, 0)
