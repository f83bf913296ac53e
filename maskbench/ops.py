"""The ops of the adversarial phase, checked at the door and sent to the fastest implementation there is.

``sample_prior`` draws both latent priors for a mini-batch, ``discriminator_loss`` and
``generator_loss`` are the two sides of the adversarial game. ``maskbench.reference`` holds the same
names in plain PyTorch and is what runs today on every device.
"""

import torch
from torch import Tensor

from maskbench import reference


def backend(device: torch.device | str) -> str:
    """Which implementation runs on ``device``: "cuda", "cpu" (compiled kernels) or "reference"."""
    torch.device(device)  # an unknown device is an error here rather than in a training loop
    return "reference"


def sample_prior(
    rng_state: Tensor, batch: int, gaussian_dim: int, categories: int, first_row: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw both latent parts from their priors; see :func:`maskbench.reference.sample_prior`.

    Raises:
        ValueError: ``rng_state`` is not int64 ``[2]``, a size is below 1, or ``first_row`` is negative.
    """
    if rng_state.dtype != torch.int64 or rng_state.shape != (2,):
        raise ValueError(f"rng_state must be an int64 tensor (seed, offset) of shape [2], got {_describe(rng_state)}")
    for name, value in (("batch", batch), ("gaussian_dim", gaussian_dim), ("categories", categories)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if first_row < 0:
        raise ValueError(f"first_row must not be negative, got {first_row}")
    return reference.sample_prior(rng_state, batch, gaussian_dim, categories, first_row)


def discriminator_loss(prior_logits: Tensor, encoded_logits: Tensor) -> Tensor:
    """The discriminators' loss; see :func:`maskbench.reference.discriminator_loss`.

    Raises:
        ValueError: the logits are not two float tensors of one shape ``[D, N]`` on one device.
    """
    _check_logits("prior_logits", prior_logits)
    _check_logits("encoded_logits", encoded_logits)
    if (prior_logits.shape, prior_logits.dtype, prior_logits.device) != (
        encoded_logits.shape,
        encoded_logits.dtype,
        encoded_logits.device,
    ):
        raise ValueError(
            "prior_logits and encoded_logits must agree in shape, dtype and device, got "
            f"{_describe(prior_logits)} and {_describe(encoded_logits)}"
        )
    return reference.discriminator_loss(prior_logits, encoded_logits)


def generator_loss(encoded_logits: Tensor) -> Tensor:
    """The encoder's adversarial loss; see :func:`maskbench.reference.generator_loss`.

    Raises:
        ValueError: the logits are not a float tensor of shape ``[D, N]``.
    """
    _check_logits("encoded_logits", encoded_logits)
    return reference.generator_loss(encoded_logits)


def _check_logits(name: str, logits: Tensor) -> None:
    if not logits.is_floating_point() or logits.dim() != 2 or 0 in logits.shape:
        raise ValueError(f"{name} must be a float tensor [discriminators, rows], got {_describe(logits)}")


def _describe(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{dtype} {list(tensor.shape)} on {tensor.device}"
