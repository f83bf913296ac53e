"""Accuracy on masks against what they leak: ``frontier.csv``. Both are of the same object, the victim of the audit."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tqdm import tqdm

from maskbench.classification.scores import NAMES
from maskbench.data import datasets
from maskbench.data.image_set import ImageSet
from maskbench.data.masked_set import KEYED, MaskedSet
from maskbench.leakage import plan, scores, threats
from maskbench.leakage.settings import Accuracy, Settings
from maskbench.leakage.table import COLUMNS as AUDIT_COLUMNS
from maskbench.leakage.table import Table
from maskbench.leakage.world import Images, World
from maskbench.masking import Autoencoder, MaskingMethod
from maskbench.masking.shards import Shard, Work
from maskbench.storage.ledger import Ledger

PAIRS = 1000  # known pairs of the attacks that leakage is measured with, at most
DRAWS, CLASSES = 5, 3  # draws, and classes of a draw, for the accuracy
COLUMNS = (
    *("mask", "gaussian_dim", "method", "accuracy", "std", "draws"),
    *("ssim", "low", "high", "named_without_pairs", "named_with_pairs"),
)


@dataclass(frozen=True, eq=False)
class Point:
    """A mask on the frontier.

    Attributes:
        name: in ``frontier.csv``.
        gaussian_dim: of the audited autoencoder, which baselines stand beside.
        method: makes it; called only where the accuracy is not known yet.
        leaks: the last five columns, see :func:`leaks`.
        inputs: what determines it, for the ledger.
        classifiers: which read it.
    """

    name: str
    gaussian_dim: int
    method: Callable[[], MaskingMethod]
    leaks: list[float]
    inputs: dict
    classifiers: tuple[str, ...] = ("mlp", "forest")


def kind_of(autoencoder: Autoencoder) -> tuple[str, int]:
    """What tells an autoencoder's point from others': preset, and length of the Gaussian part."""
    return autoencoder.encoder.config["preset"], autoencoder.widths[0]


def audited(world: World, mask: str, table: list[list], inputs: dict) -> Point:
    """A mask of the audit; ``table`` are the rows of ``audit.csv``."""
    which = inputs | {"networks": world.networks, "accuracy": mask}
    victim = torch.no_grad()(world.victim)
    classifiers = tuple(NAMES) if mask in ("aae", "aae" + KEYED) else Point.classifiers  # AdaBoost is slow
    leaked = leaks(table, mask, world.images)
    return Point(mask, world.owner.widths[0], lambda: victim(mask).method, leaked, which, classifiers)


def beside(world: World, owner: Autoencoder, table: list[list], inputs: dict) -> Point:
    """Another autoencoder in its own world; one of another kind than the audit's ``owner`` has that in its name."""
    mask, preset = world.owner.name, kind_of(world.owner)[0]
    name = mask if preset == kind_of(owner)[0] else f"{mask}-{preset}"
    method, which = world.owner, inputs | {"networks": world.networks, "accuracy": mask}
    return Point(name, method.widths[0], lambda: method, leaks(table, mask, world.images), which)


def most_pairs(images: Images) -> int:
    """How many known pairs leakage is measured with."""
    return max(count for count in threats.PAIRS if count <= min(PAIRS, images.most_pairs))


def steps(images: Images) -> list[plan.Step]:
    """What is done to an autoencoder beside the audited one."""
    needed = ("masks-only", 0), ("known-pairs", most_pairs(images))
    return [step for step in plan.steps("aae", images) if (step.threat, step.count) in needed]


def leaks(table: list[list], mask: str, images: Images) -> list[float]:
    """What a mask gives away to somebody with so many known pairs.

    Args:
        table: rows of ``audit.csv``.

    Returns:
        SSIM of the best attack with as many or fewer, and its interval; the share of images that are named without a
        pair, and with as many or fewer.
    """
    audited, pairs = Table([dict(zip(AUDIT_COLUMNS, row, strict=True)) for row in table]), most_pairs(images)
    seen = audited.chosen(scores.RECONSTRUCTION, mask, pairs)["ssim"]
    return [seen["mean"], seen["low"], seen["high"], *(audited.best_reid(mask, most) for most in (0, pairs))]


def trade_off(
    points: list[Point], settings: Settings, private: ImageSet, ledger: Ledger, accuracy: Accuracy
) -> list[list]:
    """Rows of ``frontier.csv``: accuracy on the private set beside what is leaked.

    Of the audited autoencoder with and without the key all three classifiers' accuracies, elsewhere of two.
    """
    rows = []
    by = getattr(accuracy, "func", accuracy)  # behind functools.partial
    for point in tqdm(points, desc="accuracy", unit="mask"):
        classifiers = list(point.classifiers)
        step = point.inputs | {"methods": classifiers, "draws": DRAWS}
        step |= {"private": settings.private, "limit": settings.limit, "by": f"{by.__module__}.{by.__qualname__}"}
        result = ledger.get(step, {"values": [[0.0] * 2] * len(classifiers)})
        if result is None:
            found = accuracy(masked(point.method(), private, settings), classifiers)
            result = {"values": [[float(value) for value in found[classifier]] for classifier in classifiers]}
            ledger.add(step, result)
        for classifier, accuracies in zip(classifiers, result["values"], strict=True):
            rows.append([point.name, point.gaussian_dim, classifier, *accuracies, DRAWS, *point.leaks])
    return rows


def masked(method: MaskingMethod, images: ImageSet, settings: Settings) -> MaskedSet:
    """A labelled set's masks; they lie in a file without a name."""
    train, test = datasets.labelled_split(images, settings.limit)
    work = Work(method, images, train, test, batch_size=datasets.large_batch(method.image_size))
    return Shard(work, 0).mask(settings.output_dir)
