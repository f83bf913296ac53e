"""The ops of the adversarial phase, sent to the fastest implementation there is.

The compiled kernels check their arguments themselves; where the reference runs, this module does.
"""

import torch
from torch import Tensor

from maskbench.ops import reference
from maskbench.ops.loading import COMPILED


def sample_prior(
    rng_state: Tensor, batch: int, gaussian_dim: int, categories: int, first_row: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw both latent parts from their priors, N(0, I) and the uniform categorical.

    The same arguments give the same draws on every device: bit for bit between the compiled kernels, and within
    2e-6 * max(1, abs(x)) of :func:`maskbench.ops.reference.sample_prior`. Not differentiable.

    Args:
        rng_state: int64 ``[2]``, ``(seed, offset)``; not changed. Draws land on its device, where it is also read.
        batch: number of rows.
        gaussian_dim: length of the Gaussian part.
        categories: length of the one-hot part.
        first_row: global index of the first row. Row i of a draw depends on ``first_row + i`` alone.

    Returns:
        ``(gaussian float32 [batch, gaussian_dim], one_hot float32 [batch, categories])``.

    Raises:
        ValueError: ``rng_state`` is not int64 ``[2]``, a size is below 1, or ``first_row`` is negative.
    """
    if _compiled(rng_state):
        return torch.ops.maskbench.sample_prior(rng_state, batch, gaussian_dim, categories, first_row)
    if not isinstance(rng_state, Tensor) or rng_state.dtype != torch.int64 or rng_state.shape != (2,):
        raise ValueError(f"rng_state must be an int64 tensor (seed, offset) of shape [2], got {_describe(rng_state)}")
    if batch < 1 or gaussian_dim < 1 or categories < 1:
        raise ValueError(
            "batch, gaussian_dim and categories must be at least 1, "
            f"got batch={batch}, gaussian_dim={gaussian_dim}, categories={categories}"
        )
    if first_row < 0:
        raise ValueError(f"first_row must not be negative, got {first_row}")
    return reference.sample_prior(rng_state, batch, gaussian_dim, categories, first_row)


def discriminator_loss(prior_logits: Tensor, encoded_logits: Tensor) -> Tensor:
    """What the discriminators minimise: prior draws are real (1), encoded images are fake (0).

    Stable for logits up to 1e4 in size and beyond, until their sum leaves the dtype's range. The compiled kernels
    compute the gradient in the same pass and cannot be differentiated twice.

    Args:
        prior_logits: float32 or float64 ``[D, N]``, one row a discriminator, logits of prior draws.
        encoded_logits: the same shape, dtype and device, logits of encoded images.

    Returns:
        Scalar: the sum over discriminators of mean BCE on prior rows plus mean BCE on encoded rows (paper, section
        "Adversarial autoencoder").

    Raises:
        ValueError: the logits are not two such tensors.
    """
    if _compiled(prior_logits, encoded_logits):
        return torch.ops.maskbench.discriminator_loss(prior_logits, encoded_logits)
    _check_logits("prior_logits", prior_logits)
    _check_logits("encoded_logits", encoded_logits)
    if (
        prior_logits.shape != encoded_logits.shape
        or prior_logits.dtype != encoded_logits.dtype
        or prior_logits.device != encoded_logits.device
    ):
        raise ValueError(
            "prior_logits and encoded_logits must agree in shape, dtype and device, "
            f"got {_describe(prior_logits)} and {_describe(encoded_logits)}"
        )
    return reference.discriminator_loss(prior_logits, encoded_logits)


def generator_loss(encoded_logits: Tensor) -> Tensor:
    """What the encoder minimises in the regularisation phase: its codes pass for prior draws (1).

    As :func:`discriminator_loss`, of one part alone.

    Args:
        encoded_logits: float32 or float64 ``[D, N]``, one row a discriminator.

    Returns:
        Scalar: the sum over discriminators of mean BCE against 1.

    Raises:
        ValueError: the logits are not such a tensor.
    """
    if _compiled(encoded_logits):
        return torch.ops.maskbench.generator_loss(encoded_logits)
    _check_logits("encoded_logits", encoded_logits)
    return reference.generator_loss(encoded_logits)


def _compiled(*values: object) -> bool:
    """Whether the kernels take these arguments. They check them, too, unless something is no tensor at all."""
    return all(isinstance(value, Tensor) for value in values) and values[0].device.type in COMPILED


def _check_logits(name: str, logits: Tensor) -> None:
    if (
        not isinstance(logits, Tensor)
        or logits.dtype not in (torch.float32, torch.float64)
        or logits.dim() != 2
        or logits.numel() == 0
    ):
        raise ValueError(f"{name} must be a float32 or float64 tensor [discriminators, rows], got {_describe(logits)}")


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype} {list(value.shape)} on {value.device}"


if COMPILED:

    @torch.library.register_fake("maskbench::sample_prior")
    def _(rng_state, batch, gaussian_dim, categories, first_row=0):
        return (
            rng_state.new_empty((batch, gaussian_dim), dtype=torch.float32),
            rng_state.new_empty((batch, categories), dtype=torch.float32),
        )

    @torch.library.register_fake("maskbench::bce_forward")
    def _(real_logits, fake_logits):
        parts = 1 if fake_logits is None else 2
        return real_logits.new_empty(()), real_logits.new_empty((parts, *real_logits.shape))

    @torch.library.register_fake("maskbench::bce_backward")
    def _(grad_output, gradients):
        return torch.empty_like(gradients)
