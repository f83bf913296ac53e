"""What becomes of a reproduction's finished runs: tables, pages, pictures."""

import csv
import os
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from matplotlib import image

import classify
from maskbench.errors import InputError
from maskbench.masking import BASELINES
from maskbench.models import DEFAULT_PRESET, PRESETS, Decoder, checkpoints, evaluation
from maskbench.reproduce import (
    __main__,
    figures,
    paper,
    plan,
    prior_figures,
    readme,
    results_folder,
    summary,
)
from maskbench.reproduce.pictures import copied_pictures
from maskbench.storage import tables
from maskbench.training.journal import COLUMNS

SCORES = ("method", "classes", "metric", "mean", "std", "draws")
RUNS = ("masked", "method", "classes", "repeat", *paper.METRICS, "train_rows", "test_rows", "seconds", "class_names")
PAIRS = ("images", "pair", "mean", "std", "paper_mean", "paper_std")


def write(path: Path, columns: tuple, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_csv(path, columns, rows)


@pytest.fixture(scope="module")
def collated(tmp_path_factory) -> tuple[Path, Path, set[str]]:
    """Made-up runs of every step: (runs, results, names of the steps)."""
    runs, results = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("results")
    presets = (*PRESETS, *BASELINES)
    for number, preset in enumerate(presets):
        encoders = {"invariant": 2, "paper": 4}.get(preset, 1)
        digits = (
            [plan.digits_folder(runs, preset, i) for i in range(encoders)] if preset in PRESETS else [runs / preset]
        )
        # the encoders differ by 0.02, about the same mean
        shifts = [0.02 * i - 0.01 * (encoders - 1) for i in range(encoders)]
        folders = [(runs / preset, "cifar100", (2, 3, 4), 25, 0)]
        folders += [(folder, "mnist", (10,), 1, shift) for folder, shift in zip(digits, shifts, strict=True)]
        for folder, dataset, counts, draws, shift in folders:
            cells = [(method, count) for method in classify.CLASSIFIERS for count in counts]
            # preset invariant is above the paper, preset paper below
            scores = [
                [*cell, metric, round(theirs + 0.01 - 0.02 * number + shift, 4), 0.05 * (draws > 1), draws]
                for cell in cells
                for metric, theirs in zip(paper.METRICS, paper.SCORES[dataset][cell], strict=True)
            ]
            write(folder / f"classify-{dataset}" / f"{dataset}.csv", SCORES, scores)
            # a run's accuracy is its number / 10: the first ten have mean 0.45
            raw = 2 if preset == "identity" else 1
            rows = [["x.pt", *cell, i, i / 10 / raw, 0, 0, 1, 2, 0.5, "a b"] for cell in cells for i in range(12)]
            write(folder / f"classify-{dataset}" / f"{dataset}-runs.csv", RUNS, rows)
    for preset in (*PRESETS, "pca"):
        pairs = [[images, "matched", 0.002, 0.001, 0.0035, 0.0007] for images in paper.RATIO_GOALS]
        if preset != "pca":
            pairs += [[images, "unmatched", 0.1, 0.01, 0.11, 0.01] for images in paper.RATIO_GOALS]
        write(runs / preset / "crosspair" / "crosspair.csv", PAIRS, pairs)
    measures = dict(
        zip(
            paper.PRIOR_GOALS,
            (0.05, 0.95, 1.05, 3.5, 0.01, 0.04, 0.06, 0.51, 0.57, 0.6, 1.2, 1.3, 2.5, 1.9),
            strict=True,
        )
    )
    for folder in (*PRESETS, *(f"prior-{weight}" for weight in plan.PRIOR_WEIGHTS)):
        rows = [(0, *measure) for measure in measures.items()]
        if folder == "paper":  # the second instance loses a category
            rows += [(1, name, 0.019 if name == "category_min" else value) for _, name, value in rows]
        write(runs / folder / "prior" / "prior.csv", ("instance", "measure", "value"), rows)
    for folder in (*PRESETS, *(f"prior-{weight}" for weight in plan.PRIOR_WEIGHTS)):
        history = [[1, 0, 0, 0, 0, 0, 0.004, 500, 0], [2, 0, 0, 0, 0, 0, 0.003, 510, 0]]
        write(runs / folder / "aae" / "0" / "metrics.csv", COLUMNS, history)
    steps = plan.make_plan(runs, Path("data"), draws=25, instances=4)
    for step, name, source, _ in copied_pictures(runs):
        assert step in {step.name for step in steps}
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(name)
    for name in results_folder.WEIGHTS:
        (runs / DEFAULT_PRESET / "aae" / "0" / name).write_text(name)
    (runs / "audit").mkdir(exist_ok=True)
    for name in results_folder.AUDIT:
        (runs / "audit" / name).write_text(name)
    rows = [{"name": step.name, "command": step.command, "seconds": "90", "commit": "0" * 12} for step in steps]
    names = {step.name for step in steps}
    results_folder.write_results(runs, results, names, rows)
    return runs, results, names


def table(results: Path, name: str) -> list[list[str]]:
    with open(results / f"{name}.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == summary.COLUMNS[name]
    return rows


def test_tables_hold_what_the_runs_do(collated):
    _, results, _ = collated
    table1 = table(results, "table1")
    assert len(table1) == 6 * 27 and len(table(results, "table2")) == 6 * 9
    assert ["invariant", "forest", "4", "precision", "0.756", "0.05", "25", "0.746"] in table1
    assert ["identity", "mlp", "10", "recall", "0.953", "0.0", "1", "0.983"] in table(results, "table2")
    digits = next(row for row in table(results, "table2") if row[:4] == ["paper", "mlp", "10", "recall"])
    assert [float(cell) for cell in digits[4:]] == pytest.approx([0.973, 0.01 * 5**0.5, 4, 0.983])  # of four encoders
    runs = table(results, "table1_runs")
    assert len(runs) == 6 * 9 * 12
    assert runs[3] == ["invariant", "mlp", "2", "3", "0.3", "0", "0", "1", "2", "0.5", "a b"]
    pairs = table(results, "crosspair")
    assert ["paper", "train", "unmatched", "0.1", "0.01", "0.11", "0.01"] in pairs
    assert [row[1:3] for row in pairs if row[0] == "pca"] == [[images, "matched"] for images in paper.RATIO_GOALS]
    priors = table(results, "priors")
    assert ["invariant", "0", "kurtosis", "3.5", "2.7", "3.3"] in priors
    assert ["paper", "1", "category_min", "0.019", "0.02", ""] in priors
    assert table(results, "trade_off")[0][:3] == ["0", "0.003", "0.05"] and len(table(results, "trade_off")) == 4


def test_pages_say_what_is_missed(collated):
    _, results, _ = collated
    page = (results / "README.md").read_text()
    # 0.05 / sqrt(24) = 0.01
    assert "| random forest, 3 classes | 0.635 ± 0.010 (0.050) | 0.625 |" in page  # preset invariant, above
    assert "| random forest, 3 classes | 0.615 ± 0.010 (0.050) ▼ | 0.625 |" in page  # preset paper, below
    assert "| AdaBoost, 10 classes | 0.699 ± 0.010 (0.010) | 0.689 |" in page  # of two encoders
    # the same five draws of both, not all 25: 0.2 / 0.1, 0.141 / sqrt(4)
    assert "0.200 ± 0.071 (200%)" in page and "0.100 ± 0.035 (100%)" in page
    assert "| patterns | 50.0 ▼ | 172 |" in page and "| train | 50.0 | 31.5 |" in page
    assert "| kurtosis | 3.500 ▼ | 3.500 ▼ | 2.7 to 3.3 |" in page
    assert "| category_min | 0.040 | 0.019 to 0.040 ▼ | at least 0.02 |" in page  # one of two instances
    assert "| mlp | 0.570 | 0.570 | at most 0.65 |" in page
    assert "`python crosspair.py --models" in page and "| 2 min |" in page
    for picture in page.split("(figures/")[1:]:
        assert (results / "figures" / picture.split(")")[0]).exists()
    assert "preset invariant: 27 of 27 cells" in page and "preset paper: 0 of 27 cells" in page
    assert "preset invariant: 9 of 9 cells" in page and "preset paper: 0 of 9 cells" in page
    # baselines are not held against the paper: identity, the third, is below it without a mark
    assert "| random forest, 10 classes | 0.682 ± 0.010 (106%) | 0.662 ± 0.013 (103%) | 0.642 (100%) |" in page


def test_the_readme_section_is_one_short_table(collated):
    section = readme.readme_section(collated[1])
    assert "| CIFAR-100, 3 classes, random forest | 0.625 | 0.635 ± 0.010 | 0.615 ± 0.010 ▼ |\n" in section
    assert "| MNIST, 10 classes, AdaBoost | 0.689 | 0.699 ± 0.010 | 0.679 ± 0.013 ▼ |\n" in section
    assert "| MSE of test patterns, matching decoder | 0.0035 | 0.0020 | 0.0020 |\n" in section
    assert "| MSE of validation images, another decoder | 0.1100 | 0.1000 | 0.1000 ▼ |\n" in section
    assert section.count("\n| --- ") == 1 and len(section.splitlines()) == 2 + 12 + 3 + 2
    assert "(results/README.md)" in section.splitlines()[-1]


def test_steps_that_have_not_run_leave_no_table(collated, tmp_path):
    runs, results, _ = collated
    for name in results.glob("*.csv"):
        (tmp_path / name.name).write_bytes(name.read_bytes())
    results_folder.write_results(runs, tmp_path, {"classify paper cifar100", "crosspair paper"}, [])
    assert {path.stem for path in tmp_path.glob("*.csv")} == {"table1", "table1_runs", "crosspair"}
    assert {row[0] for row in table(tmp_path, "table1")} == {"paper"}
    pictures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert pictures > {"table1.png", "fig8-pattern-rings-paper.png"} and "trade_off.png" not in pictures
    assert "preset invariant" not in readme.readme_section(tmp_path)
    results_folder.write_results(runs, tmp_path, set(), [])
    assert not list(tmp_path.glob("*.csv")) and not list((tmp_path / "figures").iterdir())
    assert readme.readme_section(tmp_path) == ""


def test_weights_are_those_of_the_first_instance(collated):
    assert [(collated[1] / "weights" / name).read_text() for name in results_folder.WEIGHTS] == list(
        results_folder.WEIGHTS
    )


def test_the_committed_pair_belongs_together():
    folder = ROOT / "results" / "weights"
    if not folder.exists():
        pytest.skip("results/weights is not there")
    encoder, _, _ = checkpoints.load_pair(folder)
    assert encoder.config["preset"] == DEFAULT_PRESET
    assert encoder.config["gaussian_dim"] == PRESETS[DEFAULT_PRESET]["gaussian_dim"]
    numbers = encoder.config["gaussian_dim"] + encoder.config["categories"]
    assert f"float32 [N, {numbers}]" in (ROOT / "README.md").read_text()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6


def test_nothing_is_collated_from_nothing(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table1.csv").write_text("kept")
    flags = ["--collate", "--runs", tmp_path / "none", "--results", tmp_path / "results"]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, flags)])
    with pytest.raises(InputError, match="holds no finished step"):
        __main__.main()
    assert (tmp_path / "results" / "table1.csv").read_text() == "kept"


