"""Pictures of a training: its losses, and what the networks make of images."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskbench.data.image_set import to_float
from maskbench.models import Decoder, Encoder
from maskbench.runtime.plotting import picture, show_row, subplots, write
from maskbench.training.journal import COLUMNS


@picture
def losses(history: list[list[float]], path: Path) -> None:
    """The losses over the epochs (paper, Figs 5-7), and where they lie while no side wins; that of agreement, if any.

    Args:
        history: one row an epoch, of ``maskbench.training.journal.COLUMNS``.
    """
    series = dict(zip(COLUMNS, np.array(history).T, strict=False))
    agrees = "agreement_loss" in series
    figure, axes = subplots(1, 3 + agrees, size=(4 * (3 + agrees), 3.4))
    style = dict(marker=".", markersize=4)
    axes[0].plot(series["epoch"], series["reconstruction_loss"], label="training", **style)
    axes[0].plot(series["epoch"], series["validation_mse"], label="validation", **style)
    axes[0].set(title="reconstruction", ylabel="MSE (pixels in 0..1)", yscale="log")
    if agrees:
        axes[3].plot(series["epoch"], series["agreement_loss"], color="C1", label="images and views", **style)
        axes[3].set(title="agreement", ylabel="loss", ylim=(0, None))
    axes[1].plot(series["epoch"], series["generator_loss"], color="C2", label="against both", **style)
    axes[1].set(title="generating", ylabel="BCE (nats)")
    for part, color in (("", "C3"), ("gaussian_", "C4"), ("categorical_", "C5")):
        name = f"{part[:-1]} part" if part else "total"
        axes[2].plot(series["epoch"], series[f"{part}discriminator_loss"], color=color, label=name, **style)
    axes[2].set(title="discriminators", ylabel="BCE (nats)", ylim=(0, None))
    # a discriminator that cannot tell says 1/2 of everything
    axes[1].axhline(2 * math.log(2), color="grey", linestyle=":", label="undecided")
    axes[2].axhline(4 * math.log(2), color="grey", linestyle=":", label="undecided (half: one part)")
    axes[2].axhline(2 * math.log(2), color="grey", linestyle=":")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    write(figure, path)


@picture
@torch.no_grad()
def reconstructions(encoder: Encoder, decoder: Decoder, images: Tensor, path: Path) -> None:
    """Original, Gaussian part as a square (-3 black, 3 white), reconstruction: one column an image (paper, Fig 1).

    Args:
        images: uint8 ``[N, 3, S, S]``.
    """
    gaussian, categorical = encoder(to_float(images))
    rebuilt = decoder(torch.cat((gaussian, categorical), 1))
    masks = torch.stack([latent_picture(vector) for vector in gaussian])
    figure, axes = subplots(3, size=(1.1 * len(images) + 0.9, 3.6))
    show_row(axes[0], to_float(images))
    show_row(axes[1], ((masks[:, None].expand(-1, 3, -1, -1) + 3) / 6).clamp(0, 1))
    show_row(axes[2], rebuilt)
    for axis, name in zip(axes, ("original", "mask\n(Gaussian part)", "reconstruction"), strict=True):
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    write(figure, path)


def latent_picture(gaussian: Tensor) -> Tensor:
    """A vector ``[G]`` as a square of side ceil(sqrt(G)), padded with zeros."""
    side = math.isqrt(len(gaussian) - 1) + 1
    padded = torch.zeros(side * side)
    padded[: len(gaussian)] = gaussian.cpu()
    return padded.view(side, side)
