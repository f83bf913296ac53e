"""Sizes, ranges, and what brings codes to their priors: normalisations and the closed-form start."""

import copy

import pytest
import torch
from torch import nn

from maskbench.models import (
    PRESETS,
    Decoder,
    Discriminator,
    Encoder,
    MaskClassifier,
    calibrate,
    start_from_principal_components,
)
from maskbench.models.closed_forms import _decorrelate
from maskbench.models.evaluation import latent_summary
from maskbench.models.heads import RadialGaussianization, RunningNorm, normal_log_radius
from maskbench.models.sizes import depth
from maskbench.models.spectrum import Spectrum


def test_the_papers_sizes():
    encoder = Encoder()
    assert sum(p.numel() for p in encoder.parameters()) == 455_940
    gaussian, categorical = encoder(torch.rand(4, 3, 32, 32))
    assert gaussian.shape == (4, 384) and categorical.shape == (4, 20)
    torch.testing.assert_close(categorical.sum(1), torch.ones(4))
    images = Decoder().eval()(torch.cat((gaussian, categorical), 1))
    assert images.shape == (4, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    assert Discriminator(384)(gaussian).shape == (4,)


@pytest.mark.parametrize("image_size", [8, 40, 64, 96, 256])
def test_other_sizes(image_size):
    sizes = dict(image_size=image_size, width=4, gaussian_dim=5, categories=3)
    latent = torch.cat(Encoder(**sizes)(torch.rand(2, 3, image_size, image_size)), 1)
    assert latent.shape == (2, 8)
    assert Decoder(**sizes)(latent).shape == (2, 3, image_size, image_size)


def test_the_stack_deepens_with_the_image():
    assert [depth(size) for size in (8, 32, 56, 64, 96, 112, 128, 224, 256)] == [3, 3, 3, 4, 4, 4, 5, 5, 6]
    for size, left in ((32, 4), (96, 6), (256, 4)):
        encoder = Encoder(image_size=size, width=4)
        stack = [layer for layer in encoder.features if isinstance(layer, nn.Conv2d)]
        assert [layer.out_channels for layer in stack] == [4 * 2**stage for stage in range(depth(size))]
        assert encoder.gaussian[0].in_features == stack[-1].out_channels * left**2
    grid = Decoder(image_size=96, **PRESETS["maskbench"]).correction(torch.rand(1, 3, 96, 96))
    assert grid.shape == (1, 3, 96, 96)


@pytest.mark.parametrize("size", [30, 72, 136, 264])
def test_image_size_must_divide(size):
    with pytest.raises(ValueError, match="multiple of"):
        Encoder(image_size=size)


def test_mask_classifier_has_three_linear_layers():
    classifier = MaskClassifier(404, 3)
    assert sum(isinstance(layer, nn.Linear) for layer in classifier.modules()) == 3
    assert classifier(torch.rand(5, 404)).shape == (5, 3)


def contrasted(count: int, features: int, seed: int = 0) -> torch.Tensor:
    """Vectors with directions of uneven variance, off centre, whose lengths are log-normal: like codes of images."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(count, features, generator=generator) * torch.linspace(0.5, 2, features)
    return directions * torch.exp(0.4 * torch.randn(count, 1, generator=generator)) * 5 + torch.arange(features)


def test_running_norm_fit_and_follow():
    norm, x = RunningNorm(6), contrasted(4000, 6)
    norm.fit(x)
    torch.testing.assert_close(norm.center, x.double().mean(0).float())
    variance = x.double().var(0, correction=0)
    torch.testing.assert_close(norm.variance, ((4000 * variance + 6 * variance.mean()) / 4006).float())
    norm.eval()
    torch.testing.assert_close(norm(x).mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    norm.train()(x[:16])  # one mini-batch more hardly moves what is fitted
    assert ((norm.center - x.mean(0)).abs() / norm.variance.sqrt()).max() < 0.05
    followed = RunningNorm(6)
    for batch in x.split(16):
        followed(batch)
    assert ((followed.center - norm.center).abs() / norm.variance.sqrt()).max() < 0.2
    assert (followed.variance / norm.variance - 1).abs().max() < 0.5


def test_radial_gaussianization_has_the_lengths_and_directions_of_a_normal():
    norm, x = RadialGaussianization(64), contrasted(20_000, 64)
    norm.fit(x)
    z = norm.eval()(x)
    log_radius = z.norm(dim=1).log()
    mean, deviation = normal_log_radius(64)
    assert log_radius.mean().item() == pytest.approx(mean, abs=1e-4)
    assert log_radius.std().item() == pytest.approx(deviation, rel=5e-3)
    directions = z / z.norm(dim=1, keepdim=True)
    assert directions.mean(0).abs().max() < 1e-3
    torch.testing.assert_close(directions.square().mean(0) * 64, torch.ones(64), atol=0.02, rtol=0)
    assert (z - z.mean(0)).pow(4).mean() / z.var(0).square().mean() == pytest.approx(3, abs=0.1)
    raw = (x - x.mean(0)) / x.std(0)
    assert raw.pow(4).mean() > 4  # what it mended


def test_radial_gaussianization_follows_what_fit_finds():
    x = contrasted(40_000, 64)
    fitted, followed = RadialGaussianization(64), RadialGaussianization(64)
    fitted.fit(x)
    for batch in x.split(16):
        followed(batch)
    torch.testing.assert_close(followed.eval()(x), fitted.eval()(x), atol=0.6, rtol=0.3)
    difference = followed(x) - fitted(x)
    assert difference.square().mean() < 0.02


def test_normal_log_radius():
    torch.manual_seed(0)
    for features in (3, 384):
        log_radius = torch.randn(100_000, features).norm(dim=1).log()
        mean, deviation = normal_log_radius(features)
        assert log_radius.mean().item() == pytest.approx(mean, abs=0.005 * deviation * 2)
        assert log_radius.std().item() == pytest.approx(deviation, rel=0.02)


def test_decoder_undoes_the_radius_and_the_softmax():
    norm, x = RadialGaussianization(16), contrasted(5000, 16)
    norm.fit(x)
    decoder = Decoder(image_size=8, width=4, gaussian_dim=16, categories=5)
    decoder.contrast.data = torch.stack((norm.log_radius_mean, norm.log_radius_variance.sqrt()))
    logits = torch.randn(5000, 5)
    undone = decoder.unmask(torch.cat((norm.eval()(x), logits.softmax(1)), 1)).detach()
    standardised = (x - norm.center) / norm.variance.sqrt()
    torch.testing.assert_close(undone[:, :16], standardised, atol=1e-3, rtol=1e-3)
    undone = undone[:, 16:] - undone[:, 16:].mean(1, keepdim=True)  # a softmax forgets the logits' mean
    torch.testing.assert_close(undone, logits - logits.mean(1, keepdim=True), atol=1e-3, rtol=1e-3)


def test_spectrum_is_orthonormal_and_keeps_the_lowest():
    images = torch.rand(3, 3, 16, 16)
    everything = Spectrum(16, 10_000)
    assert everything.length == 3 * 256
    torch.testing.assert_close(everything.inverse(everything(images)), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(everything(images).square().sum(), images.square().sum())
    flat = Spectrum(16, 1)
    torch.testing.assert_close(flat(images), images.mean((2, 3)) * 16)
    some = Spectrum(16, 40)
    kept = some.inverse(some(images))
    torch.testing.assert_close(some.inverse(some(kept)), kept, atol=1e-5, rtol=0)
    assert (kept - images).square().mean() < (flat.inverse(flat(images)) - images).square().mean()


def planted_images(count: int, components: int) -> torch.Tensor:
    """Smooth images in a linear space of few dimensions, with contrasts that vary."""
    torch.manual_seed(5)
    spectrum = Spectrum(16, 60)
    axes = torch.linalg.qr(torch.randn(180, components))[0]
    codes = torch.randn(count, components) * torch.exp(0.3 * torch.randn(count, 1))
    return (spectrum.inverse(codes @ axes.T * 0.1) + 0.5).clamp(0, 1)


def test_start_from_principal_components_rebuilds_what_fits_into_the_code():
    sizes = dict(image_size=16, width=4, gaussian_dim=40, categories=5, frequencies=60)
    images = planted_images(3000, 44)  # 40 + (5 - 1) components
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        encoder, decoder = Encoder(**sizes), Decoder(**sizes)
        start_from_principal_components(encoder, decoder, images.split(500))
        networks.append((encoder.eval(), decoder.eval()))
    (encoder, decoder), (other, _) = networks
    with torch.no_grad():
        gaussian, categorical = encoder(images)
        rebuilt = decoder(torch.cat((gaussian, categorical), 1))
        of_other = decoder(torch.cat(other(images), 1))
    matched, unmatched = (rebuilt - images).square().mean(), (of_other - images).square().mean()
    assert matched < 2e-5 and unmatched > 50 * matched and unmatched > images.var()
    summary = latent_summary(gaussian, categorical)
    assert summary["mean"] < 0.1 and summary["correlation"] < 0.05
    assert 0.9 < summary["deviation_min"] < summary["deviation_max"] < 1.1
    assert 0.1 < summary["category_min"] < summary["category_max"] < 0.3


def test_start_from_principal_components_of_few_images_stays_finite():
    sizes = dict(image_size=16, width=4, gaussian_dim=40, categories=5, frequencies=60)
    encoder, decoder = Encoder(**sizes), Decoder(**sizes)
    start_from_principal_components(encoder, decoder, [torch.rand(6, 3, 16, 16)])
    images = torch.rand(4, 3, 16, 16)
    assert decoder(torch.cat(encoder.eval()(images), 1)).isfinite().all()


def test_start_from_principal_components_needs_enough_frequencies():
    sizes = dict(image_size=16, width=4, gaussian_dim=40, categories=5, frequencies=14)
    with pytest.raises(ValueError, match="40 \\+ 5"):
        start_from_principal_components(Encoder(**sizes), Decoder(**sizes), [torch.rand(6, 3, 16, 16)])


def test_calibration_is_exact_and_changes_no_picture():
    torch.manual_seed(0)
    sizes = dict(image_size=16, width=4, gaussian_dim=20, categories=3)
    encoder, decoder = Encoder(**sizes), Decoder(**sizes)
    batches = planted_images(4000, 44).split(500)
    images = torch.cat(batches)
    for batch in batches:
        encoder(batch)  # statistics that trail behind
    norm = encoder.gaussian[1]
    decoder.contrast.data = torch.stack((norm.log_radius_mean, norm.log_radius_variance.sqrt()))
    encoder.eval(), decoder.eval()
    with torch.no_grad():
        gaussian, categorical = encoder(images)
        before = decoder(torch.cat((gaussian, categorical), 1))
        old_categorical = encoder.categorical[1].state_dict() | {}
        old_categorical = {name: value.clone() for name, value in old_categorical.items()}
        calibrate(encoder, decoder, batches)
        fitted = {name: value.clone() for name, value in encoder.categorical[1].state_dict().items()}
        encoder.categorical[1].load_state_dict(old_categorical)
        new_gaussian, categorical = encoder(images)
        after = decoder(torch.cat((new_gaussian, categorical), 1))
    assert (after - before).square().mean() < 1e-6 * before.var()
    assert latent_summary(gaussian, categorical)["correlation"] > 0.1
    summary = latent_summary(new_gaussian, categorical)
    assert summary["correlation"] < 0.03 and summary["mean"] < 0.05
    assert 0.95 < summary["deviation_min"] < summary["deviation_max"] < 1.05
    encoder.categorical[1].load_state_dict(fitted)
    _, logits = encoder.encode(images)
    torch.testing.assert_close(logits.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits.std(0, correction=0), torch.ones(3), atol=0.02, rtol=0)
    assert new_gaussian.norm(dim=1).log().mean().item() == pytest.approx(normal_log_radius(20)[0], abs=1e-3)


def test_calibration_spares_pictures_where_radii_would_change():
    torch.manual_seed(0)
    sizes = dict(image_size=16, width=4, gaussian_dim=20, categories=3)
    encoder, decoder = Encoder(**sizes), Decoder(**sizes)
    decoder.contrast.data[1] = 2.0  # it learns to take a high power of the radius
    kinds = torch.rand(3, 3, 16, 16) - 0.5  # of three kinds of pictures: most of 20 directions are empty
    images = 0.5 + 0.15 * torch.einsum("nk, kchw -> nchw", torch.randn(1000, 3), kinds)
    images = (images + 0.003 * torch.randn(images.shape)).clamp(0, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 3e-3)
    for batch in images[torch.randint(1000, (150, 16))]:
        optimizer.zero_grad()
        nn.functional.mse_loss(decoder(torch.cat(encoder(batch), 1)), batch).backward()
        optimizer.step()
    encoder.eval()

    def error(encoder: Encoder, decoder: Decoder) -> float:
        return nn.functional.mse_loss(decoder(torch.cat(encoder(images), 1)), images).item()

    with torch.no_grad():
        before = error(encoder, decoder)
        decorrelated = copy.deepcopy((encoder, decoder))
        _decorrelate(*decorrelated, encoder.gaussian[0](encoder.features(images)), 0.5)
        assert error(*decorrelated) > 10 * before  # what the whole step would do
        calibrate(encoder, decoder, images.split(500))
        assert error(encoder, decoder) < 1.2 * before


def test_calibration_by_few_images_stays_finite():
    encoder, decoder = Encoder(image_size=8, width=4), Decoder(image_size=8, width=4)
    images = torch.rand(3, 3, 8, 8)
    calibrate(encoder, decoder, [images])
    assert decoder.eval()(torch.cat(encoder.eval()(images), 1)).isfinite().all()


def test_a_preset_names_sizes_that_exist():
    for sizes in PRESETS.values():
        encoder, decoder = Encoder(**sizes), Decoder(**sizes)
        latent = torch.cat(encoder(torch.rand(2, 3, 32, 32)), 1)
        assert latent.shape == (2, 404) and decoder.eval()(latent).shape == (2, 3, 32, 32)
