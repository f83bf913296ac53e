"""Linear regression from known plaintexts."""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from maskbench.leakage.knowledge import Instance, Knowledge, Map, Pairs, batched

_ALPHAS = np.logspace(-14, 1, 31)  # of ridge regression, in units of the inputs' total variance
_SKETCH = 64  # random combinations of the targets on which the ridge is chosen


class Ridge:
    """Ridge regression of any targets on k inputs, its strength chosen by leave-one-out cross-validation.

    Threat models: known pairs, oracle, stolen encoder. The attacker knows k pairs and nothing else. One
    eigendecomposition, of the smaller of the Gram and the covariance matrix, serves all strengths and targets; the
    leave-one-out errors follow in closed form (Hoerl and Kennard, Technometrics 1970; Allen's PRESS, 1974).

    Args:
        inputs: ``[k, D]``.
        mean: of all inputs, ``[D]``: who holds a masked set, or public images, knows it better than from k pairs.
    """

    def __init__(self, inputs: Tensor, mean: Tensor):
        self.mean = mean.double()
        self.inputs = inputs.double() - self.mean
        rows, width = inputs.shape
        self.dual = rows <= width
        gram = self.inputs @ self.inputs.T if self.dual else self.inputs.T @ self.inputs
        values, self.vectors = torch.linalg.eigh(gram)
        self.values = values.clamp_min(0)
        self.alphas = (self.values.sum() * torch.from_numpy(_ALPHAS).to(gram)).clamp_min(1e-30)

    def fit(self, targets: Tensor, mean: Tensor) -> nn.Linear:
        """The affine map ``[N, D] -> [N, M]``, float32, for targets ``[k, M]``, whose mean over all is ``[M]``."""
        mean = mean.double()
        centred = targets.double() - mean
        strength = self._choose(centred)
        if self.dual:
            weights = self.inputs.T @ (self.vectors @ ((self.vectors.T @ centred) / (self.values + strength)[:, None]))
        else:
            projected = self.vectors.T @ (self.inputs.T @ centred)
            weights = self.vectors @ (projected / (self.values + strength)[:, None])
        linear = nn.utils.skip_init(nn.Linear, *weights.shape).requires_grad_(False)
        linear.weight.copy_(weights.T)
        linear.bias.copy_(mean - self.mean @ weights)
        return linear

    def left_out(self, targets: Tensor, mean: Tensor) -> Tensor:
        """What each row's targets miss that were told from all other rows, float64 ``[k, M]``; as :meth:`fit`."""
        centred = targets.double() - mean.double()
        return next(self._left_out(centred, [self._choose(centred)]))

    def _choose(self, centred: Tensor) -> Tensor:
        """The strength of the smallest leave-one-out error; errors are lengths, which random combinations keep."""
        generator = torch.Generator().manual_seed(0)
        sketch = torch.randn(centred.shape[1], _SKETCH, generator=generator, dtype=torch.float64).to(centred)
        centred = centred if centred.shape[1] <= _SKETCH else centred @ sketch
        errors = [missed.square().sum() for missed in self._left_out(centred, self.alphas)]
        return self.alphas[torch.stack(errors).argmin()]

    def _left_out(self, centred: Tensor, alphas: Iterable[Tensor]) -> Iterator[Tensor]:
        """Leave-one-out errors ``[k, M]`` of every strength."""
        # in the basis of the rows in which every strength is diagonal; what it leaves out, no strength explains
        if self.dual:
            basis, outside, uncovered = self.vectors, 0, 0
        else:
            basis = (self.inputs @ self.vectors) / self.values.clamp_min(1e-300).sqrt()
            basis = basis * (self.values > 1e-13 * self.values[-1])
            outside, uncovered = centred - basis @ (basis.T @ centred), 1 - basis.square().sum(1)
        inside, squares = basis.T @ centred, basis.square()
        for alpha in alphas:
            left = alpha / (self.values + alpha)  # small numbers as they are: a difference from 1 would lose them
            residual = outside + basis @ (left[:, None] * inside)
            yield residual / (uncovered + squares @ left).clamp_min(1e-30)[:, None]


# what several attacks of a step share is kept by what it follows from: each of them has a Knowledge of its own
@functools.lru_cache(maxsize=1)
def of_pairs(pairs: Pairs, collection: Tensor) -> Ridge:
    """What every regression on the known pairs shares; ``collection``: the masks, whose mean is that of the codes."""
    return Ridge(pairs.codes, collection.mean(0))


@functools.lru_cache(maxsize=1)
def own_codes(own: Instance, pairs: Pairs) -> Tensor:
    """The images of the known pairs under the attacker's own instance, ``[k, E]``."""
    return batched(own.encode, pairs.images)


def own_targets(knowledge: Knowledge) -> tuple[Tensor, Tensor]:
    """:func:`own_codes` as the decoder of the attacker's own instance takes them, and the mean of all, ``[E]``."""
    own = knowledge.own
    return own.for_decoder(own_codes(own, knowledge.pairs)), own.for_decoder(knowledge.own_mean)


@functools.lru_cache(maxsize=1)
def to_own(knowledge: Knowledge) -> Map:
    """The owner's codes to what the decoder of the attacker's own instance takes, by the known pairs."""
    return of_pairs(knowledge.pairs, knowledge.collection).fit(*own_targets(knowledge))


@functools.lru_cache(maxsize=2)
def of_stolen(stolen: Instance) -> Ridge:
    """What regressions on pairs that a stolen encoder makes of public images share."""
    return Ridge(stolen.codes, stolen.codes.mean(0))


def pixels_from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: codes to pixels. Images by set."""
    public = knowledge.public
    pairs = knowledge.pairs
    linear = of_pairs(pairs, knowledge.collection).fit(pairs.images.flatten(1), public.mean.flatten())
    return knowledge.decoded(public.shaped(linear))


def latent_from_pairs(knowledge: Knowledge) -> dict[str, Tensor]:
    """Known pairs: codes to the attacker's own, which his decoder rebuilds. Images by set."""
    align, decode = to_own(knowledge), knowledge.own.decode
    return knowledge.decoded(lambda codes: decode(align(codes)))


def pixels_from_stolen(knowledge: Knowledge) -> dict[str, Tensor]:
    """Stolen encoder: codes to pixels, by public images that the attacker masks. Images by set."""
    public = knowledge.public
    linear = of_stolen(knowledge.stolen).fit(public.some.flatten(1), public.mean.flatten())
    return knowledge.decoded(public.shaped(linear))
