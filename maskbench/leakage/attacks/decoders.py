"""Decoders as attackers, and descent through a stolen encoder."""

import copy
import functools
import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from maskbench.classification.features import moments
from maskbench.data.image_quality import similarity
from maskbench.data.image_set import to_float
from maskbench.leakage.attacks import ridge
from maskbench.leakage.knowledge import Instance, Knowledge, Map, Pairs
from maskbench.leakage.perceptual import Features, distance
from maskbench.models.sizes import depth, has_bfloat16

FEWEST = 1000  # known pairs that a decoder is trained from scratch with
PASSES, EPOCHS = 30_000, (10, 50)  # images that it sees in training, or more; how often each, at least and at most
STOLEN_PASSES = 160_000  # of all public images, with a stolen encoder; of more of them it learns by heart
FINE = 20_000  # images that a decoder sees that is trained on for the eye or for SSIM; or all of them once, or twice
PERCEPTUAL = 0.1  # weight of the perceptual distance beside the squared error
INVERTED = 25  # masks of each set that gradient inversion attacks: it takes seconds an image


Loss = Callable[[Tensor, Tensor], Tensor]  # of pictures and the images they should be, [N, 3, S, S] twice


def dissimilarity(pictures: Tensor, images: Tensor) -> Tensor:
    """The loss of an attacker who is judged by SSIM: what it lacks to 1, and the squared error."""
    return F.mse_loss(pictures, images) + 1 - similarity(pictures, images).mean()


