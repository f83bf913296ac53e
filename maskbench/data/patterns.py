"""Black and white test patterns: pictures no autoencoder was trained on (paper, Figs 8-9)."""

import torch
from torch import Tensor


def test_patterns(image_size: int = 32) -> dict[str, Tensor]:
    """Twenty patterns by name, each uint8 ``[3, S, S]`` with values 0 and 255, the same on every machine.

    The paper does not list its patterns. The figures depend on these, so a test freezes their bytes.
    """
    # integer coordinates of pixel centres in 1/64 of the picture's side, so that no rounding is involved
    centres = (2 * torch.arange(image_size) + 1) * 32 // image_size
    y, x = centres[:, None], centres[None, :]
    radius2 = (x - 32) ** 2 + (y - 32) ** 2
    farthest = torch.maximum((x - 32).abs(), (y - 32).abs())
    drawings = {
        "left half": x < 32,
        "top half": y < 32,
        "triangle": x + y < 64,
        "wide horizontal stripes": y // 16 % 2 == 0,
        "wide vertical stripes": x // 16 % 2 == 0,
        "horizontal stripes": y // 8 % 2 == 0,
        "vertical stripes": x // 8 % 2 == 0,
        "rising stripes": (x + y) // 16 % 2 == 0,
        "falling stripes": (x - y + 64) // 16 % 2 == 0,
        "large checkers": (x // 32 + y // 32) % 2 == 0,
        "checkers": (x // 16 + y // 16) % 2 == 0,
        "small checkers": (x // 8 + y // 8) % 2 == 0,
        "disc": radius2 < 20**2,
        "ring": (radius2 < 26**2) & (radius2 >= 14**2),
        "rings": (radius2.float().sqrt() // 8 % 2) == 0,
        "cross": ((x - 32).abs() < 8) | ((y - 32).abs() < 8),
        "diagonal cross": ((x - y).abs() < 10) | ((x + y - 64).abs() < 10),
        "block": farthest < 16,
        "frame": (farthest >= 12) & (farthest < 24),
        "four blocks": ((x % 32 - 16).abs() < 8) & ((y % 32 - 16).abs() < 8),
    }
    return {
        name: (drawing.expand(3, image_size, image_size) * 255).to(torch.uint8) for name, drawing in drawings.items()
    }
