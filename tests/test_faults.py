"""Nothing lost: kills, signals, failing disks, two processes at once, faulty numbers, runs that were finished before.

MASKBENCH_KILLS=50 python -m pytest tests/test_faults.py -k sigkill -s    # longer, by hand; 3 is the usual number
"""

import contextlib
import csv
import errno
import fcntl
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run_script
from PIL import Image

from maskbench.data import masked_set
from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError
from maskbench.models import Decoder, Encoder, checkpoints
from maskbench.runtime.stopping import Stopper
from maskbench.storage import atomic, ledger, pt, tables
from maskbench.training import figures
from maskbench.training.journal import stop_if_not_finite
from maskbench.training.resume import find_checkpoint
from maskbench.training.settings import Settings

KILLS = int(os.environ.get("MASKBENCH_KILLS", 3))
TRAINING = ("--dataset", "photos", "--limit", 256, "--epochs", 2)  # what instance 0 of the workplace ran: 2 x 16 steps
SIZES = dict(image_size=8, width=2, gaussian_dim=3, categories=2)


def read_csv(path: Path) -> list[list[str]]:
    with open(path) as file:
        return list(csv.reader(file))


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
    assert [row[:5] for row in checkpoint["history"]] == [row[:5] for row in wanted["history"]]
    assert [row[:5] for row in read_csv(folder / "metrics.csv")] == [
        row[:5] for row in read_csv(unbroken / "metrics.csv")
    ]
    assert len(checkpoint["losses"]) == 0
    for name in ("encoder.pt", "decoder.pt"):
        assert (folder / name).read_bytes() == (unbroken / name).read_bytes(), name
    assert not list(folder.glob(".*"))  # no temporary file stays behind


# training goes on to the same bits


def test_sigkill_at_random_moments(workplace, tmp_path):
    unbroken = workplace / "runs" / "aae" / "0"
    folder, output = tmp_path / "runs" / "aae" / "0", tmp_path / "output"
    arguments = [*TRAINING, "--resume", "--checkpoint-minutes", 1e-6]  # a checkpoint after every step
    command = [sys.executable, str(ROOT / "train_aae.py"), *map(str, arguments)]
    random = np.random.default_rng()
    killed, places, leftovers, finished = 0, [], 0, 0
    path = folder / "checkpoint.pt"

    def written(path: Path) -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    while killed < KILLS:
        before = written(path)
        with open(output, "w") as file:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=file, stderr=subprocess.DEVNULL, start_new_session=True
            )
        while written(path) == before and process.poll() is None:  # until it is under way
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 1))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
            checkpoint = checkpoints.load_checkpoint(path)  # whole, whenever the kill came
            places.append((len(checkpoint["history"]), len(checkpoint["losses"])))
            leftovers += len(list(folder.glob(".*.partial")))
        else:
            assert process.returncode == 0, output.read_text()
            assert_same_bits(folder, unbroken)
            finished += 1
            shutil.rmtree(tmp_path / "runs")
    run_script("train_aae.py", *arguments, cwd=tmp_path)
    assert_same_bits(folder, unbroken)
    print(f"\n{killed} kills at (epochs, steps) {places}, {leftovers} of them within a write; ", end="")
    print(f"{finished + 1} trainings finished, all to the same bits")


@pytest.fixture
def stop_after(monkeypatch):
    """Sends this process a signal when the training has made so many steps."""
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


def test_signals_stop_after_any_step_and_the_rest_gives_the_same_bits(
    run_here, stop_after, workplace, tmp_path, capsys
):
    folder = tmp_path / "runs" / "aae" / "0"
    place = 0
    # after the first step, in the middle, after the last step of an epoch, after the first of the next, before the end
    for at, number in ((1, signal.SIGINT), (9, signal.SIGTERM), (16, signal.SIGINT), (17, signal.SIGTERM), (31, 2)):
        stop_after(at - place, number)
        with pytest.raises(SystemExit) as stop:
            run_here("train_aae.py", *TRAINING, "--resume")
        assert stop.value.code == 128 + number
        last = capsys.readouterr().err.strip().splitlines()[-1]
        name = signal.Signals(number).name
        assert f"stopped by {name} at runs/aae/0, epoch {1 + (at - 1) // 16}, step {1 + (at - 1) % 16}" in last
        assert re.search(
            r"resume with: python \S*train_aae\.py --dataset photos --limit 256 --epochs 2 --resume$", last
        )
        checkpoint = checkpoints.load_checkpoint(folder / "checkpoint.pt")
        assert 16 * len(checkpoint["history"]) + len(checkpoint["losses"]) == at
        assert (folder / "encoder.pt").exists() == (at > 16)  # a half-trained epoch leaves no encoder
        place = at
    run_here("train_aae.py", *TRAINING, "--resume")
    assert_same_bits(folder, workplace / "runs" / "aae" / "0")


