"""The reproduction's runs as the tables, pictures and pages of ``results/``.

Only finished steps count: a table none of whose steps has run is left out, and removed where an earlier collation
wrote it. The pages show what the tables hold and nothing else.
"""

import csv
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from maskbench import figures, files
from maskbench.errors import InputError
from maskbench.metrics import standard_error

PRESETS = ("maskbench", "paper")
YARDSTICKS = ("identity", "pca", "random-projection", "untrained")
METRICS = ("accuracy", "precision", "recall")
ESTIMATORS = (100, 200, 400)
GAUSSIAN_DIMS = (96, 192, 384, 768)
IMAGE_SIZES = (32, 64, 96)
PRIOR_WEIGHTS = (0, 1, 10, 100)
FEWER_DRAWS = 5  # of the yardsticks and what else stands beside Table 1: its first five draws
NUMBERS = 404  # in a mask: 384 + 20

# accuracy, precision, recall in the paper's Tables 1 and 2
PAPER = {
    ("mlp", 2): (0.852, 0.855, 0.851),
    ("mlp", 3): (0.804, 0.805, 0.804),
    ("mlp", 4): (0.769, 0.771, 0.769),
    ("forest", 2): (0.822, 0.822, 0.823),
    ("forest", 3): (0.625, 0.748, 0.626),
    ("forest", 4): (0.435, 0.746, 0.428),
    ("adaboost", 2): (0.804, 0.805, 0.804),
    ("adaboost", 3): (0.660, 0.670, 0.659),
    ("adaboost", 4): (0.592, 0.600, 0.592),
    ("mlp", 10): (0.983, 0.983, 0.983),  # MNIST
    ("forest", 10): (0.672, 0.920, 0.666),
    ("adaboost", 10): (0.689, 0.685, 0.684),
}
# how many times worse an unmatched decoder is to be at least
RATIO_GOALS = {"patterns": 172, "train": 31.5, "validation": 31.5}
# lowest and highest value that is good, see maskbench.metrics
PRIOR_GOALS = {
    "mean": ("", 0.1),
    "deviation_min": (0.9, ""),
    "deviation_max": ("", 1.1),
    "kurtosis": (2.7, 3.3),
    "correlation": ("", 0.1),
    "category_min": (0.02, ""),
    "category_max": ("", 0.1),
    "logistic": ("", ""),
    "mlp": ("", 0.6),
}
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
AUDIT = ("audit.csv", "frontier.csv", "audit.md")  # beside its pictures
WEIGHTS = ("encoder.pt", "decoder.pt")  # of instance 0, for those who do not want to train
NAMES = {"mlp": "MLP", "forest": "random forest", "adaboost": "AdaBoost"}
MARKERS = ("<!-- results -->", "<!-- /results -->")
_PATTERNS = ("checkers", "rings", "cross")
_IMAGES = range(3)

Row = dict[str, str]


def collate(runs: Path, results: Path, finished: Collection[str], steps: list[Row]) -> None:
    """Write the tables and pictures of the finished steps, and ``README.md`` that shows them.

    Args:
        runs: where the steps left their outputs.
        results: tables go here, pictures to ``figures`` in it.
        finished: names of the finished steps.
        steps: name, command, seconds and commit of the finished steps.
    """
    pictures = results / "figures"
    files.make_folder(results)
    files.make_folder(pictures)
    tables = {
        "table1": classification(runs, finished, "cifar100"),
        "table2": classification(runs, finished, "mnist"),
        "table1_runs": every_run(runs, finished),
        "crosspair": reconstruction(runs, finished),
        "priors": priors(runs, finished),
        "estimators": estimators(runs, finished),
        "latent_sizes": latent_sizes(runs, finished),
        "image_sizes": image_sizes(runs, finished),
        "trade_off": trade_off(runs, finished),
    }
    for name, rows in tables.items():
        if rows:
            files.write_csv(results / f"{name}.csv", COLUMNS[name], rows)
        else:
            (results / f"{name}.csv").unlink(missing_ok=True)

    copies = {name: source for step, name, source, _ in copied_pictures(runs) if step in finished}
    for name, source in copies.items():
        _copy(source, pictures / name)
    if f"train {PRESETS[0]}" in finished:
        files.make_folder(results / "weights")
        for name in WEIGHTS:
            _copy(runs / PRESETS[0] / "aae" / "0" / name, results / "weights" / name)
    for name in AUDIT:
        if "audit" in finished:
            _copy(runs / "audit" / name, results / name)
        else:
            (results / name).unlink(missing_ok=True)
    drawn: dict[str, Callable] = {
        "table1": figures.accuracies,
        "latent_sizes": figures.latent_sizes,
        "trade_off": figures.trade_off,
    }
    drawn = {f"{name}.png": draw for name, draw in drawn.items() if tables[name]}
    for name, draw in drawn.items():
        draw(read(results / name.replace(".png", ".csv")), pictures / name)
    for old in set(pictures.glob("*.png")) - {pictures / name for name in (*copies, *drawn)}:
        old.unlink()
    machine = runs / "machine.txt"
    described = machine.read_text() if machine.exists() else ""
    files.write_text(results / "README.md", results_page(results, described, steps))


