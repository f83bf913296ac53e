"""Files are whole, private and one process's: failing writes, full disks, locks, and runs that were finished before."""

import contextlib
import errno
import fcntl
import os
import re
import resource
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Forked, pictures, read_csv, wait_for

from maskbench import system
from maskbench.data import masked_set
from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError
from maskbench.models import Decoder, Encoder, checkpoints
from maskbench.runtime import plotting
from maskbench.storage import atomic, ledger, pt, tables

SIZES = dict(image_size=8, width=2, gaussian_dim=3, categories=2)


@plotting.picture
def draw(numbers: torch.Tensor, path: Path) -> None:
    """A picture that takes as little time as any, and more than 5,000 bytes."""
    figure, axis = plotting.subplots(size=(1, 1))
    axis.imshow(numbers.numpy())
    plotting.write(figure, path)


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
    return {
        "masked.pt": lambda path: masked_set.save(data, path),
        "encoder.pt": lambda path: checkpoints.save_encoder(Encoder(**(SIZES | {"width": 16})), path),
        "decoder.pt": lambda path: checkpoints.save_decoder(Decoder(**(SIZES | {"width": 16})), "0" * 64, path),
        "checkpoint.pt": lambda path: checkpoints.save_checkpoint(kept, path),
        "runs.pt": lambda path: ledger.Ledger(path, "code").add({"run": time.time()}, kept),
        "metrics.csv": lambda path: tables.write_csv(path, ("a", "b", "c"), table),
        "noise.png": lambda path: draw(torch.rand(60, 60), path),
    }


WRITERS = ("masked.pt", "encoder.pt", "decoder.pt", "checkpoint.pt", "runs.pt", "metrics.csv", "noise.png")


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
            patch.setattr(system, "flush_folder", refuse(errno.EIO))
        elif fault == "rename":
            patch.setattr(os, "replace", refuse(errno.ENOSPC))
        elif fault == "open":
            patch.setattr(atomic.tempfile, "mkstemp", refuse(errno.EROFS))
        elif fault == "mode":
            patch.setattr(os, "chmod", refuse(errno.EIO))
        elif fault == "no modes":  # as on many shares
            patch.setattr(os, "chmod", refuse(errno.EPERM))
        elif fault == "no fsync of folders":
            fsync, refused = os.fsync, refuse(errno.EINVAL)
            patch.setattr(os, "fsync", lambda n: refused() if stat.S_ISDIR(os.fstat(n).st_mode) else fsync(n))
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


@pytest.mark.parametrize("fault", ["no modes", "no fsync of folders"])
def test_file_systems_that_know_less_are_written_to(tmp_path, monkeypatch, fault):
    with failing(fault, monkeypatch):
        atomic.make_folder(tmp_path / "private", private=True)
        atomic.write_text(tmp_path / "private" / "text", "whole")
    assert [path.read_text() for path in (tmp_path / "private").iterdir()] == ["whole"]


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
        "train_aae.py": ("--dataset", "photos"),
        "classify.py": ("--masked", workplace / "masked" / "digits.pt"),
        "crosspair.py": ("--models", workplace / "runs" / "aae", "--dataset", "photos"),
    }[script]
    with atomic.output_folder(tmp_path / "out"):  # flock tells apart who opened the folder, not which process did
        said = complaint(script, *inputs, "--output-dir", "out")
        assert "--output-dir out: another process is writing there" in said
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    assert not (tmp_path / "out").exists()  # nothing was written


def test_the_lock_ends_with_its_process(tmp_path, tmp_path_factory):
    held = tmp_path_factory.mktemp("other") / "held"
    code = f"""
import time
from pathlib import Path
from maskbench.storage import atomic
with atomic.output_folder(Path({str(tmp_path)!r})):
    Path({str(held)!r}).touch()
    time.sleep(60)
"""
    forked = Forked("-c", code, cwd=ROOT)
    wait_for(held.exists, forked)
    with pytest.raises(InputError, match="another process"), atomic.output_folder(tmp_path):
        pass
    forked.process.kill()
    forked.finish()
    with atomic.output_folder(tmp_path):
        pass


def test_workers_die_with_their_parent(tmp_path):
    pictures(tmp_path / "mine", 4)
    told = tmp_path / "worker"
    code = f"""
import os, time
from maskbench.data import folders, datasets
def hang(self, index):
    with open({str(told)!r}, "a") as file:
        file.write(f"{{os.getpid()}}\\n")
    time.sleep(120)
folders.FolderImages.__getitems__ = hang
datasets.load("folder:{tmp_path}/mine", workers=2)
"""
    forked = Forked("-c", code, cwd=ROOT)
    wait_for(lambda: told.exists() and "\n" in told.read_text(), forked)
    worker = int(told.read_text().split()[0])
    forked.process.kill()
    forked.finish()

    def alive() -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{worker}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
        return False

    wait_for(lambda: not alive(), seconds=2)  # torch's own watchdog looks every five seconds


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
    monkeypatch.setattr("maskbench.leakage.figures.pair_grid", lambda *_: None)  # six, each time anew
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
