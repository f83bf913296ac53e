"""Several processes under torchrun against one: the same steps, the same trainings, and what happens when one dies."""

import csv
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL_TRAINING, TRAINING, Forked, run_ranks, wait_for
from ranks import everything, steps_of

from maskbench.data import datasets
from maskbench.models import checkpoints, encoder
from maskbench.runtime import torchrun


def start(processes: int, script: str, *arguments: object, cwd: Path) -> Forked:
    """The agent of torchrun, whose processes are forked."""
    return Forked("tests/elastic.py", processes, ROOT / script, *arguments, cwd=cwd)


# small steps: at the full rate, which such a long schedule keeps, rounding grows to a percent within two epochs
GENTLE = (*SMALL_TRAINING, "--lr", 1e-4)
ENDLESS = (*GENTLE, "--epochs", 10_000)


def metrics(folder: Path) -> np.ndarray:
    with open(folder / "runs" / "aae" / "0" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in row if name.endswith(("_loss", "_mse"))] for row in rows])


@pytest.fixture(scope="module")
def alone() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "has_bfloat16", lambda device: False)
        return everything()


def test_steps_are_those_of_one_process(alone, tmp_path):
    run_ranks(3, "tests/ranks.py", tmp_path / "found.pt", cwd=tmp_path)  # mini-batches of 7 images: 2, 2 and 3
    for name, found in torch.load(tmp_path / "found.pt", weights_only=True).items():
        tolerance = 1e-11 if name.endswith("10") else 2e-5  # float32: 1.03e-5 on one CPU
        torch.testing.assert_close(found["losses"], alone[name]["losses"], rtol=tolerance, atol=0)
        for kind in ("gradients", "states") if name.endswith("10") else ("gradients",):
            largest = max(wanted.abs().max().item() for wanted in alone[name][kind].values())
            for key, wanted in alone[name][kind].items():
                # of shift and length of a code agreement says nothing: the difference of much larger numbers
                scale = max(wanted.abs().max().item(), 0.1 * largest * name.startswith("invariant"))
                torch.testing.assert_close(found[kind][key], wanted, rtol=0, atol=tolerance * scale, msg=key)


