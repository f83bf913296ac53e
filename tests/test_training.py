"""The training step against the paper's loop written out plainly, and the ways to make it faster against the step."""

import contextlib
import ctypes
import dataclasses
import functools
import importlib
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, Forked
from ops_common import COMPILER, needs_compiler, needs_gpu, on_devices
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import train_aae
from maskbench import ops
from maskbench.data.image_set import to_float
from maskbench.models import PRESETS, Decoder, Discriminator, Encoder, PriorSampler, checkpoints, encoder
from maskbench.models.layers import BatchNorm
from maskbench.ops import step
from maskbench.ops.loading import COMPILED
from maskbench.runtime.cuda_graphs import WARM_UP, Captured
from maskbench.runtime.stopping import Stopper
from maskbench.storage import pt
from maskbench.training.images import TrainingImages
from maskbench.training.instances import train_in_threads
from maskbench.training.resume import environment
from maskbench.training.run import Run
from maskbench.training.settings import Settings
from maskbench.training.state import TrainingState
from train_aae import (
    BETAS,
    CATEGORY,
    DECORRELATION,
    DISCRIMINATOR_BETAS,
    DISCRIMINATOR_STEPS,
    FORGOTTEN,
    GRADIENT_PENALTY,
    PRIOR_PULL,
    take_step,
)

pytestmark = pytest.mark.usefixtures("undrawn")

registered = torch.ops.maskbench
OPTIMIZERS = ("reconstruction_optimizer", "discriminator_optimizer", "generator_optimizer")


def make(preset: str, dtype: torch.dtype, device: str = "cpu", capturable: bool = False) -> TrainingState:
    torch.manual_seed(0)
    config = dict(preset=preset, image_size=16, width=4, gaussian_dim=24, categories=5)
    parts = {
        "encoder": Encoder(**config),
        "decoder": Decoder(**config),
        "gaussian_discriminator": Discriminator(24, reads_length=preset == "paper", hidden=16),
        "categorical_discriminator": Discriminator(5, hidden=16),
        "prior": PriorSampler(24, 5, seed=3),
    }
    parts["decoder"].contrast = parts["encoder"].contrast
    parts = {name: part.to(device).to(dtype) for name, part in parts.items()}
    of = lambda *names: [p for name in names for p in parts[name].parameters()]  # noqa: E731
    contrast = set(parts["encoder"].contrast.parameters())
    learning = ("encoder", "decoder") if preset == "paper" else ("decoder",)
    rebuilding = [p for p in of(*learning) if p not in contrast]
    chosen = rebuilding, of("gaussian_discriminator", "categorical_discriminator"), of("encoder")
    for name, parameters, lr in zip(OPTIMIZERS, chosen, (1e-3, 1e-3, 1e-4), strict=True):
        lr = torch.tensor(lr, device=device) if capturable else lr
        betas = DISCRIMINATOR_BETAS[preset] if name == "discriminator_optimizer" else BETAS
        parts[name] = torch.optim.Adam(parameters, lr=lr, betas=betas, fused=True, capturable=capturable)
    return TrainingState(**parts, pull=1.0 if preset == "paper" else PRIOR_PULL)


