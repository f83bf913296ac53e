"""Figures of merit on inputs whose answers are known."""

import numpy as np
import pytest
import torch

from maskbench.classification import scores
from maskbench.data import image_quality
from maskbench.models import evaluation
from maskbench.training import figures


def test_image_mse():
    images = torch.zeros(2, 3, 4, 4)
    shifted = images.clone()
    shifted[1] += 0.5
    shifted[1, 0] = 0
    torch.testing.assert_close(image_quality.image_mse(shifted, images), torch.tensor([0.0, 0.25 * 2 / 3]))


@pytest.mark.parametrize("size", [8, 32, 96])
def test_similarity_is_that_of_torchmetrics(size):
    import maskbench.data.torchvision_import  # noqa: F401  which torchmetrics imports, too

    from torchmetrics.functional.image import structural_similarity_index_measure  # isort: skip

    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, size, size, generator=generator, dtype=torch.float64)
    images[2] = images[2, 0, 0, 0]  # even: only the constants keep the quotients finite
    found = (images + 0.2 * torch.randn(images.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    wanted = structural_similarity_index_measure(found, images, data_range=1.0, reduction="none").view(-1)
    values = image_quality.similarity(found, images)
    torch.testing.assert_close(values, wanted, rtol=1e-10, atol=0)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    slopes = [torch.autograd.grad(of.dot(weights), found)[0] for of in (values, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-12)


def test_similarity_of_pictures_that_are_known():
    black = torch.zeros(1, 3, 16, 16)
    alike = image_quality.similarity(torch.cat((black, black + 0.5)), torch.cat((black, black + 0.5)))
    torch.testing.assert_close(alike, torch.ones(2))
    torch.testing.assert_close(image_quality.similarity(black, black + 1), torch.tensor([1e-4 / (1 + 1e-4)]))


def test_latent_summary():
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(50_000, 4, generator=generator) * torch.tensor([1.0, 0.5, 2.0, 1.0])
    gaussian[:, 3] += 3
    shares = torch.tensor([0.5, 0.495, 0.005])
    categorical = torch.eye(3)[torch.multinomial(shares, 50_000, replacement=True, generator=generator)]
    summary = evaluation.latent_summary(gaussian, categorical)
    assert summary["mean"] == pytest.approx(3, abs=0.02)
    assert summary["deviation_min"] == pytest.approx(0.5, rel=0.02)
    assert summary["deviation_max"] == pytest.approx(2, rel=0.02)
    assert summary["kurtosis"] == pytest.approx(3, abs=0.1)
    assert summary["correlation"] < 0.01
    assert summary["category_min"] == pytest.approx(0.005, rel=0.2)
    assert summary["category_max"] == pytest.approx(0.5, rel=0.02)
    paired = gaussian.clone()
    paired[:, 1] = paired[:, 0] + paired[:, 3]  # two of six pairs of dimensions, each correlated by sqrt(1/2)
    assert evaluation.latent_summary(paired, categorical)["correlation"] == pytest.approx(0.5**0.5 / 3, rel=0.02)


def test_classification_scores_are_macro_averages():
    found = scores.classification_scores(np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1]))
    assert found == pytest.approx({"accuracy": 3 / 5, "precision": (1 + 1 / 3 + 0) / 3, "recall": (2 / 3 + 1 + 0) / 3})


@pytest.mark.parametrize(("length", "side"), [(384, 20), (400, 20), (401, 21), (1, 1)])
def test_latent_picture(length, side):
    picture = figures.latent_picture(torch.arange(1, length + 1).float())
    assert picture.shape == (side, side)
    assert picture.flatten()[:length].tolist() == list(range(1, length + 1))
    assert not picture.flatten()[length:].any()
