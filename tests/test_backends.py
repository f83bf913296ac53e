"""Runs of classify.py in threads, processes and clusters: the same scores, and the same complaints."""

import importlib.util
import sys
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend.context import set_start_method

from maskbench.storage import tables

# what the workplace ran in threads
SMALL = ("--jobs", 2, "--classes", 3, "--repeats", 2, "--epochs", 3, "--estimators", 20, "--output-dir", ".")


def installed(name: str) -> object:
    package = {"dask": "distributed"}.get(name, name)
    missing = name in ("dask", "ray") and importlib.util.find_spec(package) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{package} is not installed"))


@pytest.fixture(scope="module", autouse=True)
def workers_of_loky():
    """Forked as conftest.Forked is; they wait five minutes for more, and here serve two tests."""
    set_start_method("forkserver", force=True)
    yield
    get_reusable_executor().shutdown(wait=True)
    set_start_method(None, force=True)


def scores(folder: Path) -> list[dict]:
    rows = tables.read(folder / "digits-runs.csv")
    return [{column: value for column, value in row.items() if column != "seconds"} for row in rows]


@pytest.mark.parametrize("name", [installed(name) for name in ("loky", "dask", "ray")])
def test_every_back_end_has_the_same_scores(run_here, workplace, tmp_path, name):
    flags = ("--backend", name, *(("--jobs", 1) if name == "dask" else ()))  # its workers take seconds to begin
    run_here("classify.py", "--masked", workplace / "masked" / "digits.pt", *SMALL, *flags)
    wanted = scores(workplace / "runs" / "classify")
    assert len(wanted) == 6 and scores(tmp_path) == wanted


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="distributed is not installed")
def test_a_cluster_that_runs_already(run_here, workplace, tmp_path):
    """Two workers that are threads here: what travels to them is written out and read all the same."""
    import dask
    from distributed import LocalCluster

    workers = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "protocol": "tcp://"}
    with LocalCluster(**workers, dashboard_address=None) as cluster:
        with dask.config.set({"scheduler-address": cluster.scheduler_address}):  # as of DASK_SCHEDULER_ADDRESS
            run_here("classify.py", "--masked", workplace / "masked" / "digits.pt", *SMALL, "--backend", "dask")
        assert cluster.scheduler.workers  # the script leaves it running
        assert cluster.scheduler.transition_counter > 0  # and has used it
    assert scores(tmp_path) == scores(workplace / "runs" / "classify")


@pytest.mark.parametrize("name", ["threading", "loky"])
def test_a_workers_complaint_is_one_line(run_here, workplace, capfd, name):
    # one MLP fails while another is trained
    flags = ("--methods", "mlp", "--repeats", 11, "--lr", 1e30, "--backend", name)
    with pytest.raises(SystemExit) as stop:
        run_here("classify.py", "--masked", workplace / "masked" / "digits.pt", *SMALL, *flags)
    errors = capfd.readouterr().err  # of the workers, too
    lines = [line for line in errors.splitlines() if "/s]" not in line and line.strip("\x1b[A ")]
    # loky's own tracker may find its folder gone already, and warns in two lines
    said = [line for line in lines if "resource_tracker" not in line and not line.startswith("  warnings.warn(")]
    assert stop.value.code == 2 and len(said) == 1 and "classify.py: error: --lr 1e+30" in said[0], errors


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_back_end_that_is_not_installed(workplace, run_here, capsys, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as stop:
        run_here("classify.py", "--masked", workplace / "masked" / "digits.pt", *SMALL, "--backend", name)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and f"--backend {name}: not installed; run pip install" in last
