"""How good an attack's answer is: measured against the truth, which only the audit holds."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskbench.data import image_quality
from maskbench.leakage import perceptual
from maskbench.leakage.attacks.reidentification import accepted, ranks_of
from maskbench.leakage.world import CHUNK, World

RESAMPLES = 500  # of the bootstrap
FALSE_POSITIVES = 1e-3  # the rate at which true positives are counted
CHOICE = 4  # every fourth image serves to choose among attacks, the others to judge them
# the best 1% of images: those with a small MSE or distance, a high PSNR or SSIM
BEST = {"mse": 0.01, "psnr": 0.99, "ssim": 0.99, "perceptual": 0.01}
IMAGE_MEASURES = tuple(f"{name}{kind}" for name in BEST for kind in ("", "_median", "_best1"))


@dataclass(frozen=True)
class Kind:
    """What an attack finds out.

    Attributes:
        name: for readers.
        figures: what is measured.
        main: of these, the one that attacks are compared by.
        of: the judged sets that it is measured on: all of them, the first, or the last.
        candidates: the images among which the one behind a mask is to be found, by set; None where no image is sought.
    """

    name: str
    figures: tuple[str, ...]
    main: str
    of: str = "all"
    candidates: Callable[[World], dict[str, Tensor]] | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """Its rows in ``audit.csv``: the figures, and the main one of the images that serve to choose an attack."""
        return *self.figures, "choice"

    def sets(self, judged: list[str]) -> list[str]:
        """Of all judged sets those that it is measured on."""
        return {"all": judged, "first": judged[:1], "last": judged[-1:]}[self.of]


RECONSTRUCTION = Kind("reconstruction", IMAGE_MEASURES, "ssim")
REIDENTIFICATION = Kind(
    "re-identification",
    ("reid_at_1", "mean_rank", "median_rank"),
    "reid_at_1",
    candidates=lambda world: world.candidates,
)
# as re-identification, by another photograph of each image: the attacker has not the image itself
LINKAGE = Kind(
    "linkage of another photograph",
    ("linked_at_1", "linked_mean_rank", "linked_median_rank", "linked_at_fpr"),
    "linked_at_1",
    candidates=lambda world: world.other_photographs,
)
# as linkage, among many more candidates: other photographs of further images stand between them
CROWD = Kind(
    "linkage among all validation images",
    LINKAGE.figures,
    LINKAGE.main,
    "first",
    candidates=lambda world: world.crowd,
)
# as re-identification, of masks of the same images in another release
RELEASES = Kind("linkage of two releases", ("joined_at_1", "joined_mean_rank", "joined_median_rank"), "joined_at_1")
ATTRIBUTE = Kind("attribute inference", ("accuracy",), "accuracy", "last")  # labels are of the last set
MEMBERSHIP = Kind("membership inference", ("accuracy",), "accuracy", "first")  # members are of the first set's kind


def judged(kind: Kind, found: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """What each answer is worth, in the order of the judged images.

    Args:
        found: an attack's result by set: images, distances, labels, or whether images are members.

    Returns:
        By set: of images ``[N, 4]`` MSE, PSNR, SSIM and perceptual distance; ``[N]`` ranks; of other photographs
        ``[N, 2]`` ranks and whether they are accepted; ``[N]`` whether the answer was right.
    """
    if kind is RECONSTRUCTION:
        return {name: _quality(x, name, world) for name, x in found.items()}
    if kind in (REIDENTIFICATION, RELEASES):
        places = world.answers()
        return {name: ranks_of(distances, places[name]) for name, distances in found.items()}
    if kind in (LINKAGE, CROWD):
        places = world.answers()
        return {
            name: torch.stack((ranks_of(apart, places[name]), accepted(apart, places[name], FALSE_POSITIVES)), 1)
            for name, apart in found.items()
        }
    if kind is ATTRIBUTE:
        return {name: labels == world.images.labelled[2] for name, labels in found.items()}
    truth, order = world.asked_members()
    return {name: (said == truth[order])[order.argsort()] for name, said in found.items()}


def _quality(images: Tensor, name: str, world: World) -> Tensor:
    """Of the first images of a judged set what :func:`judged` says."""
    distances = []
    for some, of_originals in zip(images.split(CHUNK), world.directions[name], strict=False):
        of_originals = [maps[: len(some)] for maps in of_originals]
        distances.append(perceptual.apart(perceptual.directions(world.public.features, some), of_originals))
    quality = image_quality.image_quality(images, world.judged[name][: len(images)])
    return torch.cat((quality, torch.cat(distances)[:, None]), 1)


def chooses(count: int) -> Tensor:
    """Which of so many judged images serve to choose an attack, bool ``[count]``; what is reported is of the others."""
    return torch.arange(count) % CHOICE == 0


def intervals(kind: Kind, results: Tensor) -> list[tuple[float, float, float]]:
    """Each measure of an attack and its 95% interval: of shares Wilson's, of others by bootstrap over images.

    Args:
        results: of every image, what :func:`judged` says.
    """
    choice = chooses(len(results))
    main = kind.figures.index(kind.main)
    return [*_figures(kind, results[~choice]), _figures(kind, results[choice])[main]]


def _figures(kind: Kind, results: Tensor) -> list[tuple[float, float, float]]:
    results = results.double().numpy()
    rows = np.random.RandomState(0).randint(len(results), size=(RESAMPLES, len(results)))

    def drawn(values: np.ndarray, figure: Callable) -> tuple[float, float, float]:
        low, high = np.quantile(figure(values[rows], axis=1), (0.025, 0.975))
        return float(figure(values, axis=0)), float(low), float(high)

    if kind in (REIDENTIFICATION, RELEASES):
        return [wilson(results == 1), drawn(results, np.mean), drawn(results, np.median)]
    if kind in (LINKAGE, CROWD):
        ranks, told = results.T
        return [wilson(ranks == 1), drawn(ranks, np.mean), drawn(ranks, np.median), wilson(told == 1)]
    if kind is RECONSTRUCTION:
        figures = []
        for column, best in zip(results.T, BEST.values(), strict=True):
            at_best = functools.partial(np.quantile, q=best)
            figures += [drawn(column, np.mean), drawn(column, np.median), drawn(column, at_best)]
        return figures
    return [wilson(results == 1)]


def wilson(hits: np.ndarray) -> tuple[float, float, float]:
    """The share of hits, bool ``[N]``, and both ends of its 95% interval by Wilson's score.

    Where none is hit, or all are, a bootstrap would say that it is certain.
    """
    count, share, z = len(hits), float(hits.mean()), 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
