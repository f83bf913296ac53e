"""The random copies of mask_dataset.py --augment, against copies made by hand."""

import torch

from mask_dataset import AUGMENTATIONS, RANDOM_NUMBERS, augmented

IMAGES = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MIRRORED, ZOOMED, COLOURED, SIDE, BRIGHTNESS, CONTRAST, SATURATION, RIGHT, DOWN = range(RANDOM_NUMBERS)


def numbers(**chosen: float) -> torch.Tensor:
    """The middle of every range, in which nothing happens, but for what is chosen."""
    random = torch.full((64, RANDOM_NUMBERS), 0.5)
    for name, value in chosen.items():
        random[:, globals()[name]] = value
    return random


def test_in_the_middle_nothing_happens():
    torch.testing.assert_close(augmented(IMAGES, AUGMENTATIONS, numbers()), IMAGES)


def test_flips_and_shifts_are_exact():
    torch.testing.assert_close(augmented(IMAGES, ["flip"], numbers(MIRRORED=0.4)), IMAGES.flip(3))
    columns = (torch.arange(16) + 2).clamp(0, 15)  # the crop moves to the right by two pixels
    torch.testing.assert_close(augmented(IMAGES, ["shift"], numbers(RIGHT=0.99)), IMAGES[..., columns])
    rows = (torch.arange(16) - 1).clamp(0, 15)
    torch.testing.assert_close(augmented(IMAGES, ["shift"], numbers(DOWN=0.3)), IMAGES[:, :, rows])


def test_shifts_are_uniform_over_whole_pixels():
    ramp = torch.arange(16.0).expand(20_000, 3, 16, 16) / 15
    random = torch.rand(20_000, RANDOM_NUMBERS, generator=torch.Generator().manual_seed(0))
    moved = (augmented(ramp, ["shift"], random)[:, 0, 0, 8] * 15 - 8).round().long()
    shares = torch.bincount(moved + 2, minlength=5) / len(moved)
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.015, rtol=0)


def test_a_zoom_is_a_crop():
    smooth = torch.arange(16.0).expand(64, 3, 16, 16) / 15
    copies = augmented(smooth, ["zoom"], numbers(ZOOMED=0.4, SIDE=0.0, RIGHT=1.0))  # the right three quarters
    expected = ((4 + (torch.arange(16) + 0.5) * 0.75 - 0.5) / 15).clamp(0, 1)
    torch.testing.assert_close(copies, expected.expand_as(copies))


def test_colours():
    dark = IMAGES / 4
    torch.testing.assert_close(augmented(dark, ["colour"], numbers(COLOURED=0.4, BRIGHTNESS=1.0)), dark * 1.3)
    grey = dark.mean(1, keepdim=True)
    less = augmented(dark, ["colour"], numbers(COLOURED=0.4, SATURATION=0.0))
    torch.testing.assert_close(less, grey + 0.6 * (dark - grey))
    mean = dark.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(
        augmented(dark, ["colour"], numbers(COLOURED=0.4, CONTRAST=0.0)), mean + 0.7 * (dark - mean)
    )
    assert torch.equal(augmented(dark, ["colour"], numbers(BRIGHTNESS=1.0)), augmented(dark, [], numbers()))


def test_copies_stay_in_range_and_differ():
    random = torch.rand(64, RANDOM_NUMBERS, generator=torch.Generator().manual_seed(1))
    copies = augmented(IMAGES, AUGMENTATIONS, random)
    assert copies.min() >= 0 and copies.max() <= 1
    assert ((copies - IMAGES).abs().mean((1, 2, 3)) > 1e-3).float().mean() > 0.9
