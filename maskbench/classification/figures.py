"""Pictures of the classifiers' scores and training."""

from pathlib import Path

import numpy as np

from maskbench.runtime.plotting import picture, subplots, write


@picture
def score_bars(table: list[list], title: str, path: Path) -> None:
    """A bar with its standard deviation for every cell of the table.

    Args:
        table: rows ``(method, classes, metric, mean, std, draws)``.
    """
    methods, counts, metrics = (list(dict.fromkeys(row[column] for row in table)) for column in range(3))
    cells = {tuple(row[:3]): row[3:5] for row in table}
    figure, axes = subplots(1, len(metrics), size=(3.6 * len(metrics), 3.4), sharey=True, squeeze=False)
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
    write(figure, path)


@picture
def training_curves(curves: dict[int, list[np.ndarray]], path: Path) -> None:
    """The MLP's loss and accuracy over its epochs, mean and standard deviation of the draws (paper, Figs 10-11).

    Args:
        curves: for each class count, one ``[epochs, 4]`` a draw: training and validation loss, then accuracy.
    """
    figure, axes = subplots(len(curves), 2, size=(9, 3 * len(curves)), squeeze=False)
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
    write(figure, path)
