"""Answering with an image that the attacker has: the simplest prior of natural images."""

import torch
from torch import Tensor

from maskbench.data.image_set import to_float
from maskbench.leakage.knowledge import Knowledge

_NUMBERS = 20_000_000  # of the others, compared at once


def nearest(codes: Tensor, others: Tensor, count: int = 1) -> Tensor:
    """Which of the others are nearest to each of the codes ``[N, D]`` (Euclidean), the nearest first: int64 ``[N, n]``.

    Args:
        others: ``[M, D]``, float32 or, of pixels, uint8.
        count: n.
    """
    least, places = torch.full((len(codes), count), torch.inf), torch.zeros(len(codes), count, dtype=torch.int64)
    codes = codes.float()
    size = max(1, _NUMBERS // others.shape[1])
    for number, some in enumerate(others.split(size)):
        some = to_float(some) if some.dtype == torch.uint8 else some
        apart = some.square().sum(1) - 2 * codes @ some.T  # what is left out is the same for all others
        found, rows = apart.topk(min(count, len(some)), 1, largest=False)
        least, order = torch.cat((least, found), 1).topk(count, 1, largest=False)
        places = torch.cat((places, number * size + rows), 1).gather(1, order)
    return places


def from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: the image whose mask is nearest. Images by set."""
    pairs = knowledge.pairs
    return {name: pairs.images[nearest(codes, pairs.codes)[:, 0]] for name, codes in knowledge.masks.items()}


def from_stolen(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: the public image whose mask, which the attacker makes, is nearest. Images by set."""
    stolen = knowledge.stolen
    public, codes = stolen.public.images, stolen.every_code
    return {name: to_float(public[nearest(masks, codes)[:, 0]]) for name, masks in knowledge.masks.items()}
