"""The learned distance: what is near to it and what is far."""

import pytest
import torch
import torch.nn.functional as F

from maskbench.data.bundled_sets import digits, photos
from maskbench.data.image_set import to_float
from maskbench.leakage import perceptual


@pytest.fixture(scope="module")
def learned():
    images = photos(16).images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceptual, "STEPS", 60)
        return perceptual.learn(images[:2000]), to_float(images[-64:])


def blurred(images: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(F.adaptive_avg_pool2d(images, side), size=images.shape[-1], mode="bilinear")


def test_the_distance_is_none_to_itself_and_grows_with_what_is_lost(learned):
    features, images = learned
    assert (perceptual.distance(features, images, images) == 0).all()
    other = images.roll(1, 0)
    torch.testing.assert_close(
        perceptual.distance(features, images, other), perceptual.distance(features, other, images)
    )
    steps = [perceptual.distance(features, images, blurred(images, side)).mean() for side in (8, 4, 1)]
    assert 0 < steps[0] < steps[1] < steps[2]


def test_what_a_mean_picture_wins_by_mse_it_loses(learned):
    """To the eye, another crop of the photograph is nearer to an image than a grey field is, whatever the MSE says."""
    features, images = learned
    grey, other = images.mean((2, 3), keepdim=True).expand_as(images), images.flip(3)
    assert (images - grey).square().mean() < (images - other).square().mean()
    of_grey, of_other = (perceptual.distance(features, images, x).mean() for x in (grey, other))
    assert of_grey > of_other


def test_it_learns_how_images_are_turned_and_the_same_each_time(monkeypatch):
    monkeypatch.setattr(perceptual, "STEPS", 60)
    pixels = digits(16).images.expand(-1, 3, -1, -1)
    features, images = perceptual.learn(pixels[:1000]), to_float(pixels[1000:])
    turns = torch.arange(4).repeat_interleave(len(images))
    turned = torch.cat([images.rot90(turn, (2, 3)) for turn in range(4)])
    right = (features.turned(features(turned)[-1].mean((2, 3))).argmax(1) == turns).float().mean()
    assert right > 0.6, right  # by chance a quarter
    monkeypatch.setattr(perceptual, "STEPS", 2)
    first, second = (perceptual.learn(photos(16).images[:200]).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_large_images_are_shrunk(learned):
    features, images = learned
    large = F.interpolate(images[:2], size=128, mode="nearest")
    assert features(large)[0].shape[-1] == perceptual.LARGEST
