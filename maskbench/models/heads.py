"""What the encoder's heads do beside their linear layers: the length of the Gaussian part, the choice of a category."""

import math

import torch
from torch import Tensor, nn

_TINY = 1e-12


class Contrast(nn.Module):
    """A power of the length of vectors, with an inverse: two numbers that are learned.

    The length of a linear code of natural images is their contrast, which varies far more than the length of a draw of
    N(0, I). No direction can mend that, one power can: the adversary learns it, and the decoder, which has the same two
    numbers, gives the contrast back. (Lyu and Simoncelli, "Nonlinear extraction of independent components of natural
    images using radial Gaussianization", Neural Computation 2009, fit such a function of the length.)

    Args:
        features: length F of the vectors.
    """

    def __init__(self, features: int):
        super().__init__()
        self.log_unit = 0.5 * math.log(features)  # of a vector whose numbers have variance 1
        self.log_power = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, F]`` twice: the same directions, log length times ``exp(log_power)`` plus ``log_scale``."""
        log_length = self._log_length(x)
        return x * (self.log_power.exp() * log_length + self.log_scale - log_length).exp()

    def inverse(self, z: Tensor) -> Tensor:
        """What :meth:`forward` made ``z`` of, ``[N, F]`` twice."""
        log_length = self._log_length(z)
        return z * ((log_length - self.log_scale) * (-self.log_power).exp() - log_length).exp()

    def _log_length(self, x: Tensor) -> Tensor:
        return x.norm(dim=1, keepdim=True).clamp_min(_TINY).log() - self.log_unit


def one_hot(logits: Tensor) -> Tensor:
    """The largest logit of each row as 1, the others as 0: ``[N, K]`` twice, with the gradient of the softmax.

    That is the straight-through estimator (Bengio, Léonard and Courville, 2013). The Gumbel-softmax (Jang, Gu and
    Poole, ICLR 2017) adds noise, so that the same image would have another category each time.
    """
    soft = logits.softmax(1)
    hard = torch.zeros_like(soft).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())  # in this order exactly 0 and 1
