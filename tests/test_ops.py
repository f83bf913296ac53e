"""The ops against their oracle, maskbench.reference, and the compiled kernels against each other."""

import importlib.machinery
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.stats
import torch
import torch.nn.functional as F

import classify
from maskbench import ops
from maskbench.models import ClassifierStack, MaskClassifier, PriorSampler
from maskbench.ops import reference

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")),
]
on_devices = pytest.mark.parametrize("device", DEVICES)
needs_kernels = pytest.mark.skipif(ops.backend("cpu") == "reference", reason="no compiled kernels in this run")
needs_cuda_kernels = pytest.mark.skipif(ops.backend("cuda") != "cuda", reason="no CUDA kernels in this run")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

# counter and key, low word first, and the output (Random123's known answers for philox4x32-10)
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

# the kernels keep the digits of small losses and gradients; PyTorch's float32 BCE, the reference, rounds against 1
TINY = 1e-15 if ops.backend("cpu") == "cpu" else 2e-6

# the first row of seed 0, offset 0 and 384 dimensions with a radius word of 2^32 - 128 or more, so that ln(1) is taken
ROW_OF_LN_1, PAIR_OF_LN_1 = 257_347, 139


def state(seed: int, offset: int = 0, device: str = "cpu") -> torch.Tensor:
    return torch.tensor([seed, offset], dtype=torch.int64, device=device)


def logits(*shape: int, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(device, dtype)


def assert_close(draws: torch.Tensor, oracle: torch.Tensor) -> None:
    """The design's bound on normals: 2e-6 * max(1, |x|)."""
    assert draws.shape == oracle.shape and draws.dtype == oracle.dtype and draws.is_contiguous()
    assert ((draws - oracle).abs() <= 2e-6 * oracle.abs().clamp(min=1)).all()


# The stream


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, words):
    assert tuple(reference.philox4x32(torch.tensor(counter), torch.tensor(key)).tolist()) == words


@needs_kernels
@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_kernel_philox_known_answers(counter, key, words):
    from maskbench import _C

    block, offset, seed = (low | high << 32 for low, high in (counter[:2], counter[2:], key))
    assert tuple(_C.philox_words(seed, offset, block)) == words


@on_devices
@pytest.mark.parametrize("rows", [1, 3, 17, 41])
@pytest.mark.parametrize("gaussian_dim", [1, 2, 3, 5, 383, 384])
@pytest.mark.parametrize("categories", [1, 2, 20, 1000])
def test_sample_prior_matches_reference(device, rows, gaussian_dim, categories):
    arguments = (state(1234, 5, device), rows, gaussian_dim, categories, 7)
    gaussian, one_hot = ops.sample_prior(*arguments)
    oracle_gaussian, oracle_one_hot = reference.sample_prior(*arguments)
    assert_close(gaussian, oracle_gaussian)
    assert one_hot.dtype == torch.float32 and torch.equal(one_hot, oracle_one_hot)


@on_devices
@pytest.mark.parametrize(
    ("seed", "offset", "first_row"),
    [
        (-1, 0, 0),
        (-(2**63), 2**63 - 1, 0),
        (2**63 - 1, -1, 0),
        (2**32, 2**32, 2**32),  # words past the low half
        (3, 0, 2**62),  # the block number wraps
    ],
)
def test_sample_prior_uses_all_64_bits(device, seed, offset, first_row):
    arguments = (state(seed, offset, device), 3, 5, 20, first_row)
    gaussian, one_hot = ops.sample_prior(*arguments)
    oracle_gaussian, oracle_one_hot = reference.sample_prior(*arguments)
    assert_close(gaussian, oracle_gaussian)
    assert torch.equal(one_hot, oracle_one_hot)
    assert not torch.equal(gaussian, ops.sample_prior(state(0, 0, device), 3, 5, 20)[0])


@on_devices
def test_ln_1_is_0(device):
    block = ROW_OF_LN_1 * 97 + PAIR_OF_LN_1 // 2
    words = reference.philox4x32(torch.tensor([block, 0, 0, 0]), torch.tensor([0, 0]))
    word = words[PAIR_OF_LN_1 % 2 * 2]
    assert word >= 2**32 - 128 and reference.uniform(word) == 1
    for sample in (ops.sample_prior, reference.sample_prior):
        gaussian, _ = sample(state(0, 0, device), 1, 384, 20, ROW_OF_LN_1)
        assert gaussian.isfinite().all()
        assert (gaussian.view(192, 2)[PAIR_OF_LN_1] == 0).all()


