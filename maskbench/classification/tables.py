"""The tables of ``classify.py``: every run, and their summary."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskbench.classification.scores import METRICS
from maskbench.storage import tables

RUN_COLUMNS = ("masked", "method", "classes", "repeat", *METRICS, "train_rows", "test_rows", "seconds", "class_names")
TABLE_COLUMNS = ("method", "classes", "metric", "mean", "std", "draws")


def run_rows(results: dict, draws: dict, masked_name: str, classes: list[str], methods: Sequence[str]) -> list[list]:
    """One row a finished run, see RUN_COLUMNS, draw by draw."""
    rows = []
    for (count, repeat), draw in draws.items():
        names = " ".join(classes[label].replace(" ", "_") for label in draw.classes)
        for method in methods:
            if result := results.get((count, repeat, method)):
                columns = [masked_name, method, count, repeat]
                rows.append([*columns, *result["scores"], *result["sizes"], result["seconds"], names])
    return rows


def write_tables(output: Path, runs: list[list]) -> list[list]:
    """Write every run and their summary as CSV; returns the summary."""
    table = summarise(runs)
    tables.write_csv(Path(f"{output}-runs.csv"), RUN_COLUMNS, runs)
    tables.write_csv(Path(f"{output}.csv"), TABLE_COLUMNS, table)
    return table


def summarise(runs: list[list]) -> list[list]:
    """Mean and standard deviation (ddof 0) of every metric over the repeats, one row a (method, classes, metric)."""
    groups = {}
    for _, method, count, _, *rest in runs:
        groups.setdefault((method, count), []).append(rest[: len(METRICS)])
    return [
        [method, count, metric, np.mean(values), np.std(values), len(values)]
        for (method, count), scores in groups.items()
        for metric, values in zip(METRICS, zip(*scores, strict=True), strict=True)
    ]


def print_table(table: list[list]) -> None:
    """The paper's Table 1: methods down, class counts and metrics across."""
    cells = {(method, count, metric): f"{mean:.3f} ± {std:.3f}" for method, count, metric, mean, std, _ in table}
    counts = list(dict.fromkeys(row[1] for row in table))
    for count in counts:
        print(f"\n{count} classes".ljust(12) + "".join(metric.rjust(16) for metric in METRICS))
        for method in dict.fromkeys(row[0] for row in table):
            print(method.ljust(11) + "".join(cells[method, count, metric].rjust(16) for metric in METRICS))
    print()
