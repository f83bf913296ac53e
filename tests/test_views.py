"""Random views: what they depend on, what they leave, and each change against a plain reference."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from maskbench.data import views
from maskbench.data.views import another_photograph, random_views
from maskbench.models import layers


def some_images(count: int, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_a_view_depends_on_image_number_seed_and_epoch_alone():
    images, numbers = some_images(20), torch.randperm(40_000, generator=torch.Generator().manual_seed(1))[:20]
    together = random_views(images, numbers, seed=3, epoch=2)
    assert together.shape == (20, 3, 12, 12) and together.min() >= 0 and together.max() <= 1
    for size in (1, 7):  # whatever the mini-batch, or the share of a process
        parts = zip(images.split(size), numbers.split(size), strict=True)
        assert torch.equal(torch.cat([random_views(*part, seed=3, epoch=2) for part in parts]), together)
    order = torch.randperm(20)
    assert torch.equal(random_views(images[order], numbers[order], 3, 2), together[order])
    for other in ((numbers, 4, 2), (numbers, 3, 3), (numbers + 40_000, 3, 2)):
        assert (random_views(images, *other) != together).flatten(1).any(1).all()
    one, two = random_views(images[:1].expand(2, -1, -1, -1), torch.tensor([5, 6]), 3, 2)
    assert not torch.equal(one, two)


def test_seeds_beyond_32_bits_and_the_stream_are_used():
    images, numbers = some_images(2), torch.tensor([0, 2**40])
    assert not torch.equal(random_views(images, numbers, 7, 1), random_views(images, numbers, 7 + 2**32, 1))
    one, two = random_views(images[:1].expand(2, -1, -1, -1), numbers, 7, 1)
    assert not torch.equal(one, two)


def test_chances_are_uniform_and_independent():
    chances = views._chances(torch.arange(20_000), seed=1, epoch=1)
    assert chances.min() > 0 and chances.max() <= 1
    torch.testing.assert_close(chances.mean(1), torch.full((len(chances),), 0.5), rtol=0, atol=0.01)
    torch.testing.assert_close(chances.var(1), torch.full((len(chances),), 1 / 12), rtol=0, atol=0.003)
    assert (torch.corrcoef(chances) - torch.eye(len(chances))).abs().max() < 0.04


def view(images: torch.Tensor, side: int = 0, **chances: float) -> torch.Tensor:
    """A view that changes nothing, but for what is said."""
    neutral = dict(size=1.0, shape=0.5, left=0.5, top=0.5, flip=0.9, bright=0.5, contrast=0.5, saturation=0.5)
    neutral |= dict(turn=0.5, grey=0.9)
    numbers = torch.tensor([*(neutral | chances).values(), 0.5, 0.5])
    return views._view(images, numbers[:, None].expand(-1, len(images)), side or images.shape[-1])


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_each_change_is_what_it_says():
    images = 0.3 + 0.4 * some_images(4)  # far from where they are clamped
    close(view(images), images)
    close(view(images, flip=0.1), images.flip(3))
    close(view(images, bright=1.0), (1.4 * images).clamp(0, 1))
    mean, luma = images.mean((1, 2, 3), keepdim=True), images.mean(1, keepdim=True)
    close(view(images, contrast=0.0), mean + 0.6 * (images - mean))
    close(view(images, saturation=0.0), luma + 0.6 * (images - luma))
    close(view(images, grey=0.1), luma.expand_as(images))
    third = view(images, turn=0.5 + math.pi / 3 / views.HUE)  # a third of a turn changes red to green to blue
    close(third, images.roll(1, 1))
    assert colorsys.rgb_to_hsv(*view(images, turn=0.6)[0, :, 0, 0]) != colorsys.rgb_to_hsv(*images[0, :, 0, 0])
    grey = images[:, :1].expand_as(images)
    close(view(grey, turn=1.0, saturation=1.0), grey)


def test_a_crop_is_the_part_of_the_image_that_it_says():
    ramp = (torch.arange(64) + 0.5) / 64
    images = torch.stack((ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)))[None]
    for left, top in ((0.0, 0.5), (1.0, 0.0), (0.3, 0.7)):
        side = math.sqrt(views.AREA)
        found = view(images, size=0.0, left=left, top=top)[0]
        for channel, start in ((found[0], left), (found[1].T, top)):
            close(channel[5, 1:-1], ((1 - side) * start + side * ramp)[1:-1])  # at a border pixels are mirrored
    wide = view(images, size=0.0, shape=1.0)[0]
    across, down = (math.sqrt(views.AREA * factor) for factor in (views.RATIO, 1 / views.RATIO))
    torch.testing.assert_close(wide[0, 0, -1] - wide[0, 0, 0], torch.tensor(across * 63 / 64), rtol=1e-4, atol=0)
    torch.testing.assert_close(wide[1, -1, 0] - wide[1, 0, 0], torch.tensor(down * 63 / 64), rtol=1e-4, atol=0)


def test_a_smaller_view_shows_as_much():
    ramp = (torch.arange(64) + 0.5) / 64
    images = torch.stack((ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)))[None]
    for side in (48, 32):
        red, green, blue = view(images, side)[0]
        places = ((torch.arange(side) + 0.5) / side).expand(side, side)
        close(red, places)
        close(green, places.T)
        assert not blue.any()


def test_another_photograph_shows_the_same():
    ramp = torch.linspace(0.2, 0.7, 32).expand(200, 3, 32, 32)
    other = another_photograph(ramp, seed=3)
    assert torch.equal(other, another_photograph(ramp, 3)) and not torch.equal(other, another_photograph(ramp, 4))
    torch.testing.assert_close(other * 255, (other * 255).round())
    light = another_photograph(torch.full_like(ramp, 0.5), 3).mean((1, 2, 3)) / 0.5
    assert 0.79 < light.min() < 0.82 and 1.18 < light.max() < 1.21
    across = other.mean((1, 2)) / light[:, None]
    assert (across.diff(dim=1) > -0.02).all()  # neither mirrored nor turned
    width = (across[:, -1] - across[:, 0]) / 0.5  # 0.8 of the area or more: sides of 0.89 and more
    assert 0.86 < width.min() < 0.92 and 0.97 < width.max() < 1.03


def test_another_photograph_is_a_jpeg_file(monkeypatch):
    monkeypatch.setattr(views, "ANOTHER_AREA", 1.0)
    monkeypatch.setattr(views, "ANOTHER_LIGHT", 0.0)
    pixels = torch.randint(256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for image, other in zip(pixels, another_photograph(pixels / 255, 0), strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=75)
        expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert torch.equal((other * 255).round().to(torch.uint8), expected)
        assert (expected.float() - image.float()).square().mean() > 100  # of noise, it leaves little


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 5)])
def test_moments_and_normalisation_of_one_process(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norm = layers.BatchNorm(4).double()
    reference = (torch.nn.BatchNorm1d if x.dim() == 2 else torch.nn.BatchNorm2d)(4).double()
    close(norm(x), reference(x))
    close(norm.running_var, reference.running_var)
    mean, variance, count = layers.batch_moments(x)
    flat = x.transpose(0, 1).flatten(1)
    close(mean, flat.mean(1))
    close(variance, flat.var(1, correction=0))
    assert count == flat.shape[1]
