"""The losses of the game against their oracle, maskbench.ops.reference, and the compiled kernels against each other."""

import pytest
import torch
import torch.nn.functional as F
from ops_common import logits, needs_cuda_kernels, needs_gpu, needs_kernels, on_devices
from torch.profiler import ProfilerActivity, profile

from maskbench import ops
from maskbench.ops import reference

# the kernels keep the digits of small losses and gradients; PyTorch's float32 BCE, the reference, rounds against 1
TINY = 1e-15 if ops.backend("cpu") == "cpu" else 2e-6

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


LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaMemset", "cudaMemcpy")


@needs_gpu
@needs_cuda_kernels
@on_losses
@pytest.mark.parametrize(("rows", "launches"), [(16, 1), (70_001, 2)])
def test_launches_of_a_loss_on_cuda(name, rows, launches):
    """The kernel, and zeros for its ticket where it has several blocks."""
    loss, inputs = loss_and_inputs(name, 2, rows, device="cuda")
    loss(*inputs)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        loss(*inputs)
        torch.cuda.synchronize()
    # what the host asks for: of what the GPU then did, the first records of a profile may be lost
    asked = [event.name for event in profiler.events() if event.name.startswith(LAUNCHES)]
    assert len(asked) == launches, asked


@needs_kernels
def test_losses_have_the_same_bits_on_every_path(each_path):
    def run():
        losses = [torch.ops.maskbench.bce_forward(logits(2, n), 30 * logits(2, n, seed=1)) for n in (1, 16, 700, 5000)]
        return [tensor for pair in losses for tensor in pair]

    first, *others = each_path(run).values()
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@on_losses
def test_losses_do_not_depend_on_threads(name):
    loss, inputs = loss_and_inputs(name, 2, 100_003)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            value = loss(*inputs)
            results.append((value, *torch.autograd.grad(value, inputs)))
    finally:
        torch.set_num_threads(threads)
    if ops.backend("cpu") == "reference":
        pytest.skip("PyTorch's own sums depend on the threads")
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


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
        for op in (torch.ops.maskbench.discriminator_loss, torch.ops.maskbench.bce_forward):
            with pytest.raises(ValueError, match=r"got float32 \["):
                op(a.to(device), b.to(device))