def test_instances_side_by_side_stop_together(tmp_path):
    folder = tmp_path / "runs" / "aae"
    command = [sys.executable, str(ROOT / "train_aae.py"), "--dataset", "photos", "--limit", "256"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    many = [*command, "--epochs", "9999", "--instances", "2"]
    with subprocess.Popen(
        many, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not all((folder / name / "encoder.pt").exists() for name in "01") and process.poll() is None:
            assert time.monotonic() < deadline or process.kill()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)  # as timeout and service managers do: children hear it twice
        said = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    epochs = []
    for name in "01":
        assert f"stopped by SIGTERM at runs/aae/{name}, epoch " in said
        checkpoint = checkpoints.load_checkpoint(folder / name / "checkpoint.pt")
        assert checkpoint["threads"] == 1
        epochs.append(len(checkpoint["history"]))
    again = [*command, "--epochs", str(max(epochs) + 1), "--instances", "2", "--resume"]
    subprocess.run(again, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert [len(read_csv(folder / name / "metrics.csv")) - 1 for name in "01"] == [max(epochs) + 1] * 2


def test_an_instance_that_fails_stops_those_beside_it(tmp_path):
    arguments = ("--dataset", "photos", "--limit", 256, "--epochs", 9999, "--instances", 3)
    (tmp_path / "runs" / "aae" / "1" / "metrics.csv").mkdir(parents=True)  # a folder where its file is to be
    result = run_script("train_aae.py", *arguments, cwd=tmp_path, check=False, OMP_NUM_THREADS="2")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "runs/aae/1/metrics.csv: is a folder" in result.stderr
    assert "stopped by SIGTERM at runs/aae/0" in result.stderr
    assert not list((tmp_path / "runs" / "aae" / "2").iterdir())  # was not begun


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
    arguments = ("--dataset", "photos", "--limit", 64, "--resume", "--epochs", 1)
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


def pictures(folder: Path, count: int, classes: int = 1) -> None:
    random = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number:02}.png")


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


def test_other_images_than_the_checkpoints_are_refused(run_here, complaint, tmp_path):
    pictures(tmp_path / "mine", 21)
    arguments = ("--dataset", "folder:mine", "--image-size", 16, "--batch-size", 4, "--resume", "--epochs")
    run_here("train_aae.py", *arguments, 1)  # 14 images of one class, mini-batches of 4: the last is odd
    for path in sorted((tmp_path / "mine" / "class0").iterdir())[:10]:
        Image.new("RGB", (16, 16)).save(path)
    assert "its images are not those" in complaint("train_aae.py", *arguments, 2)


# numbers


def test_a_loss_that_is_not_finite_stops_with_its_step(complaint, workplace, tmp_path):
    said = complaint("train_aae.py", "--dataset", "photos", "--limit", 64, "--batch-size", 4, "--lr", 1e30)
    assert re.search(r"loss of epoch 1, step [1-9] is not finite; there was no checkpoint before it", said)
    folder = workplace / "runs" / "aae" / "0"
    losses = torch.ones(9, 3)
    stop_if_not_finite(losses, 3, folder)
    losses[4, 1], losses[6, 0] = torch.inf, torch.nan
    wanted = (
        r"the discriminator loss of epoch 3, step 5 is not finite; \S+checkpoint\.pt, of 2 epochs and 0 steps, is good"
    )
    with pytest.raises(InputError, match=wanted):
        stop_if_not_finite(losses, 3, folder)


@pytest.mark.parametrize(("preset", "lr"), [("maskbench", 1), ("maskbench", 1e8), ("paper", 100)])
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


def test_images_that_are_all_the_same(run_here, tmp_path):
    (tmp_path / "mine" / "black").mkdir(parents=True)
    for number in range(40):
        Image.new("RGB", (16, 16)).save(tmp_path / "mine" / "black" / f"{number}.png")
    run_here("train_aae.py", "--dataset", "folder:mine", "--image-size", 16, "--epochs", 1, "--batch-size", 4)
    assert float(read_csv(tmp_path / "runs" / "aae" / "0" / "metrics.csv")[1][4]) < 1e-3


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


# writes


def all_writers(folder: Path) -> dict[str, object]:
    """One function for each kind of file that is written, all with random contents."""
    rows = 50_000
    data = MaskedSet(
        method="aae",
        encoder="0" * 64,
        dataset="digits",
        classes=["a", "b"],
        gaussian=torch.randn(rows, 3),
        categorical=torch.rand(rows, 2),
        labels=torch.arange(rows) % 2,
        split=(torch.arange(rows) >= 9).to(torch.uint8),
        source=torch.arange(rows),
        view=torch.zeros(rows, dtype=torch.uint8),
    )
    kept = {"settings": {}, "noise": torch.randn(40_000)}
    table = torch.randn(5000, 3).tolist()
    history = [[epoch + 1, *torch.rand(5).tolist()] for epoch in range(3)]
    return {
        "masked.pt": lambda path: masked_set.save(data, path),
        "encoder.pt": lambda path: checkpoints.save_encoder(Encoder(**(SIZES | {"width": 16})), path),
        "decoder.pt": lambda path: checkpoints.save_decoder(Decoder(**(SIZES | {"width": 16})), "0" * 64, path),
        "checkpoint.pt": lambda path: checkpoints.save_checkpoint(kept, path),
        "runs.pt": lambda path: ledger.Ledger(path, "code").add({"run": time.time()}, kept),
        "metrics.csv": lambda path: tables.write_csv(path, ("a", "b", "c"), table),
        "losses.png": lambda path: figures.losses(history, path),
    }


WRITERS = ("masked.pt", "encoder.pt", "decoder.pt", "checkpoint.pt", "runs.pt", "metrics.csv", "losses.png")


@contextlib.contextmanager
def failing(fault: str, monkeypatch):
    """Makes one system call fail, as it does on a full, broken or read-only disk."""
    with monkeypatch.context() as patch:
        if fault == "write":  # the kernel's own refusal, in the middle of the file
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            return

        def refuse(code: int):
            def call(*arguments, **keywords):
                raise OSError(code, os.strerror(code))

            return call

        if fault == "fsync":
            patch.setattr(os, "fsync", refuse(errno.EIO))
        elif fault == "fsync of the folder":
            patch.setattr(atomic, "_flush_folder", refuse(errno.EIO))
        elif fault == "rename":
            patch.setattr(os, "replace", refuse(errno.ENOSPC))
        elif fault == "open":
            patch.setattr(atomic.tempfile, "mkstemp", refuse(errno.EROFS))
        elif fault == "mode":
            patch.setattr(os, "fchmod", refuse(errno.EPERM))
        yield


@pytest.mark.parametrize("kind", WRITERS)
def test_a_failing_write_keeps_the_file_before_it(tmp_path, monkeypatch, kind):
    path, write = tmp_path / kind, all_writers(tmp_path)[kind]
    write(path)
    before = path.read_bytes()
    assert len(before) > 5000
    for fault in ("open", "write", "fsync", "mode", "rename"):
        if fault == "mode" and kind in ("decoder.pt", "checkpoint.pt"):
            continue  # private from the start
        with (
            failing(fault, monkeypatch),
            pytest.raises(InputError, match=rf"{re.escape(str(path))}: cannot be written"),
        ):
            write(path)
        assert path.read_bytes() == before, fault
        assert list(tmp_path.iterdir()) == [path], fault
    with failing("fsync of the folder", monkeypatch), pytest.raises(InputError, match="cannot be written"):
        write(path)
    assert list(tmp_path.iterdir()) == [path]
    if kind.endswith(".pt"):
        pt.read(path)  # the old one or the new one, whole
    shutil.rmtree(tmp_path)
    with pytest.raises(InputError, match="No such file or directory"):
        write(path)
    assert not tmp_path.exists()  # a folder that vanished is not made again, with other rights perhaps


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs more rights than these tests have")
    try:
        for kind, write in all_writers(tmp_path).items():
            path = disk / kind
            write(path)
            before = path.read_bytes()
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free // 4096 * 4096))
            with pytest.raises(InputError, match="No space left on device"):
                write(path)
            (disk / "filler").unlink()
            assert path.read_bytes() == before and list(disk.iterdir()) == [path]
            path.unlink()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_training_on_a_disk_that_fails_goes_on_later(run_here, complaint, workplace, tmp_path, monkeypatch):
    replace, writes = os.replace, []

    def fails_at_the_seventh(*arguments: object) -> None:
        writes.append(arguments)
        if len(writes) == 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*arguments)

    monkeypatch.setattr(os, "replace", fails_at_the_seventh)  # checkpoints of six steps are written
    arguments = (*TRAINING, "--resume", "--checkpoint-minutes", 1e-6)
    assert "checkpoint.pt: cannot be written (No space left on device)" in complaint("train_aae.py", *arguments)
    monkeypatch.undo()
    assert len(checkpoints.load_checkpoint(tmp_path / "runs" / "aae" / "0" / "checkpoint.pt")["losses"]) == 6
    run_here("train_aae.py", *arguments)
    assert_same_bits(tmp_path / "runs" / "aae" / "0", workplace / "runs" / "aae" / "0")


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".checkpoint.pt.abc.partial").write_bytes(b"half")
    (tmp_path / ".hidden").write_bytes(b"the user's")
    with open(tmp_path / ".encoder.pt.def.partial", "wb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)  # another process is writing it
        with atomic.output_folder(tmp_path):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".encoder.pt.def.partial", ".hidden"]


