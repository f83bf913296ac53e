"""Pictures of the reproduction's tables."""

import math
from pathlib import Path

import numpy as np

from maskbench.classification.scores import NAMES
from maskbench.leakage.figures import BASELINE_STYLES, mask_style
from maskbench.runtime.plotting import picture, subplots, write

COLUMN_STYLES = {
    "invariant": dict(color="C0", marker="o", label="preset invariant"),
    "paper": dict(color="C1", marker="s", label="preset paper"),
    **BASELINE_STYLES,
}


def column_style(name: str) -> dict[str, str]:
    """Marker, colour and label of a preset or baseline."""
    return COLUMN_STYLES[name] if name in COLUMN_STYLES else mask_style(name)


@picture
def draw_accuracies(table: list[dict[str, str]], path: Path) -> None:
    """Accuracy of every preset and baseline with its standard deviation, beside the paper's (paper, Table 1).

    Args:
        table: rows of ``table1.csv`` by column name.
    """
    table = [row for row in table if row["metric"] == "accuracy"]
    methods, counts, presets = (
        list(dict.fromkeys(row[column] for row in table)) for column in ("method", "classes", "preset")
    )
    cells = {(row["preset"], row["method"], row["classes"]): row for row in table}
    figure, axes = subplots(1, len(methods), size=(3.6 * len(methods), 4.2), sharey=True, squeeze=False)
    for axis, method in zip(axes[0], methods, strict=True):
        for number, preset in enumerate(presets):
            places = np.arange(len(counts)) + (number - (len(presets) - 1) / 2) * 0.8 / len(presets)
            found = [cells.get((preset, method, count)) for count in counts]
            means, deviations = (
                [float(row[column]) if row else math.nan for row in found] for column in ("mean", "std")
            )
            axis.errorbar(places, means, deviations, linestyle="none", capsize=2, **column_style(preset))
        for place, count in enumerate(counts):
            paper = next(float(row["paper"]) for row in table if (row["method"], row["classes"]) == (method, count))
            both = dict(xmin=place - 0.45, xmax=place + 0.45, color="black")
            axis.hlines(paper, **both, linewidth=1.5, label=None if place else "the paper's")
            axis.hlines(1 / int(count), **both, linewidth=1, linestyle=":", label=None if place else "chance")
        name = NAMES[method]
        axis.set(title=name, xticks=range(len(counts)), xticklabels=counts, xlabel="classes", ylim=(0.2, 1.02))
        axis.grid(axis="y", alpha=0.3)
    axes[0, 0].set_ylabel("accuracy on test images,\nmean and standard deviation of the draws")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    write(figure, path)


@picture
def draw_trade_off(table: list[dict[str, str]], path: Path) -> None:
    """What the prior costs: reconstruction error, and how well the prior holds, against its weight.

    Args:
        table: rows of ``trade_off.csv`` by column name.
    """
    column = {name: np.array([float(row[name]) for row in table]) for name in table[0]}
    weights = column["prior_weight"]
    smallest = min((weight for weight in weights if weight > 0), default=1)
    figure, axes = subplots(1, 4, size=(16, 3.4))
    axes[0].plot(weights, column["validation_mse"], marker="o", label="validation images")
    axes[0].set(title="reconstruction", ylabel="MSE (pixels in 0..1)")
    axes[1].plot(weights, column["mlp"], marker="o", label="by a fresh MLP")
    axes[1].plot(weights, column["length"], marker="s", label="by their length alone")
    axes[1].axhline(0.5, color="black", linestyle=":", label="chance")
    axes[1].set(title="codes told from draws", ylabel="accuracy", ylim=(0.45, 1.02))
    axes[2].plot(weights, column["category_max"], marker="o", label="largest")
    axes[2].plot(weights, column["category_min"], marker="s", label="smallest")
    axes[2].set(title="categories", ylabel="share of the images", ylim=(0, None))
    for name, label in (
        ("gaussian_discriminator", "discriminator, Gaussian part"),
        ("categorical_discriminator", "discriminator, categories"),
        ("generator", "encoder, against both"),
    ):
        axes[3].plot(weights, column[f"{name}_loss"], marker="o", label=label)
    axes[3].axhline(2 * math.log(2), color="black", linestyle=":", label="undecided")
    axes[3].set(title="losses, last epoch", ylabel="BCE (nats)", ylim=(0, None))
    for axis in axes:
        axis.set_xscale("symlog", linthresh=smallest)  # 0 is among them
        axis.set_xticks(weights, [f"{weight:g}" for weight in weights])
        axis.minorticks_off()
        axis.set(xlabel="weight of the prior (--prior-weight)", xlim=(-0.2 * smallest, 1.6 * weights.max()))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    write(figure, path)
