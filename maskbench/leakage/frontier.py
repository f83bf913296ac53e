"""Accuracy on masks against what they leak: ``frontier.csv``. Both are of the same object, the victim of the audit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from maskbench.data import datasets
from maskbench.data.image_set import ImageSet
from maskbench.leakage import plan, scores, threats
from maskbench.leakage.world import World
from maskbench.masking import Autoencoder, MaskingMethod
from maskbench.masking.shards import Shard, Work
from maskbench.models import checkpoints
from maskbench.storage.ledger import Ledger

if TYPE_CHECKING:
    from maskbench.leakage.audit import Accuracy, Settings

PAIRS = 1000  # known pairs of the attack that leakage is measured with, at most
DRAWS = 5  # of three classes, for the accuracy
COLUMNS = ("mask", "gaussian_dim", "method", "accuracy", "std", "draws", "ssim", "low", "high")


def trade_off(
    world: World,
    masks: Sequence[str],
    settings: "Settings",
    private: ImageSet,
    table: list[list],
    ledger: Ledger,
    inputs: dict,
    accuracy: "Accuracy",
) -> list[list]:
    """Rows of ``frontier.csv``: accuracy on the private set beside the SSIM of the best attack with known pairs.

    Of the autoencoder with and without the key all three classifiers' accuracies, elsewhere without the slow AdaBoost.

    Args:
        masks: the audit's.
        table: rows of ``audit.csv``.
        inputs: what determines every step of the ledger.
    """
    pairs = max(count for count in threats.PAIRS if count <= min(PAIRS, len(world.images.known)))
    victims = [(world.victim(name).method, best_leak(table, name, world.first, pairs)) for name in masks]
    for folder in settings.more_models:
        encoder, decoder, fingerprint = checkpoints.load_pair(folder / "0")
        method = Autoencoder(encoder, fingerprint, decoder)
        victims.append((method, other_leak(method, pairs, world, ledger, inputs)))
    rows = []
    for number, (method, leak) in enumerate(tqdm(victims, desc="accuracy", unit="mask")):
        names = ["mlp", "forest", *(["adaboost"] if number < 2 else [])]
        found = accuracies(method, names, settings, private, ledger, inputs, accuracy)
        # baselines have as many numbers as the audit's autoencoder
        dim = method.widths[0] if number >= len(masks) else world.owner.widths[0]
        rows += [[method.name, dim, name, *found[name], DRAWS, *leak] for name in names]
    return rows


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


def accuracies(
    method: MaskingMethod,
    names: list[str],
    settings: "Settings",
    private: ImageSet,
    ledger: Ledger,
    inputs: dict,
    accuracy: "Accuracy",
) -> dict[str, list[float]]:
    """Mean and standard deviation of each classifier's accuracy on the private set, masked by the method."""
    step = inputs | {"accuracy": method.name, "encoder": method.fingerprint, "methods": names, "draws": DRAWS}
    step |= {"private": settings.private, "limit": settings.limit}
    result = ledger.get(step, {"values": [[0.0] * 2] * len(names)})
    if result is None:
        train, test = datasets.labelled_split(private, settings.limit)
        work = Work(method, private, train, test, batch_size=datasets.large_batch(method.image_size))
        found = accuracy(Shard(work, 0).mask(), names)
        result = {"values": [[float(value) for value in found[name]] for name in names]}
        ledger.add(step, result)
    return dict(zip(names, result["values"], strict=True))
