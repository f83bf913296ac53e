"""The documentation is true: the README's Python runs, links lead somewhere, and the tests that pages name exist."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import maskbench
from maskbench import masking
from maskbench.data import datasets

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def test_the_readmes_python_runs(workplace, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(workplace)  # where masked/digits.pt is
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    data, X, y, forest, loader = (names[name] for name in ("data", "X", "y", "forest", "loader"))
    assert X.dtype == np.float32 and X.shape == (len(y), data.width) and y.dtype == np.int64
    for part in ("validation", "test"):
        others, labels = data.numpy(part)
        assert others.shape == (len(labels), data.width) and len(labels)
    assert forest.score(X, y) > 0.9 and forest.predict(others).shape == labels.shape
    vectors, labels = next(iter(loader))
    assert vectors.shape == (4, data.width) and vectors.dtype == torch.float32
    assert labels.shape == (4,) and labels.dtype == torch.int64
    assert len(loader.dataset) == len(y)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for target in targets:
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_tests_that_guarantee_exist():
    there = "".join(file.read_text() for file in (ROOT / "tests").glob("*.py"))
    page = (ROOT / "docs/guarantees.md").read_text()
    named = re.findall(r"`(test_\w+)`", page)
    assert named
    for name in named:
        assert f"def {name}(" in there, name
    for file in re.findall(r"`(test_\w+\.py)`", page):
        assert (ROOT / "tests" / file).exists(), file


def blocks_of_extending() -> dict[str, str]:
    """The files that docs/extending.md writes out, by name."""
    page = (ROOT / "docs/extending.md").read_text()
    return dict(re.findall(r"^`([\w/]+\.py)`[^\n]*(?:\n[^\n`]+)*\n\n```py\n(.*?)```", page, re.MULTILINE | re.DOTALL))


def module_of(name: str, monkeypatch) -> types.ModuleType:
    """One of these files as the module that it would be."""
    dotted = name.removesuffix(".py").replace("/", ".")
    module = types.ModuleType(dotted)
    exec(compile(blocks_of_extending()[name], name, "exec"), vars(module))
    monkeypatch.setitem(sys.modules, dotted, module)
    return module


def test_the_pages_masking_method_is_one_file_and_one_line(run_here, tmp_path, monkeypatch):
    method = module_of("maskbench/masking/block_means.py", monkeypatch).BlockMeans
    monkeypatch.setitem(masking.METHODS, "block-means", method.make)
    run_here("mask_dataset.py", "--dataset", "digits", "--method", "block-means")
    data = maskbench.load(tmp_path / "masked" / "digits-block-means.pt")
    assert data.method == "block-means" and data.gaussian.shape == (1797, 192)
    made = maskbench.make("block-means", maskbench.Recipe(public=lambda: None))
    assert made.rebuild(*made.encode(torch.rand(2, 3, 32, 32))).shape == (2, 3, 32, 32)


def test_the_pages_attack_passes_the_pages_test(monkeypatch):
    module_of("maskbench/leakage/attacks/nearest.py", monkeypatch)
    module_of("tests/test_nearest.py", monkeypatch).test_an_image_that_is_known_three_times_is_found()


def test_the_pages_dataset_loads(monkeypatch):
    stripes = module_of("maskbench/data/stripes.py", monkeypatch).stripes
    monkeypatch.setitem(datasets.LOADERS, "stripes", lambda _, image_size: stripes(image_size))
    images = datasets.load("stripes", image_size=16)
    assert images.images.shape == (1000, 3, 16, 16) and images.classes == ["upright", "level"]
