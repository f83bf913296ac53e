"""The ops in plain PyTorch, by the name that DESIGN and notebooks know: see :mod:`maskbench.ops.reference`."""

from maskbench.ops.reference import discriminator_loss, generator_loss, philox4x32, sample_prior, uniform

__all__ = ["discriminator_loss", "generator_loss", "philox4x32", "sample_prior", "uniform"]
