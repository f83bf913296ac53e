"""Linear layers of a training step against plain PyTorch, on every instruction set that this processor has."""

import pytest
import torch
import torch.nn.functional as F
from ops_common import DTYPES, assert_all_close, mlp_inputs, needs_kernels, value_and_gradients
from torch import Tensor

pytestmark = needs_kernels

registered = torch.ops.maskbench


def plain_mlp(x: Tensor, weights: list[Tensor], biases: list[Tensor], slope: float) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = F.linear(x if layer == 0 else F.leaky_relu(x, slope), weight, bias)
    return x


# rows, and the sizes of the layers from the inputs to the outputs: whole vectors, tails, the networks' own
MLPS = [
    (1, (1, 1)),
    (5, (3, 2)),
    (16, (1024, 404)),
    (16, (404, 1200)),
    (32, (384, 256, 256, 1)),
    (13, (37, 19, 70, 5)),
    (64, (20, 256, 256, 1)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "sizes"), MLPS)
def test_mlp_matches_pytorch(each_path, rows, sizes, dtype):
    # a unit within rounding of 0 is on one side of the LeakyReLU's kink here and on the other there
    slope = 0.2 if dtype == torch.float64 else 1.0
    x, weights, biases = mlp_inputs(rows, sizes, dtype)
    inputs = [x, *weights, *biases]
    wanted = value_and_gradients(plain_mlp(x, weights, biases, slope), inputs)
    for found in each_path(lambda: value_and_gradients(registered.mlp(x, weights, biases, slope), inputs)).values():
        assert_all_close(found, wanted)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_mlp_on_any_number_of_threads(threads):
    x, weights, biases = mlp_inputs(32, (300, 250, 7), torch.float64)
    inputs, before = [x, *weights, *biases], torch.get_num_threads()
    wanted = value_and_gradients(plain_mlp(x, weights, biases, 0.2), inputs)
    try:
        torch.set_num_threads(threads)
        found = value_and_gradients(registered.mlp(x, weights, biases, 0.2), inputs)
    finally:
        torch.set_num_threads(before)
    assert_all_close(found, wanted)


def test_gradients_are_those_of_differences():
    def function(x, *rest):
        return registered.mlp(x, rest[:2], rest[2:], 0.3)

    x, weights, biases = mlp_inputs(3, (4, 5, 2), torch.float64)
    flat = (x, *weights, *biases)
    assert torch.autograd.gradcheck(function, flat)
    (gradient,) = torch.autograd.grad(function(*flat).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


@pytest.mark.parametrize("learns", ["x", "weights"])
def test_only_the_gradients_asked_for_are_computed(learns):
    x, weights, biases = mlp_inputs(6, (5, 4, 3), torch.float64)
    wanted = value_and_gradients(registered.mlp(x, weights, biases, 0.2), [x, *weights, *biases])
    x, weights, biases = x.detach(), [w.detach() for w in weights], [b.detach() for b in biases]
    chosen = [x] if learns == "x" else [*weights, *biases]
    for tensor in chosen:
        tensor.requires_grad_()
    found = value_and_gradients(registered.mlp(x, weights, biases, 0.2), chosen)
    assert_all_close(found, [wanted[0], *(wanted[1:2] if learns == "x" else wanted[2:])])


def test_inputs_need_not_be_contiguous():
    x, weights, biases = mlp_inputs(6, (5, 4), torch.float64)
    inputs = [x, *weights, *biases]
    wanted = value_and_gradients(registered.mlp(x, weights, biases, 1.0), inputs)
    views = [x.detach().T.contiguous().T.requires_grad_(), weights[0].detach().T.contiguous().T.requires_grad_()]
    bias = biases[0].detach().repeat_interleave(2)[::2].requires_grad_()
    found = value_and_gradients(registered.mlp(views[0], views[1:], [bias], 1.0), [*views, bias])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_not_a_number_is_not_hidden():
    x, weights, biases = mlp_inputs(6, (40, 30, 2), torch.float32)
    with torch.no_grad():
        x[2, 39] = float("nan")
    assert registered.mlp(x, weights, biases, 0.2).isnan().any(1).tolist() == [False, False, True, False, False, False]


def backward(dy: Tensor, x: Tensor, outputs: list[Tensor], weights: list[Tensor]):
    return registered.mlp_backward(dy, x, outputs, weights, 0.2, True, True)


# what is called with x, weights, biases and the layers' outputs, and what is said
WRONG_CALLS = {
    "x of three dimensions": (lambda x, w, b, y: registered.mlp(x[None], w, b, 0.2), r"x must be .* \[1, 6, 5\]"),
    "no rows": (lambda x, w, b, y: registered.mlp(x[:0], w, b, 0.2), r"x must be .* got float32 \[0, 5\] on cpu"),
    "no layers": (lambda x, w, b, y: registered.mlp(x, [], [], 0.2), "there must be a layer"),
    "layers that do not fit": (lambda x, w, b, y: registered.mlp(x, w[::-1], b[::-1], 0.2), "layer 0 .* got float32"),
    "a negative slope": (lambda x, w, b, y: registered.mlp(x, w, b, -0.1), "slope must be 0 or more.* got -0.1"),
    "another dtype": (lambda x, w, b, y: registered.mlp(x.double(), w, b, 0.2), "float64 weights .* got float32"),
    "a bias too few": (lambda x, w, b, y: registered.mlp(x, w, b[:1], 0.2), "bias, got 1 for 2 layers"),
    "a gradient of another size": (lambda x, w, b, y: backward(x, x, y[:1], w), r"gradient .* \[6, 3\], got"),
    "outputs too many": (lambda x, w, b, y: backward(y[1], x, y, w), "outputs, got 2 for 2 layers"),
}


@pytest.mark.parametrize("what", WRONG_CALLS)
def test_direct_calls_are_safe(what):
    call, message = WRONG_CALLS[what]
    x, weights, biases = mlp_inputs(6, (5, 4, 3), torch.float32)
    with torch.no_grad():
        outputs = registered.mlp_forward(x, weights, biases, 0.2)
        with pytest.raises(ValueError, match=message):
            call(x, weights, biases, outputs)
