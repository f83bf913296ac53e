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
from maskbench.metrics import standard_error
from maskbench.models import Decoder, Encoder
from maskbench.priors import PriorSampler

_PRESET_STYLES = {  # the same marker and colour in every picture
    "maskbench": dict(color="C0", marker="o", label="preset maskbench"),
    "paper": dict(color="C1", marker="s", label="preset paper"),
    "identity": dict(color="C7", marker="^", label="raw pixels"),
    "pca": dict(color="C2", marker="v", label="PCA"),
    "random-projection": dict(color="C4", marker="<", label="random projection"),
    "untrained": dict(color="C5", marker=">", label="untrained encoder"),
}
_METHOD_STYLES = {
    "mlp": dict(color="C0", marker="o", label="MLP"),
    "forest": dict(color="C2", marker="s", label="random forest"),
    "adaboost": dict(color="C3", marker="v", label="AdaBoost"),
}


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


def prior_fit(gaussian: Tensor, categorical: Tensor, path: Path) -> None:
    """Encoded images beside the prior: standardised dimensions, lengths of the codes, quantiles, categories.

    Args:
        gaussian: ``[N, G]``.
        categorical: ``[N, K]``; an image belongs to its largest category.
    """
    gaussian = gaussian.double().cpu()
    size = gaussian.shape[1]
    deviation, mean = torch.std_mean(gaussian, 0, correction=0)
    values = ((gaussian - mean) / deviation.clamp_min(1e-30)).flatten().sort().values
    lengths = gaussian.norm(dim=1)
    shares = torch.bincount(categorical.argmax(1).cpu(), minlength=categorical.shape[1]) / len(categorical)
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")

    x = torch.linspace(-5, 5, 201, dtype=torch.float64)
    axes[0, 0].hist(values.numpy(), bins=100, range=(-5, 5), density=True, color="C0", alpha=0.5, label="codes")
    axes[0, 0].plot(x, torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi), color="black", label="normal")
    axes[0, 0].set(title="all dimensions", xlabel="value (standardised)", ylabel="density")

    # the density of the length of a normal vector (chi with `size` degrees of freedom)
    low, high = min(lengths.min().item(), size**0.5 - 3), max(lengths.max().item(), size**0.5 + 3)
    x = torch.linspace(max(low, 1e-3), high, 400, dtype=torch.float64)
    log_density = (size - 1) * x.log() - x**2 / 2 - (size / 2 - 1) * math.log(2) - math.lgamma(size / 2)
    axes[0, 1].hist(lengths.numpy(), bins=80, range=(low, high), density=True, color="C0", alpha=0.5, label="codes")
    axes[0, 1].plot(x, log_density.exp(), color="black", label=f"chi({size})")
    axes[0, 1].set(title="length of the code", xlabel="Euclidean norm", ylabel="density")

    # a few hundred quantiles, closer together in the tails
    normal = torch.linspace(-4.5, 4.5, 300, dtype=torch.float64)
    ranks = (torch.special.ndtr(normal) * (len(values) - 1)).round().long()
    inside = (ranks > 0) & (ranks < len(values) - 1)
    axes[1, 0].plot([-5, 5], [-5, 5], color="black", linewidth=1, label="normal")
    axes[1, 0].plot(normal[inside], values[ranks[inside]], ".", color="C0", markersize=3, label="codes")
    axes[1, 0].set(title="Q-Q plot, all dimensions", xlabel="quantile of the normal", ylabel="quantile of the codes")

    axes[1, 1].bar(range(len(shares)), 100 * shares.numpy(), color="C0", alpha=0.5, label="codes")
    axes[1, 1].axhline(100 / len(shares), color="black", label="uniform")
    highest = 130 * shares.max().item()  # room for the legend
    axes[1, 1].set(title="largest category", xlabel="category", ylabel="images (%)", ylim=(0, highest))
    axes[1, 1].xaxis.get_major_locator().set_params(integer=True)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="upper right" if axis is axes[1, 1] else "upper left")
    _write(figure, path)


@torch.no_grad()
def prior_samples(decoder: Decoder, path: Path, rows: int = 3, columns: int = 12) -> None:
    """Images that a decoder (on the CPU) makes of draws of the prior."""
    sampler = PriorSampler(decoder.config["gaussian_dim"], decoder.config["categories"])
    images = decoder(torch.cat(sampler(rows * columns), 1))
    figure, axes = plt.subplots(rows, columns, figsize=(0.75 * columns, 0.75 * rows + 0.3), layout="constrained")
    for axis, image in zip(axes.flat, images, strict=True):
        _show(axis, image)
    figure.suptitle("decoded draws of the prior", fontsize=10)
    _write(figure, path)