@on_devices
def test_a_row_depends_on_its_index_alone(device):
    gaussian, one_hot = ops.sample_prior(state(3, 4, device), 100, 37, 20)
    for rows, first_row in ((1, 99), (33, 20), (64, 36)):
        part = ops.sample_prior(state(3, 4, device), rows, 37, 20, first_row)
        assert torch.equal(part[0], gaussian[first_row : first_row + rows])
        assert torch.equal(part[1], one_hot[first_row : first_row + rows])


@on_devices
def test_sample_prior_is_pure_and_takes_views(device):
    stored = torch.tensor([[7, 0], [9, 0]], device=device)
    draws = ops.sample_prior(stored[:, 0], 5, 6, 7)
    assert stored.tolist() == [[7, 0], [9, 0]]
    for drawn, again in zip(draws, ops.sample_prior(state(7, 9, device), 5, 6, 7), strict=True):
        assert torch.equal(drawn, again)


@on_devices
def test_normals_and_categories_are_distributed_as_told(device):
    gaussian, one_hot = ops.sample_prior(state(0, 0, device), 2000, 50, 20)
    assert scipy.stats.kstest(gaussian.flatten().cpu(), "norm").pvalue > 1e-3
    assert (one_hot.sum(1) == 1).all()
    assert scipy.stats.chisquare(one_hot.sum(0).cpu()).pvalue > 1e-3


@needs_kernels
@pytest.mark.parametrize("path", ["plain", "avx2", "avx512"])
def test_every_path_runs(each_path, path):
    results = each_path(lambda: ops.sample_prior(state(0), 2, 9, 3))
    if path not in results:
        pytest.skip(f"this processor does not run the {path} kernels")
    assert_close(results[path][0], reference.sample_prior(state(0), 2, 9, 3)[0])


@needs_kernels
def test_paths_agree_bit_for_bit(each_path):
    def run():
        draws = [ops.sample_prior(state(seed, 1), 41, dim, 20, 3) for seed in (0, -5) for dim in (1, 127, 384, 509)]
        draws.append(ops.sample_prior(state(0), 1, 384, 20, ROW_OF_LN_1))
        losses = [torch.ops.maskbench.bce_forward(logits(2, n), 30 * logits(2, n, seed=1)) for n in (1, 16, 700, 5000)]
        return [tensor for pair in draws + losses for tensor in pair]

    first, *others = each_path(run).values()
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@needs_gpu
@needs_cuda_kernels
@pytest.mark.parametrize("gaussian_dim", [1, 5, 383, 384])
def test_cpu_and_cuda_normals_agree_bit_for_bit(gaussian_dim):
    for seed, first_row in ((0, 0), (-7, 2**40), (0, ROW_OF_LN_1)):
        on_cpu = ops.sample_prior(state(seed), 1000, gaussian_dim, 20, first_row)
        on_gpu = ops.sample_prior(state(seed, device="cuda"), 1000, gaussian_dim, 20, first_row)
        assert all(torch.equal(a, b.cpu()) for a, b in zip(on_cpu, on_gpu, strict=True))


@needs_gpu
@needs_cuda_kernels
def test_cuda_draws_more_than_2_to_31_elements():
    rows = 2**31 // 384 + 2
    if torch.cuda.mem_get_info()[0] < 10 * 2**30:
        pytest.skip("less than 10 GB of GPU memory free")
    gaussian, one_hot = ops.sample_prior(state(0, device="cuda"), rows, 384, 20)
    last = ops.sample_prior(state(0, device="cuda"), 3, 384, 20, rows - 3)
    assert torch.equal(gaussian[-3:], last[0]) and torch.equal(one_hot[-3:], last[1])


@needs_gpu
@needs_cuda_kernels
def test_cuda_graph_replays_with_fresh_draws():
    prior = PriorSampler(384, 20, seed=3).cuda()
    other_logits = logits(2, 16, device="cuda")

    def step():
        gaussian, one_hot = prior(16)
        loss = ops.discriminator_loss(gaussian[:, :2].t().contiguous().requires_grad_(), other_logits)
        return gaussian, one_hot, loss

    stream = torch.cuda.Stream()  # a capture wants a warm-up on a stream of its own
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    prior.rng_state.copy_(state(3, 0))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gaussian, one_hot, loss = step()
    for offset in range(3):
        graph.replay()
        expected = ops.sample_prior(state(3, offset, "cuda"), 16, 384, 20)
        assert torch.equal(gaussian, expected[0]) and torch.equal(one_hot, expected[1])
        torch.testing.assert_close(loss, reference.discriminator_loss(gaussian[:, :2].t(), other_logits))