def test_one_process_joins_a_group_and_learns_the_same_bits(monkeypatch):
    world = {"WORLD_SIZE": "1", "RANK": "0", "TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "localhost"}
    for name, value in {**world, "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    sums = mock.Mock(wraps=torch.distributed.all_reduce)
    monkeypatch.setattr(torch.distributed, "all_reduce", sums)
    wanted = steps_of("invariant", torch.float32, 1)
    with torchrun.processes(torch.device("cpu")):
        assert torch.distributed.get_backend() == "gloo" and torchrun.size() == 1
        assert sums.call_count == 1 and sums.call_args.args[0] == 1
        found = steps_of("invariant", torch.float32, 1)
    assert sums.call_count == 1 and not torch.distributed.is_initialized()
    for kind in ("gradients", "states"):
        assert all(torch.equal(found[kind][key], value) for key, value in wanted[kind].items())


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> SimpleNamespace:
    """A training of three processes that a signal stops, and goes on as two until one of them is killed.

    ``folder``, what both ``printed`` and the ``errors`` they told, and ``place``: steps, and the prior's state, when it
    was stopped.
    """
    folder = tmp_path_factory.mktemp("killed")
    path = folder / "runs" / "aae" / "0"
    first = start(3, "train_aae.py", *ENDLESS, cwd=folder)  # 16 images a mini-batch: 5, 5 and 6
    wait_for((path / "metrics.csv").exists, first)
    os.kill(first.process.pid, signal.SIGTERM)
    said = [first.finish(60)]
    assert said[0].returncode == 1
    saved = checkpoints.load_checkpoint(path / "checkpoint.pt")
    place = 16 * len(saved["history"]) + len(saved["losses"]), saved["states"]["prior"]["rng_state"].tolist()
    training = start(2, "train_aae.py", *ENDLESS, "--resume", cwd=folder)
    wait_for(lambda: len(metrics(folder)) >= 2, training)
    agent = training.process.pid
    ranks = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()  # in the order in which they began
    assert len(ranks) == 2
    os.kill(int(ranks[1]), signal.SIGKILL)
    said.append(training.finish(60))
    assert said[1].returncode == 1
    printed, errors = zip(*((end.stdout, end.stderr) for end in said), strict=True)
    return SimpleNamespace(folder=folder, printed=printed, errors=errors, place=place)


def test_trainings_are_those_of_one_process_also_after_a_change_of_processes(killed, run_here, stop_after, tmp_path):
    assert "3 processes" in killed.printed[0] and "processes was 3 and is 2" in killed.printed[1]
    stop_after(33, signal.SIGTERM)  # two epochs and a step
    with pytest.raises(SystemExit):
        run_here("train_aae.py", *ENDLESS)
    np.testing.assert_allclose(metrics(killed.folder)[:2], metrics(tmp_path), rtol=0.01)


def test_a_signal_stops_all_after_the_same_step(killed):
    errors, (steps, rng_state) = killed.errors[0], killed.place
    assert "resume with: torchrun --nproc-per-node 3" in errors and "error: " not in errors.split("Traceback")[0]
    assert steps >= 16 and rng_state == [0, 2 * steps]


@pytest.mark.usefixtures("undrawn")
def test_the_others_end_when_one_dies_and_one_goes_on(run_here, killed, tmp_path, capsys):
    folder, errors = killed.folder, killed.errors[1]
    said = [line for line in errors.splitlines() if line.startswith("train_aae.py: error: ")]
    assert len(said) == 1 and "--resume" in said[0], errors
    checkpoint = checkpoints.load_checkpoint(folder / "runs" / "aae" / "0" / "checkpoint.pt")
    epochs = len(checkpoint["history"])
    steps = 16 * epochs + len(checkpoint["losses"])
    assert epochs >= 2 and checkpoint["states"]["prior"]["rng_state"].tolist() == [0, 2 * steps]
    shutil.copytree(folder / "runs", tmp_path / "runs")
    run_here("train_aae.py", *GENTLE, "--epochs", epochs + 1, "--resume")
    assert "processes was 2 and is 1" in capsys.readouterr().out
    assert len(metrics(tmp_path)) == epochs + 1 and (metrics(tmp_path)[:2] == metrics(folder)[:2]).all()


def test_preset_invariant_learns_what_one_process_does(run_here, tmp_path):
    """Of 501 images a process has no row of the last batch that the codes are whitened by."""
    images = datasets.select(datasets.load("photos", image_size=16).images, np.arange(628)).permute(0, 2, 3, 1)
    split = (np.arange(628) >= 626).astype(np.uint8)  # of the training part a fifth is for validation
    np.savez(tmp_path / "photos.npz", images=images, labels=np.arange(628) % 2, split=split)
    flags = ("--preset", "invariant", "--dataset", f"npz:{tmp_path / 'photos.npz'}", "--image-size", 16)
    flags += ("--batch-size", 150, "--gaussian-dim", 16, "--epochs", 1)
    run_here("train_aae.py", *flags)
    (tmp_path / "two").mkdir()
    ended = start(2, "train_aae.py", *flags, cwd=tmp_path / "two").finish()
    assert ended.returncode == 0 and "501 training" in ended.stdout, ended.stderr
    # one process speaks for all
    assert ended.stdout.count("validation MSE") == 1
    assert len(list((tmp_path / "two" / "runs" / "aae" / "0").glob("*.png"))) == 2
    np.testing.assert_allclose(metrics(tmp_path / "two"), metrics(tmp_path), rtol=0.005)


@pytest.mark.parametrize("rank", [0, 1])
def test_mistakes_are_told_once(run_here, monkeypatch, capsys, rank):
    monkeypatch.setenv("RANK", str(rank))  # as torchrun does
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(SystemExit) as stop:
        run_here("train_aae.py", *TRAINING, "--compile")
    said = [line for line in capsys.readouterr().err.splitlines() if "error: argument" in line]
    assert stop.value.code == 2 and len(said) == (rank == 0) and all("--compile" in line for line in said)
