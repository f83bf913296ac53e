"""Figures of merit: reconstruction error, the shape of the latent parts, classification scores."""

import torch
import torch.nn.functional as F
from torch import Tensor

from maskbench.datasets import to_float
from maskbench.models import Decoder, Encoder


def image_mse(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of each image over its pixels and channels: ``[N, 3, S, S]`` twice -> ``[N]``."""
    return F.mse_loss(reconstruction, images, reduction="none").mean((1, 2, 3))


@torch.no_grad()
def encode(encoder: Encoder, images: Tensor, batch_size: int = 500) -> tuple[Tensor, Tensor]:
    """Both latent parts of uint8 images ``[N, 3, S, S]``, batch by batch: ``[N, G]`` and ``[N, K]``."""
    parts = [encoder(to_float(batch)) for batch in images.split(batch_size)]
    return torch.cat([gaussian for gaussian, _ in parts]), torch.cat([categorical for _, categorical in parts])


@torch.no_grad()
def reconstruction_mse(encoder: Encoder, decoder: Decoder, images: Tensor, batch_size: int = 500) -> float:
    """Mean over uint8 images ``[N, 3, S, S]`` of each one's MSE after encoding and decoding."""
    total = 0.0
    for batch in images.split(batch_size):
        pixels = to_float(batch)
        total += image_mse(decoder(torch.cat(encoder(pixels), 1)), pixels).sum().item()
    return total / len(images)


def latent_summary(gaussian: Tensor, categorical: Tensor) -> dict[str, float]:
    """How closely encoded images follow the prior.

    Args:
        gaussian: ``[N, G]``, N >= 2.
        categorical: ``[N, K]``, rows sum to 1; an image belongs to its largest category.

    Returns:
        ``mean`` (largest absolute mean of a dimension; prior 0), ``deviation_min`` and ``deviation_max``
        over the dimensions (prior 1), ``kurtosis`` pooled over standardised dimensions (prior 3),
        ``correlation`` (mean absolute correlation of two different dimensions; prior 0), ``category_min`` and
        ``category_max`` (the smallest and largest share of images that a category holds; prior 1 / K).
    """
    gaussian = gaussian.double()
    deviation, mean = torch.std_mean(gaussian, 0, correction=0)
    standardised = (gaussian - mean) / deviation.clamp(min=1e-30)  # a dimension may be constant
    correlations = (standardised.T @ standardised / len(gaussian)).abs()
    others = max(1, correlations.numel() - len(correlations))
    shares = torch.bincount(categorical.argmax(1), minlength=categorical.shape[1]) / len(categorical)
    return {
        "mean": mean.abs().max().item(),
        "deviation_min": deviation.min().item(),
        "deviation_max": deviation.max().item(),
        "kurtosis": standardised.pow(4).mean().item(),
        "correlation": ((correlations.sum() - correlations.diagonal().sum()) / others).item(),
        "category_min": shares.min().item(),
        "category_max": shares.max().item(),
    }


def classification_scores(labels, predictions) -> dict[str, float]:
    """Accuracy, macro precision and macro recall; a class never predicted has precision 0."""
    from sklearn.metrics import accuracy_score, precision_score, recall_score

    return {
        "accuracy": accuracy_score(labels, predictions),
        "precision": precision_score(labels, predictions, average="macro", zero_division=0),
        "recall": recall_score(labels, predictions, average="macro", zero_division=0),
    }