@on_devices
def test_prior_sampler_advances_its_offset_and_restores(device):
    prior = PriorSampler(5, 3, seed=-2).to(device)
    first, second = prior(4), prior(4)
    assert prior.rng_state.tolist() == [-2, 2]
    assert not torch.equal(first[0], second[0])
    resumed = PriorSampler(5, 3).to(device)
    resumed.load_state_dict(prior.state_dict())
    assert torch.equal(resumed(4)[0], prior(4)[0])


# The losses

LOSSES = {"discriminator": 2, "generator": 1}  # the number of inputs
on_losses = pytest.mark.parametrize("name", LOSSES)


def loss_and_inputs(name: str, *shape: int, module=ops, scale: float = 1, **kwargs):
    inputs = [(scale * logits(*shape, seed=i, **kwargs)).requires_grad_() for i in range(LOSSES[name])]
    return getattr(module, f"{name}_loss"), inputs


@on_devices
@on_losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (2, 16), (2, 17), (3, 41), (2, 4097), (1, 70_001)])
def test_loss_and_gradient_match_reference(device, name, dtype, shape):
    loss, inputs = loss_and_inputs(name, *shape, device=device, dtype=dtype)
    value = loss(*inputs)
    (-2.5 * value).backward()  # an upstream gradient that is not 1
    exact = [x.detach().double().requires_grad_() for x in inputs]
    oracle = getattr(reference, f"{name}_loss")(*exact)
    (-2.5 * oracle).backward()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    assert value.shape == () and value.dtype == dtype
    torch.testing.assert_close(value.double(), oracle, rtol=tolerance, atol=TINY)
    for x, y in zip(inputs, exact, strict=True):
        torch.testing.assert_close(x.grad.double() * shape[1], y.grad * shape[1], rtol=tolerance, atol=TINY)


@on_losses
def test_reference_loss_is_bce(name):
    """The oracle itself, written once more as one BCE a discriminator, by value and gradient."""
    loss, inputs = loss_and_inputs(name, 3, 7, module=reference, dtype=torch.float64)
    labels = (1.0, 0.0) if name == "discriminator" else (1.0,)
    copies = [x.detach().clone().requires_grad_() for x in inputs]
    by_hand = sum(
        F.binary_cross_entropy(row.sigmoid(), torch.full_like(row, label))
        for x, label in zip(copies, labels, strict=True)
        for row in x
    )
    value = loss(*inputs)
    torch.testing.assert_close(value, by_hand)
    for gradient, other in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(by_hand, copies), strict=True):
        torch.testing.assert_close(gradient, other)


@on_devices
@on_losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_is_finite_for_extreme_logits(device, name, dtype):
    values = torch.tensor([-1e4, -100, -88, -87, -20, -1e-8, -0.0, 0.0, 1e-8, 20, 87, 88, 100, 1e4], dtype=dtype)
    inputs = [values.repeat(2, 3).to(device).requires_grad_() for _ in range(LOSSES[name])]
    oracle_inputs = [x.detach().double().requires_grad_() for x in inputs]
    value = getattr(ops, f"{name}_loss")(*inputs)
    oracle = getattr(reference, f"{name}_loss")(*oracle_inputs)
    value.backward()
    oracle.backward()
    torch.testing.assert_close(value.double(), oracle, rtol=1e-6, atol=TINY)
    for x, y in zip(inputs, oracle_inputs, strict=True):
        assert x.grad.isfinite().all()
        torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-6, atol=TINY)


@needs_kernels
@on_devices
@on_losses
@pytest.mark.parametrize("x", [-15.0, -40.0, -80.0])
def test_a_small_loss_keeps_its_digits(device, name, x):
    """A discriminator that is nearly always right must still see how right."""
    real, fake = torch.full((1, 33), -x, device=device), torch.full((1, 33), x, device=device)
    inputs = (real, fake) if name == "discriminator" else (real,)
    exact = len(inputs) * torch.tensor(x, dtype=torch.float64).exp().log1p()
    torch.testing.assert_close(getattr(ops, f"{name}_loss")(*inputs).double().cpu(), exact, rtol=1e-6, atol=0)


