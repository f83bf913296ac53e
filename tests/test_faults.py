"""Nothing lost: kills, signals, instances side by side, faulty numbers.

MASKBENCH_KILLS=50 python -m pytest tests/test_faults.py -k sigkill -s    # longer, by hand; 2 is the usual number
"""

import errno
import multiprocessing
import os
import re
import resource
import shutil
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL_TRAINING, Forked, pictures, read_csv, run_in_process, wait_for
from PIL import Image

from maskbench.errors import InputError
from maskbench.models import checkpoints
from maskbench.runtime import child_processes
from maskbench.runtime.stopping import Stopper
from maskbench.storage import ledger, pt
from maskbench.training.journal import stop_if_not_finite
from maskbench.training.resume import find_checkpoint
from maskbench.training.settings import Settings

pytestmark = pytest.mark.usefixtures("undrawn")

KILLS = int(os.environ.get("MASKBENCH_KILLS", 2))
TWO_EPOCHS = (*SMALL_TRAINING, "--epochs", 2)  # 2 x 16 steps
SIZES = dict(image_size=8, width=2, gaussian_dim=3, categories=2)


def assert_same_bits(folder: Path, unbroken: Path) -> None:
    """Weights, optimisers, metrics and files of two trainings; speed and flags that change nothing aside."""
    checkpoint, wanted = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (folder, unbroken))
    pt.check_matches(wanted["states"], checkpoint["states"], "states")

    def equal(a: object, b: object) -> bool:
        if isinstance(a, dict):
            return all(equal(a[key], b[key]) for key in a)
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    for name, state in wanted["states"].items():
        assert equal(state, checkpoint["states"][name]), name
    assert [row[:-1] for row in checkpoint["history"]] == [row[:-1] for row in wanted["history"]]
    assert [row[:-1] for row in read_csv(folder / "metrics.csv")] == [
        row[:-1] for row in read_csv(unbroken / "metrics.csv")
    ]
    assert len(checkpoint["losses"]) == 0
    for name in ("encoder.pt", "decoder.pt"):
        assert (folder / name).read_bytes() == (unbroken / name).read_bytes(), name
    assert not list(folder.glob(".*"))  # no temporary file stays behind


def epochs(folder: Path) -> int:
    return len(read_csv(folder / "metrics.csv")) - 1 if (folder / "metrics.csv").exists() else 0


