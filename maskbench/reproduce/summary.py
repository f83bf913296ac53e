"""The finished steps of a reproduction as rows of the tables in ``results/``."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from maskbench.reproduce.paper import METRICS, PRIOR_GOALS, SCORES
from maskbench.storage.tables import Row, read

PRESETS = ("maskbench", "paper")
BASELINES = ("identity", "pca", "random-projection", "untrained")
ESTIMATORS = (100, 200, 400)
GAUSSIAN_DIMS = (96, 192, 384, 768)
IMAGE_SIZES = (32, 64, 96)
PRIOR_WEIGHTS = (0, 1, 10, 100)
FEWER_DRAWS = 5  # of the yardsticks and what else stands beside Table 1: its first five draws
NUMBERS = 404  # in a mask: 384 + 20
COLUMNS = {
    "table1": ("preset", "method", "classes", "metric", "mean", "std", "draws", "paper"),
    "table2": ("preset", "method", "classes", "metric", "mean", "std", "draws", "paper"),
    "table1_runs": (
        *("preset", "method", "classes", "repeat", *METRICS),
        *("train_rows", "test_rows", "seconds", "class_names"),
    ),
    "crosspair": ("preset", "images", "pair", "mean", "std", "paper_mean", "paper_std"),
    "priors": ("preset", "measure", "value", "goal_low", "goal_high"),
    "estimators": ("method", "estimators", "accuracy", "std", "draws"),
    "latent_sizes": ("gaussian_dim", "validation_mse", "mlp", "mlp_std", "forest", "forest_std", "draws"),
    "image_sizes": ("image_size", "validation_mse", "numbers_per_pixel", "images_per_second"),
    "trade_off": ("prior_weight", "validation_mse", *PRIOR_GOALS),
}


def classification(runs: Path, finished: Collection[str], dataset: str) -> list[list]:
    """Table 1 (cifar100) or 2 (mnist) of every preset, with the paper's value in each cell."""
    return [
        [preset, *row.values(), SCORES[dataset][row["method"], int(row["classes"])][METRICS.index(row["metric"])]]
        for preset in (*PRESETS, *BASELINES)
        if f"classify {preset} {dataset}" in finished
        for row in read(runs / preset / f"classify-{dataset}" / f"{dataset}.csv")
    ]


def every_run(runs: Path, finished: Collection[str]) -> list[list]:
    return [
        [preset, *(row[column] for column in COLUMNS["table1_runs"][1:])]
        for preset in (*PRESETS, *BASELINES)
        if f"classify {preset} cifar100" in finished
        for row in read(runs / preset / "classify-cifar100" / "cifar100-runs.csv")
    ]


def reconstruction(runs: Path, finished: Collection[str]) -> list[list]:
    return [
        [preset, *row.values()]
        for preset in (*PRESETS, "pca")
        if f"crosspair {preset}" in finished
        for row in read(runs / preset / "crosspair" / "crosspair.csv")
    ]


def priors(runs: Path, finished: Collection[str]) -> list[list]:
    return [
        [preset, row["measure"], row["value"], *PRIOR_GOALS[row["measure"]]]
        for preset in PRESETS
        if f"prior {preset}" in finished
        for row in read(runs / preset / "prior" / "prior.csv")
    ]


def estimators(runs: Path, finished: Collection[str]) -> list[list]:
    """Three classes with 100 (from Table 1), 200 and 400 trees or stumps, preset maskbench."""
    table = []
    for number in ESTIMATORS:
        if number == ESTIMATORS[0]:
            step, folder = "classify maskbench cifar100", "classify-cifar100"
        else:
            step, folder = f"estimators {number}", f"estimators-{number}"
        if step in finished:
            path = runs / "maskbench" / folder / "cifar100-runs.csv"
            table += [[method, number, *accuracy(path, method)] for method in ("forest", "adaboost")]
    return table


def latent_sizes(runs: Path, finished: Collection[str]) -> list[list]:
    """MSE after one epoch and accuracies on three classes; 384 numbers are the main run's, preset maskbench."""
    table = []
    for size in GAUSSIAN_DIMS:
        needed, folder = {f"latent size {size}"}, runs / f"gaussian-{size}"
        if size == 384:
            needed, folder = {"train maskbench", "classify maskbench cifar100"}, runs / "maskbench"
        if needed <= set(finished):
            mlp, forest = (
                accuracy(folder / "classify-cifar100" / "cifar100-runs.csv", method) for method in ("mlp", "forest")
            )
            table.append([size, first_epoch(folder)["validation_mse"], *mlp[:2], *forest])
    return table


def image_sizes(runs: Path, finished: Collection[str]) -> list[list]:
    table = []
    for size in IMAGE_SIZES:
        if f"image size {size}" in finished:
            epoch = first_epoch(runs / f"image-{size}")
            table.append([size, epoch["validation_mse"], NUMBERS / size**2, epoch["images_per_second"]])
    return table


def trade_off(runs: Path, finished: Collection[str]) -> list[list]:
    table = []
    for weight in PRIOR_WEIGHTS:
        if f"prior weight {weight}" in finished:
            folder = runs / f"prior-{weight}"
            measures = {row["measure"]: row["value"] for row in read(folder / "prior" / "prior.csv")}
            table.append([weight, first_epoch(folder)["validation_mse"], *(measures[name] for name in PRIOR_GOALS)])
    return table


def first_epoch(folder: Path) -> Row:
    """What the first epoch of instance 0 left in ``metrics.csv``: one epoch compares runs of different lengths."""
    return read(folder / "aae" / "0" / "metrics.csv")[0]


def accuracy(path: Path, method: str, classes: int = 3) -> tuple[float, float, int]:
    """Mean accuracy, its deviation (ddof 0) and how many of the yardsticks' draws a table of runs holds."""
    values = [
        float(row["accuracy"])
        for row in read(path)
        if (row["method"], row["classes"]) == (method, str(classes)) and int(row["repeat"]) < FEWER_DRAWS
    ]
    return float(np.mean(values)), float(np.std(values)), len(values)
