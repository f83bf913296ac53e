"""The finished steps of a reproduction as rows of the tables in ``results/``."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from maskbench.errors import InputError
from maskbench.masking import BASELINES
from maskbench.models import PRESETS
from maskbench.reproduce.paper import METRICS, PRIOR_GOALS, SCORES
from maskbench.reproduce.plan import (
    FEWER_DRAWS,
    PRIOR_WEIGHTS,
    digits_folder,
    digits_step_name,
)
from maskbench.storage import tables
from maskbench.storage.tables import Row

COLUMNS = {
    "table1": ("preset", "method", "classes", "metric", "mean", "std", "draws", "paper"),
    "table2": ("preset", "method", "classes", "metric", "mean", "std", "draws", "paper"),
    "table1_runs": (
        *("preset", "method", "classes", "repeat", *METRICS),
        *("train_rows", "test_rows", "seconds", "class_names"),
    ),
    "crosspair": ("preset", "images", "pair", "mean", "std", "paper_mean", "paper_std"),
    "priors": ("preset", "instance", "measure", "value", "goal_low", "goal_high"),
    "trade_off": ("prior_weight", "validation_mse", *PRIOR_GOALS),
}


def read(path: Path) -> list[Row]:
    """Rows of a table that a finished step left; InputError where it is gone or damaged."""
    return tables.read(path, "delete it and its row in steps.csv, then its step is done again")


def all_rows(runs: Path, finished: Collection[str]) -> dict[str, list[list]]:
    """The rows of every table by its name, none where no step of it is finished.

    Args:
        runs: where the steps left their outputs.
        finished: names of the finished steps.
    """
    return {
        "table1": table1_rows(runs, finished),
        "table2": table2_rows(runs, finished),
        "table1_runs": run_rows(runs, finished),
        "crosspair": error_rows(runs, finished),
        "priors": prior_rows(runs, finished),
        "trade_off": trade_off_rows(runs, finished),
    }


def table1_rows(runs: Path, finished: Collection[str]) -> list[list]:
    """CIFAR-100 by every preset and baseline, with the paper's value in each cell."""
    names = [name for name in (*PRESETS, *BASELINES) if f"classify {name} cifar100" in finished]
    return [row for name in names for row in _scores(runs / name, name, "cifar100")]


def table2_rows(runs: Path, finished: Collection[str]) -> list[list]:
    """MNIST by every preset, a mean over its encoders, and by every baseline."""
    table = []
    for preset in PRESETS:
        start = digits_step_name(preset, "")
        numbers = sorted(int(step.removeprefix(start)) for step in finished if step.startswith(start))
        encoders = [_scores(digits_folder(runs, preset, number), preset, "mnist") for number in numbers]
        for cells in zip(*encoders, strict=True):  # the same cell of each encoder
            preset, method, classes, metric, *_, paper = cells[0]
            values = [float(cell[4]) for cell in cells]
            table.append([preset, method, classes, metric, *_mean_and_deviation(values), len(values), paper])
    names = [name for name in BASELINES if f"classify {name} mnist" in finished]
    return table + [row for name in names for row in _scores(runs / name, name, "mnist")]


def _scores(folder: Path, name: str, dataset: str) -> list[list]:
    """The cells that classify.py left in ``folder``, as rows of ``table1`` or ``table2``."""
    paper = SCORES[dataset]
    return [
        [name, *row.values(), paper[row["method"], int(row["classes"])][METRICS.index(row["metric"])]]
        for row in read(folder / f"classify-{dataset}" / f"{dataset}.csv")
    ]


def run_rows(runs: Path, finished: Collection[str]) -> list[list]:
    """Every run of Table 1."""
    return [
        [name, *(row[column] for column in COLUMNS["table1_runs"][1:])]
        for name in (*PRESETS, *BASELINES)
        if f"classify {name} cifar100" in finished
        for row in read(runs / name / "classify-cifar100" / "cifar100-runs.csv")
    ]


def error_rows(runs: Path, finished: Collection[str]) -> list[list]:
    """The errors of matched and unmatched pairs, and of PCA."""
    return [
        [name, *row.values()]
        for name in (*PRESETS, "pca")
        if f"crosspair {name}" in finished
        for row in read(runs / name / "crosspair" / "crosspair.csv")
    ]


def prior_rows(runs: Path, finished: Collection[str]) -> list[list]:
    """How well the prior holds in every instance, with our goals."""
    table = []
    for preset in PRESETS:
        if f"prior {preset}" in finished:
            path = runs / preset / "prior" / "prior.csv"
            for row in read(path):
                if "instance" not in row:
                    raise InputError(f"{path}: of an earlier version; delete its row in steps.csv")
                table.append([preset, *row.values(), *PRIOR_GOALS[row["measure"]]])
    return table


def trade_off_rows(runs: Path, finished: Collection[str]) -> list[list]:
    """MSE of the last epoch, and how well the prior holds, against its weight."""
    table = []
    for weight in PRIOR_WEIGHTS:
        if f"prior weight {weight}" in finished:
            folder = runs / f"prior-{weight}"
            measures = {row["measure"]: row["value"] for row in read(folder / "prior" / "prior.csv")}
            last = read(folder / "aae" / "0" / "metrics.csv")[-1]
            table.append([weight, last["validation_mse"], *(measures[name] for name in PRIOR_GOALS)])
    return table


def _mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0), as in the tables of classify.py."""
    return float(np.mean(values)), float(np.std(values))


def saved_rows(results: Path, name: str) -> list[Row]:
    """The rows of a table in ``results``, none where it is not there."""
    path = results / f"{name}.csv"
    return read(path) if path.exists() else []


def first_draws(runs: list[Row]) -> list[dict]:
    """Mean accuracies of the draws that presets and baselines share, as rows of ``table1``.

    Args:
        runs: rows of ``table1_runs``.
    """
    values = {}
    for row in runs:
        if int(row["repeat"]) < FEWER_DRAWS:
            values.setdefault((row["preset"], row["method"], row["classes"]), []).append(float(row["accuracy"]))
    table = []
    for cell, scores in values.items():
        row = (*cell, "accuracy", np.mean(scores), np.std(scores), len(scores))
        table.append(dict(zip(COLUMNS["table1"][:-1], row, strict=True)))
    return table