@pytest.mark.parametrize("script", ["train_aae.py", "classify.py", "crosspair.py"])
def test_two_processes_and_one_output_folder(complaint, workplace, tmp_path, script):
    inputs = {
        "train_aae.py": TRAINING,
        "classify.py": ("--masked", workplace / "masked" / "digits.pt"),
        "crosspair.py": ("--models", workplace / "runs" / "aae", "--dataset", "photos"),
    }[script]
    with atomic.output_folder(tmp_path / "out"):  # flock tells apart who opened the folder, not which process did
        said = complaint(script, *inputs, "--output-dir", "out")
        assert "--output-dir out: another process is writing there" in said and not list((tmp_path / "out").iterdir())
    assert not (tmp_path / "out").exists()  # nothing was written


def test_the_lock_ends_with_its_process(tmp_path):
    code = f"""
import time
from pathlib import Path
from maskbench.storage import atomic
with atomic.output_folder(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process"), atomic.output_folder(tmp_path):
        pass
    process.kill()
    process.wait()
    with atomic.output_folder(tmp_path):
        pass


def test_workers_die_with_their_parent(tmp_path):
    pictures(tmp_path / "mine", 4)
    code = f"""
import os, time
from maskbench.data import folders, datasets
def hang(self, index):
    print(os.getpid(), flush=True)
    time.sleep(120)
