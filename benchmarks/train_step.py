"""How fast is one training step, beside what people would write or install instead?

    pip install pythae                               # one of the peers
    python benchmarks/train_step.py
    python benchmarks/train_step.py --device cuda    # the captured step beside its own eager one, too
    python benchmarks/train_step.py --save           # also into results/speed.md

Peers, with the paper's networks (455,942 numbers in the encoder):

  maskbench   the step of train_aae.py, with contrast, one-hot categories and gradient penalty, which the others lack
  textbook    the paper's two phases in eager PyTorch: an encoder pass for each of the three losses, one BCE for each
              discriminator and side, torch.optim.Adam as it comes
  compiled    the same, its networks compiled (torch.compile; warm-up in the table)
  pythae      Adversarial_AE of pythae: one phase, one encoder pass, one Gaussian part, one discriminator, so less work

The limit is the floating-point
operations of the textbook's convolutions and products, at the machine's measured rate of matrix products.
"""

import functools
import importlib.util
import time
import types
from collections.abc import Callable

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maskbench.runtime.cuda_graphs import Captured
from maskbench.storage.tables import markdown_line
from maskbench.training.images import TrainingImages
from maskbench.training.run import Run
from maskbench.training.settings import Settings
from train_aae import begin, take_step

GAUSSIAN_DIM, CATEGORIES = 384, 20
BATCHES = (16, 64, 256, 1024)
SECONDS = 40.0  # for a line's peers together

Step = Callable[[Tensor], object]


def main() -> None:
    parser = common.parser(__doc__, SECONDS, gpu=True, batches=BATCHES)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_flush_denormal(True)
    rate = common.matrix_rate(device)
    lines, rows, warm_ups = [], [], {}
    common.say(lines, *common.header(device), f"- products of 1024 x 1024 matrices: {rate / 1e9:,.0f} GFLOP/s")

    makers = {
        "maskbench": ours,
        "textbook": textbook,
        "compiled": compiled_textbook,
        "pythae": pythae_step,
    }
    if not importlib.util.find_spec("pythae"):
        del makers["pythae"]
        common.say(lines, "- pythae is not installed (pip install pythae) and was left out")
    if device.type == "cuda":
        makers = {"maskbench": captured, "maskbench eager": makers.pop("maskbench"), **makers}
    columns = ["mini-batch", *makers, "limit"]
    common.say(lines, "", *map(markdown_line, (columns, ["---:"] * len(columns))))
    for batch in args.batches:
        cells, figures = measure(makers, batch, device, args.seconds, rate, warm_ups)
        common.say(lines, markdown_line(cells))
        rows += figures
    seconds = ", ".join(f"{name} {seconds:.1f}" for name, seconds in warm_ups.items())
    common.say(lines, "", f"Seconds until the second step: {seconds}.", "")
    if args.save:
        common.save("train_step", "A training step", lines, rows, device)


def measure(
    makers: dict[str, Callable[[int, torch.device], Step]],
    batch: int,
    device: torch.device,
    seconds: float,
    rate: float,
    warm_ups: dict[str, float],
) -> tuple[list[str], list[common.Row]]:
    """A table's row and its figures; ``warm_ups`` keeps the seconds until the second step at the first mini-batch."""
    images = torch.rand(batch, 3, 32, 32, device=device)
    peers = {}
    for name, make in makers.items():
        torch.manual_seed(0)
        start = time.perf_counter()
        step = make(batch, device)
        step(images), step(images)
        warm_ups.setdefault(name, time.perf_counter() - start)
        peers[name] = functools.partial(step, images)
    times = common.take_turns(peers, device, seconds)
    with FlopCounterMode(display=False) as counter:
        makers["textbook"](batch, device)(images)
    torch.compiler.reset()
    limit = counter.get_total_flops() / rate
    reached = f"{1e3 * limit:.2f} ms ({limit / times['maskbench'][0]:.0%} reached)"
    cells = [f"{batch:,}", *common.against(times, "textbook", 1e3, "ms"), reached]
    return cells, [("train_step", name, batch, "seconds a step", *figure) for name, figure in times.items()]


def ours(batch: int, device: torch.device) -> Step:
    images = torch.zeros(batch, 3, 32, 32, dtype=torch.uint8, device=device)
    settings = Settings("", None, 32, GAUSSIAN_DIM, CATEGORIES, "paper", 1.0, batch, 1e-3, 0)
    state = begin(Run(settings, 1, TrainingImages(images, images, ""), environment={}), 0, fit=False)
    state.make_capturable(device)
    return functools.partial(take_step, state)


def captured(batch: int, device: torch.device) -> Step:
    return Captured(ours(batch, device))


