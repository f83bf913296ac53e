"""The pages of ``results/`` and the README's table: what the tables hold and nothing else."""

from pathlib import Path

import numpy as np

from maskbench.classification.scores import NAMES, standard_error
from maskbench.errors import InputError
from maskbench.reproduce.paper import PRIOR_GOALS, RATIO_GOALS
from maskbench.reproduce.pictures import copied_pictures
from maskbench.reproduce.summary import (
    BASELINES,
    FEWER_DRAWS,
    METRICS,
    NUMBERS,
    PRESETS,
)
from maskbench.storage import atomic
from maskbench.storage.tables import Row, markdown, read

MARKERS = ("<!-- results -->", "<!-- /results -->")


def title(preset: str) -> str:
    """A preset or yardstick as a column's name; the preset paper is not the paper."""
    return f"preset {preset}" if preset in PRESETS else f"PCA, {NUMBERS} numbers" if preset == "pca" else preset


def results_page(results: Path, machine: str, steps: list[Row]) -> str:
    """``results/README.md``: hardware, steps, and every table that is there."""
    page = [
        "# Results\n",
        "Made by `make reproduce`, which rewrites this page; `ops.md` and `speed.md` are by the scripts in "
        "`benchmarks/`, with `--save`. Accuracy, "
        "precision and recall are macro averages over classes, on test images; ± is the standard error of the mean "
        "over the draws, the deviation over the draws is in parentheses, ▼ marks what is worse than the paper's or "
        "than its target. The paper is Lis, Koryciński, Ciecierski, PLoS ONE 2021.\n",
    ]
    if machine:
        page.append(f"Hardware and versions: {machine.strip()}.\n")
    if table1 := rows_of(results, "table1"):
        page.append("## Table 1: CIFAR-100\n")
        page += [score_table(table1, preset) for preset in PRESETS]
        page.append(
            f"Accuracy of masks and yardsticks, and what part of the raw pixels' (identity) it is, all over the first "
            f"{FEWER_DRAWS} draws; the yardsticks have no others. The MLPs also train on augmented copies of the "
            "images, of which identity has fewer, as pixels take eight times the memory of masks.\n"
        )
        page += [
            kept_table(first_draws(rows_of(results, "table1_runs"))),
            "![Accuracies of Table 1](figures/table1.png)\n",
        ]
        page.append("Every run: [table1_runs.csv](table1_runs.csv) (the paper's S5-S7).\n")
    if table2 := rows_of(results, "table2"):
        page.append("## Table 2: MNIST\n")
        page += [score_table(table2, preset) for preset in PRESETS]
        page.append("The MLPs train for 10 epochs, also on copies of the images; identity has fewer of them.\n")
        page.append(kept_table(table2))
    if crosspair := rows_of(results, "crosspair"):
        page += ["## Reconstruction\n", "Mean squared error of an image, its deviation over images in parentheses.\n"]
        page += [error_table(crosspair), ratio_table(crosspair)]
    if measures := rows_of(results, "priors"):
        page += ["## How well the prior holds\n", prior_table(measures)]
        page.append(
            "`mean` is the largest of a dimension, `logistic` and `mlp` the held-out accuracies of fresh classifiers "
            "that tell validation images' codes from draws of the prior (0.5 is chance).\n"
        )
    if weights := rows_of(results, "trade_off"):
        page += ["## What the prior costs\n", plain_table(weights), "![Trade-off](figures/trade_off.png)\n"]
        page.append(
            "One epoch of 20,000 images. `--prior-weight` scales what the adversary and the decorrelation do to the "
            "encoder, from nothing to a hundred times the default; the closed forms (the start, the normalised heads, "
            "the calibration) hold the prior at 0 too.\n"
        )
    if sizes := rows_of(results, "latent_sizes"):
        page += ["## Latent sizes\n", plain_table(sizes), "![Latent sizes](figures/latent_sizes.png)\n"]
        page.append(
            "Preset maskbench, seed 0; MSE after one epoch. The accuracies (three classes) are of encoders of one "
            "epoch, with 384 numbers of the main run's encoder, which was trained longer.\n"
        )
    if sizes := rows_of(results, "image_sizes"):
        page += ["## Image sizes\n", plain_table(sizes)]
        page.append(f"Crops of photographs, 10,000 images, one epoch, {NUMBERS} numbers an image.\n")
    if rows := rows_of(results, "estimators"):
        page += ["## More estimators\n", plain_table(rows)]
    if (results / "audit.md").exists():
        page += [
            "## What masks leak\n",
            "The audit of the default preset has a page of its own: [audit.md](audit.md).\n",
        ]
    if (results / "weights").exists():
        page += [
            "## Weights\n",
            "[weights](weights): instance 0 of preset maskbench. Its key is public, it protects nobody.\n",
        ]
    pictures = [
        (name, caption) for _, name, _, caption in copied_pictures(results) if (results / "figures" / name).exists()
    ]
    if pictures:
        page.append("## Pictures\n")
        page.append(
            "Numbered as in the paper. Its supplement (S1-S6) was not at hand: s1 to s4 are the remaining grids of "
            "pairs and curves.\n"
        )
        page.append("\n".join(f"- [{name}](figures/{name}): {caption}" for name, caption in pictures) + "\n")
    if steps:
        page.append("## Steps\n")
        rows = [[row["name"], duration(float(row["seconds"])), row["commit"], f"`{row['command']}`"] for row in steps]
        page.append(markdown(["step", "duration", "commit", "command"], rows))
        total = duration(sum(float(row["seconds"]) for row in steps))
        page.append(
            f"{total} of steps, several of which ran side by side. A stopped step counts with all its starts but those "
            "that were killed.\n"
        )
    return "\n".join(page)


