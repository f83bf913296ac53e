"""The kernels of the training step against plain PyTorch, on every instruction set that this processor has."""

import copy
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskbench import ops
from maskbench.models import Decoder, Discriminator, Encoder
from maskbench.models.heads import RadialGaussianization

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
        assert one.shape == other.shape and one.dtype == other.dtype and one.is_contiguous()
        if one.numel() > 0:
            bound = (1e-12 if one.dtype == torch.float64 else 1e-5) * other.abs().max()
            assert (one - other).abs().max() <= bound, number


# Linear layers


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


def mlp_inputs(rows: int, sizes: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    layers = range(len(sizes) - 1)
    weights = [numbers(sizes[i + 1], sizes[i], seed=2 * i + 1, dtype=dtype) for i in layers]
    biases = [numbers(sizes[i + 1], seed=2 * i + 2, dtype=dtype) for i in layers]
    return numbers(rows, sizes[0], dtype=dtype), weights, biases


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


# Convolutions


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


def stack_inputs(images: int, side: int, channels: tuple[int, ...], up: bool, dtype: torch.dtype) -> tuple:
    pairs = list(itertools.pairwise(channels))
    shapes = [(before, after) if up else (after, before) for before, after in pairs]
    weights = [numbers(*shape, 4, 4, seed=2 * i + 1, dtype=dtype) for i, shape in enumerate(shapes)]
    weights = [(w.detach() / (4 * w.shape[1] ** 0.5)).requires_grad_() for w in weights]
    biases = [numbers(after, seed=2 * i + 2, dtype=dtype) for i, (_, after) in enumerate(pairs)]
    return numbers(images, channels[0], side, side, dtype=dtype), weights, biases


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("images", "side", "channels", "up"), STACKS)
def test_convolutions_match_pytorch(each_path, images, side, channels, up, dtype):
    slope = 0.5 if dtype == torch.float64 else 1.0  # see test_mlp_matches_pytorch
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


# Adam


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


def test_autograd_notices_what_the_kernels_change():
    weight = numbers(3, 4)
    result = weight.square().sum()
    weight.grad = torch.ones_like(weight)
    ops.adam_step(torch.optim.Adam([weight]))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()
    norm, x = RadialGaussianization(4).double(), numbers(5, 4)
    result = (norm.center * x).sum()
    norm(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


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


def test_radial_norm_cannot_be_differentiated_twice():
    norm, x = RadialGaussianization(4).double(), numbers(5, 4)
    (gradient,) = torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


@pytest.mark.parametrize("learns", ["x", "weights"])
def test_only_the_gradients_asked_for_are_computed(learns):
    for op, (x, weights, biases), extra in (
        (registered.mlp, mlp_inputs(6, (5, 4, 3), torch.float64), ()),
        (registered.convolutions, stack_inputs(2, 8, (3, 5, 4), False, torch.float64), (False,)),
        (registered.convolutions, stack_inputs(2, 2, (4, 5, 3), True, torch.float64), (True,)),
    ):
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


def test_several_python_threads_at_once():
    mlp, stack = mlp_inputs(32, (300, 256, 5), torch.float32), stack_inputs(8, 32, (3, 16, 32), False, torch.float32)
    before = torch.get_num_threads()

    def work(_) -> list[Tensor]:
        torch.set_num_threads(2)  # of each Python thread
        found = []
        for op, (x, weights, biases), extra in ((registered.mlp, mlp, ()), (registered.convolutions, stack, (False,))):
            found += value_and_gradients(op(x, weights, biases, 0.2, *extra), [x, *weights, *biases])
        return found

    try:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(work, range(40)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_when_the_kernels_run():
    few, most = torch.zeros(4, 3), ops._MOST_STEP_ROWS
    assert most > 0 or not torch.backends.cpu.get_cpu_capability().startswith("AVX")
    assert ops.has_step_kernels(few) == (most > 0) == (ops.step_kernels() != "none")
    with torch.no_grad():
        assert not ops.has_step_kernels(few)
    assert not ops.has_step_kernels(few[:0]) and not ops.has_step_kernels(torch.zeros(most + 1, 3))
    assert not ops.has_step_kernels(few.half()) and not ops.has_step_kernels(few.to("meta"))


def test_networks_are_the_same_with_and_without_kernels(monkeypatch):
    sizes = dict(image_size=16, width=4, gaussian_dim=24, categories=5)
    encoder, decoder = Encoder(**sizes).double(), Decoder(**sizes).double()
    discriminator = Discriminator(24, hidden=16).double()
    images, codes = numbers(6, 3, 16, 16).detach(), numbers(6, 24)

    def said(encoder: Encoder) -> list[Tensor]:
        parts = encoder.encode(images)
        return [*parts, decoder(torch.cat(parts, 1)), discriminator(codes), *encoder.buffers()]

    calls = []
    for name in ("mlp", "convolutions", "radial_norm"):
        function = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *args, f=function: calls.append(f) or f(*args))
    twin = copy.deepcopy(encoder)
    with_kernels = said(encoder)
    assert len(calls) == (7 if ops.step_kernels() != "none" else 0)  # two stacks, four of linear layers, one norm
    monkeypatch.setattr(ops, "_MOST_STEP_ROWS", 0)
    calls.clear()
    torch.testing.assert_close(with_kernels, said(twin))
    assert not calls
    monkeypatch.undo()
    # what is finished is PyTorch's alone, whatever else it is used for
    for network in (encoder, decoder, discriminator):
        network.eval()
    alone = said(encoder)
    monkeypatch.setattr(ops, "_MOST_STEP_ROWS", 0)
    assert all(torch.equal(a, b) for a, b in zip(alone, said(encoder), strict=True))


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
        "a negative slope": lambda: registered.mlp(x, weights, biases, -0.1),
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
