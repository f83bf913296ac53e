"""What a training changes: its networks, the place in the prior's stream, and its optimisers."""

import dataclasses
import functools
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from maskbench.models import Decoder, Discriminator, Encoder, PriorSampler


@dataclass
class TrainingState:
    """One adversarial autoencoder in training; a checkpoint holds every part under its name.

    Attributes:
        encoder: masks.
        decoder: rebuilds; its contrast is the encoder's.
        gaussian_discriminator: tells draws of N(0, I) from Gaussian parts.
        categorical_discriminator: tells uniform one-hot draws from categorical parts.
        prior: draws both.
        reconstruction_optimizer: of encoder and decoder; of preset invariant, of the decoder.
        discriminator_optimizer: of both discriminators.
        generator_optimizer: of the encoder, against the discriminators; of preset invariant, also for agreement.
        pull: weight of the discriminators in that.
    """

    encoder: Encoder
    decoder: Decoder
    gaussian_discriminator: Discriminator
    categorical_discriminator: Discriminator
    prior: PriorSampler
    reconstruction_optimizer: torch.optim.Adam
    discriminator_optimizer: torch.optim.Adam
    generator_optimizer: torch.optim.Adam
    pull: float = 1.0

    @property
    def preset(self) -> str:
        return self.encoder.config["preset"]

    @property
    def discriminators(self) -> tuple[Discriminator, Discriminator]:
        return self.gaussian_discriminator, self.categorical_discriminator

    @property
    def optimizers(self) -> tuple[torch.optim.Adam, ...]:
        return self.reconstruction_optimizer, self.discriminator_optimizer, self.generator_optimizer

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Every part by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "pull"}

    def networks(self) -> dict[str, nn.Module]:
        """The parts that learn, by name."""
        return {name: part for name, part in self.parts().items() if isinstance(part, nn.Module) and name != "prior"}

    def state_dicts(self) -> dict[str, dict]:
        """What a checkpoint holds of every part; a learning rate that lies on a GPU becomes a number."""
        states = {name: part.state_dict() for name, part in self.parts().items()}
        for name in (name for name in states if name.endswith("optimizer")):
            for group in states[name]["param_groups"]:
                group["lr"] = float(group["lr"])
        return states

    def make_capturable(self, device: torch.device) -> None:
        """On a GPU: a captured step reads its learning rates on the device."""
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["capturable"] = device.type == "cuda"
            if group["capturable"]:
                group["lr"] = torch.tensor(group["lr"], device=device)

    def anneal(self, epochs: float, end: int) -> None:
        """All learning rates fall to zero as a half cosine.

        Args:
            epochs: done so far.
            end: epochs in all.
        """
        of_start = (1 + math.cos(math.pi * epochs / end)) / 2
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            rate = group["initial_lr"] * of_start
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def compiled(self) -> "TrainingState":
        """The same parts with the networks' forward passes compiled; what is saved stays this state's."""
        compile_one = functools.partial(torch.compile, dynamic=False)
        return dataclasses.replace(self, **{name: compile_one(part) for name, part in self.networks().items()})
