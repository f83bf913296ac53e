"""Turning the owner's codes into the attacker's own, so that the attacker's decoder rebuilds them."""

import functools
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment, quadratic_assignment
from torch import Tensor

from maskbench.data.image_set import to_float
from maskbench.leakage.attacks import decoders, retrieval, ridge
from maskbench.leakage.attacks.gromov_wasserstein import densest_matched, doubly_stochastic
from maskbench.leakage.knowledge import MOST_PAIRS, Instance, Knowledge, Map, Pairs, batched

_ROUNDS, _BATCH = 10, 1000  # of Wasserstein-Procrustes
# of turned_by_transport: codes of each side in a turn, and at the end; their inverse temperature; turns at most, and at
# the end; turns that are compared
_TURNED, _SHARP, _MOST_TURNS, _LAST_TURNS, _WINDOW = (3000, 4000), 4.0, 300, 12, 15
_PARTNERS, _THIRD = 128, 10_000  # axes and images that third moments are taken of


def procrustes(codes: Tensor, own_codes: Tensor, mean: Tensor, own_mean: Tensor) -> Map:
    """The rotation, scale and shift that best turn codes into the attacker's own, ``[k, D]`` and ``[k, E]``.

    Threat model: known pairs (with the encoder and without its key: stolen encoder). The attacker encodes the k images
    with his own encoder. Where pairs are fewer than dimensions, what they do not determine maps to nothing.
    Orthogonal Procrustes (Schönemann, Psychometrika 1966), also between spaces of different widths. The means ``[D]``
    and ``[E]`` are those of all codes, which he knows without pairs.
    """
    source, target = (codes - mean).double(), (own_codes - own_mean).double()
    left, values, right = _svd_of_product(source, target)
    seen = values > 1e-9 * values[0]
    scale = values.sum() / source.square().sum()
    rotation = (scale * left[:, seen] @ right[seen]).to(codes)
    return lambda codes: (codes - mean) @ rotation + own_mean