folders.FolderImages.__getitems__ = hang
datasets.load("folder:{tmp_path}/mine", workers=2)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()

    def alive() -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{worker}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
        return False

    deadline = time.monotonic() + 2  # torch's own watchdog looks every five seconds
    while alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive()


def test_keys_are_private_from_the_start(tmp_path, monkeypatch):
    modes = []
    replace = os.replace

    def watching(source: str, target: Path) -> None:
        modes.append(stat.S_IMODE(os.stat(source).st_mode))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watching)
    atomic.make_folder(tmp_path / "a" / "0", private=True)
    assert stat.S_IMODE((tmp_path / "a" / "0").stat().st_mode) == 0o700
    checkpoints.save_decoder(Decoder(**SIZES), "0" * 64, tmp_path / "a" / "0" / "decoder.pt")
    checkpoints.save_checkpoint({"settings": {}}, tmp_path / "a" / "0" / "checkpoint.pt")
    assert modes == [0o600, 0o600]
    (tmp_path / "open").mkdir(mode=0o755)
    atomic.make_folder(tmp_path / "open", private=True)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700


# runs that were finished before


def test_classify_keeps_finished_runs(run_here, workplace, tmp_path, monkeypatch, capsys):
    from sklearn.ensemble import RandomForestClassifier

    fit, fits = RandomForestClassifier.fit, []

    def counting(model, *arguments):
        fits.append(model)
        if len(fits) == 3:
            raise KeyboardInterrupt
        return fit(model, *arguments)

    monkeypatch.setattr(RandomForestClassifier, "fit", counting)
    shutil.copy(workplace / "masked" / "digits.pt", tmp_path)
    arguments = ("--masked", "digits.pt", "--methods", "mlp", "forest", "--output-dir", ".", "--classes", 2)
    arguments += ("--jobs", 1, "--epochs", 1, "--batch-size", 50, "--repeats")
    with pytest.raises(SystemExit) as stop:
        run_here("classify.py", *arguments, 3)
    assert stop.value.code == 130 and len(read_csv(tmp_path / "digits-runs.csv")) == 1 + 5
    run_here("classify.py", *arguments, 3)
    assert len(fits) == 4 and "5 of 6 runs were finished before" in capsys.readouterr().out
    table, pixels = (tmp_path / "digits-runs.csv").read_text(), (tmp_path / "digits-curves.png").read_bytes()
    run_here("classify.py", *arguments, 3)  # nothing is left to do, and all is told again
    assert len(fits) == 4 and (tmp_path / "digits-runs.csv").read_text() == table
    assert (tmp_path / "digits-curves.png").read_bytes() == pixels
    run_here("classify.py", *arguments, 3, "--lr", 0.01)  # the MLP's affair: the forests are kept
    assert len(fits) == 4 and "3 of 6 runs" in capsys.readouterr().out
    run_here("classify.py", *arguments, 1, "--seed", 1)
    assert len(fits) == 5
    content = pt.load(tmp_path / "digits.pt", masked_set.FORMAT)
    pt.save(content | {"gaussian": -content["gaussian"]}, tmp_path / "digits.pt")
    run_here("classify.py", *arguments, 1)  # another masked set of the same name
    assert len(fits) == 6


