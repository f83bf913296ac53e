"""Decoders as attackers, and descent through a stolen encoder."""

import copy
import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from maskbench.leakage.attacks import ridge
from maskbench.leakage.knowledge import Instance, Knowledge, Map

INVERTED = 100  # masks of each set that gradient inversion attacks: it takes seconds an image


@torch.enable_grad()
def inverse_decoder(codes: Tensor, images: Tensor, start: nn.Module, align: Map, passes: int = 2000) -> Map:
    """The attacker's own decoder, fine-tuned to the victim's codes on k pairs: codes ``[k, D]`` and their images.

    Threat models: known pairs, stolen encoder. Pairs are few, so the decoder starts from what the attacker learned on
    public images, behind a linear map into his own code space. Both are trained with Adam, and the weights that do best
    on a held-out fifth of the pairs are kept, be they the first (decoders as attackers: Dosovitskiy and Brox,
    "Inverting visual representations with convolutional networks", CVPR 2016).

    Args:
        start: the attacker's decoder, his codes ``[N, E]`` to images; not changed.
        align: affine, the victim's codes to his.
        passes: images seen in training, each at most 50 times; more where there are more pairs, then each once.
    """
    batch, checks = 50, 4
    offset = align(codes.new_zeros(1, codes.shape[1]))
    linear = nn.Linear(codes.shape[1], offset.shape[1]).to(codes)
    with torch.no_grad():
        linear.bias.copy_(offset[0])
        linear.weight.copy_((align(torch.eye(codes.shape[1]).to(codes)) - offset).T)
    model = nn.Sequential(linear, copy.deepcopy(start)).eval()  # kept as it is: no statistics move
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    generator = torch.Generator().manual_seed(0)
    held_out, train = torch.randperm(len(codes), generator=generator).tensor_split([max(1, len(codes) // 5)])
    # a handful of pairs is learned by heart long before that many passes
    steps = max(min(passes, 50 * len(train)), len(train)) // min(batch, len(train))
    best, weights = _error(model, codes[held_out], images[held_out]), copy.deepcopy(model.state_dict())
    ahead = train[:0]
    for step in range(1, steps + 1):
        if len(ahead) < batch:
            ahead = torch.cat((ahead, train[torch.randperm(len(train), generator=generator)]))
        rows, ahead = ahead[:batch], ahead[batch:]
        for group in optimizer.param_groups:
            group["lr"] = 3e-4 * (1 - (step - 1) / steps)
        optimizer.zero_grad()
        F.mse_loss(model(codes[rows]), images[rows]).backward()
        optimizer.step()
        if step % max(1, steps // checks) == 0:
            error = _error(model, codes[held_out], images[held_out])
            if error < best:
                best, weights = error, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return torch.no_grad()(model)


@torch.no_grad()
def _error(model: nn.Module, codes: Tensor, images: Tensor) -> float:
    pairs = zip(codes.split(500), images.split(500), strict=True)
    return sum(F.mse_loss(model(some), pictures, reduction="sum").item() for some, pictures in pairs)


@torch.enable_grad()
def gradient_inversion(encode: Map, codes: Tensor, start: Tensor, steps: int = 1000, smoothness: float = 0.1) -> Tensor:
    """Images whose codes are these, found by descending through the encoder: codes ``[N, D]`` -> ``[N, 3, S, S]``.

    Threat model: stolen encoder. The attacker needs no pairs: he moves the pixels until the encoder says the same, and
    prefers smooth pictures (Mahendran and Vedaldi, "Understanding deep image representations by inverting them", CVPR
    2015: total variation as the prior; Adam with a cosine schedule).

    Args:
        encode: images to codes, differentiable.
        start: the image to begin with, ``[3, S, S]``.
        smoothness: weight of the total variation beside the squared error of the codes, in units of their variance.
    """
    images = start.expand(len(codes), *start.shape).clone().requires_grad_()
    scale = codes.var(0, correction=0).mean().clamp_min(1e-12)
    optimizer = torch.optim.Adam([images], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), desc="gradient inversion", unit="step", leave=False):
        optimizer.zero_grad()
        error = (encode(images) - codes).square().mean(1) / scale
        variation = images.diff(dim=2).abs().mean((1, 2, 3)) + images.diff(dim=3).abs().mean((1, 2, 3))
        (error + smoothness * variation).sum().backward()  # images do not touch: as if each were alone
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    return images.detach()


@functools.lru_cache(maxsize=2)
def of_stolen(stolen: Instance, autoencoder: Instance) -> Map:
    """A decoder of a stolen encoder, learned from public images: codes to images."""
    align = ridge.of_stolen(stolen).fit(autoencoder.codes, autoencoder.codes.mean(0))
    return inverse_decoder(stolen.codes, stolen.public.some, autoencoder.decode, align)


def mismatched(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks only: the decoder of the attacker's own instance, as if it were the owner's. Images by set."""
    return knowledge.decoded(knowledge.own.decode)


def inverse_from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: a decoder fine-tuned to them. Images by set."""
    pairs, start = knowledge.pairs, knowledge.autoencoder.decode
    return knowledge.decoded(inverse_decoder(pairs.codes, pairs.images, start, ridge.to_own(knowledge)))


def inverse_from_stolen(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: a decoder fine-tuned to public images that the attacker masks. Images by set."""
    return knowledge.decoded(of_stolen(knowledge.stolen, knowledge.autoencoder))


def inverted(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: gradient inversion of the first masks of each set. Images ``[INVERTED, 3, S, S]`` by set."""
    encode, start = knowledge.stolen.encode, knowledge.public.mean
    return {name: gradient_inversion(encode, codes[:INVERTED], start) for name, codes in knowledge.masks.items()}