def accuracies(table: list[dict[str, str]], path: Path) -> None:
    """Accuracy of every preset and yardstick with its deviation, beside the paper's (paper, Table 1).

    Args:
        table: rows of ``table1.csv`` by column name.
    """
    table = [row for row in table if row["metric"] == "accuracy"]
    methods, counts, presets = (
        list(dict.fromkeys(row[column] for row in table)) for column in ("method", "classes", "preset")
    )
    cells = {(row["preset"], row["method"], row["classes"]): row for row in table}
    figure, axes = plt.subplots(
        1, len(methods), figsize=(3.6 * len(methods), 4.2), sharey=True, layout="constrained", squeeze=False
    )
    for axis, method in zip(axes[0], methods, strict=True):
        for number, preset in enumerate(presets):
            places = np.arange(len(counts)) + (number - (len(presets) - 1) / 2) * 0.8 / len(presets)
            found = [cells.get((preset, method, count)) for count in counts]
            means, deviations = (
                [float(row[column]) if row else math.nan for row in found] for column in ("mean", "std")
            )
            axis.errorbar(places, means, deviations, linestyle="none", capsize=2, **_PRESET_STYLES[preset])
        for place, count in enumerate(counts):
            paper = next(float(row["paper"]) for row in table if (row["method"], row["classes"]) == (method, count))
            both = dict(xmin=place - 0.45, xmax=place + 0.45, color="black")
            axis.hlines(paper, **both, linewidth=1.5, label=None if place else "the paper's")
            axis.hlines(1 / int(count), **both, linewidth=1, linestyle=":", label=None if place else "chance")
        name = _METHOD_STYLES[method]["label"]
        axis.set(title=name, xticks=range(len(counts)), xticklabels=counts, xlabel="classes", ylim=(0.2, 1.02))
        axis.grid(axis="y", alpha=0.3)
    axes[0, 0].set_ylabel("accuracy on test images,\nmean and deviation of the draws")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    _write(figure, path)