def _copy(source: Path, path: Path) -> None:
    with files.writing(path) as file:
        file.write(source.read_bytes())


def read(path: Path) -> list[Row]:
    """Rows of a CSV file by column name.

    Raises:
        InputError: it is missing or not a table.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, though its step is finished; delete its row in steps.csv") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: damaged ({error}); delete it and its row in steps.csv") from None
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: damaged (rows of different lengths); delete it and its row in steps.csv")
    return rows


def classification(runs: Path, finished: Collection[str], dataset: str) -> list[list]:
    """Table 1 (cifar100) or 2 (mnist) of every preset, with the paper's value in each cell."""
    return [
        [preset, *row.values(), PAPER[row["method"], int(row["classes"])][METRICS.index(row["metric"])]]
        for preset in (*PRESETS, *YARDSTICKS)
        if f"classify {preset} {dataset}" in finished
        for row in read(runs / preset / f"classify-{dataset}" / f"{dataset}.csv")
    ]


def every_run(runs: Path, finished: Collection[str]) -> list[list]:
    return [
        [preset, *(row[column] for column in COLUMNS["table1_runs"][1:])]
        for preset in (*PRESETS, *YARDSTICKS)
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


def copied_pictures(runs: Path) -> list[tuple[str, str, Path, str]]:
    """Pictures that the scripts drew: (step, name in ``figures``, source, what it shows)."""
    pictures = []

    def add(step: str, name: str, source: Path, caption: str) -> None:
        pictures.append((step, f"{name}.png", source, caption))

    for preset in PRESETS:
        folder = runs / preset
        aae, curves = folder / "aae" / "0", "the MLP's training curves"
        add(
            f"train {preset}",
            f"fig1-reconstructions-{preset}",
            aae / "reconstructions.png",
            "images, their masks and reconstructions",
        )
        add(f"train {preset}", f"fig5-7-losses-{preset}", aae / "losses.png", "the losses of training")
        # our own preset stands for the paper's figures, the other one's follow under s1, s2
        pattern, image = ("fig8", "fig9") if preset == "maskbench" else ("s1", "s2")
        for name in _PATTERNS:
            source = folder / "crosspair" / f"grid-pattern-{name}.png"
            caption = f"test pattern {name} through every pair"
            add(f"crosspair {preset}", f"{pattern}-pattern-{name}-{preset}", source, caption)
        for number in _IMAGES:
            source = folder / "crosspair" / f"grid-image-{number}.png"
            caption = f"validation image {number} through every pair"
            add(f"crosspair {preset}", f"{image}-image-{number}-{preset}", source, caption)
        name = "fig10-11" if preset == "maskbench" else "s3"
        source = folder / "classify-cifar100" / "cifar100-curves.png"
        add(f"classify {preset} cifar100", f"{name}-curves-{preset}", source, f"{curves}, CIFAR-100")
        source = folder / "classify-mnist" / "mnist-curves.png"
        add(f"classify {preset} mnist", f"s4-curves-mnist-{preset}", source, f"{curves}, MNIST")
        source = folder / "prior" / "prior-fit.png"
        add(f"prior {preset}", f"prior-fit-{preset}", source, "validation images' codes beside the prior")
        source = folder / "prior" / "prior-samples.png"
        add(f"prior {preset}", f"prior-samples-{preset}", source, "images decoded from draws of the prior")
    audit = {
        "attacks": "what attacks make of masks",
        "leakage": "SSIM and re-identification against known pairs",
        "frontier": "accuracy against leakage",
    }
    for name, caption in audit.items():
        add("audit", f"audit-{name}", runs / "audit" / "figures" / f"audit-{name}.png", caption)
    return pictures


def markdown(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A Markdown table, columns of numbers to the right."""
    rows = [list(map(str, row)) for row in rows]
    numbers = [any(row[column][:1].isdecimal() for row in rows) for column in range(len(columns))]
    rule = ["---:" if right else "---" for right in numbers]
    return "\n".join("| " + " | ".join(line) + " |" for line in (columns, rule, *rows)) + "\n"


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
    shown = [preset for preset in (*PRESETS, *YARDSTICKS) if any(row["preset"] == preset for row in table1)]
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
        files.write_text(readme, after)


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