def test_only_the_marked_section_is_rewritten(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    for text, inside in (("", "old\n"), ("| new |\n", "| new |\n"), ("| new |\n", "| new |\n")):
        readme.rewrite_section(path, text)
        assert path.read_text() == f"before\n<!-- results -->\n{inside}<!-- /results -->\nafter\n"
    path.write_text("no markers")
    with pytest.raises(InputError, match="no section"):
        readme.rewrite_section(path, "new")


@pytest.mark.skipif(not (ROOT / "results" / "table1.csv").exists(), reason="nothing was reproduced yet")
def test_the_readme_shows_what_results_holds():
    section = (ROOT / "README.md").read_text().split(readme.MARKERS[0])[1].split(readme.MARKERS[1])[0]
    assert section == "\n" + readme.readme_section(ROOT / "results")


def test_codes_told_from_the_prior():
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(1200, 8, generator=generator)
    chance, known = (0.45, 0.55), (0.85, 1)
    for codes, logistic, mlp, length in (
        (normal.sign(), chance, (0.9, 1), known),  # means and standard deviations are the same
        (8**0.5 * torch.nn.functional.normalize(normal), chance, (0.5, 1), known),  # all of one length
        (normal + 1, known, known, (0.55, 0.85)),
        (normal, chance, chance, chance),
    ):
        told = evaluation.told_from_prior(codes)
        for name, (low, high) in {"logistic": logistic, "mlp": mlp, "length": length}.items():
            assert low < told[name] <= high, (name, told)
    first, second = (evaluation.told_from_prior(normal[:400]) for _ in range(2))
    assert first == second


def test_pictures_are_drawn(collated, tmp_path):
    assert set(figures.COLUMN_STYLES) == {*PRESETS, *BASELINES}
    assert figures.column_style("a new method")["label"] == "a new method"
    _, results, _ = collated
    prior_figures.draw_prior_fit(torch.randn(500, 16), torch.rand(500, 20).softmax(1), tmp_path / "prior-fit.png")
    prior_figures.draw_prior_samples(Decoder(gaussian_dim=16).eval(), tmp_path / "prior-samples.png", rows=2, columns=3)
    drawn = [results / "figures" / f"{name}.png" for name in ("table1", "trade_off")]
    for path in (*drawn, *tmp_path.iterdir()):
        assert image.imread(path).std() > 0.05, path
        assert os.path.getsize(path) < 200_000
