"""Write ``results/``: the tables and pictures of the finished steps."""

from collections.abc import Callable, Collection
from pathlib import Path

from maskbench.reproduce import figures
from maskbench.reproduce.pages import results_page
from maskbench.reproduce.pictures import copied_pictures
from maskbench.reproduce.summary import (
    COLUMNS,
    PRESETS,
    classification,
    estimators,
    every_run,
    image_sizes,
    latent_sizes,
    priors,
    reconstruction,
    trade_off,
)
from maskbench.storage import atomic
from maskbench.storage.tables import Row, read, write_csv

AUDIT = ("audit.csv", "frontier.csv", "audit.md")  # beside its pictures
WEIGHTS = ("encoder.pt", "decoder.pt")  # of instance 0, for those who do not want to train


def collate(runs: Path, results: Path, finished: Collection[str], steps: list[Row]) -> None:
    """Write the tables and pictures of the finished steps, and ``README.md`` that shows them.

    Args:
        runs: where the steps left their outputs.
        results: tables go here, pictures to ``figures`` in it.
        finished: names of the finished steps.
        steps: name, command, seconds and commit of the finished steps.
    """
    pictures = results / "figures"
    atomic.make_folder(results)
    atomic.make_folder(pictures)
    rows_of = {
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
    for name, rows in rows_of.items():
        if rows:
            write_csv(results / f"{name}.csv", COLUMNS[name], rows)
        else:
            (results / f"{name}.csv").unlink(missing_ok=True)

    copies = {name: source for step, name, source, _ in copied_pictures(runs) if step in finished}
    for name, source in copies.items():
        _copy(source, pictures / name)
    if f"train {PRESETS[0]}" in finished:
        atomic.make_folder(results / "weights")
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
    drawn = {f"{name}.png": draw for name, draw in drawn.items() if rows_of[name]}
    for name, draw in drawn.items():
        draw(read(results / name.replace(".png", ".csv")), pictures / name)
    for old in set(pictures.glob("*.png")) - {pictures / name for name in (*copies, *drawn)}:
        old.unlink()
    machine = runs / "machine.txt"
    described = machine.read_text() if machine.exists() else ""
    atomic.write_text(results / "README.md", results_page(results, described, steps))


def _copy(source: Path, path: Path) -> None:
    with atomic.writing(path) as file:
        file.write(source.read_bytes())
