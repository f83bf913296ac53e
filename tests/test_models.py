"""Sizes, ranges and the calibration of the encoder's normalisations."""

import pytest
import torch
from torch import nn

from maskbench.models import Decoder, Discriminator, Encoder, MaskClassifier


def test_the_papers_sizes():
    encoder = Encoder()
    assert sum(p.numel() for p in encoder.parameters()) == 455_940
    gaussian, categorical = encoder(torch.rand(4, 3, 32, 32))
    assert gaussian.shape == (4, 384) and categorical.shape == (4, 20)
    torch.testing.assert_close(categorical.sum(1), torch.ones(4))
    images = Decoder()(torch.cat((gaussian, categorical), 1))
    assert images.shape == (4, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    assert Discriminator(384)(gaussian).shape == (4,)


@pytest.mark.parametrize("image_size", [8, 40, 64])
def test_other_sizes(image_size):
    sizes = dict(image_size=image_size, width=4, gaussian_dim=5, categories=3)
    latent = torch.cat(Encoder(**sizes)(torch.rand(2, 3, image_size, image_size)), 1)
    assert latent.shape == (2, 8)
    assert Decoder(**sizes)(latent).shape == (2, 3, image_size, image_size)


def test_image_size_must_divide():
    with pytest.raises(ValueError, match="multiple of 8"):
        Encoder(image_size=30)


def test_mask_classifier_has_three_linear_layers():
    classifier = MaskClassifier(404, 3)
    assert sum(isinstance(layer, nn.Linear) for layer in classifier.modules()) == 3
    assert classifier(torch.rand(5, 404)).shape == (5, 3)


def test_calibration_is_the_exact_average():
    torch.manual_seed(0)
    encoder = Encoder(image_size=8, width=4, gaussian_dim=6, categories=3).eval()
    encoder.gaussian[0].weight.data *= 100  # a deviation far above the normalisation's epsilon
    batches = [torch.rand(50, 3, 8, 8) for _ in range(4)]
    raw = encoder.gaussian[0](encoder.convolutions(torch.cat(batches))).detach()
    encoder.calibrate(batches)
    norm = encoder.gaussian[1]
    torch.testing.assert_close(norm.running_mean, raw.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in raw.split(50)]).mean(0))
    assert norm.momentum == 0.1 and not encoder.training
    gaussian, _ = encoder(torch.cat(batches))
    assert (gaussian.std(0) - 1).abs().max() < 0.05
