"""Ops with compiled kernels, and their definition in plain PyTorch.

``sample_prior`` draws both latent priors for a mini-batch; ``discriminator_loss`` and ``generator_loss`` are the two
sides of the adversarial game. :mod:`maskbench.ops.reference` holds the same names in plain PyTorch: the oracle of the
compiled kernels, and what runs where there are none. ``MASKBENCH_BACKEND=reference`` forces it. The other ops are
kernels of a training step, and of an epoch of the classifier, on CPUs: see :mod:`maskbench.ops.step`.

    python -m maskbench.ops        # what was built, and what runs on this machine
"""

from maskbench.ops.adversarial import discriminator_loss, generator_loss, sample_prior
from maskbench.ops.loading import backend
from maskbench.ops.step import (
    adam_step,
    convolutions,
    has_step_kernels,
    mlp,
    step_kernels,
    train_mlps,
)

__all__ = [
    "adam_step",
    "backend",
    "convolutions",
    "discriminator_loss",
    "generator_loss",
    "has_step_kernels",
    "mlp",
    "sample_prior",
    "step_kernels",
    "train_mlps",
]
