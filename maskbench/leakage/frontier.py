"""Accuracy on masks against what they leak: ``frontier.csv``. Both are of the same object, the victim of the audit."""

import functools
from collections.abc import Sequence

import torch
from tqdm import tqdm

from maskbench.data import datasets
from maskbench.data.image_set import ImageSet
from maskbench.data.masked_set import MaskedSet
from maskbench.leakage import plan, scores, threats
from maskbench.leakage.settings import Accuracy, Settings
from maskbench.leakage.world import World
from maskbench.masking import Autoencoder, MaskingMethod
from maskbench.masking.shards import Shard, Work
from maskbench.models import checkpoints
from maskbench.storage.ledger import Ledger

PAIRS = 1000  # known pairs of the attack that leakage is measured with, at most
DRAWS, CLASSES = 5, 3  # draws, and classes of a draw, for the accuracy
COLUMNS = ("mask", "gaussian_dim", "method", "accuracy", "std", "draws", "ssim", "low", "high")


def trade_off(
    world: World,
    masks: Sequence[str],
    settings: Settings,
    private: ImageSet,
    table: list[list],
    ledger: Ledger,
    inputs: dict,
    accuracy: Accuracy,
) -> list[list]:
    """Rows of ``frontier.csv``: accuracy on the private set beside the SSIM of the best attack with known pairs.

    Of the autoencoder with and without the key all three classifiers' accuracies, elsewhere without the slow AdaBoost.

    Args:
        masks: the audit's.
        table: rows of ``audit.csv``.
        inputs: what determines every step of the ledger.
    """
    pairs = max(count for count in threats.PAIRS if count <= min(PAIRS, len(world.images.known)))
    numbers = world.owner.widths[0]  # of the audit's autoencoder; baselines stand beside it
    # what is in the ledger already needs no method, and PCA takes a while to fit
    victims = [
        (name, {}, functools.partial(_method, world, name), numbers, best_leak(table, name, world.first, pairs))
        for name in masks
    ]
    for folder in settings.more_models:
        encoder, decoder, fingerprint = checkpoints.load_pair(folder / "0")
        other = Autoencoder(encoder, fingerprint, decoder)
        leak = other_leak(other, pairs, world, ledger, inputs)
        victims.append((other.name, {"other": fingerprint}, lambda other=other: other, other.widths[0], leak))
    rows = []
    by = getattr(accuracy, "func", accuracy)  # behind functools.partial
    for number, (name, which, method, dim, leak) in enumerate(tqdm(victims, desc="accuracy", unit="mask")):
        classifiers = ["mlp", "forest", *(["adaboost"] if number < 2 else [])]
        step = inputs | which | {"accuracy": name, "methods": classifiers, "draws": DRAWS}
        step |= {"private": settings.private, "limit": settings.limit, "by": f"{by.__module__}.{by.__qualname__}"}
        result = ledger.get(step, {"values": [[0.0] * 2] * len(classifiers)})
        if result is None:
            found = accuracy(masked(method(), private, settings), classifiers)
            result = {"values": [[float(value) for value in found[classifier]] for classifier in classifiers]}
            ledger.add(step, result)
        values = zip(classifiers, result["values"], strict=True)
        rows += [[name, dim, classifier, *accuracies, DRAWS, *leak] for classifier, accuracies in values]
    return rows


@torch.no_grad()
def _method(world: World, name: str) -> MaskingMethod:
    return world.victim(name).method


def masked(method: MaskingMethod, images: ImageSet, settings: Settings) -> MaskedSet:
    """A labelled set's masks; they lie in a file without a name."""
    train, test = datasets.labelled_split(images, settings.limit)
    work = Work(method, images, train, test, batch_size=datasets.large_batch(method.image_size))
    return Shard(work, 0).mask(settings.output_dir)


def best_leak(table: list[list], mask: str, images: str, pairs: int) -> list[float]:
    """SSIM of the best attack on a mask with so many known pairs, and its interval."""
    leaks = [row for row in table if row[:3] == [mask, images, "known-pairs"] and row[4] == pairs]
    return max((row[6:] for row in leaks if row[5] == "ssim"), key=lambda values: values[0])


def other_leak(method: Autoencoder, pairs: int, world: World, ledger: Ledger, inputs: dict) -> list[float]:
    """As :func:`best_leak`, of an autoencoder of another size."""
    step = inputs | {"other": method.fingerprint, "pairs": pairs}
    result = ledger.get(step, {"values": [0.0] * 3})
    if result is None:
        result = {"values": list(_attacked(method, pairs, world))}
        ledger.add(step, result)
    return result["values"]


@torch.no_grad()
def _attacked(method: Autoencoder, pairs: int, world: World) -> tuple[float, float, float]:
    other = World(world.images, method, world.attacker, bytes(32), 0)
    knowledge = threats.known_pairs(other, other.victim(method.name), pairs)
    column, rows = scores.IMAGE_MEASURES.index("ssim"), []
    for attack in plan.ATTACKS:
        if attack.threat == "known-pairs" and attack.kind is scores.RECONSTRUCTION and attack.masks(method.name):
            quality = scores.judged(attack.kind, attack.run(knowledge), other)[other.first]
            rows.append(scores.intervals(attack.kind, quality)[column])
    return max(rows)