@on_devices
@on_losses
def test_not_a_number_is_not_hidden(device, name):
    loss, inputs = loss_and_inputs(name, 2, 37, device=device)
    with torch.no_grad():
        inputs[-1][1, 5] = float("nan")
    value = loss(*inputs)
    value.backward()
    assert value.isnan() and inputs[-1].grad[1, 5].isnan() and inputs[-1].grad.isnan().sum() == 1


@on_devices
@on_losses
def test_loss_takes_inputs_that_are_not_contiguous(device, name):
    loss, inputs = loss_and_inputs(name, 2, 50, device=device)
    expected = loss(*inputs)
    gradients = torch.autograd.grad(expected, inputs)
    strided = [x.detach().t().contiguous().t().requires_grad_() for x in inputs]
    assert not strided[0].is_contiguous()
    value = loss(*strided)
    assert torch.equal(value, expected)
    for gradient, other in zip(torch.autograd.grad(value, strided), gradients, strict=True):
        assert torch.equal(gradient, other)
    row = logits(1, 50, device=device)
    expanded = [row.expand(2, 50) for _ in inputs]
    assert torch.equal(loss(*expanded), loss(*[x.contiguous() for x in expanded]))


@on_devices
@on_losses
def test_gradcheck(device, name):
    loss, inputs = loss_and_inputs(name, 2, 5, device=device, dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, inputs)


@on_devices
def test_only_the_gradients_asked_for(device):
    prior, encoded = logits(2, 8, device=device), logits(2, 8, device=device, seed=1).requires_grad_()
    ops.discriminator_loss(prior, encoded).backward()
    assert prior.grad is None and encoded.grad is not None
    assert not ops.discriminator_loss(prior, prior).requires_grad
    with torch.inference_mode():
        assert ops.discriminator_loss(prior, encoded).isfinite()


@needs_kernels
@on_devices
@on_losses
def test_differentiating_twice_raises(device, name):
    loss, inputs = loss_and_inputs(name, 2, 5, device=device)
    gradients = torch.autograd.grad(loss(*inputs) ** 2, inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="maskbench::bce_backward is not implemented"):
        torch.autograd.grad(gradients[0].sum(), inputs)


@on_losses
def test_results_do_not_depend_on_threads(name):
    loss, inputs = loss_and_inputs(name, 2, 100_003)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            value = loss(*inputs)
            draws = ops.sample_prior(state(0), 500, 384, 20)
            results.append((value, *torch.autograd.grad(value, inputs), *draws))
    finally:
        torch.set_num_threads(threads)
    if ops.backend("cpu") == "reference":
        pytest.skip("PyTorch's own sums depend on the threads")
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


# An epoch of MLPs


def mlps(dtype: torch.dtype, features: int = 6, hidden: int = 8, classes: int = 3, dropout: float = 0.3):
    """Three MLPs and their optimiser."""
    torch.manual_seed(0)
    stack = ClassifierStack([MaskClassifier(features, classes, hidden, dropout) for _ in range(3)]).to(dtype)
    return stack, torch.optim.AdamW(stack.parameters(), lr=1e-2, weight_decay=0.1)


