"""Threat models: what an attacker has under each. One function makes the knowledge of each.

The victim is instance 0 of the trained autoencoders; the attacker runs the same program on public images of the same
kind and has instance 1, also as it was before its codes forgot anything. He reads masks as anybody can who knows the
method: with the contrast undone (:class:`maskbench.models.heads.Contrast`, by the two numbers of his own encoder), and
those in noise as they are.

What an attack is given beside that follows from what it finds out, see
:func:`maskbench.leakage.audit.given`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from maskbench.data.masked_set import KEYED
from maskbench.leakage.knowledge import MOST_PAIRS, Knowledge, limited_oracle
from maskbench.leakage.world import Victim, World

PAIRS = (10, 30, 100, 300, 1000, 3000, MOST_PAIRS)
FITTED = ("aae", "pca")  # methods fitted to the public images, so that these are members


def masks_only(world: World, victim: Victim, _count: int = 0) -> Knowledge:
    """Masked vectors, and public images of the same kind.

    Without pairs, what helps is codes of the attacker's own that are like the owner's.
    """
    return replace(_with(world, victim), own=victim.alike)


def _with(world: World, victim: Victim, **more) -> Knowledge:
    return Knowledge(masks=victim.masks, collection=victim.collection, public=world.public, own=victim.own, **more)


def known_pairs(world: World, victim: Victim, count: int) -> Knowledge:
    """Also ``count`` of the images behind masks of each judged set, and the labels of as many."""
    return _with(world, victim, pairs=victim.pairs(count), labelled=victim.labelled(count))


def oracle(world: World, victim: Victim, count: int) -> Knowledge:
    """No pairs, but ``count`` images of the attacker's choice are masked."""
    encode = victim.encode
    return _with(world, victim, oracle=limited_oracle(encode, count, victim.name))


def stolen_encoder(world: World, victim: Victim, count: int) -> Knowledge:
    """The encoder's weights, of keyed masks without the key but with ``count`` pairs.

    Who has the weights and no key to find makes pairs himself, of public images with or without labels. What the
    encoder and its decoder say of images is known where the question is which of them trained the encoder.
    """
    more = {"stolen": victim.stolen}
    if victim.name.endswith(KEYED):
        more["pairs"] = victim.pairs(count) if count else None
    elif count:
        more["labelled"] = victim.labelled(count)
    elif victim.name in FITTED:
        more["membership"] = victim.membership()
    return _with(world, victim, **more)


def two_releases(world: World, victim: Victim, _count: int = 0) -> Knowledge:
    """Masks of the same images from two releases, under other keys, in other noise, or else of other encoders.

    None of these is his: an encoder of his own might be that of the second release.
    """
    return replace(_with(world, victim, second=victim.second_release()), own=None)


def _stolen_counts(mask: str, some: list[int], public: int) -> list[int]:
    return [0, *some] if mask.endswith(KEYED) else sorted({0, min(MOST_PAIRS, public), public})


@dataclass(frozen=True)
class Threat:
    """A row of the table of threats.

    Attributes:
        text: what the attacker has, for the report.
        knowledge: of a victim, with so many pairs or queries.
        counts: of a mask, the numbers of known pairs and how many images are public: the numbers of pairs or queries
            that the threat is tried with, ascending.
    """

    text: str
    knowledge: Callable[[World, Victim, int], Knowledge]
    counts: Callable[[str, list[int], int], list[int]]


THREATS = {
    "masks-only": Threat(
        text="masked vectors, and public images of the same kind",
        knowledge=masks_only,
        counts=lambda mask, some, public: [0],
    ),
    "known-pairs": Threat(
        text="also k of the images behind masks of each set",
        knowledge=known_pairs,
        counts=lambda mask, some, public: some,
    ),
    "oracle": Threat(
        text="no known pairs, but may have n images of their choice masked",
        knowledge=oracle,
        counts=lambda mask, some, public: some,
    ),
    "two-releases": Threat(
        text="masks of the same images twice: of two encoders, of one with two keys, or in noise twice; no encoder",
        knowledge=two_releases,
        counts=lambda mask, some, public: [0],
    ),
    "stolen-encoder": Threat(
        text="the encoder's weights (of keyed masks: without the key), so unlimited pairs of public images",
        knowledge=stolen_encoder,
        counts=_stolen_counts,
    ),
}
