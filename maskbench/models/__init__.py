"""The networks of the method, the prior that they are held to, and their files."""

from maskbench.models.classifier import ClassifierStack, MaskClassifier
from maskbench.models.closed_forms import (
    features_and_pictures,
    forget,
    linear_outputs,
    set_statistics,
    start_with_even_categories,
    whiten,
)
from maskbench.models.decoder import Decoder
from maskbench.models.discriminator import Discriminator
from maskbench.models.encoder import Encoder
from maskbench.models.prior import PriorSampler
from maskbench.models.sizes import DEFAULT_PRESET, PRESETS

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "ClassifierStack",
    "Decoder",
    "Discriminator",
    "Encoder",
    "MaskClassifier",
    "PriorSampler",
    "features_and_pictures",
    "forget",
    "linear_outputs",
    "set_statistics",
    "start_with_even_categories",
    "whiten",
]