@torch.enable_grad()
def inverse_decoder(
    codes: Tensor,
    images: Tensor,
    start: nn.Module,
    align: nn.Linear,
    passes: int = 2000,
    loss: Loss = F.mse_loss,
) -> Map:
    """The attacker's own decoder, fine-tuned to the victim's codes on k pairs: codes ``[k, D]`` and their images.

    Threat models: known pairs, stolen encoder. Pairs are few, so the decoder starts from what the attacker learned on
    public images, behind a linear map into his own code space. Both are trained with Adam, and the weights that do best
    on a held-out fifth of the pairs are kept, be they the first (decoders as attackers: Dosovitskiy and Brox,
    "Inverting visual representations with convolutional networks", CVPR 2016).

    Args:
        start: the attacker's decoder, his codes ``[N, E]`` to images; not changed.
        align: the victim's codes to his; not changed.
        passes: images seen in training, each at most 50 times; more where there are more pairs, then each once.
        loss: what is trained for, and chosen by.
    """
    batch, checks = 50, 4
    model = copy.deepcopy(nn.Sequential(align, start)).requires_grad_().eval()  # no statistics move
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    generator = torch.Generator().manual_seed(0)
    held_out, train = torch.randperm(len(codes), generator=generator).tensor_split([max(1, len(codes) // 5)])
    # a handful of pairs is learned by heart long before that many passes
    steps = max(min(passes, 50 * len(train)), len(train)) // min(batch, len(train))
    best, weights = _error(model, codes[held_out], images[held_out], loss), copy.deepcopy(model.state_dict())
    ahead = train[:0]
    for step in range(1, steps + 1):
        if len(ahead) < batch:
            ahead = torch.cat((ahead, train[torch.randperm(len(train), generator=generator)]))
        rows, ahead = ahead[:batch], ahead[batch:]
        for group in optimizer.param_groups:
            group["lr"] = 3e-4 * (1 - (step - 1) / steps)
        optimizer.zero_grad()
        loss(model(codes[rows]), images[rows]).backward()
        optimizer.step()
        if step % max(1, steps // checks) == 0:
            error = _error(model, codes[held_out], images[held_out], loss)
            if error < best:
                best, weights = error, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return torch.no_grad()(model)


class ScratchDecoder(nn.Module):
    """A decoder for codes of any kind: a linear picture, and what convolutions make of the codes and of it.

    The codes, standardised, become a grid of 4 to 7 pixels a side, which transposed convolutions enlarge to half of the
    image's side. There the picture joins them, its pixels folded into channels, and three convolutions correct it.

    Args:
        linear: codes ``[N, D]`` to pixels ``[N, 3 S S]``; stays as it is.
        codes: ``[k, D]``, for means and deviations.
        image_size: S.
        width: channels of half the image's side; each halving doubles them, up to 128.
    """

    def __init__(self, linear: nn.Linear, codes: Tensor, image_size: int, width: int = 32):
        super().__init__()
        self.linear, self.size = linear, image_size
        mean, deviation = moments(codes)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        stages = depth(image_size)
        channels = [min(128, width << stage) for stage in range(stages)][::-1]
        shape = channels[0], image_size >> stages, image_size >> stages
        layers = [nn.Linear(codes.shape[1], math.prod(shape)), nn.Unflatten(1, shape)]
        for before, after in itertools.pairwise(channels):
            layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
        self.grid = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        last = nn.Conv2d(width, 12, 3, padding=1)
        nn.init.zeros_(last.weight)  # it starts by correcting nothing
        nn.init.zeros_(last.bias)
        self.correction = nn.Sequential(
            nn.Conv2d(width + 12, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            last,
            nn.PixelShuffle(2),
        )

    def forward(self, codes: Tensor) -> Tensor:
        """``[N, D]`` -> images ``[N, 3, S, S]``, not clamped."""
        picture = self.linear(codes).view(-1, 3, self.size, self.size)
        with torch.autocast(codes.device.type, torch.bfloat16, self.training and has_bfloat16(codes.device)):
            grid = self.grid((codes - self.mean) / self.deviation)
            both = torch.cat((grid, F.pixel_unshuffle(picture - 0.5, 2)), 1)
            correction = self.correction(both.contiguous(memory_format=torch.channels_last))
        return picture + correction.float()


def scratch_decoder(codes: Tensor, images: Tensor, epochs: int) -> ScratchDecoder:
    """A decoder trained from scratch on k pairs: codes ``[k, D]`` and images ``[k, 3, S, S]`` -> codes to images.

    Threat models: known pairs, stolen encoder. It needs no decoder of the attacker's own, and so fits codes of any kind
    (Dosovitskiy and Brox, "Inverting visual representations with convolutional networks", CVPR 2016). A ridge
    regression gives the linear picture, AdamW trains the convolutions on the squared error.
    """
    train, pictures = _without_held_out(codes, images)
    linear = ridge.Ridge(train, codes.mean(0)).fit(pictures.flatten(1), images.flatten(1).mean(0))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = ScratchDecoder(linear, codes, images.shape[-1]).to(memory_format=torch.channels_last)
    return _trained(model, codes, images, epochs, 2e-3, F.mse_loss)


def perceptual_decoder(start: ScratchDecoder, codes: Tensor, images: Tensor, features: Features) -> ScratchDecoder:
    """A :func:`scratch_decoder` of these pairs, trained on for the eye: the squared error alone is least for a blur.

    The perceptual distance counts beside it (Dosovitskiy and Brox, "Generating images with perceptual similarity
    metrics based on deep networks", NeurIPS 2016).
    """

    def loss(pictures: Tensor, wanted: Tensor) -> Tensor:
        pair = [x.contiguous(memory_format=torch.channels_last) for x in (pictures, wanted)]
        with torch.autocast(codes.device.type, torch.bfloat16, has_bfloat16(codes.device)):
            apart = distance(features, *pair).mean()
        return F.mse_loss(pictures, wanted) + PERCEPTUAL * apart.float()

    return _tuned(start, codes, images, loss)


def _tuned(start: ScratchDecoder, codes: Tensor, images: Tensor, loss: Loss, least: int = 1) -> ScratchDecoder:
    """A :func:`scratch_decoder` of these pairs, trained on for another loss; each pair ``least`` times or more."""
    return _trained(copy.deepcopy(start), codes, images, _epochs(FINE, len(codes), least), 5e-4, loss)


def _epochs(passes: int, images: int, least: int = 1) -> int:
    """How often each of so many images is seen, for so many passes in all, or ``least`` times; never too often."""
    return min(EPOCHS[1], max(least, passes // images))


def _without_held_out(codes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Of pairs all but the last tenth, which says when to stop."""
    count = len(codes) - max(1, len(codes) // 10)
    return codes[:count], images[:count]


@torch.enable_grad()
def _trained(
    model: ScratchDecoder,
    codes: Tensor,
    images: Tensor,
    epochs: int,
    rate: float,
    loss: Loss,
) -> ScratchDecoder:
    """A decoder, trained by AdamW on pairs; the weights that do best on held-out ones are kept, be they the first."""
    train, pictures = _without_held_out(codes, images)
    others, batch = (codes[len(train) :], images[len(train) :]), 100
    weights = [*model.grid.requires_grad_().parameters(), *model.correction.requires_grad_().parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=1.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * math.ceil(len(train) / batch))
    generator = torch.Generator().manual_seed(0)
    best, state = _error(model.eval(), *others, loss), copy.deepcopy(model.state_dict())
    for _ in tqdm(range(epochs), desc="decoder", unit="epoch", leave=False):
        model.train()
        for rows in torch.randperm(len(train), generator=generator).split(batch):
            optimizer.zero_grad()
            loss(model(train[rows]), pictures[rows]).backward()
            optimizer.step()
            schedule.step()
        error = _error(model.eval(), *others, loss)
        if error < best:
            best, state = error, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _error(model: nn.Module, codes: Tensor, images: Tensor, loss: Loss = F.mse_loss) -> float:
    pairs = zip(codes.split(500), images.split(500), strict=True)
    return sum(len(some) * loss(model(some), pictures).item() for some, pictures in pairs)


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
        (error + smoothness * variation).sum().backward(inputs=[images])  # they do not touch: as if each were alone
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    return images.detach()


@functools.lru_cache(maxsize=2)
def inverse_of_stolen(stolen: Instance, own: Instance) -> Map:
    """A decoder of a stolen encoder, fine-tuned to public images from the attacker's own: codes to images."""
    targets = own.for_decoder(own.expected)
    align = ridge.of_stolen(stolen).fit(targets, targets.mean(0))
    return inverse_decoder(stolen.codes, stolen.public.some, own.decode, align)


@functools.lru_cache(maxsize=1)
def scratch_of_pairs(pairs: Pairs) -> ScratchDecoder:
    """A decoder trained from scratch on known pairs: codes to images."""
    return scratch_decoder(pairs.codes, pairs.images, _epochs(PASSES, len(pairs.codes), EPOCHS[0]))


@functools.lru_cache(maxsize=1)
def scratch_of_stolen(stolen: Instance) -> ScratchDecoder:
    """A decoder of a stolen encoder, trained from scratch on all public images: codes to images."""
    images = to_float(stolen.public.images)
    return scratch_decoder(stolen.every_code, images, _epochs(STOLEN_PASSES, len(images)))


@functools.lru_cache(maxsize=1)
def similar_of_stolen(stolen: Instance) -> Map:
    """As :func:`scratch_of_stolen`, trained on for SSIM: codes to images."""
    images = to_float(stolen.public.images)
    return _tuned(scratch_of_stolen(stolen), stolen.every_code, images, dissimilarity, least=2)


def of_stolen(stolen: Instance, own: Instance) -> Map:
    """The better of both on public images that neither was trained on, where these are more than ``public.some``."""
    rows = slice(-len(stolen.public.images) // 10, None)
    images, codes = to_float(stolen.public.images[rows]), stolen.every_code[rows]
    return min((inverse_of_stolen(stolen, own), scratch_of_stolen(stolen)), key=lambda x: _error(x, codes, images))


def mismatched(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks only: the decoder of the attacker's own instance, as if it were the owner's. Images by set."""
    return knowledge.decoded(knowledge.own.decode)


def inverse_from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: a decoder fine-tuned to them. Images by set."""
    pairs, start = knowledge.pairs, knowledge.own.decode
    return knowledge.decoded(inverse_decoder(pairs.codes, pairs.images, start, ridge.to_own(knowledge)))


def inverse_from_stolen(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: a decoder fine-tuned to public images that the attacker masks. Images by set."""
    return knowledge.decoded(inverse_of_stolen(knowledge.stolen, knowledge.own))


def scratch_from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: a decoder trained from scratch on them. Images by set."""
    return knowledge.decoded(scratch_of_pairs(knowledge.pairs))


def scratch_from_stolen(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: a decoder trained from scratch on all public images, masked. Images by set."""
    return knowledge.decoded(scratch_of_stolen(knowledge.stolen))


def perceptual_from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: as :func:`scratch_from_pairs`, for the eye instead of the squared error alone. Images by set."""
    pairs, features = knowledge.pairs, knowledge.public.features
    return knowledge.decoded(perceptual_decoder(scratch_of_pairs(pairs), pairs.codes, pairs.images, features))


def perceptual_from_stolen(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: as :func:`scratch_from_stolen`, for the eye instead of the squared error alone. Images by set."""
    stolen, public = knowledge.stolen, knowledge.stolen.public
    images, start = to_float(public.images), scratch_of_stolen(stolen)
    return knowledge.decoded(perceptual_decoder(start, stolen.every_code, images, public.features))


def similar_scratch_from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: as :func:`scratch_from_pairs`, trained on for SSIM. Images by set."""
    pairs = knowledge.pairs
    return knowledge.decoded(_tuned(scratch_of_pairs(pairs), pairs.codes, pairs.images, dissimilarity))


def similar_from_stolen(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: as :func:`scratch_from_stolen`, trained on for SSIM. Images by set."""
    return knowledge.decoded(similar_of_stolen(knowledge.stolen))


def inverted(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: gradient inversion of the first masks of each set. Images ``[INVERTED, 3, S, S]`` by set."""
    encode, start = knowledge.stolen.encode, knowledge.public.mean
    return {name: gradient_inversion(encode, codes[:INVERTED], start) for name, codes in knowledge.masks.items()}
