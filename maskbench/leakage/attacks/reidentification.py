"""Which candidate image is behind a mask.

An attack answers with distances, float64 ``[N, M]`` by set: row i says how far every candidate is from mask i. Nearly
always the candidates are the N images behind the masks.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from maskbench.leakage.attacks import alignment, oracle, ridge
from maskbench.leakage.attacks.alignment import procrustes, transport
from maskbench.leakage.attacks.gromov_wasserstein import matched_by_transport
from maskbench.leakage.knowledge import Instance, Knowledge, Map, Pairs, batched

Comparison = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # codes and candidates, made comparable


def ranks_of(found: Tensor, places: Tensor) -> Tensor:
    """The rank of the true candidate of each mask, from 1, ties in their middle: float64 ``[N]``.

    Args:
        found: distances of masks to candidates, ``[N, M]``.
        places: where the true candidates stand, int64 ``[N]``.
    """
    true = found.gather(1, places[:, None])
    return 0.5 + (found < true).sum(1) + 0.5 * (found == true).sum(1).double()


def accepted(found: Tensor, places: Tensor, rate: float) -> Tensor:
    """Whether the true candidate of each mask is nearer than all but ``rate`` of the wrong ones, float64 ``[N]``.

    ``found`` is ``[N, M]``. One limit for all masks, as for somebody who decides of each mask and candidate whether
    they belong together. Distances count from the mean of all for the mask: noise makes a mask distant from everything.
    """
    found = found - found.mean(1, keepdim=True)
    true = found.gather(1, places[:, None])
    allowed = int(rate * (found.numel() - len(found)))  # wrong pairs
    limit = found.scatter(1, places[:, None], torch.inf).flatten().kthvalue(allowed + 1).values
    return (true < limit).double().flatten()


def named_once(found: Tensor) -> float:
    """Share of the candidates that are nearest to some code, by distances ``[N, N]``.

    All of them where both lie in one space as they should, few where they do not: without knowing which is which, an
    attacker tells by it which of several ways to compare the two is best.
    """
    return len(found.argmin(1).unique()) / len(found)


def distance_profiles(codes: Tensor) -> Tensor:
    """For each code its distances to all of them, sorted: ``[N, D]`` -> ``[N, N]``. No rotation changes them."""
    return distances(codes, codes).sort(1).values


def turned_by_profiles(codes: Tensor, candidates: Tensor, rounds: int = 3) -> Tensor:
    """Codes ``[N, D]`` turned onto the candidates' ``[N, E]``, all of which are behind some code.

    Threat models: masks only, two releases, stolen encoder without the key; here the attacker has what is behind the
    codes, and asks which is which. Each code is assigned the candidate with the most similar
    :func:`distance_profiles`; from these pairs follows a rotation (:func:`procrustes`), from it a better assignment. No
    code is turned by its own pair: a rotation that was fitted to wrong pairs would only confirm them.
    """
    compared = distance_profiles(codes), distance_profiles(candidates)
    means, generator = (codes.mean(0), candidates.mean(0)), torch.Generator().manual_seed(0)
    for _ in range(rounds):
        partners, turned = transport(*compared)[0], torch.empty_like(candidates)
        for left_out, others in _folds(len(codes), generator):
            turned[left_out] = procrustes(codes[others], candidates[partners[others]], *means)(codes[left_out])
        compared = turned, candidates
    return compared[0]


def matched_in_turns(codes: Tensor, candidates: Tensor, rounds: int = 8) -> Tensor:
    """Distances ``[N, N]`` of codes ``[N, D]`` to candidates ``[N, E]``, all of which are behind some code.

    Threat models: masks only, two releases, as for :func:`turned_by_profiles`, but the two need not be turned: any
    linear map between them will do. Each code is assigned a candidate, at first by :func:`distance_profiles`. A
    regression on these pairs tells the codes, and from them follows a better assignment (:func:`regressed`). No code is
    assigned by its own pair here, either.
    """
    found, before = distances(distance_profiles(codes), distance_profiles(candidates)), None
    means, generator = (codes.mean(0), candidates.mean(0)), torch.Generator().manual_seed(0)
    for _ in range(rounds):
        partners = torch.from_numpy(linear_sum_assignment(found.numpy())[1])
        if before is not None and torch.equal(partners, before):
            break
        before, found = partners, torch.empty_like(found)
        for left_out, others in _folds(len(codes), generator):
            turn, weigh = regressed(codes[others], candidates[partners[others]], *means)
            found[left_out] = distances(weigh(codes[left_out]), weigh(turn(candidates)))
    return found


def _folds(count: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Up to five times: which of so many codes are left out, int64, and a mask of the others, bool ``[count]``."""
    for left_out in torch.randperm(count, generator=generator).chunk(5):
        others = torch.ones(count, dtype=torch.bool)
        others[left_out] = False
        yield left_out, others