def readme_tables(results: Path) -> str:
    """The section of the main README between its markers, from the tables in ``results``; "" without Table 1."""
    table1 = rows_of(results, "table1")
    if not table1:
        return ""
    page = []
    if crosspair := rows_of(results, "crosspair"):
        page += [
            "Mean squared error of images rebuilt by the matching and by another decoder:\n",
            error_table(crosspair),
            ratio_table(crosspair),
        ]
    shown = [preset for preset in (*PRESETS, *BASELINES) if any(row["preset"] == preset for row in table1)]
    page.append(
        "Accuracy on masks, mean ± standard error over the draws of classes, beside the paper's and the yardsticks' "
        f"(these over the first {FEWER_DRAWS} draws):\n"
    )
    rows = []
    for table, dataset in ((table1, "CIFAR-100"), (rows_of(results, "table2"), "MNIST")):
        cells = by_cell(table)
        for method, classes in dict.fromkeys((row["method"], row["classes"]) for row in table):
            found = [cells.get((preset, method, classes, "accuracy")) for preset in shown]
            ours = [f"{mean_and_error(row)}{mark(row, row['preset'])}" if row else "" for row in found]
            paper = next(row["paper"] for row in found if row)
            rows.append([f"{dataset}, {classes} classes, {NAMES[method]}", f"{float(paper):.3f}", *ours])
    page += [
        markdown(["", "paper", *map(title, shown)], rows),
        "![Accuracies of Table 1](results/figures/table1.png)\n",
    ]
    for name, table in (("Table 1", table1), ("Table 2", rows_of(results, "table2"))):
        for preset in PRESETS:
            own = [row for row in table if row["preset"] == preset]
            if own:
                above = sum(float(row["mean"]) > float(row["paper"]) for row in own)
                page.append(f"- {name}, preset {preset}: {above} of {len(own)} cells above the paper")
    page.append(
        "\n▼ marks what is worse than the paper or than its target. MNIST is one run: a standard error of about 0.001 "
        "for the MLP. The yardsticks' MLPs train on as many masked copies of the images as the presets', but for raw "
        "pixels, which take eight times the memory and have fewer copies.\n"
    )
    if measures := rows_of(results, "priors"):
        page += ["How well the prior holds on validation images:\n", prior_table(measures)]
    page.append("Precision, recall, deviations, hardware, commands: [results/README.md](results/README.md).\n")
    return "\n".join(page)


def rewrite_section(readme: Path, text: str) -> None:
    """Put ``text`` between the markers of a README; "" leaves it as it is.

    Raises:
        InputError: the markers are not there.
    """
    before = readme.read_text(encoding="utf-8")
    head, start, rest = before.partition(MARKERS[0])
    _, end, tail = rest.partition(MARKERS[1])
    if not start or not end:
        raise InputError(f"{readme}: has no section between {MARKERS[0]} and {MARKERS[1]}")
    after = f"{head}{start}\n{text}{end}{tail}"
    if text and after != before:
        atomic.write_text(readme, after)


def rows_of(results: Path, name: str) -> list[Row]:
    path = results / f"{name}.csv"
    return read(path) if path.exists() else []


def by_cell(table: list[Row]) -> dict[tuple, Row]:
    return {(row["preset"], row["method"], row["classes"], row["metric"]): row for row in table}


def mean_and_error(row: Row) -> str:
    """Mean and standard error over the draws; one draw has none."""
    mean, draws = float(row["mean"]), int(row["draws"])
    return f"{mean:.3f} ± {standard_error(float(row['std']), draws):.3f}" if draws > 1 else f"{mean:.3f}"


def mark(row: Row, preset: str) -> str:
    """The yardsticks mask nothing, or not by the paper's method: only the presets are held against it."""
    return " ▼" if preset in PRESETS and float(row["mean"]) < float(row["paper"]) else ""