def test_crosspair_keeps_finished_sets(run_here, workplace, tmp_path, monkeypatch, capsys):
    arguments = ("--models", workplace / "runs" / "aae", "--dataset", "photos", "--limit", 16, "--output-dir", ".")
    run_here("crosspair.py", *arguments)
    tables = [(tmp_path / name).read_text() for name in ("crosspair.csv", "pairs.csv")]

    def asked_again(*arguments):
        raise AssertionError

    monkeypatch.setattr("maskbench.data.image_quality.image_mse", asked_again)
    capsys.readouterr()
    run_here("crosspair.py", *arguments)
    assert "finished before and kept: patterns, train, validation" in capsys.readouterr().out
    assert tables == [(tmp_path / name).read_text() for name in ("crosspair.csv", "pairs.csv")]
    with pytest.raises(AssertionError):
        run_here("crosspair.py", *arguments, "--instances", 2, "--batch-size", 3)


def test_instances_resume_side_by_side_with_few_file_descriptors(workplace, tmp_path):
    """A checkpoint that reached its process as shared tensors would take a descriptor for each of them."""
    shutil.copytree(workplace / "runs", tmp_path / "runs")
    command = f"{sys.executable} {ROOT / 'train_aae.py'} --dataset photos --limit 256 --epochs 3 --instances 2 --resume"
    done = subprocess.run(
        ["sh", "-c", f"ulimit -n 200; exec {command}"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for instance in ("0", "1"):
        with open(tmp_path / "runs" / "aae" / instance / "metrics.csv") as file:
            assert len(list(csv.DictReader(file))) == 3