def regressed(codes: Tensor, own_codes: Tensor, mean: Tensor, own_mean: Tensor) -> tuple[Map, Map]:
    """From pairs ``[k, D]`` and ``[k, E]``: a map of own codes to codes, and :func:`mahalanobis` of its errors.

    The errors are those on left-out pairs: directions count by how well these tell them.
    """
    regression = ridge.Ridge(own_codes, own_mean)
    return regression.fit(codes, mean), mahalanobis(regression.left_out(codes, mean))


def distances(codes: Tensor, candidates: Tensor) -> Tensor:
    """Euclidean, float64: ``[N, D]`` and ``[M, D]`` -> ``[N, M]``."""
    return torch.cdist(codes.double(), candidates.double(), compute_mode="donot_use_mm_for_euclid_dist")


def mahalanobis(errors: Tensor) -> Map:
    """The map of codes ``[N, D]``, float64, after which Euclidean distances are Mahalanobis distances to these errors.

    Args:
        errors: ``[k, D]``. Of a few, the covariance is hardly known, and shrunk towards that of a ball, by D / (D + k)
            (after Ledoit and Wolf, Journal of Multivariate Analysis 2004, with a fixed rule).
    """
    count, width = errors.shape
    covariance, shrinkage = errors.double().T @ errors.double() / count, width / (width + count)
    ball = covariance.diagonal().mean().clamp_min(1e-30) * torch.eye(width, dtype=torch.float64)
    factor = torch.linalg.cholesky((1 - shrinkage) * covariance + shrinkage * ball)
    return lambda codes: torch.linalg.solve_triangular(factor, codes.double().T, upper=False).T


def _length(codes: Tensor) -> Tensor:
    """``[N, D]`` -> ``[N, 1]``."""
    return codes.double().norm(dim=1, keepdim=True)


# what no rotation changes: the vectors' lengths, their distances to one another, and what these tell of the rotation
INVARIANT: tuple[Comparison, ...] = (
    lambda codes, candidates: (_length(codes), _length(candidates)),
    lambda codes, candidates: (distance_profiles(codes), distance_profiles(candidates)),
    lambda codes, candidates: (turned_by_profiles(codes, candidates), candidates),
)


