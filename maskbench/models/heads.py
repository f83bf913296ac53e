"""What the encoder's heads do beside their linear layers: the length of the Gaussian part, the choice of a category."""

import torch
from torch import Tensor, nn

_TINY = 1e-12


class Contrast(nn.Module):
    """A power of the length of vectors, with an inverse: two numbers that are learned.

    The length of a linear code of natural images is their contrast, which varies far more than the length of a draw of
    N(0, I). No direction can mend that, one power can: the adversary learns it, and the decoder, which has the same two
    numbers, gives the contrast back. (Lyu and Simoncelli, "Nonlinear extraction of independent components of natural
    images using radial Gaussianization", Neural Computation 2009, fit such a function of the length.)
    """

    def __init__(self):
        super().__init__()
        self.log_power = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, F]`` twice: the same directions; a root mean square r becomes exp(log_scale) r^exp(log_power)."""
        return x * self.factor(x)

    def inverse(self, z: Tensor) -> Tensor:
        """What :meth:`forward` made ``z`` of, ``[N, F]`` twice."""
        log_size = _log_size(z)
        return z * ((log_size - self.log_scale) * (-self.log_power).exp() - log_size).exp()

    def factor(self, x: Tensor) -> Tensor:
        """By what each vector of ``[N, F]`` is multiplied, ``[N, 1]``."""
        return ((self.log_power.exp() - 1) * _log_size(x) + self.log_scale).exp()


def _log_size(x: Tensor) -> Tensor:
    """Logarithm of the root mean square of each vector, ``[N, F]`` -> ``[N, 1]``."""
    return 0.5 * x.square().mean(1, keepdim=True).clamp_min(_TINY).log()


def one_hot(logits: Tensor) -> Tensor:
    """The largest logit of each row as 1, the others as 0: ``[N, K]`` twice, with the gradient of the softmax.

    That is the straight-through estimator (Bengio, Léonard and Courville, 2013). The Gumbel-softmax (Jang, Gu and
    Poole, ICLR 2017) adds noise, so that the same image would have another category each time.
    """
    soft = logits.softmax(1)
    hard = torch.zeros_like(soft).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())  # in this order exactly 0 and 1
