"""Turning the owner's codes into the attacker's own: the attacker's decoder rebuilds them then, and links are seen."""

import functools
import itertools
from collections.abc import Iterator, Sequence

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
# of turned_by_transport: turns, codes of each side in a turn, the plan's inverse temperature; without pairs, from them
_STAGES = (400, 2000, 3.0), (200, 3300, 4.0), (12, 4000, 2.0)
_STAGES_FROM_PAIRS = (20, 3300, 4.0), (12, 4000, 2.0)
_GUESSES = 4  # images for each mask
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


def turned_by_transport(
    codes: Tensor,
    own_codes: Tensor,
    known: tuple[Tensor, Tensor] | None = None,
    stages: Sequence[tuple[int, int, float]] | None = None,
) -> tuple[Map, Map]:
    """Maps of codes ``[N, D]`` and own ones ``[M, E]``, of other images, to directions that can be compared, float32.

    Threat models: known pairs, and masks only: as :func:`unpaired`, for codes that no statistics line up. Both sets
    are whitened, and only directions count. Without pairs, the rotation begins with the crowds that Gromov-Wasserstein
    transport matches; with codes and own codes of ``known`` pairs, ``[k, D]`` and ``[k, E]``, with Procrustes. Then a
    soft transport plan between some codes of both, and Procrustes, take turns (Wasserstein-Procrustes: Grave, Joulin
    and Berthet, AISTATS 2019). A plan between the codes of the last turn would confirm itself, so the batches of
    one pass share none. Large batches would stay where they begin; once the way is found they take fewer turns. A
    softer plan is the more exact at the end. ``stages``, as ``_STAGES``, replace the audit's.
    """
    if stages is None:
        stages = _STAGES if known is None else _STAGES_FROM_PAIRS
    width = min(codes.shape[1], own_codes.shape[1])
    direct, own_direct = (_directions(z, width) for z in (codes, own_codes))
    x, y = direct(codes), own_direct(own_codes)
    told = torch.zeros(width, width) if known is None else direct(known[0]).T @ own_direct(known[1])
    generator = torch.Generator().manual_seed(0)

    if known is None:
        rows, own_rows, shares = densest_matched(x, y)
        rotation = _nearest_rotation(_paired(x[rows], y[own_rows], shares))
    else:
        rotation = _nearest_rotation(told)
    for turns, most, sharpness in stages:
        batches = (_batches(z, min(most, len(x), len(y)), generator) for z in (x, y))
        for mine, his in itertools.islice(zip(*batches, strict=True), turns):
            cosines = mine @ rotation @ his.T
            plan = doubly_stochastic(sharpness * cosines / cosines.std().clamp_min(1e-12), 2).exp()
            rotation = _nearest_rotation(_paired(mine, his, plan) + told)
    return lambda codes: direct(codes) @ rotation, own_direct