def epoch_of(stack: ClassifierStack, steps: int, batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """``features, labels, order, kept`` of 50 rows."""
    generators = [torch.Generator().manual_seed(seed + number) for number in range(3)]
    features, classes = stack.weight1.shape[1], stack.weight3.shape[2]
    rows = torch.randn(3, 50, features, generator=generators[0], dtype=torch.float64).to(stack.weight1)
    labels = torch.randint(classes, (3, 50), generator=generators[0])
    order = torch.randint(50, (steps, 3, batch), generator=generators[0])
    return rows, labels, order, stack.draw_dropout(steps, batch, generators).to(rows)


def state_of(stack: ClassifierStack, optimizer: torch.optim.AdamW) -> list[torch.Tensor]:
    moments = [optimizer.state[weight][name] for weight in stack.parameters() for name in ("exp_avg", "exp_avg_sq")]
    return [*(weight.detach() for weight in stack.parameters()), *moments]


@needs_kernels
@pytest.mark.parametrize("batch", [1, 3, 4, 7, 64])
@pytest.mark.parametrize(("features", "hidden", "classes"), [(6, 8, 3), (1, 1, 1), (5, 70, 2), (404, 256, 100)])
def test_train_mlps_matches_pytorch(each_path, features, hidden, classes, batch):
    def two_epochs(train) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        stack, optimizer = mlps(torch.float64, features, hidden, classes)
        losses, accuracies = [], []
        for number, rate in enumerate((1e-2, 3e-3)):
            optimizer.param_groups[0]["lr"] = rate
            loss, accuracy = train(stack, optimizer, *epoch_of(stack, 20, batch, seed=number))
            losses.append(loss)
            accuracies.append(accuracy.float())
        assert all(state["step"] == 40 for state in optimizer.state.values())
        return [*losses, *state_of(stack, optimizer)], accuracies

    expected, right = two_epochs(classify.train_epoch)
    for results, accuracies in each_path(lambda: two_epochs(lambda _, *epoch: ops.train_mlps(*epoch))).values():
        torch.testing.assert_close(results, expected, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(accuracies, right, rtol=1e-6, atol=0)


@needs_kernels
def test_train_mlps_matches_pytorch_in_float32():
    """At the first step, as AdamW then turns rounding noise in tiny gradients into full steps."""
    stack, optimizer = mlps(torch.float32, 404, 256, 10)
    twin, its_optimizer = mlps(torch.float32, 404, 256, 10)
    epoch = epoch_of(stack, 1, 4)
    losses, accuracies = ops.train_mlps(optimizer, *epoch)
    expected = classify.train_epoch(twin, its_optimizer, *epoch)
    torch.testing.assert_close((losses, accuracies), expected, rtol=1e-5, atol=0)
    for weight, other in zip(stack.parameters(), twin.parameters(), strict=True):
        gradient, oracle = optimizer.state[weight]["exp_avg"], its_optimizer.state[other]["exp_avg"]
        assert (gradient - oracle).abs().max() <= 1e-5 * oracle.abs().max() and oracle.abs().max() > 0


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_train_mlps_gives_the_same_bits_on_every_path_and_any_threads(each_path, dtype):
    def run() -> list[torch.Tensor]:
        stack, optimizer = mlps(dtype, 37, 75, 5)
        results = ops.train_mlps(optimizer, *epoch_of(stack, 30, 5))
        return [*results, *state_of(stack, optimizer)]

    first, *others = each_path(run).values()
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            others.append(run())
    finally:
        torch.set_num_threads(threads)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@needs_kernels
def test_train_mlps_does_not_hide_not_a_number():
    stack, optimizer = mlps(torch.float32)
    features, *others = epoch_of(stack, 20, 4)
    features[1] = float("nan")
    losses, _ = ops.train_mlps(optimizer, features, *others)
    assert losses.isnan().tolist() == [False, True, False]


@needs_kernels
@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (0, lambda x: x[0], "features must be"),
        (0, lambda x: x.double(), "features' dtype"),
        (0, lambda x: x[:, :, :5], "weight 0"),
        (1, lambda x: x.int(), "labels must be int64"),
        (1, lambda x: x[:, :-1], "labels must be int64"),
        (2, lambda x: x[:, :2], "order"),
        (2, lambda x: x[:19], "kept"),
        (3, lambda x: x[..., :7], "weight 0"),
        (3, lambda x: x[:, :1], "kept"),
    ],
)
def test_train_mlps_says_what_is_wrong(place, wrong, message):
    stack, optimizer = mlps(torch.float32)
    epoch = list(epoch_of(stack, 20, 4))
    epoch[place] = wrong(epoch[place])
    before = [weight.clone() for weight in stack.parameters()]
    with pytest.raises(ValueError, match=message):
        ops.train_mlps(optimizer, *epoch)
    assert all(torch.equal(a, b) for a, b in zip(before, stack.parameters(), strict=True))


@needs_kernels
@pytest.mark.parametrize(("place", "value"), [(1, -100), (1, 3), (2, -1), (2, 50)])
def test_train_mlps_refuses_rows_and_labels_that_there_are_not(place, value):
    stack, optimizer = mlps(torch.float32)
    epoch = epoch_of(stack, 20, 4)
    epoch[place][2] = value
    with pytest.raises(IndexError, match="labels: class" if place == 1 else "order: row"):
        ops.train_mlps(optimizer, *epoch)