class PlainEncoder(nn.Module):
    """The paper's encoder with plain heads."""

    def __init__(self, width: int = 16, **_sizes: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.gaussian = nn.Linear(64 * width, GAUSSIAN_DIM)
        self.categorical = nn.Linear(64 * width, CATEGORIES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self.gaussian(features), self.categorical(features).softmax(1)


class PlainDecoder(nn.Sequential):
    """Its mirror."""

    def __init__(self, width: int = 16, **_sizes: int):
        super().__init__(
            nn.Linear(GAUSSIAN_DIM + CATEGORIES, 64 * width),
            nn.ReLU(),
            nn.Unflatten(1, (4 * width, 4, 4)),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )


def plain_discriminator(features: int) -> nn.Sequential:
    layers = [nn.Linear(features, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)]
    return nn.Sequential(*layers)


def textbook_of(networks: list[nn.Module], batch: int, device: torch.device) -> Step:
    """Makhzani et al.'s two phases as tutorials have them, on an encoder, a decoder and two discriminators."""
    encoder, decoder, tell_gaussian, tell_categorical = networks
    reconstruction = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    discrimination = torch.optim.Adam([*tell_gaussian.parameters(), *tell_categorical.parameters()], lr=1e-3)
    generation = torch.optim.Adam(encoder.parameters(), lr=1e-4)
    bce = nn.BCEWithLogitsLoss()
    one, zero = torch.ones(batch, 1, device=device), torch.zeros(batch, 1, device=device)

    def step(images: Tensor) -> None:
        loss = F.mse_loss(decoder(torch.cat(encoder(images), 1)), images)
        reconstruction.zero_grad()
        loss.backward()
        reconstruction.step()

        with torch.no_grad():
            gaussian, categorical = encoder(images)
        real_gaussian = torch.randn(batch, GAUSSIAN_DIM, device=device)
        real_categorical = F.one_hot(torch.randint(CATEGORIES, (batch,), device=device), CATEGORIES).float()
        loss = bce(tell_gaussian(real_gaussian), one) + bce(tell_gaussian(gaussian), zero)
        loss = loss + bce(tell_categorical(real_categorical), one) + bce(tell_categorical(categorical), zero)
        discrimination.zero_grad()
        loss.backward()
        discrimination.step()

        gaussian, categorical = encoder(images)
        loss = bce(tell_gaussian(gaussian), one) + bce(tell_categorical(categorical), one)
        generation.zero_grad()
        loss.backward()
        generation.step()

    return step


def plain_networks(device: torch.device) -> list[nn.Module]:
    networks = [PlainEncoder(), PlainDecoder(), plain_discriminator(GAUSSIAN_DIM), plain_discriminator(CATEGORIES)]
    return [network.to(device) for network in networks]


def textbook(batch: int, device: torch.device) -> Step:
    return textbook_of(plain_networks(device), batch, device)


def compiled_textbook(batch: int, device: torch.device) -> Step:
    return textbook_of([torch.compile(network, dynamic=False) for network in plain_networks(device)], batch, device)


def pythae_step(batch: int, device: torch.device) -> Step:
    """The model of pythae, and the order of its AdversarialTrainer, without its loader and logs."""
    from pythae.models import Adversarial_AE, Adversarial_AE_Config
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
    from pythae.trainers import AdversarialTrainer

    class PeerEncoder(BaseEncoder):
        def __init__(self, encoder: nn.Module):
            super().__init__()
            self.encoder = encoder

        def forward(self, x: Tensor) -> ModelOutput:
            latent = torch.cat(self.encoder(x), 1)
            return ModelOutput(embedding=latent, log_covariance=torch.zeros_like(latent))

    class PeerDecoder(BaseDecoder):
        def __init__(self, decoder: nn.Module):
            super().__init__()
            self.decoder = decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.decoder(z))

    class PeerDiscriminator(BaseDiscriminator):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(plain_discriminator(GAUSSIAN_DIM + CATEGORIES), nn.Sigmoid())

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(embedding=self.layers(z))

    config = Adversarial_AE_Config(
        input_dim=(3, 32, 32), latent_dim=GAUSSIAN_DIM + CATEGORIES, deterministic_posterior=True
    )
    encoder, decoder, *_ = plain_networks(device)
    model = Adversarial_AE(config, PeerEncoder(encoder), PeerDecoder(decoder), PeerDiscriminator()).to(device)
    trainer = types.SimpleNamespace(  # the two that the step of pythae's trainer reads
        autoencoder_optimizer=torch.optim.Adam([*model.encoder.parameters(), *model.decoder.parameters()], lr=1e-3),
        discriminator_optimizer=torch.optim.Adam(model.discriminator.parameters(), lr=1e-3),
    )
    return lambda images: AdversarialTrainer._optimizers_step(trainer, model({"data": images}))


if __name__ == "__main__":
    main()
