"""What all ops share: which implementation runs where, on any thread, traced, or without the extension."""

import importlib.machinery
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Forked
from ops_common import (
    assert_close,
    logits,
    mlp_inputs,
    needs_cuda_kernels,
    needs_gpu,
    needs_kernels,
    numbers,
    on_devices,
    stack_inputs,
    state,
    value_and_gradients,
)
from torch import Tensor

from maskbench import ops
from maskbench.models import Decoder, Discriminator, Encoder, PriorSampler
from maskbench.ops import loading, reference, step

registered = torch.ops.maskbench


@needs_kernels
@pytest.mark.parametrize("path", ["plain", "avx2", "avx512"])
def test_every_path_runs(each_path, path):
    results = each_path(lambda: ops.sample_prior(state(0), 2, 9, 3))
    if path not in results:
        pytest.skip(f"this processor does not run the {path} kernels")
    assert_close(results[path][0], reference.sample_prior(state(0), 2, 9, 3)[0])


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


@on_devices
def test_fakes_know_the_shapes(device):
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=False) as mode:
        rng_state = mode.from_tensor(state(0, 0, device)) if device == "cuda" else torch.empty(2, dtype=torch.int64)
        gaussian, one_hot = ops.sample_prior(rng_state, 4, 6, 3)
        assert (gaussian.shape, one_hot.shape) == ((4, 6), (4, 3)) and gaussian.dtype == one_hot.dtype == torch.float32
        assert ops.generator_loss(torch.empty(2, 5, dtype=torch.float64)).dtype == torch.float64


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


@needs_kernels
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


@needs_kernels
def test_when_the_kernels_run():
    few, most = torch.zeros(4, 3), step.MOST_ROWS
    assert most > 0 or not torch.backends.cpu.get_cpu_capability().startswith("AVX")
    assert ops.has_step_kernels(few) == (most > 0) == (ops.step_kernels() != "none")
    with torch.no_grad():
        assert not ops.has_step_kernels(few)
    assert not ops.has_step_kernels(few[:0]) and not ops.has_step_kernels(torch.zeros(most + 1, 3))
    assert not ops.has_step_kernels(few.half()) and not ops.has_step_kernels(few.to("meta"))


@needs_kernels
def test_networks_are_the_same_with_and_without_kernels(monkeypatch):
    sizes = dict(image_size=16, width=4, gaussian_dim=24, categories=5)
    encoder, decoder = Encoder(**sizes).double(), Decoder(**sizes).double()
    discriminator = Discriminator(24, hidden=16).double()
    images, codes = numbers(6, 3, 16, 16).detach(), numbers(6, 24)

    def said() -> list[Tensor]:
        parts = encoder(images)
        return [*parts, decoder(torch.cat(parts, 1)), discriminator(codes)]

    calls = []
    for name in ("mlp", "convolutions"):
        function = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *args, f=function: calls.append(f) or f(*args))
    with_kernels = said()
    assert len(calls) == (6 if ops.step_kernels() != "none" else 0)  # two stacks, four of linear layers
    monkeypatch.setattr(step, "MOST_ROWS", 0)
    calls.clear()
    torch.testing.assert_close(with_kernels, said())
    assert not calls
    monkeypatch.undo()
    # what is finished is PyTorch's alone, whatever else it is used for
    for network in (encoder, decoder, discriminator):
        network.eval()
    alone = said()
    monkeypatch.setattr(step, "MOST_ROWS", 0)
    assert all(torch.equal(a, b) for a, b in zip(alone, said(), strict=True))


def test_backend_names_what_runs():
    assert ops.backend("cpu") in ("cpu", "reference")
    assert ops.backend(torch.device("meta")) == "reference"
    with pytest.raises(RuntimeError):
        ops.backend("no such device")


IMPORT_TWICE = """
import warnings
warnings.simplefilter("always")
from maskbench import ops
import maskbench.ops
print(ops.backend("cpu"))
"""


@pytest.mark.parametrize("extension", ["missing", "for another torch", "broken"])
def test_without_a_usable_extension_the_reference_runs_with_one_warning(tmp_path, monkeypatch, extension):
    monkeypatch.delenv("MASKBENCH_BACKEND", raising=False)
    package = Path(ops.__file__).parent.parent
    shutil.copytree(package, tmp_path / "maskbench", ignore=shutil.ignore_patterns("_C.*", "__pycache__"))
    (tmp_path / "setup.py").touch()  # as in a checkout
    library = tmp_path / f"maskbench/_C{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    if extension == "for another torch":
        library.write_bytes(b"maskbench._C built for torch 1.0.0\0")
    elif extension == "broken":
        library.write_bytes(f"maskbench._C built for torch {torch.__version__}\0".encode())
    done = Forked("-c", IMPORT_TWICE, cwd=tmp_path).finish()
    assert done.returncode == 0 and done.stdout == "reference\n", done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert "python setup.py build_ext --inplace --force" in done.stderr


def test_the_reference_can_be_forced(monkeypatch):
    done = Forked("-c", IMPORT_TWICE, cwd=ROOT, MASKBENCH_BACKEND="reference").finish()
    assert done.returncode == 0 and done.stdout == "reference\n" and "Warning" not in done.stderr, done.stderr
    monkeypatch.setenv("MASKBENCH_BACKEND", "fast")
    assert loading.load_kernels() == (frozenset(), "MASKBENCH_BACKEND must be reference or unset, got 'fast'")


def test_facts_are_printed():
    done = Forked("-m", "maskbench.ops", cwd=ROOT).finish()
    assert done.returncode == 0, done.stderr
    assert f"runs on cpu         {ops.backend('cpu')}" in done.stdout
    if ops.backend("cpu") == "cpu":
        assert all(fact in done.stdout for fact in ("compiler", "simd_in_use", "cuda", torch.__version__))
