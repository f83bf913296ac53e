"""Pictures of what masks leak."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from maskbench.classification.scores import NAMES, standard_error
from maskbench.data.image_set import to_float
from maskbench.data.masked_set import NOISY, parts_of
from maskbench.models import Decoder, Encoder
from maskbench.runtime.plotting import picture, show, show_row, subplots, write


@dataclass(frozen=True, eq=False)
class Pictures:
    """What an attack made of some images.

    Attributes:
        examples: uint8 ``[E, 3, S, S]``, of the first judged images of the first set.
        worst: int64 ``[W]``, which judged images of the last set it rebuilds best, the best first.
        worst_examples: uint8 ``[W, 3, S, S]``, what it made of them.
    """

    examples: Tensor
    worst: Tensor
    worst_examples: Tensor


@picture
@torch.no_grad()
def pair_grid(encoders: list[Encoder], decoders: list[Decoder], image: Tensor, path: Path) -> None:
    """One image through every pair: encoders down, decoders across, the original in the corner (paper, Figs 8-9).

    Args:
        image: uint8 ``[3, S, S]``, on the networks' device.
    """
    pixels = to_float(image)
    rows, columns = len(encoders) + 1, len(decoders) + 1
    figure, axes = subplots(rows, columns, size=(1.15 * columns + 0.3, 1.15 * rows + 0.3))
    show(axes[0, 0], pixels)
    axes[0, 0].set_title("original", fontsize=9)
    for j in range(len(decoders)):
        axes[0, j + 1].text(0.5, 0.08, f"decoder {j}", ha="center", fontsize=9)
        axes[0, j + 1].axis("off")
    for i, encoder in enumerate(encoders):
        axes[i + 1, 0].text(0.95, 0.5, f"encoder {i}", ha="right", va="center", fontsize=9)
        axes[i + 1, 0].axis("off")
        latent = torch.cat(encoder(pixels[None]), 1)
        for j, decoder in enumerate(decoders):
            show(axes[i + 1, j + 1], decoder(latent)[0])
            for spine in axes[i + 1, j + 1].spines.values():
                spine.set(color="C2" if i == j else "none", linewidth=2.5)
    write(figure, path)


@picture
@torch.no_grad()
def attack_grid(
    originals: Tensor,
    examples: dict[tuple[str, str, int], Tensor],
    rows: list[tuple[str, str]],
    anchors: tuple[str, ...],
    pairs: list[int],
    path: Path,
    shown: int = 2,
) -> None:
    """What attacks make of masks: a row an attack, a column a number of pairs, some images in each cell.

    Args:
        originals: uint8 ``[E, 3, S, S]``.
        examples: what became of them, by threat, attack and pairs; cells without are left empty.
        rows: threat and attack of each.
        anchors: attacks of the first row, where the originals are too.
        pairs: the columns.
    """

    columns = max(len(pairs), 1 + len(anchors))
    figure, axis = subplots(size=(1.15 * columns + 1.9, 0.64 * (len(rows) + 1) + 0.3))

    def draw(row: float, column: int, images: Tensor) -> None:
        pixels = torch.cat(list(to_float(images[:shown])), 2).permute(1, 2, 0).cpu().numpy()
        place = (column, column + 0.9, row + 0.9, row)  # left, right, bottom, top
        axis.imshow(pixels, interpolation="nearest", extent=place, aspect="auto")

    def entitle(row: float, column: int, title: str) -> None:
        axis.text(column + 0.45, row - 0.06, title, ha="center", va="bottom", fontsize=8)

    top = [("original", originals), *((name, examples["masks-only", name, 0]) for name in anchors)]
    for column, (name, images) in enumerate(top):
        entitle(0, column, name.replace("-", " "))
        draw(0, column, images)
    for column, count in enumerate(pairs):
        entitle(1.3, column, "no pairs" if count == 0 else f"{count:,} pairs")
    for row, (threat, attack) in enumerate(rows):
        label = f"{attack.replace('-', ' ')}\n({threat.replace('-', ' ')})"
        axis.text(-0.08, row + 1.75, label, ha="right", va="center", fontsize=8)
        for column, count in enumerate(pairs):
            if (threat, attack, count) in examples:
                draw(row + 1.3, column, examples[threat, attack, count])
    axis.set(xlim=(0, columns), ylim=(len(rows) + 1.3, -0.4))
    axis.axis("off")
    write(figure, path)


@picture
def worst(strips: list[tuple[str, Tensor]], path: Path) -> None:
    """Images side by side, a line a strip: what they are, float ``[W, 3, S, S]`` in [0, 1]."""
    columns = max(len(images) for _, images in strips)
    figure, axes = subplots(len(strips), size=(0.6 * columns + 2.6, 0.66 * len(strips)), squeeze=False)
    for axis, (text, images) in zip(axes[:, 0], strips, strict=True):
        show_row(axis, images)
        axis.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)
    write(figure, path)


BASELINE_STYLES = {  # the same marker and colour in every picture
    "identity": dict(color="C7", marker="^", label="raw pixels"),
    "pca": dict(color="C2", marker="v", label="PCA"),
    "random-projection": dict(color="C4", marker="<", label="random projection"),
    "untrained": dict(color="C5", marker=">", label="untrained encoder"),
}
MASK_STYLES = {
    "aae": dict(color="C0", marker="o", label="autoencoder"),
    "aae+key": dict(color="C3", marker="D", label="autoencoder, secret key"),
    "aae-invariant": dict(color="C9", marker="p", label="autoencoder, preset invariant"),
    "aae-paper": dict(color="C1", marker="s", label="autoencoder, preset paper"),
    **BASELINE_STYLES,
}


def mask_style(mask: str) -> dict[str, str]:
    """Marker, colour and label of a mask; of masks in noise a cross, the paler the more noise."""
    if NOISY not in mask:
        return dict(MASK_STYLES.get(mask, dict(color="black", marker="x", label=mask)))
    kept, keyed = parts_of(mask)[1:]
    label = f"autoencoder, noise of {kept:g}" + ", secret key" * keyed
    return dict(color=str(0.7 - 0.7 * kept), marker="+" if keyed else "x", label=label)


@picture
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
    figure, axes = subplots(1, 2, size=(10, 4.2))
    for axis, curves in zip(axes, (similarity, found), strict=True):
        for mask, values in curves.items():
            axis.plot(places, values, alpha=0.85, **mask_style(mask))
        axis.set_xticks(places, [f"{count:,}" for count in pairs])
        axis.set(xlabel="known pairs of image and mask", ylim=(-0.03, 1.05))
        axis.grid(alpha=0.3)
    for (name, value), style in zip(anchors.items(), (":", "-.", (0, (1, 4)), "--"), strict=True):
        axes[0].axhline(value, color="black", linestyle=style, linewidth=1, label=name.replace("-", " "))
    axes[0].set_ylabel("SSIM of the best reconstruction")
    axes[1].set_ylabel("images re-identified at the first guess")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    write(figure, path)


@picture
def frontier(table: list[dict[str, str]], path: Path) -> None:
    """What a mask is good for against what it gives away: a point a mask and latent size.

    Args:
        table: rows of ``frontier.csv`` by column name.
    """
    points = {(row["mask"], row["gaussian_dim"]) for row in table}
    # those that every mask was classified by
    methods = [name for name in NAMES if sum(row["method"] == name for row in table) == len(points)]
    figure, axes = subplots(1, len(methods), size=(4.8 * len(methods), 4.2), sharey=True, squeeze=False)
    for axis, method in zip(axes[0], methods, strict=True):
        labelled = set()
        for row in (row for row in table if row["method"] == method):
            x, y = float(row["ssim"]), float(row["accuracy"])
            style = mask_style(row["mask"])
            if row["mask"] in labelled:
                style["label"] = None
            labelled.add(row["mask"])
            errors = [[x - float(row["low"])], [float(row["high"]) - x]]
            error = standard_error(float(row["std"]), int(row["draws"]))
            axis.errorbar(x, y, error, errors, linestyle="none", capsize=2, **style)
            if row["mask"].split("-")[0] == "aae":
                near = dict(xytext=(-4, 5), ha="right", textcoords="offset points", fontsize=8)
                axis.annotate(row["gaussian_dim"], (x, y), **near)
        axis.set(title=NAMES[method], xlabel="leakage: SSIM of the best attack, 1,000 known pairs")
        axis.margins(x=0.12)  # the numbers stand to the left of their points
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("accuracy on masks, three classes\n(± standard error)")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside lower center", ncols=3, title="number: Gaussian part's length")
    write(figure, path)