def tiny(preset: str, epochs: int, images: Tensor | None = None) -> Run:
    """A training of small networks: on 64 images of noise, four mini-batches, or on these."""
    if images is None:
        images = torch.randint(256, (64, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    settings = Settings("", None, 16, 24, 5, preset, 1.0, 16, 1e-3, 0)
    return Run(settings, epochs, TrainingImages(images, images[:8], ""), environment(torch.device("cpu"), False))


def mini_batches(preset: str, steps: int, dtype: torch.dtype, device: str = "cpu") -> list[list[Tensor]]:
    """Images, and for preset invariant their views: what a step is given."""
    generator, sides = torch.Generator().manual_seed(1), (16,) if preset == "paper" else (16, 12)
    return [
        [torch.rand(7, 3, side, side, generator=generator).to(device, dtype) for side in sides] for _ in range(steps)
    ]


def step_of(state: TrainingState, pixels: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The step of train_aae.py for such pixels: of them, their numbers and the epoch; on a GPU captured."""
    settings, images = SimpleNamespace(batch_size=len(pixels)), SimpleNamespace(train=pixels)
    return train_aae.step_function(state, SimpleNamespace(settings=settings, images=images, compile=False), seed=0)


class PlainLoop:
    """The same step as one would write it down: every pass alone, every formula in full."""

    def __init__(self, state: TrainingState):
        self.parts, self.preset = state.parts(), state.preset
        self.optimizers = [
            torch.optim.Adam(
                [p for group in self.parts[name].param_groups for p in group["params"]],
                lr=self.parts[name].param_groups[0]["lr"],
                betas=self.parts[name].param_groups[0]["betas"],
                foreach=False,
            )
            for name in OPTIMIZERS
        ]

    @mock.patch.object(step, "MOST_ROWS", 0)  # the networks in PyTorch alone
    def __call__(self, images: Tensor, views: Tensor | None = None) -> Tensor:
        decoder = self.parts["decoder"]
        tell_gaussian, tell_categorical = self.tell_gaussian, self.parts["categorical_discriminator"]
        bce = F.binary_cross_entropy_with_logits

        gaussian, categorical, soft = self.encode(images)
        code = torch.cat((gaussian / self.shortened(gaussian), categorical), 1)
        if views is None:
            reconstruction = (decoder.rebuild(code) - images).square().mean()
        else:
            reconstruction = (decoder.rebuild(code[::4].detach()) - images[::4]).square().mean()
        self.descend(reconstruction, 0)

        if views is None:
            gaussian, categorical, soft = self.encode(images)
        else:
            self.statistics_follow(0.0)
            gaussian_of_views, _, soft_of_views = self.encode(views)
            self.statistics_follow(0.1)
        rows = len(gaussian)
        one, zero = images.new_ones(rows), images.new_zeros(rows)
        for _ in range(DISCRIMINATOR_STEPS[self.preset]):
            real_gaussian, real_categorical = (draws.to(images) for draws in self.parts["prior"](rows))
            of_gaussian = bce(tell_gaussian(real_gaussian), one) + bce(tell_gaussian(gaussian.detach()), zero)
            of_categorical = bce(tell_categorical(real_categorical), one)
            of_categorical = of_categorical + bce(tell_categorical(categorical.detach()), zero)
            penalty = 0
            for row in real_gaussian:  # one draw after another
                row = row.clone().requires_grad_()
                (slope,) = torch.autograd.grad(tell_gaussian(row[None]).sum(), row, create_graph=True)
                penalty = penalty + slope.dot(slope) / len(real_gaussian)
            self.descend(of_gaussian + of_categorical + GRADIENT_PENALTY[self.preset] / 2 * penalty, 1)

        fooled = bce(tell_gaussian(gaussian), one) + bce(tell_categorical(categorical), one)
        agreement = [] if views is None else [self.disagreement(gaussian, gaussian_of_views, soft, soft_of_views)]
        self.descend(fooled if views is None else agreement[0] + PRIOR_PULL * fooled, 2)
        for name in ("encoder", "decoder", "gaussian_discriminator", "categorical_discriminator"):
            self.parts[name].zero_grad()
        return torch.stack((reconstruction, of_gaussian, of_categorical, fooled, *agreement)).detach()

    def tell_gaussian(self, z: Tensor) -> Tensor:
        if self.preset == "paper":
            size = z.shape[1]
            z = torch.cat((z, math.sqrt(2) * (z.pow(2).sum(1, keepdim=True).sqrt() - math.sqrt(size - 0.5))), 1)
        return self.parts["gaussian_discriminator"].layers(z).squeeze(1)

    def statistics_follow(self, momentum: float) -> None:
        for layer in self.parts["encoder"].modules():
            if isinstance(layer, BatchNorm):
                layer.momentum = momentum

    def disagreement(self, *of_images_and_views: Tensor) -> Tensor:
        one, two, soft, soft_of_views = of_images_and_views
        one, two = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (one, two))
        loss = 0
        for i in range(one.shape[1]):
            correlations = (one[:, i, None] * two).mean(0)
            others = correlations.square().sum() - correlations[i] ** 2
            loss = loss + (1 - correlations[i]) ** 2 / one.shape[1] + DECORRELATION * others
        for first, second in zip(soft, soft_of_views, strict=True):
            loss = loss - CATEGORY * first.dot(second).log() / len(one)
        return loss

    def descend(self, loss: Tensor, number: int) -> None:
        self.optimizers[number].zero_grad()
        loss.backward()
        self.optimizers[number].step()

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gaussian and categorical part, and the probabilities of the categories."""
        encoder = self.parts["encoder"]
        features = encoder.features(images)
        x = encoder.gaussian(features)
        soft = encoder.categorical(features if self.preset == "paper" else features.detach()).softmax(1)
        power, scale = encoder.contrast.log_power.exp(), encoder.contrast.log_scale.exp()
        gaussian = x * scale * (x.norm(dim=1, keepdim=True) / math.sqrt(x.shape[1])) ** (power - 1)
        return gaussian, F.one_hot(soft.argmax(1), soft.shape[1]) + soft - soft.detach(), soft

    def shortened(self, gaussian: Tensor) -> Tensor:
        """What the contrast made of lengths, as a factor: [N, 1]."""
        contrast = self.parts["encoder"].contrast
        power, scale = contrast.log_power.exp(), contrast.log_scale.exp()
        length = gaussian.norm(dim=1, keepdim=True) / math.sqrt(gaussian.shape[1])
        return length / (length / scale) ** (1 / power)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_is_that_of_a_plain_loop(preset):
    state, plain = make(preset, torch.float64), PlainLoop(make(preset, torch.float64))
    for batch in mini_batches(preset, 20, torch.float64):
        losses = take_step(state, *batch)
        torch.testing.assert_close(losses, plain(*batch), rtol=1e-8, atol=0)
    for name in ("encoder", "decoder", "gaussian_discriminator", "categorical_discriminator"):
        wanted = plain.parts[name].state_dict()
        for key, value in state.parts()[name].state_dict().items():
            if key.endswith("num_batches_tracked"):  # the plain loop counts views, too
                continue
            torch.testing.assert_close(value, wanted[key], rtol=1e-6, atol=1e-8, msg=key)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_first_step_in_single_precision(preset, monkeypatch):
    monkeypatch.setattr(encoder, "has_bfloat16", lambda device: False)
    parts, plain = make(preset, torch.float32), PlainLoop(make(preset, torch.float32))
    batch = mini_batches(preset, 1, torch.float32)[0]
    torch.testing.assert_close(take_step(parts, *batch), plain(*batch), rtol=1e-5, atol=1e-6)


class Recording(TorchDispatchMode):
    """Refuses what no CUDA graph can hold: what depends on values, and any tensor of the host.

    The device is "meta", torch's device without values, so every tensor of the CPU is one of the host.

    Attributes:
        called: packets of the functions that were not refused.
    """

    depends_on_values = frozenset((torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape))
    indexing = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)
    # on "meta" torch makes copies from the host without a call to be seen
    copies = ((torch, "tensor"), (torch, "as_tensor"), (torch, "from_numpy"), (Tensor, "new_tensor"))

    def __enter__(self):
        self.called = set()
        self.patches = contextlib.ExitStack()
        for owner, name in self.copies:
            refuse = mock.patch.object(owner, name, side_effect=AssertionError("refused: a copy from the host"))
            self.patches.enter_context(refuse)
        return super().__enter__()

    def __exit__(self, *error: object):
        self.patches.close()
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        refused = self.depends_on_values.intersection(function.tags)
        if function.overloadpacket in self.indexing:
            refused = any(index is not None and index.dtype == torch.bool for index in args[1])
        assert not refused and self.on_device((args, kwargs)), f"refused: {function}"
        if function is torch.ops.aten._fused_adam_.tensor_lr:  # "meta" lacks it
            return None
        result = function(*args, **(kwargs or {}))
        assert self.on_device(result), f"refused: {function}"
        self.called.add(function.overloadpacket)
        return result

    @staticmethod
    def on_device(values: object) -> bool:
        leaves = [leaf for leaf in tree_leaves(values) if isinstance(leaf, (Tensor, torch.device))]
        return all((leaf.device if isinstance(leaf, Tensor) else leaf).type == "meta" for leaf in leaves)


FAULTS = {  # planted in a loss
    "a value is read": lambda loss: loss.item(),
    "a branch": lambda loss: loss if loss > 0 else -loss,
    "a copy to the host": lambda loss: loss.cpu(),
    "a shape that depends on values": lambda loss: loss.nonzero(),
    "a mask": lambda loss: loss[loss > 0],
    "a selection": lambda loss: loss.masked_select(loss > 0),
    "a tensor of the host": lambda loss: loss + torch.ones(1),
    "a number of the host": lambda loss: loss + torch.tensor(1.0),
    "a copy from the host": lambda loss: loss + torch.ones(1).to(loss.device),
    "a number of the host, copied": lambda loss: loss + loss.new_tensor(1.0),
    "a list of the host, copied": lambda loss: loss + torch.tensor([1.0], device=loss.device),
    "a mask that is written": lambda loss: loss.expand(2).index_put((loss.expand(2) > 0,), loss.expand(2)),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_can_be_captured(preset, monkeypatch):
    """With the real optimisers, whose states the first call makes; what lasts is changed in place, so a step keeps no
    memory beside its graph's.
    """
    monkeypatch.setattr(sys.modules["torch.optim.optimizer"], "_get_fused_kernels_supported_devices", lambda: ["meta"])
    monkeypatch.setattr(torch, "autocast", lambda *_: contextlib.nullcontext())  # not for meta; chooses dtypes alone
    kernels = {registered.sample_prior, registered.bce_forward, registered.bce_backward} if COMPILED else set()
    monkeypatch.setattr(ops.adversarial, "COMPILED", frozenset({"meta"} if kernels else ()))
    state = make(preset, torch.float32, "meta")
    for group in (group for optimizer in state.optimizers for group in optimizer.param_groups):
        group.update(capturable=True, lr=torch.empty((), device="meta"))  # as TrainingState.make_capturable
    pixels = torch.empty(7, 3, 16, 16, dtype=torch.uint8, device="meta")
    numbers, epoch = torch.arange(7, device="meta"), torch.empty((), dtype=torch.int64, device="meta")
    taken = functools.partial(step_of(state, pixels), pixels, numbers, epoch)

    def lasting() -> list[Tensor]:
        parts = state.parts().values()
        kept = [
            part.state_dict(keep_vars=True) if isinstance(part, nn.Module) else [*part.state.values()] for part in parts
        ]
        return tree_leaves(kept)

    def replaces_its_state(prior: PriorSampler, *args: int) -> tuple[Tensor, Tensor]:
        draws = ops.sample_prior(prior.rng_state, args[0], prior.gaussian_dim, prior.categories)
        prior.rng_state = prior.rng_state + 1
        return draws

    with Recording() as recording:
        taken()
        assert kernels <= recording.called
        before = lasting()
        assert taken().shape == (4 if preset == "paper" else 5,)
        assert all(one is other for one, other in zip(lasting(), before, strict=True))
        fault = FAULTS["a value is read"]
        monkeypatch.setattr(train_aae, "generator_loss", lambda logits: fault(ops.generator_loss(logits)))
        with pytest.raises(AssertionError, match="refused"):
            taken()
        monkeypatch.setattr(train_aae, "generator_loss", ops.generator_loss)
        monkeypatch.setattr(PriorSampler, "forward", replaces_its_state)
        taken()
        assert not all(one is other for one, other in zip(lasting(), before, strict=True))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_captured_is_refused(fault):
    with Recording():
        loss = ops.generator_loss(torch.empty(2, 7, device="meta"))
        assert loss.shape == ()
        with pytest.raises(AssertionError, match="refused"):
            fault(loss)


@needs_compiler
@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA's own device guard")
def test_forward_passes_of_a_step_run_on_fake_cuda_tensors(tmp_path):
    """Of both presets, with autocast as on a GPU. The passes back ask for a real one: they run on "meta" alone."""
    torch_folder, guard = Path(torch.__file__).parent, tmp_path / "guard.so"
    command = [*COMPILER, "-std=c++20", "-shared", "-fPIC", f"-I{torch_folder}/include", ROOT / "tests/cuda_guard.cpp"]
    subprocess.run([*command, f"-L{torch_folder}/lib", "-lc10", "-o", guard], check=True, timeout=120)
    call = f"import test_training; test_training.pass_without_values({str(guard)!r})"
    ended = Forked("-c", call, cwd=ROOT / "tests", PYTHONPATH=str(ROOT)).finish()
    assert ended.returncode == 0, ended.stderr


def pass_without_values(guard: str) -> None:
    """In a process of its own, in which torch is told that there is a GPU."""
    ctypes.CDLL(guard)
    states, losses, dtypes = [make(preset, torch.float32) for preset in PRESETS], [], set()
    with (
        FakeTensorMode(),
        mock.patch("torch.cuda.is_bf16_supported", lambda **_: True),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        mock.patch.object(ops.adversarial, "COMPILED", {"cuda"} if COMPILED else ()),
        mock.patch.object(train_aae, "Captured", lambda step: step),
        mock.patch.object(train_aae, "descend", lambda loss, _: losses.append(loss)),
        mock.patch.object(train_aae, "gradient_penalty", lambda _, draws: draws.new_zeros(())),
    ):
        for state in states:
            for part in (part for network in (*state.networks().values(), state.prior) for part in network.modules()):
                for kept in (part._parameters, part._buffers):
                    for name, value in ((name, value) for name, value in kept.items() if value is not None):
                        fake = torch.empty(value.shape, dtype=value.dtype, device="cuda:0")
                        kept[name] = fake.requires_grad_(value.requires_grad)
            for layer in state.encoder.features.modules():
                layer.register_forward_hook(lambda *call, preset=state.preset: dtypes.add((preset, call[-1].dtype)))
            pixels = torch.empty(7, 3, 16, 16, dtype=torch.uint8, device="cuda:0")
            numbers, epoch = torch.arange(7, device="cuda:0"), torch.ones((), dtype=torch.int64, device="cuda:0")
            assert step_of(state, pixels)(pixels, numbers, epoch).device == pixels.device
        assert len(losses) == 4 + sum(DISCRIMINATOR_STEPS.values())
        assert ("invariant", torch.bfloat16) in dtypes and ("paper", torch.bfloat16) not in dtypes


def test_a_checkpoint_says_which_kernels_made_it():
    backend = environment(torch.device("cpu"), False)["backend of the ops"]
    assert backend == f"{ops.backend('cpu')}, {ops.step_kernels()}"


def test_compiled_networks_compute_the_same(monkeypatch):
    # what torch makes of the networks, without the minutes of a compiler for its kernels
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    parts, plain = make("paper", torch.float64), make("paper", torch.float64)
    used = parts.compiled()
    for batch in mini_batches("paper", 2, torch.float64):
        losses = take_step(used, *batch)
        torch.testing.assert_close(losses, take_step(plain, *batch), rtol=1e-8, atol=0)


def test_the_ablation_leaves_out_what_it_says(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(train_aae.__file__).parent / "benchmarks"))
    ablation = importlib.import_module("ablation")
    run = tiny("paper", epochs=1)
    images = run.images.train

    def trained() -> Tensor:
        state = train_aae.begin(run, 0, fit=True)
        for epochs, batch in enumerate(images.split(16)):
            state.anneal(epochs, 4)
            assert take_step(state, batch / 255).isfinite().all()
        train_aae.whiten(state.encoder, state.decoder, train_aae.linear_outputs(state.encoder, [images / 255])[0], 0)
        return torch.cat([parameter.detach().flatten() for parameter in state.encoder.parameters()])

    whole = trained()
    for name, patches in ablation.ADDITIONS.items():
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            assert torch.equal(trained(), whole) == (not patches), name
    assert torch.equal(trained(), whole)


def test_preset_invariant_resumes_to_the_same_bits(tmp_path, monkeypatch):
    run = tiny("invariant", epochs=2)
    for name in ("unbroken", "broken"):
        (tmp_path / name).mkdir()
    train_aae.train(Stopper(10), run, 0, None, tmp_path / "unbroken", 0)

    class AfterSixSteps:
        calls = 0

        def due(self) -> bool:
            self.calls += 1
            return self.calls == 6

        def saved(self, place: str) -> None:
            if self.calls == 6:
                raise KeyboardInterrupt(place)

    with pytest.raises(KeyboardInterrupt, match="epoch 2, step 2"):
        train_aae.train(AfterSixSteps(), run, 0, None, tmp_path / "broken", 0)
    saved = checkpoints.load_checkpoint(tmp_path / "broken" / "checkpoint.pt")
    assert saved["losses"].shape == (2, 5)
    train_aae.train(Stopper(10), run, 0, saved, tmp_path / "broken", 0)
    folders = tmp_path / "unbroken", tmp_path / "broken"
    unbroken, resumed = (checkpoints.load_checkpoint(folder / "checkpoint.pt") for folder in folders)
    for part in ("encoder", "decoder", "gaussian_discriminator", "categorical_discriminator", "prior"):
        for name, tensor in resumed["states"][part].items():
            assert torch.equal(tensor, unbroken["states"][part][name]), (part, name)
    fingerprint = checkpoints.load_pair(folders[0])[2]
    assert checkpoints.load_pair(folders[1])[2] == fingerprint
    (folders[0] / "encoder.pt").unlink()  # as where a run is stopped between two of its files
    monkeypatch.setattr(train_aae, "forget", None)  # on another machine, rounding would make another encoder
    train_aae.train(Stopper(10), run, 0, unbroken, folders[0], 0)
    assert checkpoints.load_pair(folders[0])[2] == fingerprint
    assert (folders[0] / "decoder.pt").read_bytes() == (folders[1] / "decoder.pt").read_bytes()
    # stopped within epoch 2, resumed with --epochs 1: nothing is left to do, and the pair is that of epoch 1
    train_aae.train(Stopper(10), dataclasses.replace(run, epochs=1), 0, saved, folders[1], 0)
    assert checkpoints.load_pair(folders[1])[2] == pt.fingerprint(saved["pair"]["encoder"]) != fingerprint
    torch.set_flush_denormal(False)


@pytest.mark.parametrize(("steps", "whitened"), [(4, 4), (6, 3), (100, 1)])
def test_codes_in_training_are_not_whitened_after_too_few_steps(tmp_path, monkeypatch, steps, whitened):
    """Four epochs of four steps; after the last they always are. Each epoch also whitens a copy, which becomes
    encoder.pt, and one whitening is at the start.
    """
    run = tiny("invariant", epochs=4)
    whiten = mock.Mock(wraps=train_aae.whiten)
    monkeypatch.setattr(train_aae, "whiten", whiten)
    monkeypatch.setattr(train_aae, "WHITENED", steps)
    train_aae.train(Stopper(10), run, 0, None, tmp_path, 0)
    first, *later = [call.args[0] for call in whiten.call_args_list]
    assert sum(encoder is first for encoder in later) == whitened and len(later) == 4 + whitened
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("preset", PRESETS)
def test_after_every_epoch_a_copy_of_the_encoder_forgets(preset, tmp_path):
    """Of images of few patterns, codes in training tell nearly all, those of encoder.pt what was not erased."""
    random = torch.Generator().manual_seed(0)
    patterns = torch.rand(8, 1, 4, 4, generator=random)
    grey = F.interpolate(torch.einsum("nk,kchw->nchw", torch.rand(240, 8, generator=random), patterns), size=16)
    images = grey.mul(255 / grey.max()).to(torch.uint8).repeat(1, 3, 1, 1)
    run = tiny(preset, epochs=2, images=images)

    class AfterTheFirstEpoch:
        def due(self) -> bool:
            return False

        def saved(self, place: str) -> None:
            raise KeyboardInterrupt(place)

    with pytest.raises(KeyboardInterrupt, match="epoch 1"):
        train_aae.train(AfterTheFirstEpoch(), run, 0, None, tmp_path, 0)
    pictures = grey[:, 0, ::2, ::2].flatten(1)
    pictures = pictures - pictures.mean(0)

    @torch.no_grad()
    def told(encoder: Encoder) -> float:
        """The part of the pictures' variance that codes tell linearly."""
        codes = encoder(to_float(images))[0]
        codes = torch.linalg.qr(codes - codes.mean(0))[0]
        return float((codes.T @ pictures).square().sum() / pictures.square().sum())

    written, decoder, fingerprint = checkpoints.load_pair(tmp_path)
    trained, its_decoder, of_pair = checkpoints.load_in_training(tmp_path / "checkpoint.pt")
    assert of_pair == fingerprint
    codes = torch.cat(written(to_float(images)), 1)
    if preset == "paper":
        assert all(torch.equal(value, trained.state_dict()[name]) for name, value in written.state_dict().items())
        assert torch.equal(decoder(codes), its_decoder(codes))
    else:
        assert told(written) < 0.1 and told(trained) > 0.8
        # the written decoder fits: its pictures are those of codes that forgot and were not whitened
        features, *kinds = train_aae.features_and_pictures(trained, [to_float(images)])
        train_aae.forget(trained.gaussian, features, *zip(kinds, FORGOTTEN, strict=True))
        with torch.no_grad():
            wanted = its_decoder(torch.cat(trained(to_float(images)), 1))
            errors = [(decode(codes) - wanted).square().mean() / wanted.var() for decode in (decoder, its_decoder)]
        assert errors[0] < 1e-6 and errors[1] > 0.1
    torch.set_flush_denormal(False)


def test_instances_in_threads_are_those_of_one_after_another(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (64, 3, 16, 16), generator=generator, dtype=torch.uint8)
    common = ["--image-size", "16", "--gaussian-dim", "24", "--categories", "5", "--preset", "paper", "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", ["train_aae.py", *common])
    args = train_aae.parse_arguments()
    settings = Settings(**{name: getattr(args, name) for name in Settings.names()})
    run = Run(settings, args.epochs, TrainingImages(images, images[:8], ""), environment={})

    def calls(name: str) -> list[tuple]:
        folders = [tmp_path / name / str(seed) for seed in range(2)]
        for folder in folders:
            folder.mkdir(parents=True)
        return [(run, seed, None, folder, seed) for seed, folder in enumerate(folders)]

    train_in_threads(train_aae.train, Stopper(10), calls("threads"), torch.device("cpu"))
    for call in calls("alone"):
        train_aae.train(Stopper(10), *call)
    for seed in range(2):
        both = [
            torch.load(tmp_path / name / str(seed) / "encoder.pt", weights_only=True) for name in ("threads", "alone")
        ]
        for key, value in both[0]["state_dict"].items():
            assert torch.equal(value, both[1]["state_dict"][key])
    # one that fails stops the others, and what it said is told
    broken = calls("broken")
    narrow = dataclasses.replace(run, images=TrainingImages(images[:, :, :8], images[:8], ""))
    broken[1] = (narrow, *broken[1][1:])
    with pytest.raises((RuntimeError, ValueError)):
        train_in_threads(train_aae.train, Stopper(10), broken, torch.device("cpu"))
    torch.set_flush_denormal(False)


def test_a_thread_needs_no_second_stream(monkeypatch):
    """torch has 32 in all: a stream for the capture alone would be another thread's."""
    default, own, new = object(), object(), object()
    monkeypatch.setattr(torch.cuda, "default_stream", lambda: default)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: new)
    for current, captured in ((own, own), (default, new)):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda current=current: current)
        assert Captured(lambda: None)._stream is captured


