"""What tests of attacks share: pictures, codes, and who is named."""

import torch
import torch.nn.functional as F

from maskbench.leakage.attacks.reidentification import distances, ranks_of

SIZE = 16  # of images; 3 * 16 * 16 = 768 pixels


def natural(count: int, generator: torch.Generator) -> torch.Tensor:
    """Smooth random pictures in [0, 1], float32 ``[N, 3, S, S]``."""
    noise = torch.randn(count, 3, 4, 4, generator=generator)
    return (0.5 + 0.15 * F.interpolate(noise, SIZE, mode="bilinear")).clamp(0, 1)


def rotation(width: int, generator: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(width, width, generator=generator))[0]


def sources(count: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """White numbers ``[N, width]``, skewed, whose strengths rise and fall together in a way of their own."""
    together = torch.randn(6, width, generator=torch.Generator().manual_seed(1))
    strength = (0.4 * torch.randn(count, 6, generator=generator) @ together).exp()
    x = strength * (torch.rand(count, width, generator=generator).log() + 1)
    return (x - x.mean(0)) / x.std(0)


def ranks(codes: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Of candidates in the order of the codes."""
    return ranks_of(distances(codes, candidates), torch.arange(len(codes)))
