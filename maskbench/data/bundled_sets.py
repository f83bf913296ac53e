"""Two sets that come with scikit-learn: crops of photographs, and handwritten digits."""

import numpy as np
import torch

from maskbench.data.image_set import TEST, TRAIN, ImageSet, resize, split_flags
from maskbench.errors import InputError

_PHOTO_CROPS = {TRAIN: 20_000, TEST: 2_000}
_DIGITS_TRAIN = 1_437


def photos(image_size: int) -> ImageSet:
    """Random crops of two photographs: the left four fifths for training, the right fifth held out."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    largest = min(min(photograph.shape[0], photograph.shape[1] // 5) for photograph in photographs)
    if image_size > largest:
        raise InputError(f"--image-size {image_size}: photos has crops of up to {largest} pixels")
    random = np.random.RandomState(0)
    crops = []
    for split, count in _PHOTO_CROPS.items():
        for number in range(count):
            photograph = photographs[number % len(photographs)]
            border = photograph.shape[1] * 4 // 5
            region = photograph[:, :border] if split == TRAIN else photograph[:, border:]
            top = random.randint(region.shape[0] - image_size + 1)
            left = random.randint(region.shape[1] - image_size + 1)
            crops.append(region[top : top + image_size, left : left + image_size])
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    return ImageSet(
        "photos", images, torch.zeros(len(images), dtype=torch.int64), split_flags(*_PHOTO_CROPS.values()), ["photo"]
    )


def digits(image_size: int) -> ImageSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    split = split_flags(_DIGITS_TRAIN, len(images) - _DIGITS_TRAIN)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    return ImageSet("digits", resize(images, image_size), labels, split, [str(digit) for digit in range(10)])
