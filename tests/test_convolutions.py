"""Convolutions of a training step against plain PyTorch, on every instruction set that this processor has."""

import pytest
import torch
import torch.nn.functional as F
from ops_common import DTYPES, assert_all_close, needs_kernels, stack_inputs, value_and_gradients
from torch import Tensor

pytestmark = needs_kernels

registered = torch.ops.maskbench


def plain_convolutions(x: Tensor, weights: list[Tensor], biases: list[Tensor], slope: float, up: bool) -> Tensor:
    for weight, bias in zip(weights, biases, strict=True):
        if up:
            x = F.conv_transpose2d(F.leaky_relu(x, slope), weight, bias, stride=2, padding=1)
        else:
            x = F.leaky_relu(F.conv2d(x, weight, bias, stride=2, padding=1), slope)
    return x


# images, side of the images that go in, channels from level to level, towards larger images or smaller ones
STACKS = [
    (1, 2, (1, 1), False),
    (1, 1, (1, 1), True),
    (16, 32, (3, 16, 32, 64), False),
    (16, 4, (64, 32, 16, 3), True),
    (3, 40, (3, 5, 10, 20), False),
    (3, 5, (20, 10, 5, 3), True),
    (2, 96, (3, 16, 32, 64, 128), False),
    (2, 6, (70, 35, 17, 4), True),
    (5, 8, (6, 33), False),
    (5, 3, (33, 6), True),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("images", "side", "channels", "up"), STACKS)
def test_convolutions_match_pytorch(each_path, images, side, channels, up, dtype):
    slope = 0.5 if dtype == torch.float64 else 1.0  # see test_mlp.py
    x, weights, biases = stack_inputs(images, side, channels, up, dtype)
    inputs = [x, *weights, *biases]
    result = plain_convolutions(x, weights, biases, slope, up).contiguous()
    wanted = [tensor.contiguous() for tensor in value_and_gradients(result, inputs)]
    for found in each_path(
        lambda: value_and_gradients(registered.convolutions(x, weights, biases, slope, up), inputs)
    ).values():
        assert_all_close(found, wanted)


@pytest.mark.parametrize("up", [False, True])
def test_convolutions_give_the_same_bits_on_any_number_of_threads(up):
    x, weights, biases = stack_inputs(5, 4 if up else 32, (8, 12, 9, 3) if up else (3, 9, 12, 8), up, torch.float32)
    inputs, before, results = [x, *weights, *biases], torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(value_and_gradients(registered.convolutions(x, weights, biases, 0.5, up), inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_gradients_are_those_of_differences(up):
    def function(x, *rest):
        return registered.convolutions(x, rest[:2], rest[2:], 0.3, up)

    x, weights, biases = stack_inputs(2, 1 if up else 4, (2, 3, 2), up, torch.float64)
    flat = (x, *weights, *biases)
    assert torch.autograd.gradcheck(function, flat)
    (gradient,) = torch.autograd.grad(function(*flat).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


@pytest.mark.parametrize("learns", ["x", "weights"])
@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_only_the_gradients_asked_for_are_computed(learns, up):
    x, weights, biases = stack_inputs(2, 2 if up else 8, (4, 5, 3) if up else (3, 5, 4), up, torch.float64)
    wanted = value_and_gradients(registered.convolutions(x, weights, biases, 0.2, up), [x, *weights, *biases])
    x, weights, biases = x.detach(), [w.detach() for w in weights], [b.detach() for b in biases]
    chosen = [x] if learns == "x" else [*weights, *biases]
    for tensor in chosen:
        tensor.requires_grad_()
    found = value_and_gradients(registered.convolutions(x, weights, biases, 0.2, up), chosen)
    assert_all_close(found, [wanted[0], *(wanted[1:2] if learns == "x" else wanted[2:])])


def test_inputs_need_not_be_contiguous():
    x, weights, biases = stack_inputs(2, 8, (3, 5, 4), False, torch.float64)
    wanted = value_and_gradients(registered.convolutions(x, weights, biases, 0.5, False), [x, *weights])
    last = [t.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for t in (x, *weights)]
    found = value_and_gradients(registered.convolutions(last[0], last[1:], biases, 0.5, False), last)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_not_a_number_is_not_hidden():
    x, weights, biases = stack_inputs(3, 8, (3, 5, 4), False, torch.float32)
    with torch.no_grad():
        x[1, 2, 7, 7] = float("nan")
    result = registered.convolutions(x, weights, biases, 0.5, False)
    assert result.isnan().flatten(1).any(1).tolist() == [False, True, False]


def forward(x: Tensor, weights: list[Tensor], biases: list[Tensor], up: bool = False):
    return registered.convolutions(x, weights, biases, 0.2, up)


def backward(dy: Tensor, kept: Tensor, weights: list[Tensor]):
    return registered.convolutions_backward(dy, kept, weights, 0.2, False, True)


# what is called with x, weights, biases, the result and what was kept of the way there, and what is said
WRONG_CALLS = {
    "images that are not square": (lambda x, w, b, y, k: forward(x[:, :, :4], w, b), r"x must be .* \[2, 3, 4, 8\]"),
    "an odd side": (lambda x, w, b, y, k: forward(x[:, :, :6, :6], w, b), "a side of 6 cannot be halved 2 times"),
    "channels that do not fit": (lambda x, w, b, y, k: forward(x, w, b, True), r"layer 0 .* \[5, 3, 4, 4\]"),
    "kernels of 3 x 3": (
        lambda x, w, b, y, k: forward(x, [kernels[:, :, :3, :3] for kernels in w], b),
        r"layer 0 .* 4 x 4 .* got float32 \[5, 3, 3, 3\]",
    ),
    "a gradient of other channels": (lambda x, w, b, y, k: backward(y[:, :3], k, w), r"layer 1 .* \[4, 5, 4, 4\]"),
    "a result of another size": (lambda x, w, b, y, k: backward(y[:, :, :1, :1], k, w), "kept must be the 448 numbers"),
    "what another stack kept": (lambda x, w, b, y, k: backward(y, k[1:], w), "1088 numbers .* got 1087"),
}


@pytest.mark.parametrize("what", WRONG_CALLS)
def test_direct_calls_are_safe(what):
    call, message = WRONG_CALLS[what]
    x, weights, biases = stack_inputs(2, 8, (3, 5, 4), False, torch.float32)
    with torch.no_grad():
        result, kept = registered.convolutions_forward(x, weights, biases, 0.2, False)
        with pytest.raises(ValueError, match=message):
            call(x, weights, biases, result, kept)
