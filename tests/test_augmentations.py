"""The random copies of mask_dataset.py --augment, against copies made by hand."""

import torch

from maskbench.masking.augmentation import augmented

IMAGES = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def copies(names: list[str], flip: float = 0.9, down: float = 0.5, right: float = 0.5) -> torch.Tensor:
    return augmented(IMAGES, names, torch.tensor([flip, down, right]).expand(64, 3))


def test_flips_and_shifts():
    both = ["flip", "shift"]
    assert torch.equal(copies([], 0.1, 0.1, 0.1), IMAGES) and torch.equal(copies(both), IMAGES)
    assert torch.equal(copies(both, flip=0.4), IMAGES.flip(3))
    right = IMAGES[..., [0, 0, *range(14)]]
    assert torch.equal(copies(["shift"], right=0.99), right)
    assert torch.equal(copies(both, flip=0.4, right=0.99), right.flip(3))
    assert torch.equal(copies(["shift"], down=0.3), IMAGES[:, :, [*range(1, 16), 15]])


def test_copies_are_uniform():
    ramp = torch.arange(16.0).expand(20_000, 3, 16, 16)
    random = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    moved = augmented(ramp, ["shift"], random)[:, 0, 0, 8] - 8
    shares = torch.bincount(moved.long() + 2, minlength=5) / len(moved)
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.015, rtol=0)
    flipped = augmented(ramp, ["flip"], random)[:, 0, 0, 0] == 15
    assert abs(flipped.float().mean() - 0.5) < 0.015
    assert set(moved.tolist()) == {-2, -1, 0, 1, 2}
