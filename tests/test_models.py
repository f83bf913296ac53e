"""Sizes, ranges, and what brings codes to their priors: heads, whitening and the closed-form start."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import maskbench
from maskbench.errors import InputError
from maskbench.models import (
    PRESETS,
    Decoder,
    Discriminator,
    Encoder,
    MaskClassifier,
    forget,
    linear_outputs,
    set_statistics,
    start_with_even_categories,
    whiten,
)
from maskbench.models.closed_forms import light_and_contrast
from maskbench.models.discriminator import standardised_length
from maskbench.models.evaluation import latent_summary
from maskbench.models.heads import Contrast, one_hot
from maskbench.models.sizes import depth


def test_the_papers_sizes():
    encoder = Encoder()
    assert sum(p.numel() for p in encoder.parameters()) == 455_942
    gaussian, categorical = encoder(torch.rand(4, 3, 32, 32))
    assert gaussian.shape == (4, 384) and categorical.shape == (4, 20)
    assert categorical.sum(1).eq(1).all() and categorical.max(1).values.eq(1).all()
    images = Decoder().eval()(torch.cat((gaussian, categorical), 1))
    assert images.shape == (4, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    assert Discriminator(384)(gaussian).shape == Discriminator(384, reads_length=True)(gaussian).shape == (4,)


def test_a_discriminator_may_read_the_length():
    draws = torch.randn(20_000, 384, generator=torch.Generator().manual_seed(0))
    lengths = standardised_length(draws)
    deviation, mean = torch.std_mean(lengths)
    assert abs(mean) < 0.03 and abs(deviation - 1) < 0.03
    tell = Discriminator(384, reads_length=True)
    torch.testing.assert_close(
        tell.read(draws), torch.cat((draws, 2**0.5 * (draws.norm(dim=1) - 383.5**0.5)[:, None]), 1)
    )
    zero = torch.zeros(2, 384, requires_grad=True)
    tell(zero).sum().backward()
    assert zero.grad.isfinite().all()
    assert Discriminator(384).read(draws) is draws


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("image_size", [8, 40, 64, 96, 256])
def test_other_sizes(image_size, preset):
    sizes = dict(preset=preset, image_size=image_size, width=4, gaussian_dim=5, categories=3)
    latent = torch.cat(Encoder(**sizes)(torch.rand(2, 3, image_size, image_size)), 1)
    assert latent.shape == (2, 8)
    assert Decoder(**sizes)(latent).shape == (2, 3, image_size, image_size)


def test_the_stack_deepens_with_the_image():
    assert [depth(size) for size in (8, 32, 56, 64, 96, 112, 128, 224, 256)] == [3, 3, 3, 4, 4, 4, 5, 5, 6]
    for size, left in ((32, 4), (96, 6), (256, 4)):
        encoder = Encoder(image_size=size, width=4)
        stack = [layer for layer in encoder.features if isinstance(layer, nn.Conv2d)]
        assert [layer.out_channels for layer in stack] == [4 * 2**stage for stage in range(depth(size))]
        assert encoder.gaussian.in_features == stack[-1].out_channels * left**2
    pooled = Encoder("invariant", image_size=96).features
    stack = [layer for layer in pooled.convolutions if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in stack] == [32, 64, 128, 128, 256, 256, 256, 256]
    assert pooled.convolutions.eval()(torch.rand(1, 3, 96, 96)).shape == (1, 256, 6, 6) and pooled.length == 512


@pytest.mark.parametrize("size", [30, 72, 136, 264])
def test_image_size_must_divide(size):
    with pytest.raises(ValueError, match="multiple of"):
        Encoder(image_size=size)


def test_mask_classifier_has_three_linear_layers():
    classifier = MaskClassifier(404, 3)
    assert sum(isinstance(layer, nn.Linear) for layer in classifier.modules()) == 3
    assert classifier(torch.rand(5, 404)).shape == (5, 3)


def contrasted(count: int, features: int) -> torch.Tensor:
    """Vectors of N(0, I) whose lengths are log-normal: like codes of images."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(count, features, generator=generator, dtype=torch.float64)
    return directions * torch.exp(0.4 * torch.randn(count, 1, generator=generator, dtype=torch.float64))


