"""The training step against the paper's loop written out plainly, and the ways to make it faster against the step."""

import dataclasses
import functools
import math
import sys
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import train_aae
from maskbench import ops
from maskbench.models import Decoder, Discriminator, Encoder, PriorSampler
from maskbench.ops import step
from maskbench.runtime.cuda_graphs import Captured
from maskbench.runtime.stopping import Stopper
from maskbench.training.images import TrainingImages
from maskbench.training.instances import train_in_threads
from maskbench.training.resume import environment
from maskbench.training.run import Run
from maskbench.training.settings import Settings
from maskbench.training.state import TrainingState
from train_aae import DECORRELATION, take_step

OPTIMIZERS = ("reconstruction_optimizer", "discriminator_optimizer", "generator_optimizer")

SIZES = {"convolutions": {"frequencies": 0}, "frequencies": {"frequencies": 40}}
PRIOR_WEIGHT = 2.0


def make(sizes: str, dtype: torch.dtype, device: str = "cpu", capturable: bool = False) -> TrainingState:
    torch.manual_seed(0)
    config = dict(image_size=16, width=4, gaussian_dim=24, categories=5, **SIZES[sizes])
    parts = {
        "encoder": Encoder(**config),
        "decoder": Decoder(**config),
        "gaussian_discriminator": Discriminator(24, hidden=16),
        "categorical_discriminator": Discriminator(5, hidden=16),
        "prior": PriorSampler(24, 5, seed=3),
    }
    parts = {name: part.to(device).to(dtype) for name, part in parts.items()}
    of = lambda *names: [p for name in names for p in parts[name].parameters()]  # noqa: E731
    chosen = of("encoder", "decoder"), of("gaussian_discriminator", "categorical_discriminator"), of("encoder")
    for name, parameters, lr in zip(OPTIMIZERS, chosen, (1e-3, 1e-3, 1e-4), strict=True):
        lr = torch.tensor(lr, device=device) if capturable else lr
        parts[name] = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.95), fused=True, capturable=capturable)
    return TrainingState(**parts)


def mini_batches(steps: int, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(7, 3, 16, 16, generator=generator).to(device, dtype) for _ in range(steps)]


class PlainLoop:
    """The same step as one would write it down: every pass alone, every formula in full."""

    def __init__(self, state: TrainingState):
        self.parts = parts = state.parts()
        self.optimizers = [
            torch.optim.Adam(
                [p for group in parts[name].param_groups for p in group["params"]],
                lr=parts[name].param_groups[0]["lr"],
                betas=(0.9, 0.95),
                foreach=False,
            )
            for name in OPTIMIZERS
        ]

    @mock.patch.object(step, "MOST_ROWS", 0)  # the networks in PyTorch alone
    def __call__(self, images: Tensor) -> Tensor:
        decoder = self.parts["decoder"]
        tell_gaussian, tell_categorical = (self.parts[f"{name}_discriminator"] for name in ("gaussian", "categorical"))
        bce = F.binary_cross_entropy_with_logits

        gaussian, logits = self.encode(images)
        rebuilt = decoder(torch.cat((gaussian, logits.softmax(1)), 1))
        reconstruction = (rebuilt - images).square().mean()
        loss = reconstruction + PRIOR_WEIGHT * DECORRELATION * (excess(gaussian) + excess(logits))
        self.descend(loss, 0)

        gaussian, logits = self.encode(images)
        categorical = logits.softmax(1)
        real_gaussian, real_categorical = (draws.to(images) for draws in self.parts["prior"](len(images)))
        one, zero = images.new_ones(len(images)), images.new_zeros(len(images))
        discriminators = (
            bce(tell_gaussian(real_gaussian), one)
            + bce(tell_gaussian(gaussian.detach()), zero)
            + bce(tell_categorical(real_categorical), one)
            + bce(tell_categorical(categorical.detach()), zero)
        )
        self.descend(discriminators, 1)

        fooled = bce(tell_gaussian(gaussian), one) + bce(tell_categorical(categorical), one)
        self.descend(fooled, 2)
        for name in ("encoder", "decoder", "gaussian_discriminator", "categorical_discriminator"):
            self.parts[name].zero_grad()
        return torch.stack((reconstruction, discriminators, fooled)).detach()

    def descend(self, loss: Tensor, number: int) -> None:
        self.optimizers[number].zero_grad()
        loss.backward()
        self.optimizers[number].step()

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self.parts["encoder"]
        features = encoder.features(images)
        (linear, radial), (to_logits, norm) = encoder.gaussian, encoder.categorical
        return self.radial(radial, linear(features)), self.standard(norm, to_logits(features))

    @staticmethod
    def standard(norm: torch.nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            norm.steps += 1
            weight = 1 / min(norm.steps.item(), 100 + norm.steps.item() / 50)
            norm.center += weight * (x.mean(0) - norm.center)
            norm.variance += weight * ((x - norm.center).square().mean(0) - norm.variance)
        return (x - norm.center) / norm.variance.sqrt()

    @staticmethod
    def radial(norm: torch.nn.Module, x: Tensor) -> Tensor:
        size = x.shape[1]
        with torch.no_grad():
            norm.steps += 1
            weight = 1 / min(norm.steps.item(), 100 + norm.steps.item() / 50)
            standard = (x - norm.center) / norm.variance.sqrt()
            rows = 1.1 * size / (0.1 * size + standard.square().sum(1, keepdim=True))
            share = (rows * standard.square()).mean(0)
            norm.center += weight * (rows * (x - norm.center)).mean(0) / rows.mean()
            norm.variance *= 1 + weight * (share - 1)
            lengths = ((x - norm.center) / norm.variance.sqrt()).norm(dim=1).log()
            norm.log_radius_mean += weight * (lengths.mean() - norm.log_radius_mean)
            norm.log_radius_variance += weight * (
                (lengths - norm.log_radius_mean).square().mean() - norm.log_radius_variance
            )
        standard = (x - norm.center) / norm.variance.sqrt()
        length = standard.norm(dim=1, keepdim=True)
        mean, deviation = norm.normal_log_radius
        contrast = (length.log() - norm.log_radius_mean) / norm.log_radius_variance.sqrt()
        return standard / length * (mean + deviation * contrast).exp()


def excess(codes: Tensor) -> Tensor:
    products = [codes[i].dot(codes[j]) ** 2 for i in range(len(codes)) for j in range(len(codes)) if i != j]
    return sum(products) / len(products) / codes.shape[1] - 1


@pytest.mark.parametrize("sizes", SIZES)
def test_a_step_is_that_of_a_plain_loop(sizes):
    state, plain = make(sizes, torch.float64), PlainLoop(make(sizes, torch.float64))
    for images in mini_batches(40, torch.float64):
        losses = take_step(state, images, PRIOR_WEIGHT)
        torch.testing.assert_close(losses, plain(images), rtol=1e-8, atol=0)
    for name in ("encoder", "decoder", "gaussian_discriminator", "categorical_discriminator"):
        wanted = plain.parts[name].state_dict()
        for key, value in state.parts()[name].state_dict().items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-6, atol=1e-8, msg=key)


