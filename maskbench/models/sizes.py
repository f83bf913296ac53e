"""What sizes the networks have: presets, and how deep a stack of convolutions is."""

import argparse
import functools
import math

import torch

from maskbench.runtime.command_line import integer


def image_size_argument(text: str) -> int:
    """An argparse type: the side of images in pixels, see :func:`maskbench.models.sizes.depth`."""
    value = integer(8, LARGEST_IMAGE)(text)
    try:
        depth(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


# --preset: the sizes of networks and mini-batches, learning rate and epochs, where the command line says nothing else
PRESETS = {
    "invariant": {"width": 32, "gaussian_dim": 320, "batch_size": 128, "lr": 1.4e-3, "epochs": 36},
    "paper": {"width": 16, "gaussian_dim": 384, "batch_size": 16, "lr": 1e-3, "epochs": 16},
}
DEFAULT_PRESET = "invariant"
LARGEST_IMAGE = 256  # side in pixels


def configuration(preset: str, image_size: int, gaussian_dim: int, categories: int, width: int) -> dict[str, int | str]:
    """What an encoder and its decoder are made with, by name, with the preset's sizes in place of 0.

    Raises:
        ValueError: no such preset.
    """
    if preset not in PRESETS:
        raise ValueError("no such preset")
    return {
        "preset": preset,
        "image_size": image_size,
        "gaussian_dim": gaussian_dim or PRESETS[preset]["gaussian_dim"],
        "categories": categories,
        "width": width or PRESETS[preset]["width"],
    }


@functools.cache
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    abilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def depth(image_size: int) -> int:
    """How often a stack of convolutions halves an image: until 4 to 7 pixels a side are left, three times at least.

    3 for 8 to 63 pixels (the paper's 32), 4 for 64 to 127, 5 for 128 to 255, 6 for 256.

    Raises:
        ValueError: no size that can be halved so often.
    """
    stages = max(3, int(math.log2(max(1, image_size) / 4)))
    if image_size % 2**stages or not 8 <= image_size <= LARGEST_IMAGE:
        raise ValueError(f"{image_size} is not within 8 and {LARGEST_IMAGE}, or not a multiple of {2**stages}")
    return stages