@needs_kernels
def test_train_mlps_takes_plain_adamw():
    stack, _ = mlps(torch.float32)
    with pytest.raises(ValueError, match="amsgrad"):
        ops.train_mlps(torch.optim.AdamW(stack.parameters(), amsgrad=True), *epoch_of(stack, 20, 4))


# What surrounds them


@needs_kernels
@on_devices
def test_opcheck(device):
    registered = torch.ops.maskbench
    a, b = (logits(2, 9, seed=i, device=device).requires_grad_() for i in range(2))
    for op, arguments in (
        (registered.sample_prior, (state(1, 2, device), 5, 7, 3)),
        (registered.sample_prior, (state(1, 2, device), 5, 7, 3, 11)),
        (registered.discriminator_loss, (a, b)),
        (registered.generator_loss, (a,)),
        (registered.bce_forward, (a.detach(), b.detach())),
        (registered.bce_forward, (a.detach(), None)),
        (registered.bce_backward, (torch.ones((), device=device), torch.ones(2, 2, 9, device=device))),
    ):
        torch.library.opcheck(op.default, arguments)


@on_devices
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiles_into_one_graph(device, compiler):
    if compiler == "inductor" and device == "cpu" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler for torch.compile")

    def step(rng_state, encoded, batch):
        gaussian, one_hot = ops.sample_prior(rng_state, batch, 8, 3)
        prior = torch.stack((gaussian.sum(1), one_hot.argmax(1).float()))
        return ops.discriminator_loss(prior, encoded * 2) + ops.generator_loss(encoded)

    compiled = torch.compile(step, fullgraph=True, backend=compiler)
    encoded = logits(2, 6, device=device).requires_grad_()
    value, expected = (f(state(5, 1, device), encoded, 6) for f in (compiled, step))
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(x, encoded)[0] for x in (value, expected)]
    torch.testing.assert_close(*gradients)


@needs_kernels
@on_losses
def test_one_graph_serves_every_batch_size(name):
    loss, _ = loss_and_inputs(name, 2, 5)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    torch._dynamo.reset()
    compiled = torch.compile(lambda *logits: loss(*logits), fullgraph=True, dynamic=True, backend=count)
    for rows in (5, 6, 9):
        _, inputs = loss_and_inputs(name, 2, rows)
        torch.testing.assert_close(compiled(*inputs), loss(*inputs))
    assert len(graphs) == 1


@on_devices
def test_fakes_know_the_shapes(device):
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=False) as mode:
        rng_state = mode.from_tensor(state(0, 0, device)) if device == "cuda" else torch.empty(2, dtype=torch.int64)
        gaussian, one_hot = ops.sample_prior(rng_state, 4, 6, 3)
        assert (gaussian.shape, one_hot.shape) == ((4, 6), (4, 3)) and gaussian.dtype == one_hot.dtype == torch.float32
        assert ops.generator_loss(torch.empty(2, 5, dtype=torch.float64)).dtype == torch.float64


@on_devices
@pytest.mark.parametrize(
    ("rng_state", "sizes", "message"),
    [
        (torch.zeros(2), (1, 1, 1), "rng_state must be an int64 tensor"),
        (torch.zeros(3, dtype=torch.int64), (1, 1, 1), "rng_state must be an int64 tensor"),
        (torch.zeros(1, 2, dtype=torch.int64), (1, 1, 1), "rng_state must be an int64 tensor"),
        ((0, 0), (1, 1, 1), "rng_state must be an int64 tensor .* got tuple"),
        (torch.zeros(2, dtype=torch.int64), (0, 1, 1), "must be at least 1, got batch=0"),
        (torch.zeros(2, dtype=torch.int64), (1, -1, 1), "must be at least 1, got .*gaussian_dim=-1"),
        (torch.zeros(2, dtype=torch.int64), (1, 1, 0), "must be at least 1, got .*categories=0"),
        (torch.zeros(2, dtype=torch.int64), (1, 1, 1, -1), "first_row must not be negative, got -1"),
    ],
)
def test_sample_prior_says_what_is_wrong(device, rng_state, sizes, message):
    if isinstance(rng_state, torch.Tensor):
        rng_state = rng_state.to(device)
        if ops.backend(device) != "reference":  # nor may a direct call read past the end
            with pytest.raises(ValueError):
                torch.ops.maskbench.sample_prior(rng_state, *sizes)
    with pytest.raises(ValueError, match=message):
        ops.sample_prior(rng_state, *sizes)