def _svd_of_product(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition of ``source.T @ target``, of ``[k, D]`` and ``[k, E]``.

    The product has a rank of k at most: with thin QR factors of both, what is left is a matrix of k by k.
    """
    if len(source) >= min(source.shape[1], target.shape[1]):
        return torch.linalg.svd(source.T @ target, full_matrices=False)
    (left_basis, left_factor), (right_basis, right_factor) = (torch.linalg.qr(side.T) for side in (source, target))
    left, values, right = torch.linalg.svd(left_factor @ right_factor.T)
    return left_basis @ left, values, right @ right_basis.T


def unpaired(codes: Tensor, own_codes: Tensor) -> Map:
    """Turn codes into the attacker's own by statistics alone, ``[N, D]`` and ``[M, E]`` of different images.

    Threat model: masks only. The attacker has masks, public images of the same kind and an encoder that he trained on
    them. Both sets are whitened, so that what is left to find is a rotation. Two guesses at it:

    - a permutation with signs, by moments, see :func:`match_axes`;
    - the axes of the fourth-moment matrix E[|x|^2 x x^T] in their order (FOBI: Cardoso, ICASSP 1989), which turn with
      the data, with signs by third moments.

    Each is refined by optimal transport and Procrustes in turns (Wasserstein-Procrustes: Grave, Joulin and Berthet,
    AISTATS 2019). Of the four, the attacker takes the one with the cheapest transport plan.
    """
    width = min(codes.shape[1], own_codes.shape[1])
    whiten, _ = whitening(codes, width)
    own_whiten, own_colour = whitening(own_codes, width)
    x, y = whiten(codes), own_whiten(own_codes)
    generator = torch.Generator().manual_seed(0)

    def some() -> tuple[Tensor, Tensor]:
        return tuple(z[torch.randperm(len(z), generator=generator)[: min(_BATCH, len(x), len(y))]] for z in (x, y))

    guesses = [match_axes(x, y), _fourth_moment_axes(x) @ _fourth_moment_axes(y).T]
    for rotation in list(guesses):
        for _ in range(_ROUNDS):
            mine, his = some()
            his = his[transport(mine @ rotation, his)[0]]
            rotation = torch.from_numpy(orthogonal_procrustes(mine.numpy(), his.numpy())[0])
        guesses.append(rotation)
    mine, his = some()
    rotation = min(guesses, key=lambda rotation: transport(mine @ rotation, his)[1])
    return lambda codes: own_colour(whiten(codes) @ rotation).to(codes)


def turned_by_transport(codes: Tensor, own_codes: Tensor) -> tuple[Tensor, Tensor]:
    """Codes ``[N, D]`` turned onto own ones ``[M, D]`` of other images: directions of both, float32.

    Threat model: masks only, as for :func:`unpaired`, but for codes that no statistics line up. Both sets are whitened,
    and only directions count. The rotation begins with the crowds that Gromov-Wasserstein transport matches. Then a
    soft transport plan between some codes of both, and Procrustes, take turns (Wasserstein-Procrustes: Grave, Joulin
    and Berthet, AISTATS 2019). Each time they are other codes: a plan between the same ones would confirm itself. A
    sharp plan finds the way, a softer and larger one is the more exact at its end.
    """
    width = min(codes.shape[1], own_codes.shape[1])
    x, y = (F.normalize(whitening(z, width)[0](z).float()) for z in (codes, own_codes))
    x, y = x - x.mean(0), y - y.mean(0)
    rows, own_rows, shares = densest_matched(x, y)
    rotation = _procrustes_of_plan(x[rows], y[own_rows], shares)
    generator = torch.Generator().manual_seed(0)

    def turned_on(rotation: Tensor, most: int, sharpness: float) -> tuple[Tensor, float]:
        """The next rotation, by as many codes as there are or ``most``; the mean cosine of what the plan pairs."""
        count = min(most, len(x), len(y))
        mine, his = (z[torch.randperm(len(z), generator=generator)[:count]] for z in (x, y))
        cosines = mine @ rotation @ his.T
        plan = doubly_stochastic(sharpness * cosines / cosines.std().clamp_min(1e-12), 2).exp()
        return _procrustes_of_plan(mine, his, plan), float((plan * cosines).sum() / count)

    fits: list[float] = []
    while len(fits) < _MOST_TURNS and not _settled(fits):
        rotation, fit = turned_on(rotation, _TURNED[0], _SHARP)
        fits.append(fit)
    for _ in range(_LAST_TURNS):
        rotation, _ = turned_on(rotation, _TURNED[1], _SHARP / 2)
    return x @ rotation, y


def _settled(fits: list[float]) -> bool:
    """Whether the fit has risen as it does where two sets come to lie on each other, and rises no more."""
    before, now = (sum(some) / _WINDOW for some in (fits[-2 * _WINDOW : -_WINDOW], fits[-_WINDOW:]))
    return len(fits) >= 2 * _WINDOW and 1.15 * fits[0] < now < 1.005 * before


def _procrustes_of_plan(codes: Tensor, others: Tensor, shares: Tensor) -> Tensor:
    """The rotation ``[D, D]`` that takes codes to what a plan ``[N, M]`` gives them of the others."""
    left, _, right = torch.linalg.svd((codes - codes.mean(0)).T @ shares @ (others - others.mean(0)))
    return left @ right


def match_axes(x: Tensor, y: Tensor) -> Tensor:
    """The permutation with signs ``[D, D]`` that best turns white vectors ``[N, D]`` into ``[M, D]``, by moments alone.

    Encoders of one kind often share their axes and differ in their order and signs. Of the vectors' directions u (their
    lengths, the images' contrast, say nothing of the axes), the moments E[u_i^2 u_j^2] make a graph on the axes. Two
    graphs are matched after their entries are replaced by ranks: axes by the spread of their entries, then by FAQ from
    there (Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLoS ONE 2015; scipy's).
    Signs then follow from third moments: E[u_i u_j^2] votes on i alone, E[u_i u_j u_k] with the signs of j and k.
    """
    x, y = (F.normalize(z.float()) for z in (x, y))
    x, y = ((z - z.mean(0)) / z.std(0).clamp_min(1e-12) for z in (x, y))
    width = x.shape[1]
    fourth = [(z.square().T @ z.square() / len(z)).double() for z in (x, y)]
    spread = [torch.cat((m.diagonal()[:, None], m.sort(1).values[:, :: max(1, width // 32)]), 1) for m in fourth]
    cost = torch.cdist(*(part / spread[0].std(0).clamp_min(1e-12) for part in reversed(spread)))
    start = np.eye(width)[linear_sum_assignment(cost.numpy())[1]]
    graphs = [(m.flatten().argsort().argsort().view_as(m) / m.numel() - 0.5).fill_diagonal_(0).double() for m in fourth]
    options = {"maximize": True, "P0": start, "maxiter": 100, "tol": 1e-4}
    matched = quadratic_assignment(graphs[1].numpy(), graphs[0].numpy(), options=options)
    order = torch.from_numpy(matched.col_ind).long()  # axis i of y is axis order[i] of x

    x = x[:, order]
    alone = (x.T @ x.square() / len(x) * (y.T @ y.square() / len(y))).sum(1)
    signs = _signs(alone)
    partners = torch.randperm(width, generator=torch.Generator().manual_seed(0))[:_PARTNERS]
    x, y = x[:_THIRD], y[:_THIRD]
    votes = torch.empty(width, len(partners), width)
    for i in range(width):
        votes[i] = (x[:, partners] * x[:, i, None]).T @ x / len(x) * ((y[:, partners] * y[:, i, None]).T @ y / len(y))
        votes[i, :, i] = 0  # of the signs, only those of two others
        votes[i, partners == i] = 0
    votes[:, torch.arange(len(partners)), partners] = 0
    for _ in range(10):
        signs = _signs(torch.einsum("ijk,j,k->i", votes, signs[partners], signs) + alone)
    rotation = torch.zeros(width, width, dtype=torch.float64)
    rotation[order, torch.arange(width)] = signs.double()
    return rotation


def _signs(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0)


def _fourth_moment_axes(x: Tensor) -> Tensor:
    """Orthonormal axes ``[D, D]`` that turn with the white vectors ``[N, D]``, so that they line two sets up."""
    _, axes = torch.linalg.eigh((x * x.square().sum(1, keepdim=True)).T @ x / len(x))
    return axes * _signs((x @ axes).pow(3).mean(0))


def unkeyed(codes: Tensor, own_codes: Tensor, rounds: int = 100) -> Map:
    """Undo a key by the categories, ``[N, G + K]`` and ``[M, G + K]`` of different images, the last K numbers one-hot.

    Threat model: the stolen encoder without its key or a pair. The key turns Gaussian parts and reorders categories. It
    leaves how large these are, and the inner products of their means: by them they are matched (FAQ, see
    :func:`match_axes`). Then a rotation is sought that takes each category's mean and covariance to those of its
    partner. It begins with the means; each round takes the rotation nearest to what all covariances make of the last
    one, which never fits worse.
    """
    count = categories_in(codes)
    width = codes.shape[1] - count
    sides = [_of_categories(z[:, :width].double(), z[:, width:].double()) for z in (codes, own_codes)]
    (sizes, means, spreads), (own_sizes, own_means, own_spreads) = sides
    graphs = [part @ part.T for part in (means, own_means)]
    told = [
        torch.cat((graph.sort(1).values, size[:, None]), 1)
        for graph, size in zip(graphs, (sizes, own_sizes), strict=True)
    ]
    start = np.eye(count)[linear_sum_assignment(torch.cdist(told[1], told[0]).numpy())[1]]
    options = {"maximize": True, "P0": start, "maxiter": 100}
    matched = quadratic_assignment(graphs[1].numpy(), graphs[0].numpy(), options=options)
    order = torch.from_numpy(matched.col_ind).long()  # the partner of each own category
    onto_means = means[order].T @ (own_sizes[:, None] * own_means)
    left, _, right = torch.linalg.svd(onto_means)
    rotation = left @ right
    for _ in range(rounds):
        fitted = torch.einsum("k,kij,jl,klm->im", own_sizes, spreads[order], rotation, own_spreads)
        left, _, right = torch.linalg.svd(fitted + onto_means)
        rotation = left @ right
    return lambda z: torch.cat((z[:, :width] @ rotation.to(z), z[:, width:][:, order]), 1)


def categories_in(codes: Tensor) -> int:
    """How many of the numbers of codes ``[N, D]`` are a one-hot category's: masks in noise have none."""
    return int(((codes == 0) | (codes == 1)).all(0).sum())


def _of_categories(gaussian: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each category its share ``[K]``, and of its Gaussian parts mean ``[K, G]`` and covariance ``[K, G, G]``."""
    sizes = one_hot.sum(0)
    means = one_hot.T @ gaussian / sizes.clamp_min(1)[:, None]
    away = gaussian - one_hot @ means
    spreads = torch.stack([(away * member[:, None]).T @ away for member in one_hot.T])
    return sizes / len(gaussian), means, spreads / sizes.clamp_min(1)[:, None, None]


def transport(some: Tensor, others: Tensor) -> tuple[Tensor, float]:
    """The cheapest way to assign ``others`` to ``some``, ``[N, D]`` twice (discrete optimal transport); its cost."""
    cost = torch.cdist(some, others).numpy()
    rows, columns = linear_sum_assignment(cost)
    return torch.from_numpy(columns), float(cost[rows, columns].mean())


def whitening(codes: Tensor, width: int) -> tuple[Map, Map]:
    """To ``width`` numbers of variance 1 (float64), and back; all of them move as little as can be."""
    codes = codes.double()
    mean = codes.mean(0)
    values, axes = torch.linalg.eigh((codes - mean).T.cov(correction=0))
    values, axes = values[-width:], axes[:, -width:]
    scale = values.clamp_min(1e-6 * values[-1]).sqrt()
    # turned back to where it came from, so that axes keep their meaning; a narrower set keeps its principal axes
    back = axes.T if width == codes.shape[1] else torch.eye(width, dtype=torch.float64)
    forward, backward = (axes / scale) @ back, back.T @ (axes * scale).T
    return lambda codes: (codes.double() - mean) @ forward, lambda white: white @ backward + mean


@functools.lru_cache(maxsize=1)
def by_statistics(collection: Tensor, instance: Instance) -> Map:
    """The owner's codes to those of an instance that the attacker has, without a pair."""
    return unpaired(collection, instance.every_code)


@functools.lru_cache(maxsize=1)
def by_categories(collection: Tensor, stolen: Instance) -> Map:
    """Keyed codes to those of the stolen encoder, without a pair; where there are no categories, by statistics."""
    return unkeyed(collection, stolen.every_code) if categories_in(collection) else by_statistics(collection, stolen)


@functools.lru_cache(maxsize=1)
def to_stolen(pairs: Pairs, stolen: Instance, collection: Tensor) -> Map:
    """Keyed codes to those of the stolen encoder, by the known pairs: what is left to find is the key."""
    codes = batched(stolen.encode, pairs.images)
    # the plain codes' mean is that of public images: he cannot encode the owner's
    return procrustes(pairs.codes, codes, collection.mean(0), stolen.codes.mean(0))


def own_by_statistics(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks only: to the attacker's own instance without a pair, then its decoder. Images by set."""
    align, decode = by_statistics(knowledge.collection, knowledge.own), knowledge.own.decode
    return _through(knowledge, align, decode)


def guessed_pairs(collection: Tensor, own: Instance) -> Pairs:
    """Each mask of the collection, and the public image whose own code is nearest to it once it is turned.

    That is not the true image. But it has in common with it what both encoders look at. Of a large collection the first
    masks are taken.
    """
    collection = collection[:MOST_PAIRS]
    codes, own_codes = (z[:, : z.shape[1] - categories_in(z)] for z in (collection, own.every_code))
    turned, directions = turned_by_transport(codes, own_codes)
    return Pairs(collection, to_float(own.public.images[retrieval.nearest(turned, directions)]))


def own_by_transport(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks only: a decoder that learns from :func:`guessed_pairs`, for SSIM. Images by set."""
    pairs = guessed_pairs(knowledge.collection, knowledge.own)
    return decoders.similar_from_pairs(replace(knowledge, pairs=pairs))


def own_from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: to the attacker's own instance by Procrustes, then its decoder. Images by set."""
    own, own_mean = ridge.own_targets(knowledge)
    align = procrustes(knowledge.pairs.codes, own, knowledge.mean, own_mean)
    return _through(knowledge, align, knowledge.own.decode)


def stolen_by_statistics(knowledge: Knowledge) -> dict[str, Tensor]:
    """The encoder without the key or a pair: the key by statistics, then a decoder of the encoder. Images by set."""
    align = by_statistics(knowledge.collection, knowledge.stolen)
    return _through(knowledge, align, decoders.of_stolen(knowledge.stolen, knowledge.own))


def stolen_by_categories(knowledge: Knowledge) -> dict[str, Tensor]:
    """The encoder without the key or a pair: the key by categories, then a decoder of the encoder. Images by set."""
    align = by_categories(knowledge.collection, knowledge.stolen)
    return _through(knowledge, align, decoders.of_stolen(knowledge.stolen, knowledge.own))


def stolen_from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """The encoder without the key, and pairs: the key by Procrustes, then a decoder of the encoder. Images by set."""
    align = to_stolen(knowledge.pairs, knowledge.stolen, knowledge.collection)
    return _through(knowledge, align, decoders.of_stolen(knowledge.stolen, knowledge.own))


def similar_by_categories(knowledge: Knowledge) -> dict[str, Tensor]:
    """As :func:`stolen_by_categories`, with a decoder that was trained for SSIM. Images by set."""
    align = by_categories(knowledge.collection, knowledge.stolen)
    return _through(knowledge, align, decoders.similar_of_stolen(knowledge.stolen))


def similar_from_key_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """As :func:`stolen_from_pairs`, with a decoder that was trained for SSIM. Images by set."""
    align = to_stolen(knowledge.pairs, knowledge.stolen, knowledge.collection)
    return _through(knowledge, align, decoders.similar_of_stolen(knowledge.stolen))


def _through(knowledge: Knowledge, align: Map, decode: Map) -> dict[str, Tensor]:
    return knowledge.decoded(lambda codes: decode(align(codes)))
