"""Normal numbers from random words, in float64."""

import numpy as np


def box_muller(words: np.ndarray) -> np.ndarray:
    """uint64 ``[..., 2 n]``, uniform -> float64 ``[..., 2 n]`` of N(0, I): the radii in the first half, the angles in
    the second (Box and Muller, 1958)."""
    # of the upper 53 bits; the half keeps the logarithm finite
    first, second = np.split(((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53, 2, axis=-1)
    radius = np.sqrt(-2 * np.log(first))
    return np.concatenate((radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)), axis=-1)
