"""``results/README.md``: every table and picture that is there, and what each shows."""

from pathlib import Path

from maskbench.models import DEFAULT_PRESET, PRESETS
from maskbench.reproduce.page_tables import (
    cells_above,
    error_table,
    kept_table,
    plain_table,
    prior_table,
    ratio_table,
    score_table,
)
from maskbench.reproduce.pictures import copied_pictures
from maskbench.reproduce.plan import FEWER_DRAWS, NOISE_REPORT
from maskbench.reproduce.summary import first_draws, saved_rows
from maskbench.reproduce.wording import duration
from maskbench.storage.tables import Row, markdown


def results_page(results: Path, machine: str, steps: list[Row]) -> str:
    """The page.

    Args:
        results: holds the tables, and the pictures in ``figures``.
        machine: hardware and versions, in one line.
        steps: name, command, seconds and commit of the finished steps.
    """
    parts = [
        *_introduction(machine),
        *_table1(results),
        *_table2(results),
        *_reconstruction(results),
        *_prior(results),
        *_prior_weights(results),
        *_beside_the_tables(results),
        *_pictures(results),
        *_steps(steps),
    ]
    return "\n".join(parts)


def _introduction(machine: str) -> list[str]:
    parts = [
        "# Results\n",
        "Made by `make reproduce`, which rewrites this page; `ablation*.csv`, `alignment.csv`, `forgetting.csv`, "
        "`gaussian.csv`, `links.csv`, `noise.csv`, `ops.md` and `speed.md` are by the scripts in `benchmarks/`, with "
        "`--save`; `trials_*.csv` and `gpu.md` were written down by hand. Accuracy, precision and recall are macro "
        "averages over classes, on test images; ± is the standard error of the mean over the draws, the standard "
        "deviation over the draws is in parentheses, ▼ marks what is worse than the paper's or than its target. The "
        "paper is Lis, Koryciński, Ciecierski, PLoS ONE 2021.\n",
    ]
    if machine:
        parts.append(f"Hardware and versions: {machine.strip()}.\n")
    return parts


def _table1(results: Path) -> list[str]:
    table = saved_rows(results, "table1")
    if not table:
        return []
    return [
        "## Table 1: CIFAR-100\n",
        *(score_table(table, preset) for preset in PRESETS),
        cells_above(table),
        f"Accuracy of masks and baselines, and what part of the raw pixels' (identity) it is, all over the first "
        f"{FEWER_DRAWS} draws; the baselines have no others. The MLPs also train on augmented copies of the "
        "images, of which identity has fewer, as pixels take eight times the memory of masks.\n",
        kept_table(first_draws(saved_rows(results, "table1_runs"))),
        "![Accuracies of Table 1](figures/table1.png)\n",
        "Every run: [table1_runs.csv](table1_runs.csv).\n",
    ]


def _table2(results: Path) -> list[str]:
    table = saved_rows(results, "table2")
    if not table:
        return []
    return [
        "## Table 2: MNIST\n",
        *(score_table(table, preset) for preset in PRESETS),
        cells_above(table),
        "All ten classes leave nothing to draw: ± is over encoders of different seeds, where there are several. "
        "The MLPs train for 20 epochs, also on copies of the images; identity has fewer of them.\n",
        kept_table(table),
    ]


def _reconstruction(results: Path) -> list[str]:
    table = saved_rows(results, "crosspair")
    if not table:
        return []
    return [
        "## Reconstruction\n",
        "Mean squared error of images rebuilt by the matching and by another decoder, its standard deviation over "
        "images in parentheses. Preset invariant is not meant to be rebuilt: a large error is its aim.\n",
        error_table(table),
        ratio_table(table),
    ]


def _prior(results: Path) -> list[str]:
    table = saved_rows(results, "priors")
    if not table:
        return []
    return [
        "## How well the prior holds\n",
        prior_table(table),
        "Of validation images, from the lowest to the highest of several instances. `mean` is the largest of a "
        "dimension, `deviation_min` and `deviation_max` are standard deviations, `logistic`, `mlp` and `length` the "
        "held-out accuracies of fresh classifiers that tell Gaussian parts from draws of N(0, I); 0.5 is chance, and "
        "the last is given nothing but the vector's length. The losses are means over the last epoch. A discriminator "
        "that cannot tell has 1.39, both together 2.77, and an encoder against both 1.39.\n",
    ]


def _prior_weights(results: Path) -> list[str]:
    """What changes with the prior's weight."""
    parts = []
    if table := saved_rows(results, "trade_off"):
        parts += ["## What the prior costs\n", plain_table(table), "![Trade-off](figures/trade_off.png)\n"]
        parts.append(
            "Preset paper, four epochs of 20,000 images. `--prior-weight` multiplies the encoder's step against the "
            "discriminators. At 0 there is no adversary: the whitening alone holds means, variances and correlations.\n"
        )
    return parts


def _beside_the_tables(results: Path) -> list[str]:
    """What lies in ``results`` and has no table here."""
    parts = []
    if (results / "audit.md").exists():
        page = (
            "The audit has a page of its own: [audit.md](audit.md). For the person who signs a release there is "
            f"release.html, and of masks in noise {NOISE_REPORT}.\n"
        )
        parts += ["## What masks leak\n", page]
    if (results / "weights").exists():
        pair = f"[weights](weights): instance 0 of preset {DEFAULT_PRESET}. Its key is public, it protects nobody.\n"
        parts += ["## Weights\n", pair]
    return parts


def _pictures(results: Path) -> list[str]:
    pictures = [
        f"- [{name}](figures/{name}): {caption}\n"
        for _, name, _, caption in copied_pictures(results)
        if (results / "figures" / name).exists()
    ]
    if not pictures:
        return []
    return [
        "## Pictures\n",
        "Numbered as in the paper. Its supplement (S1-S6) was not at hand: s1 to s4 are the remaining grids of "
        "pairs and curves.\n",
        "".join(pictures),
    ]


def _steps(steps: list[Row]) -> list[str]:
    if not steps:
        return []
    rows = [[row["name"], duration(float(row["seconds"])), row["commit"], f"`{row['command']}`"] for row in steps]
    total = duration(sum(float(row["seconds"]) for row in steps))
    return [
        "## Steps\n",
        markdown(["step", "duration", "commit", "command"], rows),
        f"{total} of steps, several of which ran side by side. A stopped step counts with all its starts but those "
        "that were killed.\n",
    ]
