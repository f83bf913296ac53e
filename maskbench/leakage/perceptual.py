"""A learned distance between images, beside SSIM: how far the features of a network are apart.

As LPIPS without its last, human step (Zhang et al., "The unreasonable effectiveness of deep features as a perceptual
metric", CVPR 2018, which finds that features learned without labels serve nearly as well). Its weights cannot be had
everywhere. So a small network of our own learns from the public images, by telling how an image was turned (Gidaris,
Singh and Komodakis, "Unsupervised representation learning by predicting image rotations", ICLR 2018).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from maskbench.data.image_set import to_float
from maskbench.models.sizes import has_bfloat16

WIDTHS = (32, 64, 128)
STEPS, BATCH = 600, 128
PASSES = 30  # over the images, at most
LARGEST = 64  # side in pixels; larger images are shrunk


class Features(nn.Module):
    """Convolutions, each followed by batch normalisation and ReLU; what each gives is a layer of the distance."""

    def __init__(self):
        super().__init__()
        before = (3, *WIDTHS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(one, two, 3, padding=1, bias=False), nn.BatchNorm2d(two), nn.ReLU(inplace=True))
            for one, two in zip(before, WIDTHS, strict=True)
        )
        self.turned = nn.Linear(WIDTHS[-1], 4)

    def forward(self, images: Tensor) -> list[Tensor]:
        """float32 ``[N, 3, S, S]`` in [0, 1] -> the maps of each stage, each of half the side of the one before."""
        if images.shape[-1] > LARGEST:
            images = F.interpolate(images, size=LARGEST, mode="area")
        maps, x = [], images - 0.5
        for stage in self.stages:
            x = stage(x if not maps else F.max_pool2d(x, 2))
            maps.append(x)
        return maps


@torch.enable_grad()
def learn(images: Tensor) -> Features:
    """Features of public images, uint8 ``[P, 3, S, S]``; the same in every run."""
    generator, steps = torch.Generator().manual_seed(0), min(STEPS, -(-PASSES * len(images) // BATCH))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = Features().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in tqdm(range(steps), desc="features", unit="step", leave=False):
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        turns = torch.randint(4, (BATCH,), generator=generator)
        some = to_float(images[rows])
        some = torch.stack([image.rot90(int(turn), (1, 2)) for image, turn in zip(some, turns, strict=True)])
        with torch.autocast(images.device.type, torch.bfloat16, has_bfloat16(images.device)):
            logits = network.turned(network(some.contiguous(memory_format=torch.channels_last))[-1].mean((2, 3)))
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), turns).backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def directions(features: Features, images: Tensor) -> list[Tensor]:
    """What the distance compares of images ``[N, 3, S, S]``: each stage's ``[N, C, S', S']``, each place a unit."""
    return [F.normalize(maps, eps=1e-6) for maps in features(images)]


def apart(one: list[Tensor], two: list[Tensor]) -> Tensor:
    """:func:`distance`, of what :func:`directions` gives."""
    return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in zip(one, two, strict=True)]).mean(0)


def distance(features: Features, one: Tensor, two: Tensor) -> Tensor:
    """Of each pair of images, ``[N, 3, S, S]`` twice, in [0, 1] -> ``[N]``: 0 for the same, at most 4; differentiable.

    The channels of a place are a direction; the squared distance of both directions is averaged over the places of a
    layer, and then over the layers.
    """
    return apart(*(directions(features, images) for images in (one, two)))
