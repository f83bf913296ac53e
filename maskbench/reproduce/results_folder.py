"""Write ``results/``: the tables, pictures and other outputs of the finished steps, and the page that shows them."""

from collections.abc import Collection
from pathlib import Path

from maskbench.models import DEFAULT_PRESET
from maskbench.reproduce import figures
from maskbench.reproduce.pages import results_page
from maskbench.reproduce.pictures import copied_pictures
from maskbench.reproduce.plan import NOISE_REPORT
from maskbench.reproduce.summary import COLUMNS, all_rows, saved_rows
from maskbench.storage import atomic
from maskbench.storage.tables import Row, write_csv

AUDIT = ("audit.csv", "frontier.csv", "audit.md", "release.html", NOISE_REPORT)  # beside its pictures
WEIGHTS = ("encoder.pt", "decoder.pt")  # of instance 0, for those who do not want to train
DRAWN = {
    "table1": figures.draw_accuracies,
    "trade_off": figures.draw_trade_off,
}


def write_results(runs: Path, results: Path, finished: Collection[str], steps: list[Row]) -> None:
    """Write what the finished steps give; what they do not give is removed, but for weights.

    Args:
        runs: where the steps left their outputs.
        results: tables go here, pictures to ``figures`` in it.
        finished: names of the finished steps.
        steps: name, command, seconds and commit of the finished steps.
    """
    atomic.make_folder(results)
    atomic.make_folder(results / "figures")
    for name, rows in all_rows(runs, finished).items():
        if rows:
            write_csv(results / f"{name}.csv", COLUMNS[name], rows)
        else:
            (results / f"{name}.csv").unlink(missing_ok=True)
    _write_pictures(runs, results, finished)
    if f"train {DEFAULT_PRESET}" in finished:
        atomic.make_folder(results / "weights")
        for name in WEIGHTS:
            _copy(runs / DEFAULT_PRESET / "aae" / "0" / name, results / "weights" / name)
    for name in AUDIT:
        if "audit" in finished:
            _copy(runs / "audit" / name, results / name)
        else:
            (results / name).unlink(missing_ok=True)
    machine = runs / "machine.txt"
    described = machine.read_text() if machine.exists() else ""
    atomic.write_text(results / "README.md", results_page(results, described, steps))


def _write_pictures(runs: Path, results: Path, finished: Collection[str]) -> None:
    """Copy what the scripts drew, and draw the tables."""
    folder = results / "figures"
    written = set()
    for step, name, source, _ in copied_pictures(runs):
        if step in finished and source.exists():  # one that could not be drawn was left out
            _copy(source, folder / name)
            written.add(folder / name)
    for name, draw in DRAWN.items():
        if table := saved_rows(results, name):
            draw(table, folder / f"{name}.png")
            written.add(folder / f"{name}.png")
    for old in set(folder.glob("*.png")) - written:
        old.unlink()


def _copy(source: Path, path: Path) -> None:
    with atomic.writing(path) as file:
        file.write(source.read_bytes())
