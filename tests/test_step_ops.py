"""The kernels of the training step against plain PyTorch, on every instruction set that this processor has."""

import copy

import pytest
import torch
from torch import Tensor

from maskbench import ops, reference
from maskbench.models import Convolutions, Discriminator, Encoder, RadialGaussianization

pytestmark = pytest.mark.skipif(ops.backend("cpu") == "reference", reason="no compiled kernels in this run")

registered = torch.ops.maskbench
DTYPES = [torch.float32, torch.float64]


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def value_and_gradients(result: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [result, *torch.autograd.grad(result, inputs, numbers(*result.shape, seed=99, dtype=result.dtype))]


def assert_all_close(found: list[Tensor], wanted: list[Tensor]) -> None:
    """To rounding, of the largest number in each tensor: a sum of many is as exact as its summands."""
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        bound = (1e-12 if one.dtype == torch.float64 else 1e-5) * other.abs().max()
        assert one.shape == other.shape and one.dtype == other.dtype and one.is_contiguous()
        assert (one - other).abs().max() <= bound, number


# Linear layers

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


def mlp_inputs(rows: int, sizes: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    layers = range(len(sizes) - 1)
    weights = [numbers(sizes[i + 1], sizes[i], seed=2 * i + 1, dtype=dtype) for i in layers]
    biases = [numbers(sizes[i + 1], seed=2 * i + 2, dtype=dtype) for i in layers]
    return numbers(rows, sizes[0], dtype=dtype), weights, biases


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "sizes"), MLPS)
def test_mlp_matches_reference(each_path, rows, sizes, dtype):
    # a unit within rounding of 0 is on one side of the LeakyReLU's kink here and on the other there
    slope = 0.2 if dtype == torch.float64 else 1.0
    x, weights, biases = mlp_inputs(rows, sizes, dtype)
    inputs = [x, *weights, *biases]
    wanted = value_and_gradients(reference.mlp(x, weights, biases, slope), inputs)
    for found in each_path(lambda: value_and_gradients(registered.mlp(x, weights, biases, slope), inputs)).values():
        assert_all_close(found, wanted)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_mlp_on_any_number_of_threads(threads):
    x, weights, biases = mlp_inputs(32, (300, 250, 7), torch.float64)
    inputs, before = [x, *weights, *biases], torch.get_num_threads()
    wanted = value_and_gradients(reference.mlp(x, weights, biases, 0.2), inputs)
    try:
        torch.set_num_threads(threads)
        found = value_and_gradients(registered.mlp(x, weights, biases, 0.2), inputs)
    finally:
        torch.set_num_threads(before)
    assert_all_close(found, wanted)


# Convolutions

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


def stack_inputs(images: int, side: int, channels: tuple[int, ...], up: bool, dtype: torch.dtype) -> tuple:
    torch.manual_seed(0)
    layers = [layer for layer in Convolutions(list(channels), up).to(dtype) if hasattr(layer, "weight")]
    x = numbers(images, channels[0], side, side, dtype=dtype)
    return x, [layer.weight for layer in layers], [layer.bias for layer in layers]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("images", "side", "channels", "up"), STACKS)
def test_convolutions_match_reference(each_path, images, side, channels, up, dtype):
    slope = 0.5 if dtype == torch.float64 else 1.0  # see test_mlp_matches_reference
    x, weights, biases = stack_inputs(images, side, channels, up, dtype)
    inputs = [x, *weights, *biases]
    result = reference.convolutions(x, weights, biases, slope, up).contiguous()
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


def test_a_stack_of_convolutions_is_what_it_says():
    """The module's own layers one after another, which are what it shows and stores."""
    for up, x in ((False, numbers(3, 3, 32, 32)), (True, numbers(3, 64, 4, 4))):
        stack = Convolutions([64, 32, 16, 3] if up else [3, 16, 32, 64], up).double()
        wanted = x
        for layer in stack:
            wanted = layer(wanted)
        torch.testing.assert_close(stack(x), wanted, rtol=0, atol=1e-13)


