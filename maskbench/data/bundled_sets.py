"""Two sets that come with scikit-learn: crops of photographs, and handwritten digits."""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

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
    parts = []
    for split, count in _PHOTO_CROPS.items():
        regions = []
        for photograph in photographs:
            border = photograph.shape[1] * 4 // 5
            region = photograph[:, :border] if split == TRAIN else photograph[:, border:]
            regions.append(sliding_window_view(region, (image_size, image_size), axis=(0, 1)))
        sizes = [region.shape[:2] for region in regions]
        corners = random.randint(np.resize(sizes, (count, 2)))  # of the photographs in turn
        crops = np.empty((count, 3, image_size, image_size), np.uint8)
        for number, region in enumerate(regions):
            top, left = corners[number :: len(regions)].T
            crops[number :: len(regions)] = region[top, left]
        parts.append(crops)
    images = torch.from_numpy(np.concatenate(parts))
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