def score_table(table: list[Row], preset: str) -> str:
    """All cells of one preset, each with the paper's beside it."""
    cells = by_cell([row for row in table if row["preset"] == preset])
    rows = []
    for method, classes in dict.fromkeys(key[1:3] for key in cells):
        line = [f"{NAMES[method]}, {classes} classes"]
        for metric in METRICS:
            row = cells[preset, method, classes, metric]
            deviation = f" ({float(row['std']):.3f})" if int(row["draws"]) > 1 else ""
            line += [f"{mean_and_error(row)}{deviation}{mark(row, preset)}", f"{float(row['paper']):.3f}"]
        rows.append(line)
    columns = [title(preset), *(name for metric in METRICS for name in (metric, "paper"))]
    return markdown(columns, rows) if rows else ""


def first_draws(runs: list[Row]) -> list[dict]:
    """Mean accuracies of the draws that presets and yardsticks share, from the table of runs."""
    values = {}
    for row in runs:
        if int(row["repeat"]) < FEWER_DRAWS:
            values.setdefault((row["preset"], row["method"], row["classes"]), []).append(float(row["accuracy"]))
    names = ("preset", "method", "classes", "metric", "mean", "std", "draws")
    return [
        dict(zip(names, (*cell, "accuracy", np.mean(scores), np.std(scores), len(scores)), strict=True))
        for cell, scores in values.items()
    ]


def kept_table(table: list[Row]) -> str:
    """Accuracy of every preset and yardstick, and what part of identity's it is."""
    cells = by_cell(table)
    presets = list(dict.fromkeys(row["preset"] for row in table))
    rows = []
    for method, classes in dict.fromkeys((row["method"], row["classes"]) for row in table):
        raw = cells.get(("identity", method, classes, "accuracy"))
        line = [f"{NAMES[method]}, {classes} classes"]
        for preset in presets:
            row = cells.get((preset, method, classes, "accuracy"))
            kept = f" ({float(row['mean']) / float(raw['mean']):.0%})" if row and raw else ""
            line.append(f"{mean_and_error(row)}{kept}" if row else "")
        rows.append(line)
    return markdown(["accuracy", *map(title, presets)], rows)


def error_table(table: list[Row]) -> str:
    """MSE of matched and unmatched pairs, beside the paper's."""
    cells = {(row["preset"], row["images"], row["pair"]): row for row in table}
    presets = list(dict.fromkeys(row["preset"] for row in table))
    rows = []
    for images, pair in dict.fromkeys((row["images"], row["pair"]) for row in table):
        found = [cells.get((preset, images, pair)) for preset in presets]
        paper = next((row for row in found if row and row["paper_mean"]), None)
        ours = []
        for row in found:
            missed = row and paper and pair == "matched" and float(row["mean"]) > float(paper["paper_mean"])
            figure = f"{float(row['mean']):.6f} ({float(row['std']):.6f})" if row else ""
            ours.append(f"{figure}{' ▼' if missed and row['preset'] in PRESETS else ''}")
        theirs = f"{float(paper['paper_mean']):.6f} ({float(paper['paper_std']):.6f})" if paper else ""
        rows.append([f"{images}, {pair}", *ours, theirs])
    return markdown(["MSE (deviation)", *map(title, presets), "paper"], rows)


def ratio_table(table: list[Row]) -> str:
    """How many times worse an unmatched decoder is."""
    mean = {(row["preset"], row["images"], row["pair"]): float(row["mean"]) for row in table}
    presets = [preset for preset in PRESETS if (preset, "train", "unmatched") in mean]
    rows = []
    for images, goal in RATIO_GOALS.items():
        ratios = [mean[preset, images, "unmatched"] / mean[preset, images, "matched"] for preset in presets]
        rows.append([images, *(f"{ratio:.1f}{'' if ratio >= goal else ' ▼'}" for ratio in ratios), f"{goal}"])
    return markdown(["unmatched / matched", *map(title, presets), "target"], rows)


def prior_table(table: list[Row]) -> str:
    values = {(row["preset"], row["measure"]): row for row in table}
    presets = list(dict.fromkeys(row["preset"] for row in table))
    rows = []
    for measure, (low, high) in PRIOR_GOALS.items():
        line = [measure]
        for preset in presets:
            value = float(values[preset, measure]["value"])
            missed = (low != "" and value < low) or (high != "" and value > high)
            line.append(f"{value:.3f}{' (missed)' if missed else ''}")
        goal = " to ".join(str(bound) for bound in (low, high) if bound != "")
        if low == "" and high != "":
            goal = f"at most {high}"
        elif high == "" and low != "":
            goal = f"at least {low}"
        rows.append([*line, goal])
    return markdown(["measure", *map(title, presets), "goal"], rows)


def plain_table(table: list[Row]) -> str:
    """A table as it is, numbers to four significant digits."""

    def short(text: str) -> str:
        try:
            return text if text.isdecimal() else f"{float(text):.4g}"
        except ValueError:
            return text

    return markdown([name.replace("_", " ") for name in table[0]], [map(short, row.values()) for row in table])


def duration(seconds: float) -> str:
    """Hours and minutes, or seconds where it is less than a minute."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
