"""How close a reconstruction is to its image."""

import torch
import torch.nn.functional as F
from torch import Tensor


def image_mse(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of each image over its pixels and channels: ``[N, 3, S, S]`` twice -> ``[N]``."""
    return F.mse_loss(reconstruction, images, reduction="none").mean((1, 2, 3))


def similarity(reconstruction: Tensor, images: Tensor) -> Tensor:
    """SSIM of each image, ``[N, 3, S, S]`` twice, in [0, 1] -> ``[N]``; differentiable.

    torchmetrics': Gaussian windows of standard deviation 1.5 (Wang et al., IEEE TIP 2004), mean over colours.
    """
    import maskbench.data.torchvision_import
    import maskbench.runtime.matplotlib_import  # noqa: F401  torchmetrics wants both, imported with care

    from torchmetrics.functional.image import structural_similarity_index_measure  # isort: skip

    return structural_similarity_index_measure(reconstruction, images, data_range=1.0, reduction="none").view(-1)


@torch.no_grad()
def image_quality(reconstruction: Tensor, images: Tensor) -> Tensor:
    """MSE, PSNR (dB, at most 100) and SSIM of each image: ``[N, 3, S, S]`` twice, in [0, 1] -> ``[N, 3]``."""
    mse = image_mse(reconstruction, images)
    pairs = zip(reconstruction.split(100), images.split(100), strict=True)  # small batches are faster
    ssim = torch.cat([similarity(*pair) for pair in pairs])
    return torch.stack((mse, -10 * mse.clamp_min(1e-10).log10(), ssim), 1)