@on_devices
@pytest.mark.parametrize(
    ("prior", "encoded", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3), r"encoded_logits must be .* got float32 \[3\]"),
        (torch.zeros(2, 0), torch.zeros(2, 0), r"prior_logits must be .* got float32 \[2, 0\]"),
        (torch.zeros(2, 3).long(), torch.zeros(2, 3), "prior_logits must be .* got int64"),
        (torch.zeros(2, 3).half(), torch.zeros(2, 3).half(), "prior_logits must be .* got float16"),
        (torch.zeros(2, 3), [0.0], "encoded_logits must be .* got list"),
        (torch.zeros(2, 3), torch.zeros(2, 4), "must agree in shape, dtype and device"),
        (torch.zeros(2, 3), torch.zeros(2, 3).double(), "must agree in shape, dtype and device"),
        (torch.zeros(2, 3), torch.zeros(2, 3, device="meta"), "must agree in shape, dtype and device"),
    ],
)
def test_losses_say_what_is_wrong(device, prior, encoded, message):
    prior = prior.to(device)
    if isinstance(encoded, torch.Tensor) and not encoded.is_meta:
        encoded = encoded.to(device)
    with pytest.raises(ValueError, match=message):
        ops.discriminator_loss(prior, encoded)
    if isinstance(encoded, torch.Tensor) and message.startswith("encoded_logits"):
        with pytest.raises(ValueError, match=message):
            ops.generator_loss(encoded)


@needs_kernels
@on_devices
def test_direct_calls_are_safe(device):
    wrong = [
        (torch.zeros(2, 3), torch.zeros(2, 4)),
        (torch.zeros(2, 3), torch.zeros(2, 3).double()),
        (torch.zeros(3), torch.zeros(3)),
        (torch.zeros(2, 0), torch.zeros(2, 0)),
    ]
    for a, b in wrong:
        with pytest.raises(ValueError):
            torch.ops.maskbench.discriminator_loss(a.to(device), b.to(device))


def test_backend_names_what_runs():
    assert ops.backend("cpu") in ("cpu", "reference")
    assert ops.backend(torch.device("meta")) == "reference"
    with pytest.raises(RuntimeError):
        ops.backend("no such device")


def run_python(code: str, package_folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        cwd=package_folder,
        env={k: v for k, v in os.environ.items() if k != "MASKBENCH_BACKEND"} | environment,
        capture_output=True,
        text=True,
    )


IMPORT_TWICE = "from maskbench import ops; import maskbench.ops; print(ops.backend('cpu'))"


@pytest.mark.parametrize("extension", ["missing", "for another torch", "broken"])
def test_without_a_usable_extension_the_reference_runs_with_one_warning(tmp_path, extension):
    package = Path(ops.__file__).parent.parent
    shutil.copytree(package, tmp_path / "maskbench", ignore=shutil.ignore_patterns("_C.*", "__pycache__"))
    library = tmp_path / f"maskbench/_C{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    if extension == "for another torch":
        library.write_bytes(b"maskbench._C built for torch 1.0.0\0")
    elif extension == "broken":
        library.write_bytes(f"maskbench._C built for torch {torch.__version__}\0".encode())
    done = run_python(IMPORT_TWICE, tmp_path)
    assert done.returncode == 0 and done.stdout == "reference\n", done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert "python setup.py build_ext --inplace --force" in done.stderr


def test_the_reference_can_be_forced(monkeypatch):
    root = Path(ops.__file__).parent.parent.parent
    done = run_python(IMPORT_TWICE, root, MASKBENCH_BACKEND="reference")
    assert done.returncode == 0 and done.stdout == "reference\n" and "Warning" not in done.stderr, done.stderr
    monkeypatch.setenv("MASKBENCH_BACKEND", "fast")
    with pytest.raises(ValueError, match="MASKBENCH_BACKEND must be reference or unset, got 'fast'"):
        ops._load_kernels()


def test_facts_are_printed():
    root = Path(ops.__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-m", "maskbench.ops"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"runs on cpu         {ops.backend('cpu')}" in done.stdout
    if ops.backend("cpu") == "cpu":
        assert all(fact in done.stdout for fact in ("compiler", "simd_in_use", "cuda", torch.__version__))
