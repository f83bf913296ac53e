"""Every picture, drawn with matplotlib and written whole."""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from maskbench import files
from maskbench.datasets import to_float
from maskbench.models import Decoder, Encoder


def losses(history: list[list[float]], path: Path) -> None:
    """The three losses over the epochs (paper, Figs 5-7).

    Args:
        history: one row an epoch: epoch, reconstruction, discriminator, generator loss, validation MSE, ...
    """
    epochs, reconstruction, discriminator, generator, validation = np.array(history).T[:5]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    style = dict(marker=".", markersize=4)
    axes[0].plot(epochs, reconstruction, label="training", **style)
    axes[0].plot(epochs, validation, label="validation", **style)
    axes[0].set(title="reconstruction", ylabel="MSE (pixels in 0..1)", yscale="log")
    axes[0].legend(frameon=False)
    axes[1].plot(epochs, generator, color="C2", **style)
    axes[1].set(title="generating (encoder against both)", ylabel="BCE (nats, both parts)")
    axes[2].plot(epochs, discriminator, color="C3", **style)
    axes[2].set(title="discriminators, total", ylabel="BCE (nats, both parts)")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    _write(figure, path)


@torch.no_grad()
def reconstructions(encoder: Encoder, decoder: Decoder, images: Tensor, path: Path) -> None:
    """Original, Gaussian part as a square picture, reconstruction: one column an image (paper, Fig 1).

    Args:
        images: uint8 ``[N, 3, S, S]``.
    """
    gaussian, categorical = encoder(to_float(images))
    rebuilt = decoder(torch.cat((gaussian, categorical), 1))
    figure, axes = plt.subplots(
        3, len(images), figsize=(1.1 * len(images) + 0.9, 3.6), layout="constrained", squeeze=False
    )
    for column in range(len(images)):
        _show(axes[0, column], to_float(images[column]))
        axes[1, column].imshow(latent_picture(gaussian[column]), cmap="gray", vmin=-3, vmax=3)
        _show(axes[2, column], rebuilt[column])
    for axis, name in zip(axes[:, 0], ("original", "mask\n(Gaussian part)", "reconstruction"), strict=True):
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    _write(figure, path)


def latent_picture(gaussian: Tensor) -> np.ndarray:
    """A vector ``[G]`` as a square of side ceil(sqrt(G)), padded with zeros."""
    side = math.isqrt(len(gaussian) - 1) + 1
    padded = torch.zeros(side * side)
    padded[: len(gaussian)] = gaussian.cpu()
    return padded.view(side, side).numpy()


@torch.no_grad()
def pair_grid(encoders: list[Encoder], decoders: list[Decoder], image: Tensor, path: Path) -> None:
    """One image through every pair: encoders down, decoders across, the original in the corner (paper, Figs 8-9).

    Args:
        image: uint8 ``[3, S, S]``, on the networks' device.
    """
    pixels = to_float(image)
    rows, columns = len(encoders) + 1, len(decoders) + 1
    figure, axes = plt.subplots(rows, columns, figsize=(1.15 * columns + 0.3, 1.15 * rows + 0.3), layout="constrained")
    _show(axes[0, 0], pixels)
    axes[0, 0].set_title("original", fontsize=9)
    for j in range(len(decoders)):
        axes[0, j + 1].text(0.5, 0.08, f"decoder {j}", ha="center", fontsize=9)
        axes[0, j + 1].axis("off")
    for i, encoder in enumerate(encoders):
        axes[i + 1, 0].text(0.95, 0.5, f"encoder {i}", ha="right", va="center", fontsize=9)
        axes[i + 1, 0].axis("off")
        latent = torch.cat(encoder(pixels[None]), 1)
        for j, decoder in enumerate(decoders):
            _show(axes[i + 1, j + 1], decoder(latent)[0])
            for spine in axes[i + 1, j + 1].spines.values():
                spine.set(color="C2" if i == j else "none", linewidth=2.5)
    _write(figure, path)


def score_bars(table: list[list], title: str, path: Path) -> None:
    """A bar with its deviation for every cell of the table.

    Args:
        table: rows ``(method, classes, metric, mean, std, draws)``.
    """
    methods, counts, metrics = (list(dict.fromkeys(row[column] for row in table)) for column in range(3))
    cells = {tuple(row[:3]): row[3:5] for row in table}
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(3.6 * len(metrics), 3.4), sharey=True, layout="constrained", squeeze=False
    )
    width = 0.8 / len(methods)
    for axis, metric in zip(axes[0], metrics, strict=True):
        for number, method in enumerate(methods):
            means, deviations = zip(*(cells[method, count, metric] for count in counts), strict=True)
            places = np.arange(len(counts)) + (number - (len(methods) - 1) / 2) * width
            axis.bar(places, means, width * 0.92, yerr=deviations, capsize=3, label=method)
        axis.plot([-0.5, len(counts) - 0.5], [np.nan] * 2)  # the same width with one class count as with three
        for place, count in enumerate(counts):
            axis.hlines(1 / count, place - 0.45, place + 0.45, color="black", linestyle=":", linewidth=1)
        axis.set(title=metric, xticks=range(len(counts)), xticklabels=counts, xlabel="classes", ylim=(0, 1.05))
        axis.grid(axis="y", alpha=0.3)
    axes[0, 0].set_ylabel("score on test images (dotted: chance)")
    axes[0, -1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(title)
    _write(figure, path)


def training_curves(curves: dict[int, list[np.ndarray]], path: Path) -> None:
    """The MLP's loss and accuracy over its epochs, mean and deviation of the draws (paper, Figs 10-11).

    Args:
        curves: for each class count, one ``[epochs, 4]`` a draw: training and validation loss, then accuracy.
    """
    figure, axes = plt.subplots(len(curves), 2, figsize=(9, 3 * len(curves)), layout="constrained", squeeze=False)
    for row, (count, draws) in zip(axes, curves.items(), strict=True):
        mean, deviation = np.mean(draws, 0), np.std(draws, 0)
        epochs = np.arange(1, len(mean) + 1)
        for axis, columns, name in ((row[0], (0, 1), "cross-entropy (nats)"), (row[1], (2, 3), "accuracy")):
            for column, part in zip(columns, ("training", "validation"), strict=True):
                low, high = mean[:, column] - deviation[:, column], mean[:, column] + deviation[:, column]
                axis.plot(epochs, mean[:, column], label=part, marker="." if len(epochs) < 20 else None)
                axis.fill_between(epochs, low, high, alpha=0.2)
            axis.set(xlabel="epoch", ylabel=name, title=f"{count} classes")
            axis.grid(alpha=0.3)
            axis.legend(frameon=False)
    _write(figure, path)


def _show(axis, image: Tensor) -> None:
    """Draw a float image ``[3, S, S]`` in [0, 1]."""
    axis.imshow(image.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def _write(figure, path: Path) -> None:
    with files.writing(path) as file:
        figure.savefig(file, format="png", dpi=130)
    plt.close(figure)