@needs_gpu
@pytest.mark.parametrize("preset", PRESETS)
def test_a_captured_step_computes_the_same(preset):
    parts, plain = (make(preset, torch.float64, "cuda", capturable=True) for _ in range(2))
    step = Captured(functools.partial(take_step, parts))
    for batch in mini_batches(preset, 40, torch.float64, "cuda"):
        losses = step(*batch).clone()
        torch.testing.assert_close(losses, take_step(plain, *batch), rtol=1e-8, atol=0)
    assert parts.prior.rng_state.tolist() == [3, 40 * DISCRIMINATOR_STEPS[preset]]  # it advanced within the graph


@needs_gpu
def test_the_first_captured_step_in_single_precision():
    parts, plain = (make("paper", torch.float32, "cuda", capturable=True) for _ in range(2))
    step = Captured(functools.partial(take_step, parts))
    for number, batch in enumerate(mini_batches("paper", 4, torch.float32, "cuda")):
        tolerance = 1e-5 if number == 0 else 1e-2  # the fourth is the first that is replayed
        torch.testing.assert_close(step(*batch), take_step(plain, *batch), rtol=tolerance, atol=1e-6)
    assert math.isfinite(step(*batch).sum().item())


@on_devices
def test_a_step_of_views_in_bfloat16_can_be_captured(device, monkeypatch):
    """Preset invariant as it is trained: views within the graph, maps in bfloat16 and channels last; beside the same
    step eager. On a CPU both are eager. Nothing is learned, so that what differs are the views of an epoch.
    """
    monkeypatch.setattr(encoder, "has_bfloat16", lambda device: True)
    pixels = torch.randint(256, (32, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels, numbers = pixels.to(device), torch.arange(32, device=device)
    states = [make("invariant", torch.float32, device, capturable=device == "cuda") for _ in range(2)]
    for group in (group for state in states for optimizer in state.optimizers for group in optimizer.param_groups):
        group["lr"] = torch.zeros((), device=device) if device == "cuda" else 0.0
    step, eager = (step_of(state, pixels) for state in states)
    if device == "cuda":
        assert isinstance(step, Captured)
        eager = eager.function
    maps = set()
    for layer in states[0].encoder.features.convolutions:
        layer.register_forward_hook(
            lambda _layer, _inputs, result: maps.add(
                (result.dtype, result.is_contiguous(memory_format=torch.channels_last))
            )
        )
    agreements = set()
    for epoch in range(1, WARM_UP + 4):  # the fourth is the first that is replayed
        of_epoch = torch.tensor(epoch, device=device)
        losses, wanted = step(pixels, numbers, of_epoch).clone(), eager(pixels, numbers, of_epoch)
        torch.testing.assert_close(losses, wanted, rtol=1e-3, atol=1e-4)
        agreements.add(losses[-1].item())
    assert maps == {(torch.bfloat16, True)} and len(agreements) == WARM_UP + 3


@needs_gpu
@pytest.mark.parametrize("preset", PRESETS)
def test_a_captured_step_takes_no_memory_beside_its_graphs(preset):
    def beside() -> int:
        torch.cuda.synchronize()
        pools = [
            (tuple(segment["segment_pool_id"]), segment["active_size"]) for segment in torch.cuda.memory_snapshot()
        ]
        return sum(size for pool, size in pools if pool == (0, 0))

    pixels = torch.zeros(32, 3, 16, 16, dtype=torch.uint8, device="cuda")
    numbers, epoch = torch.arange(32, device="cuda"), torch.ones((), dtype=torch.int64, device="cuda")
    step = step_of(make(preset, torch.float32, "cuda", capturable=True), pixels)
    for _ in range(WARM_UP):
        step(pixels, numbers, epoch)
    before = beside()
    step(pixels, numbers, epoch)  # is captured, and replayed
    copies = sum(-(-kept.nbytes // 512) * 512 for kept in step._inputs)  # torch's allocator rounds up
    assert beside() <= before + copies
