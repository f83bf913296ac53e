"""Gromov-Wasserstein transport between two sets of codes: matched by how alike each one's codes are to one another."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# see matched_by_transport
TRIES = (0.45, 0.55, 0.37, 0.65, 0.45, 1.0)  # share of the codes, the densest, that each begins with
AVERAGED = 6  # plans whose mean a try extends
NOISE = 0.5  # standard deviation of what is added to the logits that each begins with, in nats
SURE = 0.94  # mean of the largest shares of a plan that ends the tries
FEW = 200  # of fewer codes any plan looks sharp, so all tries are made
PRIOR = 8.0  # nats by median distance, of each of two distances that count at first
COLDEST = 9.0  # last inverse temperature
GROWTH = 1.6  # a plan is extended to so many times as many codes at a time
# see densest_matched: codes that the densest are sought among, and their share; codes that a crowd is counted among
POOL, CROWDED, SEEN = 10_000, 0.16, 4000


@dataclass(frozen=True)
class Annealing:
    """How a plan of transport is sharpened.

    The affinity of a code and a candidate is how well they fit the pairs of the present plan. An inverse temperature
    says by how much more a code belongs to a candidate whose affinity is one standard deviation higher, in nats. The
    last one is ``COLDEST``.

    Attributes:
        first: inverse temperature.
        held: steps with it.
        cooling: steps on the way to the last one.
    """

    first: float
    held: int
    cooling: int


BEGUN = (Annealing(2.0, 20, 60), Annealing(1.5, 60, 60))  # the averaged plans, in turn
WARM = Annealing(1.0, 10, 50)  # their mean
EXTENDED = Annealing(2.0, 0, 40)  # where more codes have joined


def matched_by_transport(codes: Tensor, candidates: Tensor) -> Tensor:
    """Codes ``[N, D]`` against candidates ``[N, E]``, all of which are behind some code: minus a plan's log shares.

    Threat models: masks only, two releases, as for :func:`turned_by_profiles`. Encoders of one kind need not agree in
    any direction: it is enough that images which are alike to one are alike to the other. The cosines between all codes
    are matched with those between all candidates by Gromov-Wasserstein transport with entropy (Peyré, Cuturi and
    Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016). A code in a crowd for one
    encoder is in a crowd for the other, and within crowds their cosines agree best. So a plan begins with the densest
    codes, and is extended to the others. It begins warm, and is cooled: a sharp one would stay where it began. One such
    plan is right for a few codes, if at all. Several that begin with other noise, and at two speeds, are wrong in other
    ways, so their mean is better than each. A try extends the mean as it is, then the mean annealed once more. The
    first sharp plan ends the tries. Of the plans that were made, the one that fits best is taken.

    Returns:
        float64 ``[N, N]``.
    """
    (ours, our_order), (theirs, their_order) = _densest_first(codes), _densest_first(candidates)
    centred = _centred(ours), _centred(theirs)
    norms = (centred[0].norm() * centred[1].norm()).clamp_min(1e-12)
    best, fits = None, -math.inf
    for plan in _plans(ours, theirs):
        shares = plan.exp()
        fit = float((shares * (centred[0] @ shares @ centred[1])).sum() / norms)  # a correlation
        if best is None or fit > fits:
            best, fits = plan, fit
        if len(ours) >= FEW and shares.amax(1).mean() > SURE:
            break
    found = torch.empty_like(best, dtype=torch.float64)
    found[our_order[:, None], their_order] = -best.double()
    return found


def _densest_first(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines between codes ``[N, D]``, the densest first: float32 ``[N, N]``, diagonal 0; their order, int64."""
    cosines = _cosines(codes).fill_diagonal_(0)
    order = _density(cosines).argsort(descending=True)
    return cosines[order][:, order].float(), order


def _density(cosines: Tensor) -> Tensor:
    """How dense the crowd of each code is, ``[N]``: the sum of c_ij² c_jk² c_ki² over all j and k of the first M.

    Args:
        cosines: between all codes and the first of them, ``[N, M]``, diagonal 0.
    """
    squares = cosines.square()
    return ((squares @ squares[: squares.shape[1]]) * squares).sum(1)


