"""What trained networks are measured by: reconstruction error, and how the codes follow the prior."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from maskbench.data.image_quality import image_mse
from maskbench.data.image_set import to_float
from maskbench.models.decoder import Decoder
from maskbench.models.encoder import Encoder
from maskbench.models.prior import PriorSampler
from maskbench.runtime import torchrun

_TOLD_CODES = 10_000


@torch.no_grad()
def encode(encoder: Encoder, images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Both latent parts of batches of uint8 images ``[n, 3, S, S]``: ``[N, G]`` and ``[N, K]``."""
    parts = [encoder(to_float(batch)) for batch in images]
    return torch.cat([gaussian for gaussian, _ in parts]), torch.cat([categorical for _, categorical in parts])


@torch.no_grad()
def reconstruction_mse(encoder: Encoder, decoder: Decoder, images: Iterable[Tensor]) -> float:
    """Mean over all images of each one's MSE after encoding and decoding.

    Args:
        images: batches of uint8 ``[n, 3, S, S]``; of several processes each gives its part.
    """
    errors = []
    for batch in images:
        pixels = to_float(batch)
        errors.append(image_mse(decoder(torch.cat(encoder(pixels), 1)), pixels))
    return torchrun.mean(torch.cat(errors).double()).item()


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


def told_from_prior(gaussian: Tensor, seed: int = 0) -> dict[str, float]:
    """How well fresh classifiers tell encoded images from draws of the prior, held-out accuracy; 0.5 is chance.

    At most 10,000 codes and as many draws, three quarters of both to train on. The classifiers are scikit-learn's:
    ``logistic`` regression sees means alone, ``mlp`` (two layers of 256, stopped early) also shapes and dependences.
    ``length`` is a tree of three leaves that is given the Euclidean length alone: an MLP hardly sees that.

    Args:
        gaussian: the Gaussian part, ``[N, G]``, N >= 40.
        seed: of the draws, the division and the MLP.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.tree import DecisionTreeClassifier

    codes = gaussian[:_TOLD_CODES].cpu()
    draws, _ = PriorSampler(codes.shape[1], 1, seed)(len(codes))
    origin = torch.tensor([0, 1]).repeat_interleave(len(codes)).numpy()
    parts = train_test_split(
        torch.cat((codes, draws)).numpy(), origin, test_size=0.25, stratify=origin, random_state=seed
    )
    train, test, train_origin, test_origin = parts
    models = {
        "logistic": LogisticRegression(max_iter=1000),
        "mlp": MLPClassifier((256, 256), early_stopping=True, random_state=seed),
        "length": make_pipeline(FunctionTransformer(_lengths), DecisionTreeClassifier(max_leaf_nodes=3)),
    }
    return {name: model.fit(train, train_origin).score(test, test_origin) for name, model in models.items()}


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows, axis=1, keepdims=True)