# The normalisation of the Gaussian part


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
    monkeypatch.setattr(ops, "_MOST_STEP_ROWS", 0)
    wanted = thirty_steps()
    for results in found.values():
        for one, other in zip(results, wanted, strict=True):
            tolerance = 1e-11 if dtype == torch.float64 else 2e-4  # 30 steps of rounding in the statistics
            assert (one - other).abs().max() <= tolerance * other.abs().max().clamp_min(1)


def test_a_row_without_length_has_a_gradient_of_zero_or_a_number():
    norm = RadialGaussianization(4).double()
    x = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    assert all(tensor.isfinite().all() for tensor in value_and_gradients(norm(x), [x]))


# Adam


def adam(weights: list[Tensor], **settings) -> torch.optim.Adam:
    groups = [{"params": weights[:2], "lr": 1e-2}, {"params": weights[2:], "lr": 3e-3}]
    return torch.optim.Adam(groups, betas=(0.9, 0.95), **settings)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_step_matches_pytorch(each_path, dtype):
    shapes = [(404, 170), (7,), (5, 3, 4, 4), ()]

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


# What surrounds them


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda x, *rest: registered.mlp(x, rest[:2], rest[2:], 0.3), mlp_inputs(3, (4, 5, 2), torch.float64)),
        (
            lambda x, *rest: registered.convolutions(x, rest[:2], rest[2:], 0.3, False),
            stack_inputs(2, 4, (2, 3, 2), False, torch.float64),
        ),
        (
            lambda x, *rest: registered.convolutions(x, rest[:2], rest[2:], 0.3, True),
            stack_inputs(2, 1, (2, 3, 2), True, torch.float64),
        ),
    ],
    ids=["mlp", "down", "up"],
)
def test_gradients_are_those_of_differences(function, inputs):
    x, weights, biases = inputs
    flat = (x, *weights, *biases)
    assert torch.autograd.gradcheck(function, flat)
    (gradient,) = torch.autograd.grad(function(*flat).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


@pytest.mark.parametrize("learns", ["x", "weights"])
def test_only_the_gradients_asked_for_are_computed(learns):
    mlp = mlp_inputs(6, (5, 4, 3), torch.float64)
    stack = stack_inputs(2, 8, (3, 5, 4), False, torch.float64)
    for op, (x, weights, biases), extra in ((registered.mlp, mlp, ()), (registered.convolutions, stack, (False,))):
        wanted = value_and_gradients(op(x, weights, biases, 0.2, *extra), [x, *weights, *biases])
        x, weights, biases = x.detach(), [w.detach() for w in weights], [b.detach() for b in biases]
        chosen = [x] if learns == "x" else [*weights, *biases]
        for tensor in chosen:
            tensor.requires_grad_()
        found = value_and_gradients(op(x, weights, biases, 0.2, *extra), chosen)
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

    x, weights, biases = stack_inputs(2, 8, (3, 5, 4), False, torch.float64)
    wanted = value_and_gradients(registered.convolutions(x, weights, biases, 0.5, False), [x, *weights])
    last = [t.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for t in (x, *weights)]
    found = value_and_gradients(registered.convolutions(last[0], last[1:], biases, 0.5, False), last)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_not_a_number_is_not_hidden():
    x, weights, biases = mlp_inputs(6, (40, 30, 2), torch.float32)
    with torch.no_grad():
        x[2, 39] = float("nan")
    assert registered.mlp(x, weights, biases, 0.2).isnan().any(1).tolist() == [False, False, True, False, False, False]
    x, weights, biases = stack_inputs(3, 8, (3, 5, 4), False, torch.float32)
    with torch.no_grad():
        x[1, 2, 7, 7] = float("nan")
    result = registered.convolutions(x, weights, biases, 0.5, False)
    assert result.isnan().flatten(1).any(1).tolist() == [False, True, False]


def test_when_the_kernels_run(monkeypatch):
    few, most = torch.zeros(4, 3), ops._MOST_STEP_ROWS
    assert most > 0 or not torch.backends.cpu.get_cpu_capability().startswith("AVX")
    assert ops.has_step_kernels(few) == (most > 0)
    with torch.no_grad():
        assert not ops.has_step_kernels(few)
    assert not ops.has_step_kernels(torch.zeros(most + 1, 3))
    assert not ops.has_step_kernels(few.half()) and not ops.has_step_kernels(few.to("meta"))

    # and what they are part of is the same without them
    encoder = Encoder(image_size=16, width=4, gaussian_dim=24, categories=5).double()
    twin, images = copy.deepcopy(encoder), numbers(6, 3, 16, 16).detach()
    discriminator = Discriminator(24, hidden=16).double()
    with_kernels = [*encoder.encode(images), discriminator(numbers(6, 24))]
    monkeypatch.setattr(ops, "_MOST_STEP_ROWS", 0)
    torch.testing.assert_close(with_kernels, [*twin.encode(images), discriminator(numbers(6, 24))])
    torch.testing.assert_close(list(encoder.buffers()), list(twin.buffers()))


def wrong_calls() -> dict:
    x, weights, biases = mlp_inputs(6, (5, 4, 3), torch.float32)
    images, kernels, offsets = stack_inputs(2, 8, (3, 5, 4), False, torch.float32)
    outputs = registered.mlp_forward(x, weights, biases, 0.2)
    result, kept = registered.convolutions_forward(images, kernels, offsets, 0.2, False)
    y, *rest = registered.radial_norm_forward(
        x, torch.zeros(5), torch.ones(5), torch.zeros(()), torch.ones(()), 0.1, 0.1, 1.0, 0.1
    )
    flat = torch.zeros(4)
    return {
        "x of three dimensions": lambda: registered.mlp(x[None], weights, biases, 0.2),
        "no rows": lambda: registered.mlp(x[:0], weights, biases, 0.2),
        "no layers": lambda: registered.mlp(x, [], [], 0.2),
        "layers that do not fit": lambda: registered.mlp(x, weights[::-1], biases[::-1], 0.2),
        "another dtype": lambda: registered.mlp(x.double(), weights, biases, 0.2),
        "a bias too few": lambda: registered.mlp(x, weights, biases[:1], 0.2),
        "a gradient of another size": lambda: registered.mlp_backward(x, x, outputs[:1], weights, 0.2, True, True),
        "outputs too many": lambda: registered.mlp_backward(outputs[1], x, outputs, weights, 0.2, True, True),
        "images that are not square": lambda: registered.convolutions(images[:, :, :4], kernels, offsets, 0.2, False),
        "an odd side": lambda: registered.convolutions(images[:, :, :6, :6], kernels, offsets, 0.2, False),
        "channels that do not fit": lambda: registered.convolutions(images, kernels, offsets, 0.2, True),
        "kernels of 3 x 3": lambda: registered.convolutions(
            images, [k[:, :, :3, :3] for k in kernels], offsets, 0.2, False
        ),
        "a result of another size": lambda: registered.convolutions_backward(
            result[:, :, :1, :1], kept, kernels, 0.2, False, True
        ),
        "what another stack kept": lambda: registered.convolutions_backward(
            result, kept[1:], kernels, 0.2, False, True
        ),
        "statistics of another size": lambda: registered.radial_norm(
            x, flat, flat, flat[0], flat[0], 0.1, 0.1, 1.0, 0.1
        ),
        "a gradient of another shape": lambda: registered.radial_norm_backward(y[1:], y, *rest),
        "moments of another shape": lambda: registered.adam_step(
            [flat], [flat], [flat], [flat[1:]], 0.1, 0.9, 0.9, 1e-8, 0
        ),
        "weights with gaps": lambda: registered.adam_step(
            [flat[::2]], [flat[:2]], [flat[:2]], [flat[:2]], 0.1, 0.9, 0.9, 1e-8, 0
        ),
    }


@pytest.mark.parametrize("what", wrong_calls() if ops.backend("cpu") != "reference" else ())
def test_direct_calls_are_safe(what):
    with torch.no_grad(), pytest.raises(ValueError):
        wrong_calls()[what]()
