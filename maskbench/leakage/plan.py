"""The table of attacks, and what follows from it: which attack runs when, and its rows in tables and pictures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from maskbench.data.masked_set import KEYED, parts_of
from maskbench.leakage import threats
from maskbench.leakage.attacks import alignment, decoders, inference, oracle, reidentification, retrieval, ridge
from maskbench.leakage.controls import CONTROLS
from maskbench.leakage.knowledge import MOST_PAIRS, Knowledge
from maskbench.leakage.scores import (
    ATTRIBUTE,
    CROWD,
    LINKAGE,
    MEMBERSHIP,
    RECONSTRUCTION,
    REIDENTIFICATION,
    RELEASES,
    Kind,
)
from maskbench.leakage.world import Images


def any_mask(_mask: str) -> bool:
    return True


def hidden(mask: str) -> bool:
    return mask != "identity"


def raw(mask: str) -> bool:
    return not hidden(mask)


def keyed(mask: str) -> bool:
    return mask.endswith(KEYED)


def plain(mask: str) -> bool:
    return not keyed(mask)


def plain_and_hidden(mask: str) -> bool:
    return plain(mask) and hidden(mask)


def trained(mask: str) -> bool:
    return mask.split("+")[0] == "aae"


def trained_and_plain(mask: str) -> bool:
    return trained(mask) and plain(mask)


def fitted(mask: str) -> bool:
    return mask in threats.FITTED


def in_noise(mask: str) -> bool:
    return plain(mask) and parts_of(mask)[1] is not None


def none(_counts: list[int]) -> list[int]:
    return [0]


def any_pairs(counts: list[int]) -> list[int]:
    return [count for count in counts if 0 < count <= MOST_PAIRS]


def many(counts: list[int]) -> list[int]:
    return [count for count in counts if count >= decoders.FEWEST]


def many_or_all(counts: list[int]) -> list[int]:
    return [count for count in many(counts) if count in (decoders.FEWEST, counts[-1])]


def most_of_many(counts: list[int]) -> list[int]:
    return many(counts)[-1:]


def all_pairs(counts: list[int]) -> list[int]:
    return counts[-1:]


@dataclass(frozen=True)
class Attack:
    """A row of the table.

    Attributes:
        name: in ``audit.csv``; attacks of one aim have one name under several threats.
        kind: what it finds out.
        threat: what it may know.
        run: the attack; see the functions of :mod:`maskbench.leakage.attacks` for what it gives, by kind.
        masks: on which masks it makes sense.
        pairs: of the numbers of pairs or queries that its threat is tried with, those that it is run with.
        pictured: whether it is a row of the picture of the autoencoder's masks, where it reconstructs images.
    """

    name: str
    kind: Kind
    threat: str
    run: Callable[[Knowledge], dict[str, Tensor]]
    masks: Callable[[str], bool] = any_mask
    pairs: Callable[[list[int]], list[int]] = any_pairs
    pictured: bool = True


# answers to attacks that reconstruct, which need no attack
ANCHORS = ("mean-image", "label-mean-image", "nearest-public-image", "matched-decoder")
# in the order of a table's rows
ATTACKS = (
    Attack("mismatched-decoder", RECONSTRUCTION, "masks-only", decoders.mismatched, pairs=none),
    Attack("unpaired", RECONSTRUCTION, "masks-only", alignment.own_by_statistics, hidden, pairs=none),
    Attack(
        "ssim-guessed-pairs", RECONSTRUCTION, "masks-only", alignment.similar_from_guessed_pairs, hidden, pairs=none
    ),
    Attack("re-identification", REIDENTIFICATION, "masks-only", reidentification.from_masks, hidden, pairs=none),
    Attack("re-identification", REIDENTIFICATION, "masks-only", reidentification.from_raw, raw, pairs=none),
    Attack(
        "re-identification-by-transport",
        REIDENTIFICATION,
        "masks-only",
        reidentification.from_masks_by_transport,
        hidden,
        pairs=none,
    ),
    Attack(
        "re-identification-by-alignment",
        REIDENTIFICATION,
        "masks-only",
        reidentification.from_masks_by_alignment,
        hidden,
        pairs=none,
    ),
    Attack("linkage", LINKAGE, "masks-only", reidentification.from_masks, hidden, pairs=none),
    Attack("linkage-by-transport", LINKAGE, "masks-only", reidentification.from_masks_by_transport, hidden, pairs=none),
    Attack("linkage-by-alignment", LINKAGE, "masks-only", reidentification.from_masks_by_alignment, hidden, pairs=none),
    Attack("linkage-among-all", CROWD, "masks-only", reidentification.from_masks_by_alignment, hidden, pairs=none),
    Attack("ridge", RECONSTRUCTION, "known-pairs", ridge.pixels_from_pairs),
    Attack("procrustes", RECONSTRUCTION, "known-pairs", alignment.own_from_pairs, hidden),
    Attack("latent-ridge", RECONSTRUCTION, "known-pairs", ridge.latent_from_pairs, hidden),
    Attack("inverse-decoder", RECONSTRUCTION, "known-pairs", decoders.inverse_from_pairs, hidden),
    Attack("scratch-decoder", RECONSTRUCTION, "known-pairs", decoders.scratch_from_pairs, hidden, many_or_all),
    Attack("perceptual-decoder", RECONSTRUCTION, "known-pairs", decoders.perceptual_from_pairs, trained, many_or_all),
    Attack(
        "ssim-guessed-pairs", RECONSTRUCTION, "known-pairs", alignment.similar_from_guessed_pairs, hidden, many_or_all
    ),
    Attack(
        "ssim-scratch-decoder", RECONSTRUCTION, "known-pairs", decoders.similar_scratch_from_pairs, hidden, most_of_many
    ),
    Attack("retrieval", RECONSTRUCTION, "known-pairs", retrieval.from_pairs, hidden, pictured=False),
    Attack("re-identification", REIDENTIFICATION, "known-pairs", reidentification.from_pairs, hidden),
    Attack("linkage", LINKAGE, "known-pairs", reidentification.from_pairs, hidden),
    Attack("linkage-among-all", CROWD, "known-pairs", reidentification.from_pairs, hidden, many_or_all),
    Attack("attribute", ATTRIBUTE, "known-pairs", inference.attributes),
    Attack("ridge", RECONSTRUCTION, "oracle", oracle.reconstructed, hidden),
    Attack("re-identification", REIDENTIFICATION, "oracle", reidentification.from_oracle, hidden),
    Attack("two-releases", RELEASES, "two-releases", reidentification.from_releases, trained, pairs=none),
    Attack(
        "two-releases-by-transport",
        RELEASES,
        "two-releases",
        reidentification.from_releases_by_transport,
        trained,
        pairs=none,
    ),
    # the encoder of plain masks
    Attack("gradient-inversion", RECONSTRUCTION, "stolen-encoder", decoders.inverted, plain_and_hidden, pairs=none),
    Attack("re-identification", REIDENTIFICATION, "stolen-encoder", reidentification.from_stolen, plain, pairs=none),
    Attack(
        "re-identification-by-assignment",
        REIDENTIFICATION,
        "stolen-encoder",
        reidentification.from_stolen_by_assignment,
        in_noise,
        pairs=none,
    ),
    Attack("linkage", LINKAGE, "stolen-encoder", reidentification.from_stolen, plain, pairs=none),
    Attack("linkage-among-all", CROWD, "stolen-encoder", reidentification.from_stolen, plain, pairs=none),
    Attack("membership", MEMBERSHIP, "stolen-encoder", inference.members, fitted, pairs=none),
    Attack("ridge", RECONSTRUCTION, "stolen-encoder", ridge.pixels_from_stolen, plain),
    Attack("inverse-decoder", RECONSTRUCTION, "stolen-encoder", decoders.inverse_from_stolen, plain_and_hidden),
    Attack(
        "scratch-decoder", RECONSTRUCTION, "stolen-encoder", decoders.scratch_from_stolen, plain_and_hidden, all_pairs
    ),
    Attack(
        "perceptual-decoder",
        RECONSTRUCTION,
        "stolen-encoder",
        decoders.perceptual_from_stolen,
        trained_and_plain,
        all_pairs,
    ),
    Attack("ssim-decoder", RECONSTRUCTION, "stolen-encoder", decoders.similar_from_stolen, plain_and_hidden, all_pairs),
    Attack("retrieval", RECONSTRUCTION, "stolen-encoder", retrieval.from_stolen, plain_and_hidden, all_pairs),
    Attack("attribute", ATTRIBUTE, "stolen-encoder", inference.attributes, plain),
    # the encoder of keyed masks: the key is missing
    Attack(
        "unpaired",
        RECONSTRUCTION,
        "stolen-encoder",
        alignment.stolen_by_statistics,
        keyed,
        pairs=none,
        pictured=False,
    ),
    Attack(
        "key-by-categories",
        RECONSTRUCTION,
        "stolen-encoder",
        alignment.stolen_by_categories,
        keyed,
        pairs=none,
        pictured=False,
    ),
    Attack(
        "ssim-key-by-categories",
        RECONSTRUCTION,
        "stolen-encoder",
        alignment.similar_by_categories,
        keyed,
        pairs=none,
        pictured=False,
    ),
    Attack(
        "re-identification", REIDENTIFICATION, "stolen-encoder", reidentification.from_stolen_keyed, keyed, pairs=none
    ),
    Attack("linkage", LINKAGE, "stolen-encoder", reidentification.from_stolen_keyed, keyed, pairs=none),
    Attack("procrustes", RECONSTRUCTION, "stolen-encoder", alignment.stolen_from_pairs, keyed, pictured=False),
    Attack(
        "ssim-procrustes", RECONSTRUCTION, "stolen-encoder", alignment.similar_from_key_pairs, keyed, pictured=False
    ),
    Attack("re-identification", REIDENTIFICATION, "stolen-encoder", reidentification.from_keyed_pairs, keyed),
    Attack("linkage", LINKAGE, "stolen-encoder", reidentification.from_keyed_pairs, keyed),
)
# seconds on one core, about, of what takes long; of several steps at once the longest begin
SLOW = {
    "gradient-inversion": 65,
    "scratch-decoder": 140,
    "perceptual-decoder": 50,
    "two-releases": 20,
    "ssim-guessed-pairs": 80,
    "unpaired": 38,
    "re-identification-by-transport": 20,
    "linkage-by-transport": 20,
    "two-releases-by-transport": 20,
}


@dataclass(frozen=True)
class Step:
    """What is done at once: one knowledge, and the attacks that are given it.

    Attributes:
        mask: the victim.
        threat: in ``threats.THREATS``.
        count: pairs or queries.
        attacks: rows of the table.
        controls: kinds of attacks on this mask whose control stands here, beside pictures that need no attack.
    """

    mask: str
    threat: str
    count: int
    attacks: tuple[Attack, ...]
    controls: tuple[Kind, ...] = ()

    @property
    def seconds(self) -> float:
        """What it takes on one core, about."""
        return self.count / 200 + sum(SLOW.get(attack.name, 2) for attack in self.attacks)

    def results(self) -> list[tuple[str, Kind]]:
        """Name and kind of each result, in the order of its rows."""
        anchors = [(name, RECONSTRUCTION) for name in ANCHORS] if self.controls else []
        controls = [(CONTROLS[kind].name, kind) for kind in self.controls]
        return [*anchors, *controls, *((attack.name, attack.kind) for attack in self.attacks)]

    def drawn(self) -> list[str]:
        """The names of those results that are pictures."""
        return [name for name, kind in self.results() if kind is RECONSTRUCTION]

    def rows(self, judged: list[str]) -> list[tuple[str, str, str]]:
        """``(images, attack, measure)`` of every row in ``audit.csv``; ``judged`` are the names of the sets."""
        return [
            (images, name, measure)
            for name, kind in self.results()
            for images in kind.sets(judged)
            for measure in kind.measures
        ]


def steps(mask: str, images: Images) -> Iterator[Step]:
    """What is done to a mask with these images."""
    labelled = images.labelled is not None
    suited = [attack for attack in ATTACKS if attack.masks(mask) and (labelled or attack.kind is not ATTRIBUTE)]
    controls = tuple(kind for kind in CONTROLS if any(attack.kind is kind for attack in suited))
    some = [count for count in threats.PAIRS if count <= images.most_pairs]
    for threat, row in threats.THREATS.items():
        counts = row.counts(mask, some, len(images.public))
        for count in counts:
            attacks = [attack for attack in suited if attack.threat == threat and count in attack.pairs(counts)]
            if attacks:
                yield Step(mask, threat, count, tuple(attacks), controls if threat == "masks-only" else ())


def named(kind: Kind) -> list[str]:
    """The names of the attacks of a kind."""
    return list(dict.fromkeys(attack.name for attack in ATTACKS if attack.kind is kind))


def pictured() -> list[tuple[str, str]]:
    """The picture's rows, ``(threat, attack)``."""
    return [(attack.threat, attack.name) for attack in ATTACKS if attack.kind is RECONSTRUCTION and attack.pictured]
