"""The results in the main README: one table between two markers."""

from pathlib import Path

from maskbench.classification.scores import NAMES
from maskbench.errors import InputError
from maskbench.models import PRESETS
from maskbench.reproduce.page_tables import below_paper, by_cell
from maskbench.reproduce.summary import saved_rows
from maskbench.reproduce.wording import mean_and_error, title, worse
from maskbench.storage import atomic
from maskbench.storage.tables import Row, markdown

MARKERS = ("<!-- results -->", "<!-- /results -->")
SHOWN_ERRORS = {  # of all pairs and sets of images, the ones that tell most
    ("validation", "matched"): "MSE of validation images, matching decoder",
    ("validation", "unmatched"): "MSE of validation images, another decoder",
    ("patterns", "matched"): "MSE of test patterns, matching decoder",
}


def readme_section(results: Path) -> str:
    """What the README shows of the tables in ``results``; "" without Table 1."""
    table1, table2, crosspair = (saved_rows(results, name) for name in ("table1", "table2", "crosspair"))
    presets = [preset for preset in PRESETS if any(row["preset"] == preset for row in table1)]
    if not presets:
        return ""
    rows = [
        *_accuracy_lines(table1, presets, "CIFAR-100"),
        *_accuracy_lines(table2, presets, "MNIST"),
        *_error_lines(crosspair, presets),
    ]
    note = (
        "Accuracies are means ± standard errors over draws of the classes, of MNIST over encoders. "
        "▼ is worse than the paper. Preset `invariant` is meant not to rebuild pictures: its MSE is not marked. "
        "[results/README.md](results/README.md) has the rest: baselines, precision, recall, the prior, "
        "hardware, commands.\n"
    )
    return "\n".join([markdown(["", "paper", *map(title, presets)], rows), note])


def _accuracy_lines(table: list[Row], presets: list[str], dataset: str) -> list[list[str]]:
    cells = by_cell(table)
    lines = []
    for method, classes in dict.fromkeys((row["method"], row["classes"]) for row in table):
        found = [cells.get((preset, method, classes, "accuracy")) for preset in presets]
        if any(found):
            paper = next(row["paper"] for row in found if row)
            ours = [f"{mean_and_error(row)}{worse(below_paper(row))}" if row else "" for row in found]
            lines.append([f"{dataset}, {classes} classes, {NAMES[method]}", f"{float(paper):.3f}", *ours])
    return lines


def _error_lines(table: list[Row], presets: list[str]) -> list[list[str]]:
    cells = {(row["preset"], row["images"], row["pair"]): row for row in table}
    lines = []
    for (images, pair), name in SHOWN_ERRORS.items():
        found = [cells.get((preset, images, pair)) for preset in presets]
        if any(found):
            paper = next(float(row["paper_mean"]) for row in found if row)
            ours = [_error(row, paper, pair) if row else "" for row in found]
            lines.append([name, f"{paper:.4f}", *ours])
    return lines


def _error(row: Row, paper: float, pair: str) -> str:
    """Of preset paper, a matching decoder is to err less than the paper's, another one more."""
    mean = float(row["mean"])
    missed = mean > paper if pair == "matched" else mean < paper
    return f"{mean:.4f}{worse(missed and row['preset'] == 'paper')}"


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
