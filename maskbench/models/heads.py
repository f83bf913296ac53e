"""The encoder's heads: normalisations whose running statistics are constants to the gradient."""

import math

import torch
from torch import Tensor, nn

from maskbench import ops
from maskbench.runtime import torchrun

TINY = 1e-12
_WINDOW = 100  # mini-batches
_TAIL = 0.1  # degrees of freedom for each feature
_NATURAL = 0.1  # variance of log length of natural images' codes


class RunningNorm(nn.Module):
    """Subtract the mean and divide by the standard deviation of every feature: ``[N, F]`` twice.

    The statistics are running averages in training mode too, and constants to the gradient: those of a mini-batch of
    16 are noise that the decoder cannot undo. :meth:`fit` sets them exactly.

    They reach back 100 mini-batches at first, and further the longer the training, whose steps become smaller: over
    500 from the start, the encoder runs away from them.
    """

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self._follow(x.detach(), self._next_weight())
        return self.standardise(x)

    def _next_weight(self) -> Tensor:
        """Of the rows at hand in the running statistics, a scalar."""
        self.steps += 1
        return 1 / torch.minimum(self.steps, _WINDOW + self.steps / 50)

    def standardise(self, x: Tensor) -> Tensor:
        """By the statistics as they are: ``[N, F]`` twice."""
        return (x - self.center) * self.variance.clamp_min(TINY).rsqrt()

    @torch.no_grad()
    def _follow(self, x: Tensor, weight: Tensor) -> None:
        self.center.lerp_(torchrun.mean(x), weight)
        self.variance.lerp_(torchrun.mean((x - self.center).square()), weight)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set the statistics to those of ``x``, float32 ``[N, F]``, N >= 2.

        Variances are shrunk towards their mean as if F more rows had it: of few rows, some features have none.
        """
        mean = torchrun.mean(x.double())
        variance = torchrun.mean((x - mean).square())
        self.center.copy_(mean)
        self.variance.copy_(variance.lerp(variance.mean(), shrinkage(x)))
        self.steps.clamp_(min=_WINDOW)  # what is fitted weighs as much as a window of mini-batches


class RadialGaussianization(RunningNorm):
    """Give vectors ``[N, F]`` directions spread evenly and lengths spread like those of N(0, I).

    Most of what is not normal in a linear code of natural images is its length, the image's contrast. One
    invertible step mends it (Lyu and Simoncelli, "Nonlinear extraction of independent components of natural
    images using radial Gaussianization", Neural Computation 2009); here a power law: the logarithm of the length
    gets the mean and standard deviation it has under N(0, I). Centre and scale of the features are those of a
    multivariate Student distribution of 0.1 F degrees of freedom, in which images of high contrast do not outweigh the
    others: so the *directions* have mean 0 and even variance (an M-estimator: Maronna, Annals of Statistics 1976).
    """

    def __init__(self, features: int):
        super().__init__(features)
        self.normal_log_radius = normal_log_radius(features)
        self.register_buffer("log_radius_mean", torch.zeros(()))
        self.register_buffer("log_radius_variance", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torchrun.size() == 1 and ops.has_step_kernels(x):
            statistics = self.center, self.variance, self.log_radius_mean, self.log_radius_variance
            return ops.radial_norm(x, *statistics, self._next_weight().item(), _TAIL, self.normal_log_radius)
        x = super().forward(x)
        normal_mean, normal_deviation = self.normal_log_radius
        power = normal_deviation * self.log_radius_variance.clamp_min(TINY).rsqrt()
        return with_power_of_radius(x, power, normal_mean - power * self.log_radius_mean)

    @torch.no_grad()
    def _follow(self, x: Tensor, weight: Tensor) -> None:
        self._improve(x, weight)
        log_radius = radius(self.standardise(x)).log().squeeze(1)
        # not lerp_: torch.compile (2.13) loses what a method writes into a buffer of no dimensions
        self.log_radius_mean += weight * (torchrun.mean(log_radius) - self.log_radius_mean)
        variance = torchrun.mean((log_radius - self.log_radius_mean).square())
        self.log_radius_variance += weight * (variance - self.log_radius_variance)

    def _improve(self, x: Tensor, weight: Tensor | float, shrinkage: float = 0.0) -> None:
        """A step towards the fixed point, as far as ``weight``: 1 with all rows, small with a few of them."""
        features, centred = x.shape[1], x - self.center
        squares = (centred * self.variance.clamp_min(TINY).rsqrt()).square()
        rows = (1 + _TAIL) * features / (_TAIL * features + squares.sum(1))
        sums = rows @ squares, rows @ centred, rows.sum(), rows.new_full((), len(x))
        shares, shifts, weights, count = torchrun.total(*sums)
        self.center += weight * shifts / weights
        self.variance *= 1 + weight * (1 - shrinkage) * (shares / count - 1)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        super().fit(x)
        for _ in range(8):
            self._improve(x, 1.0, shrinkage(x))
        log_radius = radius(self.standardise(x)).double().log().squeeze(1)
        mean = torchrun.mean(log_radius)
        variance = torchrun.mean((log_radius - mean).square())
        self.log_radius_mean.copy_(mean)
        # of few rows, all have nearly the same length once their features are scaled
        self.log_radius_variance.copy_(variance.lerp(torch.full_like(variance, _NATURAL), shrinkage(x)))


def normal_log_radius(features: int) -> tuple[float, float]:
    """Mean and standard deviation of log |z| for z ~ N(0, I) of ``features`` dimensions.

    log |z|^2 is log 2 plus the logarithm of a Gamma(features / 2) variable, so its mean and variance are digamma and
    trigamma.
    """
    # on the CPU even where modules are built without memory ("meta")
    half = torch.tensor(features / 2, dtype=torch.float64, device="cpu")
    mean = 0.5 * (math.log(2) + torch.digamma(half).item())
    return mean, 0.5 * math.sqrt(torch.polygamma(1, half).item())


def radius(x: Tensor) -> Tensor:
    return x.norm(dim=1, keepdim=True).clamp_min(TINY)


def with_power_of_radius(x: Tensor, power: Tensor, offset: Tensor) -> Tensor:
    """Vectors ``[N, F]`` of the same directions, whose log radius is ``power`` times what it was plus ``offset``."""
    return x * ((power - 1) * radius(x).log() + offset).exp()


def undo_heads(
    gaussian: Tensor,
    categorical: Tensor,
    normal_log_radius: tuple[float, float],
    log_radius: tuple[Tensor, Tensor] | Tensor,
) -> Tensor:
    """Both latent parts without what is not linear in the heads, the radius and the softmax: ``[N, G + K]``.

    Args:
        gaussian: ``[N, G]``.
        categorical: ``[N, K]``.
        normal_log_radius: mean and standard deviation of the log radius under the prior.
        log_radius: the mean and standard deviation that it is given back.
    """
    normal_mean, normal_deviation = normal_log_radius
    mean, deviation = log_radius
    power = deviation / normal_deviation
    gaussian = with_power_of_radius(gaussian, power, mean - power * normal_mean)
    # a one-hot draw of the prior has no logarithm: 1e-3 is below what encoded images reach
    return torch.cat((gaussian, categorical.clamp_min(1e-3).log()), 1)


def shrinkage(x: Tensor) -> float:
    """How far estimates from the rows of all ranks, ``[N, F]``, are shrunk: F / (N + F)."""
    features = x.shape[1]
    return features / (torchrun.count(x) + features)