def latent_sizes(table: list[dict[str, str]], path: Path) -> None:
    """Reconstruction error and accuracies against the length of the Gaussian part.

    Args:
        table: rows of ``latent_sizes.csv`` by column name.
    """
    column = {name: np.array([float(row[name]) for row in table]) for name in table[0]}
    sizes = column["gaussian_dim"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    axes[0].plot(sizes, column["validation_mse"], marker="o", color="black", label="preset maskbench, one epoch")
    axes[0].set(ylabel="validation MSE (pixels in 0..1)", ylim=(0, None))
    for method in ("mlp", "forest"):
        errors = standard_error(column[f"{method}_std"], column["draws"])
        axes[1].errorbar(sizes, column[method], errors, capsize=3, **_METHOD_STYLES[method])
    axes[1].set_ylabel("accuracy, 3 classes of CIFAR-100\n(± standard error)")
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("length of the Gaussian part")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    _write(figure, path)


def trade_off(table: list[dict[str, str]], path: Path) -> None:
    """What the prior costs: reconstruction error, and how well the prior holds, against its weight.

    Args:
        table: rows of ``trade_off.csv`` by column name.
    """
    column = {name: np.array([float(row[name]) for row in table]) for name in table[0]}
    weights = column["prior_weight"]
    smallest = min((weight for weight in weights if weight > 0), default=1)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    axes[0].plot(weights, column["validation_mse"], marker="o", label="validation images")
    axes[0].set(title="reconstruction", ylabel="MSE (pixels in 0..1)")
    axes[1].plot(weights, column["mlp"], **_METHOD_STYLES["mlp"])
    axes[1].plot(weights, column["logistic"], color="C1", marker="s", label="logistic regression")
    axes[1].axhline(0.5, color="black", linestyle=":", label="chance")
    axes[1].set(title="codes told from prior draws", ylabel="held-out accuracy", ylim=(0.45, 1.02))
    axes[2].plot(weights, column["kurtosis"], marker="o", label="codes")
    axes[2].axhline(3, color="black", linestyle=":", label="normal")
    axes[2].set(title="kurtosis", ylabel="kurtosis, all dimensions")
    for axis in axes:
        axis.set_xscale("symlog", linthresh=smallest)  # 0 is among them
        axis.set_xticks(weights, [f"{weight:g}" for weight in weights])
        axis.minorticks_off()
        axis.set(xlabel="weight of the prior (--prior-weight)", xlim=(-0.2 * smallest, 1.6 * weights.max()))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    _write(figure, path)


@torch.no_grad()
def attack_grid(
    originals: Tensor,
    examples: dict[tuple[str, str, int], Tensor],
    attacks: dict[str, tuple[str, ...]],
    anchors: tuple[str, ...],
    pairs: list[int],
    path: Path,
    shown: int = 2,
) -> None:
    """What attacks make of masks: a row an attack, a column a number of pairs, some images in each cell.

    Args:
        originals: uint8 ``[E, 3, S, S]``.
        examples: what became of them, by threat, attack and pairs; cells without are left empty.
        attacks: by threat, the rows.
        anchors: attacks of the first row, where the originals are too.
        pairs: the columns.
    """

    def side_by_side(images: Tensor) -> Tensor:
        return torch.cat(list(to_float(images[:shown])), 2)

    rows = [(threat, attack) for threat, names in attacks.items() for attack in names]
    figure, axes = plt.subplots(
        len(rows) + 1, len(pairs), figsize=(1.15 * len(pairs) + 1.9, 0.64 * (len(rows) + 1) + 0.3), layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    top = [("original", originals), *((name, examples["masks-only", name, 0]) for name in anchors)]
    for axis, (name, images) in zip(axes[0], top, strict=False):
        _show(axis, side_by_side(images))
        axis.set_title(name.replace("-", " "), fontsize=8)
    for row, (threat, attack) in zip(axes[1:], rows, strict=True):
        label = f"{attack.replace('-', ' ')}\n({threat.replace('-', ' ')})"
        row[0].text(-0.08, 0.5, label, ha="right", va="center", fontsize=8, transform=row[0].transAxes)
        for axis, count in zip(row, pairs, strict=True):
            if (threat, attack, count) in examples:
                _show(axis, side_by_side(examples[threat, attack, count]))
    for axis, count in zip(axes[1], pairs, strict=True):
        axis.set_title("no pairs" if count == 0 else f"{count:,} pairs", fontsize=8)
    _write(figure, path)


_MASK_STYLES = {
    "aae": dict(color="C0", marker="o", label="autoencoder"),
    "aae+key": dict(color="C3", marker="D", label="autoencoder, secret key"),
    **{name: _PRESET_STYLES[name] for name in ("pca", "random-projection", "untrained", "identity")},
}


def leakage(
    pairs: list[int],
    similarity: dict[str, list[float]],
    found: dict[str, list[float]],
    anchors: dict[str, float],
    path: Path,
) -> None:
    """How much the best attack recovers against the pairs it knows, a line a mask.

    Args:
        similarity: SSIM of each mask, a value for each number of pairs.
        found: share of images re-identified at the first guess, likewise.
        anchors: SSIM by name, drawn as horizontal lines.
    """
    places = range(len(pairs))
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, curves in zip(axes, (similarity, found), strict=True):
        for mask, values in curves.items():
            axis.plot(places, values, alpha=0.85, **_MASK_STYLES[mask])
        axis.set_xticks(places, [f"{count:,}" for count in pairs])
        axis.set(xlabel="known pairs of image and mask", ylim=(-0.03, 1.05))
        axis.grid(alpha=0.3)
    for (name, value), style in zip(anchors.items(), (":", "--"), strict=True):
        axes[0].axhline(value, color="black", linestyle=style, linewidth=1, label=name.replace("-", " "))
    axes[0].set_ylabel("SSIM of the best reconstruction")
    axes[1].set_ylabel("images re-identified at the first guess")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    _write(figure, path)


def frontier(table: list[dict[str, str]], path: Path) -> None:
    """What a mask is good for against what it gives away: a point a mask and latent size.

    Args:
        table: rows of ``frontier.csv`` by column name.
    """
    methods = [name for name in _METHOD_STYLES if sum(row["method"] == name for row in table) > 2]
    figure, axes = plt.subplots(
        1, len(methods), figsize=(4.8 * len(methods), 4.2), sharey=True, layout="constrained", squeeze=False
    )
    for axis, method in zip(axes[0], methods, strict=True):
        labelled = set()
        for row in (row for row in table if row["method"] == method):
            x, y = float(row["ssim"]), float(row["accuracy"])
            style = dict(_MASK_STYLES[row["mask"]])
            if row["mask"] in labelled:
                style["label"] = None
            labelled.add(row["mask"])
            errors = [[x - float(row["low"])], [float(row["high"]) - x]]
            error = standard_error(float(row["std"]), int(row["draws"]))
            axis.errorbar(x, y, error, errors, linestyle="none", capsize=2, **style)
            if row["mask"] == "aae":
                near = dict(xytext=(-4, 5), ha="right", textcoords="offset points", fontsize=8)
                axis.annotate(row["gaussian_dim"], (x, y), **near)
        axis.set(title=_METHOD_STYLES[method]["label"], xlabel="leakage: SSIM of the best attack, 1,000 known pairs")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("accuracy on masks, three classes\n(± standard error)")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside lower center", ncols=3, title="number: Gaussian part's length")
    _write(figure, path)


def _show(axis, image: Tensor) -> None:
    """Draw a float image ``[3, S, S]`` in [0, 1]."""
    axis.imshow(image.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def _write(figure, path: Path) -> None:
    with files.writing(path) as file:
        figure.savefig(file, format="png", dpi=130)
    plt.close(figure)
