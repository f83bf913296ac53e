"""Random views of images: what preset invariant learns to see past, and what a second photograph differs in."""

import io
import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from maskbench.ops.reference import philox4x32, uniform

SIDE = 0.75  # of a view, as a part of the image's: smaller views are cheaper, see docs/method.md
AREA = 0.2  # of the image that a crop keeps at least
RATIO = 4 / 3  # of its sides, at most
JITTER = 0.4  # by how much brightness, contrast and saturation are multiplied, more or less
HUE = 0.3  # radians
GREY = 0.2  # probability
ANOTHER_AREA, ANOTHER_LIGHT, JPEG_QUALITY = 0.8, 0.2, 75  # of another photograph
_BLOCKS = 3  # of four random numbers
_STREAM = 1 << 31  # sets the counters of views apart from those of the prior, whose offsets are numbers of steps
_MASK32 = 0xFFFFFFFF


@torch.no_grad()
def random_views(images: Tensor, numbers: Tensor, seed: int, epoch: int | Tensor, scale: float = SIDE) -> Tensor:
    """A smaller view of each image: crop, flip, brightness, contrast, saturation, hue, and sometimes grey.

    A view depends on its image, the image's number, seed and epoch alone: not on the mini-batch, the device or the
    process. (The augmentations are those of SimCLR: Chen et al., "A simple framework for contrastive learning of
    visual representations", ICML 2020; without its blur, of which 32 x 32 pixels leave little.)

    Args:
        images: float32 ``[N, 3, S, S]`` in [0, 1].
        numbers: int64 ``[N]`` on any device: which of the training images they are.
        seed: of the training.
        epoch: counted from 1; as a scalar tensor on the images' device, it can change under a CUDA graph.
        scale: side of a view, as a part of the image's.

    Returns:
        float32 ``[N, 3, V, V]`` in [0, 1], V = ``scale`` S.
    """
    return _view(images, _chances(numbers.to(images.device), seed, epoch), round(scale * images.shape[-1]))


def _chances(numbers: Tensor, seed: int, epoch: int | Tensor) -> Tensor:
    """float32 ``[4 _BLOCKS, N]`` in (0, 1], a Philox block of four at a time."""
    blocks = torch.arange(_BLOCKS, device=numbers.device)
    # constants are filled in on the device: a copy to a GPU cannot be captured
    epochs, stream = torch.zeros_like(numbers) + epoch, torch.full_like(numbers, _STREAM)
    counter = torch.stack((numbers & _MASK32, numbers >> 32, epochs, stream), -1) + F.pad(blocks[:, None, None], (3, 0))
    key = torch.stack([numbers.new_full((), word) for word in (seed & _MASK32, seed >> 32 & _MASK32)])
    return uniform(philox4x32(counter, key)).transpose(1, 2).flatten(0, 1)


def _view(images: Tensor, chances: Tensor, side: int) -> Tensor:
    """The view, of this side, of each of ``[N, 3, S, S]`` by its random numbers, ``[4 _BLOCKS, N]``."""
    size, shape, left, top, flip, bright, contrast, saturation, turn, grey = chances[:10]
    images = _crop(images, AREA + (1 - AREA) * size, shape, left, top, flip < 0.5, side)
    bright, contrast, saturation = (
        1 + JITTER * (2 * x - 1)[:, None, None, None] for x in (bright, contrast, saturation)
    )
    images = (images * bright).clamp(0, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    luma = images.mean(1, keepdim=True)
    images = (luma + (images - luma) * saturation).clamp(0, 1)
    luma = images.mean(1, keepdim=True)
    images = (luma + _turn_hue(images - luma, HUE * (2 * turn - 1))).clamp(0, 1)
    return torch.where(grey[:, None, None, None] < GREY, images.mean(1, keepdim=True), images)


def _crop(
    images: Tensor, area: Tensor, shape: Tensor, left: Tensor, top: Tensor, mirrored: Tensor, side: int
) -> Tensor:
    """Part of each of ``[N, 3, S, S]``, of these areas, in this side; what else is random in (0, 1], all ``[N]``."""
    ratio = ((2 * shape - 1) * math.log(RATIO)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    zero = torch.zeros_like(width)
    across = torch.stack((torch.where(mirrored, -width, width), zero, (2 * left - 1) * (1 - width)), 1)
    down = torch.stack((zero, height, (2 * top - 1) * (1 - height)), 1)
    grid = F.affine_grid(torch.stack((across, down), 1), [len(images), 3, side, side], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def another_photograph(images: Tensor, seed: int) -> Tensor:
    """Of each image one that shows the same: cropped a little, brighter or darker, saved as a JPEG file.

    Args:
        images: float32 ``[N, 3, S, S]`` in [0, 1], on the CPU.
        seed: of what is random.

    Returns:
        float32 ``[N, 3, S, S]`` in [0, 1].
    """
    size, left, top, light = torch.rand(4, len(images), generator=torch.Generator().manual_seed(seed))
    area, square = ANOTHER_AREA + (1 - ANOTHER_AREA) * size, torch.full_like(size, 0.5)
    images = _crop(images, area, square, left, top, torch.zeros_like(area, dtype=torch.bool), images.shape[-1])
    images = images * (1 + ANOTHER_LIGHT * (2 * light - 1))[:, None, None, None]
    pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    decoded = []
    for one in pixels:
        file = io.BytesIO()
        Image.fromarray(one).save(file, "JPEG", quality=JPEG_QUALITY)
        decoded.append(torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8))
    return torch.stack(decoded).view(pixels.shape).permute(0, 3, 1, 2) / 255


def _turn_hue(colours: Tensor, angles: Tensor) -> Tensor:
    """Colours without their luma, ``[N, 3, S, S]``, turned around the grey axis by ``[N]`` radians (Rodrigues)."""
    cosine, sine = angles.cos()[:, None, None, None], angles.sin()[:, None, None, None] / math.sqrt(3)
    return cosine * colours + sine * (colours.roll(1, 1) - colours.roll(2, 1))
