"""Imports go one way, and reading pictures or masked files loads no kernels."""

import ast
from pathlib import Path

import pytest
from conftest import Forked

import maskbench

PACKAGE = Path(maskbench.__file__).parent
SCRIPTS = {"train_aae", "mask_dataset", "classify", "crosspair"}
# a package imports from those of lower rows only; those of one row do not know each other
ROWS = (
    ("errors", "system"),
    ("storage",),
    ("ops", "runtime"),
    ("data",),
    ("models",),
    ("classification", "masking", "training"),
    ("leakage",),
    ("reproduce",),
    ("__main__", "datasets", "inspect", "key", "reference"),  # commands and names for users
)
RANK = {name: row for row, names in enumerate(ROWS) for name in names}


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports anywhere, from the first dot on."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_package_has_its_place_and_says_what_it_is_for():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "__pycache__"} == set(RANK)
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("name", RANK)
def test_imports_go_down(name):
    place = PACKAGE / name
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
        for module in imported(path):
            first, *rest = module.split(".")
            assert first not in SCRIPTS, f"{path} imports a script"
            if first != "maskbench" or rest[0] in (name, "_C", "__version__"):
                continue
            assert RANK[rest[0]] < RANK[name], f"{path} imports {module}"


def test_the_smallest_rooms_load_without_torch_being_extended():
    """Pictures and masked files are read, and the command line parsed, without the compiled kernels."""
    code = (
        "import sys\n"
        "for name in [*sys.modules]:\n"
        "    if name.startswith('sklearn'): del sys.modules[name]\n"  # which every forked process has
        "import maskbench\n"
        "import maskbench.data.datasets, maskbench.data.masked_set, maskbench.runtime.command_line\n"
        "maskbench.load, maskbench.MaskedDataset\n"
        "assert 'maskbench._C' not in sys.modules and 'maskbench.ops' not in sys.modules\n"
        "import train_aae, mask_dataset, classify, crosspair\n"  # --help and mistakes wait for neither
        "assert 'sklearn' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    done = Forked("-c", code, cwd=PACKAGE.parent).finish()
    assert done.returncode == 0, done.stderr


def test_the_public_face():
    assert set(maskbench.__all__) <= set(dir(maskbench))
    for name in maskbench.__all__:
        assert getattr(maskbench, name) is not None and name in maskbench.__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        maskbench.nothing  # noqa: B018
