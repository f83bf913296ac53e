"""The former place of :mod:`maskbench.data.datasets` and of a folder's decoder, for programs that know it."""

from maskbench.data.datasets import load
from maskbench.data.folders import _decode

__all__ = ["_decode", "load"]