def test_contrast_is_a_power_of_the_length_and_is_undone():
    contrast, x = Contrast().double(), contrasted(1000, 64)
    torch.testing.assert_close(contrast(x), x)  # as it starts
    contrast.log_power.data.fill_(math.log(0.1))
    contrast.log_scale.data.fill_(0.3)
    z = contrast(x)
    torch.testing.assert_close(F.cosine_similarity(z, x), torch.ones(1000, dtype=torch.float64))
    lengths = x.norm(dim=1) / 8
    torch.testing.assert_close(z.norm(dim=1), 8 * math.exp(0.3) * lengths**0.1)
    torch.testing.assert_close(contrast.inverse(z), x)
    assert x.pow(4).mean() / x.square().mean() ** 2 > 4 and abs(z.pow(4).mean() / z.square().mean() ** 2 - 3) < 0.1
    zero = torch.zeros(1, 64, dtype=torch.float64, requires_grad=True)
    contrast(zero).sum().backward()
    assert contrast(zero).eq(0).all() and contrast.inverse(zero).eq(0).all() and zero.grad.isfinite().all()
    assert torch.autograd.gradcheck(contrast, contrasted(3, 64).requires_grad_())
    assert torch.autograd.gradcheck(contrast.inverse, contrasted(3, 64).requires_grad_())


def test_one_hot_has_the_gradient_of_the_softmax():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.5, 0.5, -1.0]], requires_grad=True)
    chosen, weights = one_hot(logits), torch.tensor([[1.0, 2.0, 4.0], [3.0, -1.0, 0.5]])
    assert chosen.tolist() == [[0, 1, 0], [1, 0, 0]]  # to the bit; of two alike the first
    (found,) = torch.autograd.grad((weights * chosen).sum(), logits)
    (wanted,) = torch.autograd.grad((weights * logits.softmax(1)).sum(), logits)
    torch.testing.assert_close(found, wanted)


def planted_images(count: int, components: int) -> torch.Tensor:
    """Smooth images in a linear space of few dimensions, with contrasts that vary."""
    torch.manual_seed(5)
    axes = F.interpolate(torch.randn(components, 3, 8, 8), scale_factor=2, mode="bilinear").flatten(1)
    axes = torch.linalg.qr(axes.T)[0].T
    codes = torch.randn(count, components) * torch.exp(0.3 * torch.randn(count, 1))
    return (codes @ axes * 0.1 + 0.5).clamp(0, 1).view(count, 3, 16, 16)


def autoencoder(**sizes: int) -> tuple[Encoder, Decoder]:
    """A pair that has one contrast, which shortens codes."""
    encoder, decoder = Encoder(**sizes).eval(), Decoder(**sizes).eval()
    encoder.contrast.log_power.data.fill_(-1.0)
    decoder.contrast = encoder.contrast
    return encoder, decoder


