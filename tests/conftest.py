"""What the tests share: scripts run as a user runs them, and one tiny trained set of everything.

What takes seconds to import is imported where it is needed: the process that deals the tests out to others needs none.
"""

import contextlib
import csv
import fcntl
import functools
import gc
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TRAINING = ("--dataset", "photos", "--limit", 256, "--preset", "paper")  # 16 steps an epoch
SMALL_TRAINING = (*TRAINING, "--image-size", 16, "--gaussian-dim", 32)  # as many, and as many tensors in a checkpoint

pytest.register_assert_rewrite("ops_common")  # says, as in a test, what was compared

# begun first, so that no worker has a long file left when the others are done; the first does not need the workplace at
# once, and the second makes it
LONG = (
    "faults",
    "scripts",
    "distributed",
    "systems",
    "audit",
    "world",
    "backends",
    "attacks",
    "cuda_on_cpu",
    "training",
    "writes",
    "ops",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [f"test_{name}" for name in LONG]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported is no garbage: to look through it again and again takes some hundredths of the time


_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["torch._dynamo", "sklearn.datasets", "sklearn.ensemble"])


class Forked:
    """A script in a process of its own, forked from one that has imported torch: to import it takes seconds.

    maskbench and matplotlib, which read the environment when they are imported, it imports anew. In place of a script
    may be what else the interpreter takes: "-c" and code, or "-m" and a module.
    """

    def __init__(self, script: object, *arguments: object, cwd: Path, **environment: str):
        self._told = tempfile.TemporaryDirectory()  # not in ``cwd``: tests look at what a script leaves there
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        call = ([*map(str, (script, *arguments))], cwd, environment, self._told.name)
        self.process = _forks.Process(target=forked.run, args=call)
        self.process.start()

    def finish(self, timeout: float = 240) -> SimpleNamespace:
        """Waits for its end; gives ``returncode``, ``stdout`` and ``stderr``, as ``subprocess.run`` does."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.join()
        told = {name: Path(self._told.name, name).read_text() for name in ("stdout", "stderr")}
        self._told.cleanup()
        return SimpleNamespace(returncode=self.process.exitcode, **told)


def run_ranks(processes: int, script: str, *arguments: object, cwd: Path) -> str:
    """Runs a script in several processes, with the variables that torchrun sets; gives what they printed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    world = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    world |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    ranks = [
        Forked(script, *arguments, cwd=cwd, RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(processes)
    ]
    ended = [rank.finish(timeout=120) for rank in ranks]
    assert not any(rank.returncode for rank in ended), [(rank.returncode, rank.stderr[-2000:]) for rank in ended]
    return "".join(rank.stdout for rank in ended)


def wait_for(condition: Callable[[], bool], running: Forked | None = None, seconds: float = 60) -> None:
    """Until it holds; a process that ends before is an error, with what it told."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and (running is None or running.process.exitcode is None), (
            running and running.finish(0).stderr
        )
        time.sleep(0.02)


def read_csv(path: Path) -> list[list[str]]:
    with open(path) as file:
        return list(csv.reader(file))


def pictures(folder: Path, count: int, classes: int = 1) -> None:
    random = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number:02}.png")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As the scripts run below: the same bits in this process and in others."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def photos_are_cut_once():
    """The crops of ``photos``: so many that scripts which run here would spend a tenth of their time on them."""
    from maskbench.data import datasets

    load = datasets.LOADERS["photos"]
    cut = functools.lru_cache(lambda image_size: load(Path(), image_size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(datasets.LOADERS, "photos", lambda _, image_size: cut(image_size))
        yield


@pytest.fixture(autouse=True)
def environment_stays():
    """A test that sets variables for children (dask does: MKL_NUM_THREADS=1) sets them for no other test."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def run_in_process(script: str, *arguments: object, cwd: Path) -> None:
    """Run a script whole, but in this process: importing torch each time would take minutes."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        finally:
            torch.set_flush_denormal(False)  # a script sets it for its process


@pytest.fixture
def run_here(tmp_path, monkeypatch, request):
    """:func:`run_in_process` in ``tmp_path``, where the test is from then on.

    Figures are made, but turned to pixels, which takes a second each, only for tests that are marked ``pixels``.
    """
    if request.node.get_closest_marker("pixels") is None:
        from maskbench.runtime.matplotlib_import import Figure

        monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: file.write(b"\x89PNG"))

    def run(script: str, *arguments: object) -> None:
        monkeypatch.chdir(tmp_path)
        run_in_process(script, *arguments, cwd=tmp_path)

    return run


@pytest.fixture
def stop_after(monkeypatch):
    """Sends this process a signal when the training has made so many steps."""
    from maskbench.runtime.stopping import Stopper

    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
    due = Stopper.due

    def arrange(steps: int, number: int) -> None:
        made = 0

        def counting(stopper: Stopper) -> bool:
            nonlocal made
            made += 1
            if made == steps:
                os.kill(os.getpid(), number)
            return due(stopper)

        monkeypatch.setattr(Stopper, "due", counting)

    yield arrange


@pytest.fixture
def generator():
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture
def undrawn(monkeypatch):
    """A training in this process ends without its pictures, which take longer than short trainings do."""
    for place in ("maskbench.training.summary.show", "train_aae.show"):  # for scripts that run here, and as a module
        monkeypatch.setattr(place, lambda *_: None)


@pytest.fixture
def few_steps(monkeypatch):
    """Of what learns the perceptual distance."""
    monkeypatch.setattr("maskbench.leakage.perceptual.STEPS", 5)


@pytest.fixture
def hasty_attackers(monkeypatch):
    """Attackers train their decoders for a moment and seldom begin again; few samples are drawn for intervals."""
    from maskbench.leakage import scores
    from maskbench.leakage.attacks import alignment, decoders, gromov_wasserstein, reidentification

    monkeypatch.setattr(scores, "RESAMPLES", 30)
    monkeypatch.setattr(gromov_wasserstein, "TRIES", gromov_wasserstein.TRIES[:1])
    monkeypatch.setattr(gromov_wasserstein, "AVERAGED", 2)
    for stages in ("_STAGES", "_STAGES_FROM_PAIRS"):
        monkeypatch.setattr(alignment, stages, ((2, 2000, 3.0),))
    monkeypatch.setattr(decoders, "FEWEST", 10)
    monkeypatch.setattr(decoders, "EPOCHS", (1, 1))
    monkeypatch.setattr(decoders, "FINE", 200)
    monkeypatch.setattr(decoders, "INVERTED", 12)
    for module, name, least in (
        (decoders, "inverse_decoder", {"passes": 50}),
        (decoders, "gradient_inversion", {"steps": 2}),
        (reidentification, "matched_in_turns", {"rounds": 2}),
    ):
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), **least))


@pytest.fixture
def complaint(run_here, capsys):
    """Runs a script that must end with status 2; gives its one line."""

    def run(script: str, *arguments: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_here(script, *arguments)
        errors = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
        assert stop.value.code == 2 and len(errors) == 1, errors
        return errors[0]

    return run


def run_every_script(folder: Path) -> None:
    run_in_process("train_aae.py", *TRAINING, "--epochs", 2, "--instances", 2, "--tensorboard", cwd=folder)
    run_in_process("mask_dataset.py", "--dataset", "digits", cwd=folder)
    for script, *arguments in (
        ("classify.py", "--classes", 3, "--repeats", 2, "--epochs", 3, "--estimators", 20),
        ("crosspair.py", "--dataset", "photos", "--limit", 256),
    ):
        with open(folder / f"{Path(script).stem}.txt", "w") as file, contextlib.redirect_stdout(file):
            run_in_process(script, *arguments, cwd=folder)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    """A folder where all four scripts have run with their default paths, on tiny budgets; tests read it alone.

    It is made once: the first worker of pytest-xdist that needs it makes it for all.
    """
    folder = tmp_path_factory.getbasetemp() / "workplace"
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = tmp_path_factory.getbasetemp().parent / "workplace"  # of all workers
    done = folder / "done"
    with open(folder.with_name("workplace.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a worker left that failed
            folder.mkdir()
            run_every_script(folder)
            done.touch()
    return folder


@pytest.fixture
def each_path():
    """Yields a function that runs its argument on each CPU path this processor has, the widest first."""
    _C = pytest.importorskip("maskbench._C")
    in_use = _C.build_info()["simd_in_use"]

    def run(function):
        results = {}
        for path in _C.build_info()["simd_compiled"]:
            try:
                _C.use_kernels(path)
            except ValueError:
                continue  # test_every_path_runs shows it as skipped
            results[path] = function()
        return results

    yield run
    _C.use_kernels(in_use)