def densest_matched(codes: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A plan between the densest codes ``[N, D]`` and the densest others ``[M, E]``, which are of other images.

    What is in a crowd for one encoder is in a crowd for the other, also where the images are not the same: it is kinds
    of images that are matched then. One plan is made, by the first way of :func:`matched_by_transport`.

    Returns:
        Which codes and which others, int64 ``[n]`` twice; shares float32 ``[n, n]``.
    """
    count = round(CROWDED * min(len(codes), len(others), POOL))
    rows = []
    for z in (codes, others):
        directions = F.normalize(z[:POOL] - z.mean(0))
        rows.append(_density((directions @ directions[:SEEN].T).fill_diagonal_(0)).topk(count).indices)
    ours, theirs = (_cosines(z[some]).fill_diagonal_(0).float() for z, some in zip((codes, others), rows, strict=True))
    alike = _profile_distances(ours, theirs)
    prior = -2 * PRIOR * alike / alike.median().clamp_min(1e-12)
    return *rows, _begun(ours, theirs, prior, BEGUN[0], torch.Generator().manual_seed(0)).exp()


def _plans(ours: Tensor, theirs: Tensor) -> Iterator[Tensor]:
    """Plans for cosines ``[N, N]`` twice, the densest codes first: float32 logarithms ``[N, N]``, two of each try."""
    generator, all_distances = torch.Generator().manual_seed(0), _profile_distances(ours, theirs)
    for densest in TRIES:
        count = max(2, round(densest * len(ours)))
        some = ours[:count, :count], theirs[:count, :count]
        both = all_distances[:count, :count], _profile_distances(*some)
        prior = -PRIOR * sum(each / each.median().clamp_min(1e-12) for each in both)
        mean = torch.zeros_like(prior)
        for number in range(AVERAGED):
            mean += _begun(*some, prior, BEGUN[number % len(BEGUN)], generator).exp() / AVERAGED
        yield _extended(mean, ours, theirs)
        yield _extended(_joined(mean, *some, WARM).exp(), ours, theirs)


def _begun(ours: Tensor, theirs: Tensor, prior: Tensor, how: Annealing, generator: torch.Generator) -> Tensor:
    """A plan ``[N, N]``, logarithms, for cosines that are matched from a prior, of logits, and noise."""
    logits = prior + NOISE * torch.randn(prior.shape, generator=generator)
    return _annealed(doubly_stochastic(logits, 30), ours, theirs, how, logits)


def _extended(shares: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    """The plan ``[N, N]``, logarithms, that follows from the shares of the first codes ``[n, n]``."""
    while True:
        count = min(len(ours), math.ceil(GROWTH * len(shares)))
        plan = _joined(shares, ours[:count, :count], theirs[:count, :count], EXTENDED)
        if count == len(ours):
            return plan
        shares = plan.exp()


def _joined(shares: Tensor, ours: Tensor, theirs: Tensor, how: Annealing) -> Tensor:
    """The plan ``[N, N]``, logarithms, for cosines of which the first are matched by shares ``[n, n]``."""
    known = len(shares)
    affinity = _centred(ours)[:, :known] @ shares @ _centred(theirs)[:known]
    return _annealed(doubly_stochastic(how.first * _standardised(affinity), 15), ours, theirs, how)


def _profile_distances(ours: Tensor, theirs: Tensor) -> Tensor:
    """How much the sorted cosines of a code to all others differ from those of a candidate: ``[N, N]``."""
    return torch.cdist(*(c.clone().fill_diagonal_(-2).sort(1).values[:, 1:] for c in (ours, theirs)))


def _annealed(plan: Tensor, ours: Tensor, theirs: Tensor, how: Annealing, prior: Tensor | float = 0.0) -> Tensor:
    """A plan ``[N, N]`` for cosines, sharpened. The weight of the prior falls to 0 on the way.

    Transport that keeps such a term is fused (Vayer et al., "Optimal transport for structured data", ICML 2019).
    """
    ours, theirs = _centred(ours), _centred(theirs)
    for step in range(1 - how.held, how.cooling + 1):
        way = max(0, step) / how.cooling
        affinity = _standardised(ours @ plan.exp() @ theirs)
        plan = doubly_stochastic(how.first * (COLDEST / how.first) ** way * affinity + (1 - way) * prior, 15)
    return plan


def _standardised(affinity: Tensor) -> Tensor:
    return affinity / affinity.std(correction=0).clamp_min(1e-12)


def _cosines(codes: Tensor) -> Tensor:
    """Between all codes ``[N, D]``, from their mean: float64 ``[N, N]``."""
    directions = F.normalize((codes - codes.mean(0)).double())
    return directions @ directions.T


def _centred(x: Tensor) -> Tensor:
    """Rows and columns ``[N, N]`` with a mean of 0."""
    return x - x.mean(0) - x.mean(1, keepdim=True) + x.mean()


def doubly_stochastic(logits: Tensor, rounds: int) -> Tensor:
    """Sinkhorn's rounds: float32 logarithms ``[N, N]`` of a plan whose columns sum to 1, and whose rows nearly do."""
    logits = (logits - logits.amax(1, keepdim=True)).float()
    kernel = logits.exp()
    columns = kernel.new_ones(1, len(kernel))
    for _ in range(rounds):
        rows = 1 / (kernel @ columns.T).clamp_min(1e-30)
        columns = 1 / (rows.T @ kernel).clamp_min(1e-30)
    return logits + rows.log() + columns.log()