@torch.no_grad()
def test_categories_start_even():
    torch.manual_seed(0)
    images = planted_images(2000, 44)
    encoder, _ = autoencoder(image_size=16, width=4, gaussian_dim=20, categories=5)
    assert encoder(images)[1].mean(0).max() > 0.5  # as PyTorch starts them, one has most images
    start_with_even_categories(encoder.categorical, linear_outputs(encoder, images.split(500))[1])
    logits = encoder.categorical(encoder.read(images))
    torch.testing.assert_close(logits.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(logits.std(0, correction=0), torch.full((5,), 3.0), atol=1e-3, rtol=0)
    assert encoder(images)[1].mean(0).max() < 0.4


@torch.no_grad()
def test_whitening_is_exact_and_changes_no_picture():
    torch.manual_seed(0)
    images = planted_images(4000, 44)
    encoder, decoder = autoencoder(image_size=16, width=4, gaussian_dim=20, categories=3)
    before = decoder(torch.cat(encoder(images), 1))
    assert latent_summary(*encoder(images))["correlation"] > 0.1
    whiten(encoder, decoder, linear_outputs(encoder, images.split(500))[0], seed=0)
    codes = encoder(images)
    assert (decoder(torch.cat(codes, 1)) - before).square().mean() < 1e-6 * before.var()
    summary = latent_summary(*codes)
    assert summary["correlation"] < 1e-3 and summary["mean"] < 1e-3
    assert 0.99 < summary["deviation_min"] < summary["deviation_max"] < 1.01


@torch.no_grad()
def test_whitening_ends_in_principal_axes_in_an_order_and_with_signs_from_the_seed():
    torch.manual_seed(0)
    images = planted_images(1000, 44)
    codes, others = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        encoder, decoder = autoencoder(image_size=16, width=4, gaussian_dim=20, categories=3)
        whiten(encoder, decoder, linear_outputs(encoder, images.split(500))[0], seed)
        columns = decoder.linear.weight[:, :20].double()
        gram = columns.T @ columns
        assert (gram - gram.diagonal().diag()).abs().max() < 1e-4 * gram.max()  # orthogonal
        codes.append(encoder(images)[0])
        others.append(decoder)
    assert torch.equal(codes[0], codes[1])
    products = (codes[0].T @ codes[2] / len(images)).abs()  # the same axes, elsewhere
    torch.testing.assert_close(products.max(1).values, torch.ones(20), atol=0.02, rtol=0)
    assert products.argmax(1).ne(torch.arange(20)).sum() > 10
    rebuilt, unmatched = (decoder(torch.cat((codes[0], encoder(images)[1]), 1)) for decoder in others[1:])
    assert (rebuilt - unmatched).square().mean() > rebuilt.var(0).mean()  # as far off as any other image


@torch.no_grad()
def test_whitening_by_few_images_stays_finite():
    encoder, decoder = autoencoder(image_size=8, width=4)  # 384 numbers of 64 pixels
    for images in (torch.rand(3, 3, 8, 8), torch.full((3, 3, 8, 8), 0.5)):
        whiten(encoder, decoder, linear_outputs(encoder, images.split(500))[0], seed=0)
        assert decoder(torch.cat(encoder(images), 1)).isfinite().all()


@torch.no_grad()
def test_erasure_takes_the_patterns_that_are_told_most_and_leaves_the_rest():
    """Of three patterns in pictures that features tell, a linear layer forgets the two that vary most.

    A fourth varies more than all of them, and features do not tell it.
    """
    torch.manual_seed(0)
    told, other, mixing = torch.randn(20_000, 3), torch.randn(20_000, 9), torch.randn(12, 12)
    *patterns, untold = torch.linalg.qr(torch.randn(64, 4))[0].T
    patterns = torch.stack(patterns)
    pictures = told * torch.tensor([1.0, 3.0, 2.0]) @ patterns + 0.1 * torch.randn(20_000, 64) + 0.5
    pictures += 4 * torch.randn(20_000, 1) * untold
    features = torch.cat((told, other), 1) @ mixing + torch.randn(12)
    linear = nn.Linear(12, 8)
    wanted = linear(features - told[:, 1:] @ mixing[1:3])
    before = linear(features)
    forget(linear, features, (pictures, 2))
    after = linear(features)
    torch.testing.assert_close(after, wanted, atol=0.15, rtol=0)  # 20,000 images tell a correlation to 0.007
    torch.testing.assert_close(after.mean(0), before.mean(0), atol=1e-4, rtol=0)

    def covariance(x: Tensor, y: Tensor) -> Tensor:
        return (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)

    assert covariance(before, pictures @ patterns.T).abs().amin(1).max() > 0.1
    assert covariance(after, pictures @ patterns[1:].T).abs().max() < 0.02
    # what the layer said before is best predicted by what it says now
    torch.testing.assert_close(covariance(before, after), covariance(after, after), atol=1e-3, rtol=0)


@torch.no_grad()
def test_erasure_of_two_kinds_of_pictures_leaves_neither():
    """Light and contrast that are alike: of one erased after the other, some of the first would be back."""
    torch.manual_seed(0)
    features, mixing = torch.randn(20_000, 12), torch.randn(12, 4)
    mixing[:, 2:] += mixing[:, :2]
    light, contrast = (features @ mixing).split(2, 1)
    linear, again = nn.Linear(12, 8), nn.Linear(12, 8)
    again.load_state_dict(linear.state_dict())
    basis = torch.linalg.qr(mixing)[0]
    wanted = linear(features - features @ basis @ basis.T)
    forget(linear, features, (light, 2), (contrast, 2))
    said = linear(features)
    torch.testing.assert_close(said, wanted, atol=0.15, rtol=0)
    for pictures in (light, contrast):
        assert ((said - said.mean(0)).T @ (pictures - pictures.mean(0)) / 20_000).abs().max() < 1e-3
    # a part that was forgotten before changes nothing
    forget(again, features, (light, 1))
    forget(again, features, (light, 2), (contrast, 2))
    torch.testing.assert_close(again(features), said, atol=1e-4, rtol=0)


def test_light_and_contrast_of_known_pictures():
    left, right = torch.zeros(1, 3, 32, 16), torch.zeros(1, 3, 32, 16)
    left += 0.25
    right[..., ::2] = 0.9  # stripes between 0 and 0.9
    light, contrast = (x.view(8, 8) for x in light_and_contrast(torch.cat((left, right), 3)))
    torch.testing.assert_close(light[:, :4], torch.full((8, 4), 0.25))
    torch.testing.assert_close(light[:, 4:], torch.full((8, 4), 0.45))
    torch.testing.assert_close(contrast[:, :3], torch.full((8, 3), 0.02).log(), atol=0.01, rtol=0)
    of_stripes = 0.9 * (3 / 7 * 4 / 7) ** 0.5  # windows of seven have three or four bright columns
    torch.testing.assert_close(contrast[:, 5:7], torch.full((8, 2), of_stripes + 0.02).log(), atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("count", [3, 30])
def test_erasure_by_few_images_stays_finite(count):
    for features in (torch.randn(count, 50), torch.ones(count, 50)):
        linear = nn.Linear(50, 8)
        forget(linear, features, (torch.rand(count, 64), 6), (torch.rand(count, 64), 4))
        assert linear(features).isfinite().all()


def test_a_preset_names_networks_that_exist():
    for preset, sizes in PRESETS.items():
        encoder, decoder = Encoder(preset), Decoder(preset)
        latent = torch.cat(encoder(torch.rand(2, 3, 32, 32)), 1)
        assert latent.shape == (2, sizes["gaussian_dim"] + 20)
        assert decoder.eval()(latent).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("image_size", [8, 40, 128])
def test_pooled_features_do_not_say_where(image_size):
    encoder = Encoder("invariant", image_size=image_size, gaussian_dim=5, categories=3, width=4).eval()
    images = torch.rand(2, 3, image_size, image_size)
    gaussian, categorical = encoder(images)
    assert gaussian.shape == (2, 5) and categorical.shape == (2, 3) and categorical.sum(1).eq(1).all()
    assert encoder.read(images).shape == (2, encoder.gaussian.in_features)


@torch.no_grad()
def test_statistics_are_the_means_over_the_batches():
    torch.manual_seed(0)
    encoder = Encoder("invariant", image_size=16, gaussian_dim=5, categories=3, width=4)
    images = torch.rand(24, 3, 16, 16)
    encoder(torch.rand(8, 3, 16, 16) * 5)  # to be forgotten
    set_statistics(encoder, images.split(8))
    convolution, norm, *_ = encoder.features.convolutions
    maps = torch.stack([convolution(some - 0.5) for some in images.split(8)])
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 1, 3, 4)), rtol=0.02, atol=2e-3)  # bfloat16
    torch.testing.assert_close(norm.running_var, maps.var((1, 3, 4)).mean(0), rtol=0.02, atol=2e-3)
    assert norm.momentum == 0.1
    set_statistics(Encoder(image_size=16, width=4), None)  # nothing to set, and no images to read


def test_views_leave_no_trace_in_the_running_statistics():
    torch.manual_seed(0)
    encoder = Encoder("invariant", image_size=16, gaussian_dim=5, categories=3, width=4)
    images, views = torch.rand(2, 8, 3, 16, 16)
    encoder(images)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    gaussian, logits = encoder.heads_of_views(views)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    torch.testing.assert_close(gaussian, encoder.heads(views)[0])  # the statistics of the mini-batch, all the same
    (features,) = torch.autograd.grad(logits.sum(), encoder.features.hidden[0].weight, allow_unused=True)
    assert features is None  # the categories teach the features nothing
    encoder(images)
    first = "features.convolutions.1.running_mean"
    assert not torch.equal(encoder.state_dict()[first], before[first])


def test_a_masking_method_that_cannot_be_made_says_why():
    recipe = maskbench.Recipe(public=lambda: None)
    for name, message in (("none", "no masking method; choose from aae"), ("aae", "needs a trained encoder")):
        with pytest.raises(InputError, match=message):
            maskbench.make(name, recipe)