def test_the_first_step_in_single_precision():
    parts, plain = make("convolutions", torch.float32), PlainLoop(make("convolutions", torch.float32))
    images = mini_batches(1, torch.float32)[0]
    torch.testing.assert_close(take_step(parts, images, PRIOR_WEIGHT), plain(images), rtol=1e-5, atol=1e-6)


def test_a_checkpoint_says_which_kernels_made_it():
    backend = environment(torch.device("cpu"), False)["backend of the ops"]
    assert backend == f"{ops.backend('cpu')}, {ops.step_kernels()}"


def test_compiled_networks_compute_the_same(monkeypatch):
    # what torch makes of the networks, without the minutes of a compiler for its kernels
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    parts, plain = make("convolutions", torch.float64), make("convolutions", torch.float64)
    used = parts.compiled()
    for images in mini_batches(2, torch.float64):
        losses = take_step(used, images, PRIOR_WEIGHT)
        torch.testing.assert_close(losses, take_step(plain, images, PRIOR_WEIGHT), rtol=1e-8, atol=0)


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("sizes", SIZES)
def test_a_captured_step_computes_the_same(sizes):
    parts, plain = (make(sizes, torch.float64, "cuda", capturable=True) for _ in range(2))
    step = Captured(functools.partial(take_step, parts, prior_weight=PRIOR_WEIGHT))
    for images in mini_batches(40, torch.float64, "cuda"):
        losses = step(images).clone()
        torch.testing.assert_close(losses, take_step(plain, images, PRIOR_WEIGHT), rtol=1e-8, atol=0)
    assert parts.prior.rng_state.tolist() == [3, 40]  # it advanced within the graph


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_first_captured_step_in_single_precision():
    parts, plain = (make("convolutions", torch.float32, "cuda", capturable=True) for _ in range(2))
    step = Captured(functools.partial(take_step, parts, prior_weight=PRIOR_WEIGHT))
    for number, images in enumerate(mini_batches(4, torch.float32, "cuda")):
        tolerance = 1e-5 if number == 0 else 1e-2  # the fourth is the first that is replayed
        torch.testing.assert_close(step(images), take_step(plain, images, PRIOR_WEIGHT), rtol=tolerance, atol=1e-6)
    assert math.isfinite(step(images).sum().item())
