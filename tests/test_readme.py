"""The documentation is true: the README's Python runs, links lead somewhere, and the tests that pages name exist."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def test_the_readmes_python_runs(workplace, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(workplace)  # where masked/digits.pt is
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    data, X, y, forest, loader = (names[name] for name in ("data", "X", "y", "forest", "loader"))
    assert X.dtype == np.float32 and X.shape == (len(y), 404) and y.dtype == np.int64
    for part in ("validation", "test"):
        others, labels = data.numpy(part)
        assert others.shape == (len(labels), 404) and len(labels)
    assert forest.score(X, y) > 0.9 and forest.predict(others).shape == labels.shape
    vectors, labels = next(iter(loader))
    assert vectors.shape == (4, 404) and vectors.dtype == torch.float32
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
