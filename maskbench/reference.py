"""The ops in plain PyTorch, by a shorter name: see :mod:`maskbench.ops.reference`."""

from maskbench.ops.reference import discriminator_loss, generator_loss, philox4x32, sample_prior, uniform

__all__ = ["discriminator_loss", "generator_loss", "philox4x32", "sample_prior", "uniform"]
