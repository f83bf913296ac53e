"""How close a reconstruction is to its image."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW, _DEVIATION = 11, 1.5  # pixels
_C1, _C2 = 0.01**2, 0.03**2  # keep quotients of dark and of even windows finite


def image_mse(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of each image over its pixels and channels: ``[N, 3, S, S]`` twice -> ``[N]``."""
    return F.mse_loss(reconstruction, images, reduction="none").mean((1, 2, 3))


def similarity(reconstruction: Tensor, images: Tensor) -> Tensor:
    """SSIM of each image, ``[N, 3, S, S]`` twice, in [0, 1] -> ``[N]``; differentiable.

    What torchmetrics gives: Gaussian windows, the edges reflected (Wang et al., IEEE TIP 2004), mean over colours. Here
    the windows are products of matrices: attackers train for it, and a convolution takes four to five times as long.
    """
    window = _gaussian_windows(images.shape[-1]).to(images)
    of_both = torch.stack((reconstruction, images, reconstruction**2, images**2, reconstruction * images))
    x, y, xx, yy, xy = window @ of_both @ window.T
    variances = (xx - x**2).clamp_min(0) + (yy - y**2).clamp_min(0)  # rounding may make them negative
    luminance = (2 * x * y + _C1) / (x**2 + y**2 + _C1)
    return (luminance * (2 * (xy - x * y) + _C2) / (variances + _C2)).mean((1, 2, 3))


@functools.lru_cache(maxsize=4)
def _gaussian_windows(size: int) -> Tensor:
    """Means over the window around each pixel of a line: ``[S, S]``, to multiply lines from the left."""
    reach = _WINDOW // 2
    weights = torch.exp(-(torch.arange(-reach, reach + 1).double() ** 2) / (2 * _DEVIATION**2))
    reflected = F.pad(torch.eye(size, dtype=torch.float64)[None], (reach, reach), mode="reflect")[0]
    return (reflected.unfold(1, _WINDOW, 1) @ (weights / weights.sum())).T


@torch.no_grad()
def image_quality(reconstruction: Tensor, images: Tensor) -> Tensor:
    """MSE, PSNR (dB, at most 100) and SSIM of each image: ``[N, 3, S, S]`` twice, in [0, 1] -> ``[N, 3]``."""
    mse = image_mse(reconstruction, images)
    pairs = zip(reconstruction.split(100), images.split(100), strict=True)  # within the processor's cache
    ssim = torch.cat([similarity(*pair) for pair in pairs])
    return torch.stack((mse, -10 * mse.clamp_min(1e-10).log10(), ssim), 1)
