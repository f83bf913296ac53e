"""Controls: what is answered without looking at masks, by whoever has the labels that travel with them.

Each answers as an attack of its kind does. What an attack finds beyond its control, it has from the masks.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from maskbench.leakage.scores import ATTRIBUTE, CROWD, LINKAGE, MEMBERSHIP, REIDENTIFICATION, RELEASES, Kind
from maskbench.leakage.world import World


def to_label_mean(kind: Kind, world: World) -> dict[str, Tensor]:
    """How far candidates are from the mean image of each mask's label, pixel by pixel: ``[N, M]`` by set."""
    means = world.images.label_means
    return {
        name: torch.cdist(means[name].flatten(1), images.flatten(1)).double()
        for name, images in kind.candidates(world).items()
    }


def to_same_label(world: World) -> dict[str, Tensor]:
    """0 to 1 where masks of two releases have one label, 1 to 2 where they do not; beyond that by lot: ``[N, N]``."""
    found = {}
    for name, means in world.images.label_means.items():
        labels = means.flatten(1).unique(dim=0, return_inverse=True)[1]  # a label is told by its mean image
        other = labels[:, None] != labels[world.orders[name]]
        found[name] = other + torch.rand(other.shape, generator=torch.Generator().manual_seed(world.seed)).double()
    return found


def most_frequent_label(world: World) -> dict[str, Tensor]:
    """Of every mask the withheld label that most labelled images have, int64 ``[N]``."""
    _, known, asked = world.images.labelled
    return {world.last: known.mode().values.expand(len(asked))}


def all_members(world: World) -> dict[str, Tensor]:
    """That every image trained the encoder, bool ``[M]``: half of those asked about did."""
    return {world.first: torch.ones_like(world.asked_members()[0])}


class Control(NamedTuple):
    """The control of a kind of attack.

    Attributes:
        name: in ``audit.csv``, where it stands beside the attacks of ``masks-only``.
        text: for readers.
        run: answers for every set that the kind is measured on.
    """

    name: str
    text: str
    run: Callable[[World], dict[str, Tensor]]


CONTROLS = {
    **{
        kind: Control(f"{name}-by-label-alone", "the label alone", functools.partial(to_label_mean, kind))
        for kind, name in (
            (REIDENTIFICATION, "re-identification"),
            (LINKAGE, "linkage"),
            (CROWD, "linkage-among-all"),
        )
    },
    RELEASES: Control("two-releases-by-label-alone", "the label alone", to_same_label),
    ATTRIBUTE: Control("attribute-by-frequency", "the most frequent label", most_frequent_label),
    MEMBERSHIP: Control("membership-by-guess", "every image a member", all_members),
}