def _batches(codes: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Codes of ``[N, D]`` at random, ``[size, D]`` at a time, without end; those of one pass share none."""
    while True:
        yield from codes[torch.randperm(len(codes), generator=generator)[: len(codes) // size * size]].split(size)


def _directions(codes: Tensor, width: int) -> Map:
    """The map of codes to directions of white ones, from their mean: float32 ``[N, D]``, fitted to ``codes``."""
    whiten, _ = whitening(codes, width)
    mean = F.normalize(whiten(codes).float()).mean(0)
    return lambda codes: F.normalize(whiten(codes).float()) - mean


def _paired(codes: Tensor, others: Tensor, shares: Tensor) -> Tensor:
    """Covariance ``[D, D]`` of codes and what a plan ``[N, M]`` gives them of the others, times N."""
    return (codes - codes.mean(0)).T @ shares @ (others - others.mean(0))


def _nearest_rotation(covariance: Tensor) -> Tensor:
    """Procrustes: the rotation ``[D, D]`` of the best fit, given a covariance."""
    left, _, right = torch.linalg.svd(covariance)
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
    partner. It begins with what turns with the codes as they do: the means, and their products with the covariances.
    Each round takes the rotation nearest to what all covariances make of the last one, which never fits worse.
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
    means, spreads = means[order], spreads[order]
    onto_means = means.T @ (own_sizes[:, None] * own_means)
    products, own_products = (
        torch.einsum("kij,lj->kli", *side).flatten(0, 1) for side in ((spreads, means), (own_spreads, own_means))
    )
    kinds = (onto_means, means, own_means), (products.T @ own_products, products, own_products)
    # each kind counts as much as the other
    begun = sum(onto / (some.norm() * own.norm()).clamp_min(1e-30) for onto, some, own in kinds)
    rotation = _nearest_rotation(begun)
    for _ in range(rounds):
        fitted = torch.einsum("k,kij,jl,klm->im", own_sizes, spreads, rotation, own_spreads)
        rotation = _nearest_rotation(fitted + onto_means)
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
    scale = values.clamp_min(1e-6 * values[-1]).sqrt().clamp_min(1e-30)  # codes may all be the same
    # turned back to where it came from, so that axes keep their meaning; a narrower set keeps its principal axes
    back = axes.T if width == codes.shape[1] else torch.eye(width, dtype=torch.float64)
    forward, backward = (axes / scale) @ back, back.T @ (axes * scale).T
    return lambda codes: (codes.double() - mean) @ forward, lambda white: white @ backward + mean


@functools.lru_cache(maxsize=1)
def by_statistics(collection: Tensor, instance: Instance) -> Map:
    """The owner's codes to those of an instance that the attacker has, without a pair."""
    return unpaired(collection, instance.every_code)


@functools.lru_cache(maxsize=1)
def by_transport(collection: Tensor, own: Instance, pairs: Pairs | None) -> tuple[Map, Map]:
    """Maps of the owner's codes and of the attacker's own to what can be compared, without a pair or beside known ones.

    Only Gaussian parts count. The attacker's own codes are without noise, also where the owner's are in noise: crowds
    are seen better.
    """
    count = categories_in(collection)
    width, own_width = (z.shape[1] - count for z in (collection, own.every_expected))
    known = None if pairs is None else (pairs.codes[:, :width], ridge.own_codes(own, pairs)[:, :own_width])
    turn, own_turn = turned_by_transport(collection[:MOST_PAIRS, :width], own.every_expected[:, :own_width], known)
    return lambda codes: turn(codes[:, :width]), lambda codes: own_turn(codes[:, :own_width])


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


def guessed_pairs(collection: Tensor, own: Instance, pairs: Pairs | None) -> tuple[Pairs, Tensor]:
    """Each mask of the collection with each of the four public images whose own codes are nearest once it is turned.

    These are not the true image. But they have in common with it what both encoders look at, and a decoder that learns
    from several learns what they have in common with one another. Of a large collection the first masks are taken.
    Known pairs help to turn, and stand behind the guessed ones.

    Returns:
        The pairs; the attacker's own codes of their images, without noise.
    """
    turn, own_turn = by_transport(collection, own, pairs)
    collection = collection[:MOST_PAIRS]
    nearest = retrieval.nearest(turn(collection), own_turn(own.every_expected), _GUESSES).flatten()
    codes, images = collection.repeat_interleave(_GUESSES, 0), to_float(own.public.images[nearest])
    if pairs is None:
        return Pairs(codes, images), own.every_expected[nearest]
    both = Pairs(torch.cat((codes, pairs.codes)), torch.cat((images, pairs.images)))
    return both, torch.cat((own.every_expected[nearest], ridge.own_codes(own, pairs)))


def similar_from_guessed_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks only, known pairs: a decoder that learns from :func:`guessed_pairs`, for SSIM. Images by set.

    What says when to stop is held out of the pairs, and nearly all of it is guessed, too.
    """
    own, mean = knowledge.own, knowledge.own.for_decoder(knowledge.own_mean)
    pairs, own_codes = guessed_pairs(knowledge.collection, own, knowledge.pairs)
    align = ridge.Ridge(pairs.codes, knowledge.mean).fit(own.for_decoder(own_codes), mean)
    how = {"passes": decoders.FINE, "loss": decoders.dissimilarity}
    return knowledge.decoded(decoders.inverse_decoder(pairs.codes, pairs.images, own.decode, align, **how))


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