def from_masks(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks only: candidates under the attacker's own instance, compared in all ways but transport and alignment."""
    ways = [_as_they_are, _turned(knowledge, knowledge.own)]
    return _best(knowledge, knowledge.own, ways, [matched_in_turns])


def from_masks_by_transport(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks only: the candidates under the attacker's own instance, by how alike they are to one another alone.

    An attack of its own: a sharp plan names nearly every candidate once, even where it is wrong, so :func:`named_once`
    cannot compare it with other ways.
    """
    encode = knowledge.own.encode
    return {
        name: matched_by_transport(codes, batched(encode, knowledge.candidates[name]))
        for name, codes in knowledge.masks.items()
    }


def from_masks_by_alignment(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks only: the candidates under the attacker's own instance, onto whose codes of other images masks are turned.

    The candidates take no part in that, so they may be any number, and others than the images behind the masks.
    """
    turn, own_turn = alignment.by_transport(knowledge.collection, knowledge.own, knowledge.pairs)
    found = {}
    for name, codes in knowledge.masks.items():
        candidates = own_turn(batched(knowledge.own.encode, knowledge.candidates[name]))
        found[name] = distances(F.normalize(turn(codes)), F.normalize(candidates))
    return found


def from_raw(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks only, where these are pixels: as they are, or by what no rotation changes."""
    return _best(knowledge, knowledge.own, [_as_they_are])


def from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: the candidates under the attacker's own instance, turned into what the owner's encoder would say."""
    turn, weigh = _by_pairs(knowledge.own, knowledge.pairs, knowledge.collection)
    codes = {name: weigh(some) for name, some in knowledge.masks.items()}
    return _compared(knowledge, codes, lambda images: weigh(turn(batched(knowledge.own.encode, images))))


@functools.lru_cache(maxsize=1)
def _by_pairs(own: Instance, pairs: Pairs, collection: Tensor) -> tuple[Map, Map]:
    """:func:`regressed` on the known pairs."""
    return regressed(pairs.codes, ridge.own_codes(own, pairs), collection.mean(0), own.expected.mean(0))


def from_oracle(knowledge: Knowledge) -> dict[str, Tensor]:
    """Oracle: the candidates under what its answers say of the mask."""
    return _compared(knowledge, knowledge.masks, oracle.learned(knowledge)[1])


def from_stolen(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: the candidates as it encodes them."""
    return _compared(knowledge, knowledge.masks, lambda images: batched(knowledge.stolen.encode, images))


def from_stolen_by_assignment(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: as :func:`from_stolen`, but each candidate is behind one mask alone: in noise that tells more."""
    found = from_stolen(knowledge)
    for apart in found.values():
        rows, columns = linear_sum_assignment(apart.square().numpy())
        apart[rows, columns] = -1.0  # before all others
    return found


def from_stolen_keyed(knowledge: Knowledge) -> dict[str, Tensor]:
    """The encoder without the key or a pair: by what no key changes, and with the key by the categories."""
    align = alignment.by_categories(knowledge.collection, knowledge.stolen)
    return _best(knowledge, knowledge.stolen, [lambda codes, candidates: (align(codes), candidates)])


def from_keyed_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """The encoder without the key, and pairs: also with the key by Procrustes."""
    align = alignment.to_stolen(knowledge.pairs, knowledge.stolen, knowledge.collection)
    return _best(knowledge, knowledge.stolen, [lambda codes, candidates: (align(codes), candidates)])


def from_releases(knowledge: Knowledge) -> dict[str, Tensor]:
    """Two releases of the same images: which mask of one is of which of the other, in all ways but transport."""
    found = {}
    for name, codes in knowledge.masks.items():
        second = knowledge.second[name]
        found[name] = _matched(codes, second, second, [_as_they_are], [matched_in_turns])
    return found


def from_releases_by_transport(knowledge: Knowledge) -> dict[str, Tensor]:
    """Two releases of the same images: as :func:`from_masks_by_transport`."""
    return {name: matched_by_transport(codes, knowledge.second[name]) for name, codes in knowledge.masks.items()}


def _as_they_are(codes: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    return codes, candidates


def _turned(knowledge: Knowledge, instance: Instance) -> Comparison:
    align = alignment.by_statistics(knowledge.collection, instance)
    return lambda codes, candidates: (align(codes), candidates)


def _compared(knowledge: Knowledge, masks: Mapping[str, Tensor], encode: Map) -> dict[str, Tensor]:
    return {name: distances(codes, encode(knowledge.candidates[name])) for name, codes in masks.items()}


def _best(
    knowledge: Knowledge,
    instance: Instance,
    ways: Sequence[Comparison] = (),
    others: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
) -> dict[str, Tensor]:
    """By ``INVARIANT``, more ways to compare, and others that give distances: the one with most :func:`named_once`."""
    found = {}
    for name, codes in knowledge.masks.items():
        candidates = batched(instance.encode, knowledge.candidates[name])
        found[name] = _matched(codes, candidates, instance.in_noise(candidates), ways, others)
    return found


def _matched(
    codes: Tensor,
    candidates: Tensor,
    released: Tensor,
    ways: Sequence[Comparison],
    others: Sequence[Callable[[Tensor, Tensor], Tensor]],
) -> Tensor:
    """The distances that name most candidates once; lengths and distances compare with candidates as ``released``."""
    found = [distances(*way(codes, released)) for way in INVARIANT]
    found += [distances(*way(codes, candidates)) for way in ways]
    found += [other(codes, candidates) for other in others]
    return max(found, key=named_once)