# training goes on to the same bits


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """The folder of a training of two epochs that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskbench.training.summary.show", lambda *_: None)
        run_in_process("train_aae.py", *TWO_EPOCHS, cwd=folder)
    return folder / "runs" / "aae" / "0"


def test_sigkill_at_random_moments(unbroken, tmp_path):
    folder = tmp_path / "runs" / "aae" / "0"
    arguments = [*TWO_EPOCHS, "--resume", "--checkpoint-minutes", 1e-6]  # a checkpoint after every step
    random = np.random.default_rng()
    killed, places, leftovers, finished = 0, [], 0, 0
    path = folder / "checkpoint.pt"

    def written(path: Path) -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    while killed < KILLS:
        before = written(path)
        training = Forked("train_aae.py", *arguments, cwd=tmp_path)
        while written(path) == before and training.process.exitcode is None:  # until it is under way
            time.sleep(0.002)
        training.process.join(random.uniform(0, 1))
        training.process.kill()
        ended = training.finish()
        if ended.returncode == -signal.SIGKILL:
            killed += 1
            checkpoint = checkpoints.load_checkpoint(path)  # whole, whenever the kill came
            places.append((len(checkpoint["history"]), len(checkpoint["losses"])))
            leftovers += len(list(folder.glob(".*.partial")))
        else:
            assert ended.returncode == 0, ended.stderr
            assert_same_bits(folder, unbroken)
            finished += 1
            shutil.rmtree(tmp_path / "runs")
    assert Forked("train_aae.py", *TWO_EPOCHS, "--resume", cwd=tmp_path).finish().returncode == 0
    assert_same_bits(folder, unbroken)
    print(f"\n{killed} kills at (epochs, steps) {places}, {leftovers} of them within a write; ", end="")
    print(f"{finished + 1} trainings finished, all to the same bits")


def test_signals_stop_after_any_step_and_the_rest_gives_the_same_bits(run_here, stop_after, unbroken, tmp_path, capsys):
    folder = tmp_path / "runs" / "aae" / "0"
    place = 0
    # after the first step, in the middle, after the last step of an epoch, after the first of the next, before the end
    for at, number in ((1, signal.SIGINT), (9, signal.SIGTERM), (16, signal.SIGINT), (17, signal.SIGTERM), (31, 2)):
        stop_after(at - place, number)
        with pytest.raises(SystemExit) as stop:
            run_here("train_aae.py", *TWO_EPOCHS, "--resume")
        assert stop.value.code == 128 + number
        last = capsys.readouterr().err.strip().splitlines()[-1]
        name = signal.Signals(number).name
        assert f"stopped by {name} at runs/aae/0, epoch {1 + (at - 1) // 16}, step {1 + (at - 1) % 16}" in last
        assert re.search(
            r"resume with: python \S*train_aae\.py --dataset photos --limit 256 --preset paper --image-size 16 "
            r"--gaussian-dim 32 --epochs 2 --resume$",
            last,
        )
        checkpoint = checkpoints.load_checkpoint(folder / "checkpoint.pt")
        assert 16 * len(checkpoint["history"]) + len(checkpoint["losses"]) == at
        assert (folder / "encoder.pt").exists() == (at > 16)  # a half-trained epoch leaves no encoder
        place = at
    run_here("train_aae.py", *TWO_EPOCHS, "--resume")
    assert_same_bits(folder, unbroken)


def test_instances_side_by_side_stop_together_and_resume_with_few_file_descriptors(unbroken, tmp_path):
    folder = tmp_path / "runs" / "aae"
    shutil.copytree(unbroken, folder / "0")  # two epochs; the other one begins
    flags = (*SMALL_TRAINING, "--epochs", 9999, "--instances", 2, "--resume")
    training = Forked("train_aae.py", *flags, cwd=tmp_path, OMP_NUM_THREADS="2")
    # a checkpoint that reached its process as shared tensors would take a descriptor for each of them
    resource.prlimit(training.process.pid, resource.RLIMIT_NOFILE, (200, 200))
    wait_for(lambda: epochs(folder / "0") >= 3 and epochs(folder / "1") >= 1, training, seconds=120)
    os.killpg(training.process.pid, signal.SIGTERM)  # as timeout and service managers do: children hear it twice
    ended = training.finish()
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    for name in "01":
        assert f"stopped by SIGTERM at runs/aae/{name}, epoch " in ended.stderr
        checkpoint = checkpoints.load_checkpoint(folder / name / "checkpoint.pt")
        assert checkpoint["threads"] == 1
        assert len(checkpoint["history"]) == epochs(folder / name)


def an_instance(folder: Path) -> None:
    """One that fails where it cannot write its file, once another works; the others work until they are stopped."""
    (folder / "begun").touch()
    fails, deadline = (folder / "metrics.csv").is_dir(), time.monotonic() + 20
    while time.monotonic() < deadline:
        if fails and (folder.parent / "0" / "begun").exists():
            raise InputError(f"{folder}/metrics.csv: is a folder")
        time.sleep(0.01)
    (folder / "done").touch()


def test_an_instance_that_fails_stops_those_beside_it(tmp_path, monkeypatch, capfd):
    for name in "012":
        (tmp_path / name).mkdir()
    (tmp_path / "1" / "metrics.csv").mkdir()
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda _: multiprocessing.get_context("fork"))
    with pytest.raises(SystemExit) as stop:
        child_processes.run_in_parallel(an_instance, [(tmp_path / name,) for name in "012"], jobs=2)
    said = capfd.readouterr().err
    assert stop.value.code == 2 and said.count(": error: ") == 1 and "1/metrics.csv: is a folder" in said
    assert "Traceback" not in said
    assert (tmp_path / "0" / "begun").exists() and not (tmp_path / "2" / "begun").exists()
    assert not (tmp_path / "0" / "done").exists() and not multiprocessing.active_children()
    # where none fails, nothing is raised
    child_processes.run_in_parallel(Path.touch, [(tmp_path / name / "ended",) for name in "012"], jobs=2)
    assert len(list(tmp_path.glob("*/ended"))) == 3


def test_forks_share_what_their_parent_holds_and_leave_none_behind(tmp_path):
    held = torch.arange(4, dtype=torch.float64)
    before = multiprocessing.active_children()

    def work(number: int) -> dict[str, torch.Tensor]:
        if number == 4:
            raise InputError("four")
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"power": held**number, "by": torch.tensor(os.getpid())}

    results = dict(child_processes.in_forks(work, range(4), 2, tmp_path))
    assert all(torch.equal(results[number]["power"], held**number) for number in range(4))
    assert os.getpid() not in [result["by"] for result in results.values()]
    assert dict(child_processes.in_forks(work, range(2), 1, tmp_path))[1]["by"] == os.getpid()
    for numbers, error in (((0, 4, 1), InputError), ((0, 5, 1), BrokenProcessPool)):
        with pytest.raises(error):
            list(child_processes.in_forks(work, numbers, 2, tmp_path))
        assert multiprocessing.active_children() == before
    unfinished = child_processes.in_forks(work, range(4), 2, tmp_path)
    next(unfinished)
    unfinished.close()  # as where the script is stopped
    assert multiprocessing.active_children() == before


def test_forks_that_are_killed_while_they_answer_do_not_hang(tmp_path):
    def late(*_: object) -> None:
        raise TimeoutError("forks are waited for that were killed")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        for _ in range(3):
            answers = child_processes.in_forks(lambda number: {"large": torch.ones(4_000_000)}, range(6), 2, tmp_path)
            next(answers)
            answers.close()
            assert not list(tmp_path.iterdir())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_checkpoint_minutes(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stopper = Stopper(minutes=2)
    due = []
    for second in range(0, 300, 30):
        clock[0] = float(second)
        due.append(stopper.due())
        if due[-1]:
            stopper.saved("here")
    assert due == [False] * 4 + [True] + [False] * 3 + [True, False]


def test_the_number_of_threads_is_restored(run_here, tmp_path, capsys):
    arguments = (*SMALL_TRAINING, "--resume", "--epochs", 1)
    run_here("train_aae.py", *arguments)
    path = tmp_path / "runs" / "aae" / "0" / "checkpoint.pt"
    content = checkpoints.load_checkpoint(path)
    assert content["threads"] == 1
    del content["format"], content["version"]
    checkpoints.save_checkpoint(content | {"threads": 2, "environment": {"torch": "1.0"}}, path)
    try:
        run_here("train_aae.py", *arguments)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    said = capsys.readouterr().out
    assert "resumes with 2 thread(s)" in said and "torch was 1.0 and is" in said and "not the same to the bit" in said


def test_every_flag_that_changes_results_is_refused_by_name(workplace):
    folder = workplace / "runs" / "aae" / "0"
    before = checkpoints.load_checkpoint(folder / "checkpoint.pt")["settings"]
    assert tuple(before) == Settings.names()
    assert find_checkpoint(folder, Settings(**before), resume=True)
    readme = (ROOT / "docs" / "files.md").read_text()
    for name in Settings.names():
        flag = "--" + name.replace("_", "-")
        assert flag in readme
        other = Settings(**(before | {name: "something else"}))
        with pytest.raises(InputError, match=rf"checkpoint\.pt was made with {flag} "):
            find_checkpoint(folder, other, resume=True)


@pytest.mark.parametrize("name", ["encoder.pt", "decoder.pt"])
def test_a_network_without_its_checkpoint_is_not_overwritten(workplace, tmp_path, name):
    folder = workplace / "runs" / "aae" / "0"
    settings = Settings(**checkpoints.load_checkpoint(folder / "checkpoint.pt")["settings"])
    assert find_checkpoint(tmp_path, settings, resume=False) is None
    shutil.copy(folder / name, tmp_path)
    for resume in (False, True):
        with pytest.raises(InputError, match=f"holds {name}, .*, and no checkpoint"):
            find_checkpoint(tmp_path, settings, resume)


def test_other_images_than_the_checkpoints_are_refused(run_here, complaint, tmp_path):
    pictures(tmp_path / "mine", 21)
    arguments = ("--dataset", "folder:mine", "--image-size", 16, "--batch-size", 4, "--resume", "--epochs")
    run_here("train_aae.py", *arguments, 1)  # 14 images of one class, mini-batches of 4: the last is odd
    for path in sorted((tmp_path / "mine" / "class0").iterdir())[:10]:
        Image.new("RGB", (16, 16)).save(path)
    assert "its images are not those" in complaint("train_aae.py", *arguments, 2)


def test_training_on_a_disk_that_fails_goes_on_later(run_here, complaint, unbroken, tmp_path, monkeypatch):
    replace, writes = os.replace, []

    def fails_at_the_seventh(*arguments: object) -> None:
        writes.append(arguments)
        if len(writes) == 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*arguments)

    monkeypatch.setattr(os, "replace", fails_at_the_seventh)  # checkpoints of six steps are written
    arguments = (*TWO_EPOCHS, "--resume", "--checkpoint-minutes", 1e-6)
    assert "checkpoint.pt: cannot be written (No space left on device)" in complaint("train_aae.py", *arguments)
    monkeypatch.undo()
    assert len(checkpoints.load_checkpoint(tmp_path / "runs" / "aae" / "0" / "checkpoint.pt")["losses"]) == 6
    run_here("train_aae.py", *TWO_EPOCHS, "--resume")
    assert_same_bits(tmp_path / "runs" / "aae" / "0", unbroken)


# numbers


def test_a_loss_that_is_not_finite_stops_with_its_step(complaint, workplace, tmp_path):
    said = complaint("train_aae.py", "--dataset", "photos", "--limit", 64, "--batch-size", 4, "--lr", 1e30)
    assert re.search(r"loss of epoch 1, step [1-9] is not finite; there was no checkpoint before it", said)
    folder = workplace / "runs" / "aae" / "0"
    losses = torch.ones(9, 4)
    stop_if_not_finite(losses, 3, folder)
    losses[4, 1], losses[6, 0] = torch.inf, torch.nan
    wanted = (
        r"the gaussian discriminator loss of epoch 3, step 5 is not finite; "
        r"\S+checkpoint\.pt, of 2 epochs and 0 steps, is good"
    )
    with pytest.raises(InputError, match=wanted):
        stop_if_not_finite(losses, 3, folder)


@pytest.mark.parametrize(("preset", "lr"), [("invariant", 1e30), ("paper", 100)])
def test_the_checkpoint_that_was_kept_is_good(complaint, tmp_path, preset, lr):
    arguments = ("--limit", 64, "--batch-size", 4, "--epochs", 2, "--checkpoint-minutes", 1e-6, "--preset", preset)
    said = complaint("train_aae.py", "--dataset", "photos", *arguments, "--lr", lr)
    path = tmp_path / "runs" / "aae" / "0" / "checkpoint.pt"
    assert "is not finite" in said and ("good and was kept" in said) == path.exists()
    if path.exists():
        assert pt.first_not_finite(checkpoints.load_checkpoint(path)["states"]) is None


def test_first_not_finite():
    states = {"a": {"b": torch.ones(2), "c": [1]}, "d": {0: {"e": torch.tensor([0.0, torch.inf])}}}
    assert pt.first_not_finite(states) == "d.0.e"
    states["d"][0]["e"][1] = 0
    assert pt.first_not_finite(states) is None


@pytest.mark.parametrize("preset", ["paper", "invariant"])
def test_images_that_are_all_the_same(run_here, tmp_path, preset):
    (tmp_path / "mine" / "black").mkdir(parents=True)
    for number in range(40):
        Image.new("RGB", (16, 16)).save(tmp_path / "mine" / "black" / f"{number}.png")
    sizes = ("--image-size", 16, "--preset", preset, "--epochs", 1, "--batch-size", 4)
    run_here("train_aae.py", "--dataset", "folder:mine", *sizes)
    row = dict(zip(*read_csv(tmp_path / "runs" / "aae" / "0" / "metrics.csv")[:2], strict=True))
    assert float(row["validation_mse"]) < 0.3


def test_an_mlp_that_diverges_is_told_and_not_kept(complaint, workplace):
    arguments = ("--masked", workplace / "masked" / "digits.pt", "--methods", "mlp", "--epochs", 3)
    assert "--lr 1e+30" in complaint("classify.py", *arguments, "--lr", 1e30)


def test_a_ledger_keeps_finite_runs_of_one_program(tmp_path):
    path, run = tmp_path / "runs.pt", {"method": "mlp"}
    first = ledger.Ledger(path, "one program")
    first.add(run, {"score": 0.5})
    with pytest.raises(InputError, match="cannot be kept"):
        first.add({"method": "forest"}, {"score": float("nan")})
    assert ledger.Ledger(path, "one program").get(run, {"score": 0.0}) == {"score": 0.5}
    assert ledger.Ledger(path, "another").get(run, {"score": 0.0}) is None
    assert len(ledger.Ledger(path)) == 1  # for inspection


@pytest.mark.parametrize(
    ("count", "train", "mask"), [(0, "dark|class", "dark|class"), (1, "too few", ""), (4, "too few", "")]
)
def test_very_small_sets(run_here, complaint, workplace, tmp_path, count, train, mask):
    pictures(tmp_path / "mine", count)
    assert re.search(train, complaint("train_aae.py", "--dataset", "folder:mine"))
    arguments = ("--dataset", "folder:mine", "--encoder", workplace / "runs" / "aae" / "0" / "encoder.pt")
    if mask:
        assert re.search(mask, complaint("mask_dataset.py", *arguments))
        return
    run_here("mask_dataset.py", *arguments, "--augment", "flip", "--copies", 2, "--batch-size", 3)
    assert "two or more are needed" in complaint("classify.py", "--classes", "all")  # one class
    models = workplace / "runs" / "aae"
    if count == 1:
        assert "leaves no" in complaint("crosspair.py", "--dataset", "folder:mine", "--models", models)
