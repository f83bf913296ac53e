"""Several processes under torchrun against one: the same steps, the same trainings, and what happens when one dies."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from ranks import everything

from maskbench.models import checkpoints, decoder

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
PHOTOS = ("--dataset", "photos", "--limit", "256")


def start(processes: int, script: str, *arguments: object, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*TORCHRUN, str(processes), str(ROOT / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(processes: int, script: str, *arguments: object, cwd: Path) -> str:
    """Runs a script that must succeed; gives what it printed."""
    process = start(processes, script, *arguments, cwd=cwd)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return printed


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.05)


def metrics(folder: Path) -> np.ndarray:
    with open(folder / "runs" / "aae" / "0" / "metrics.csv") as file:
        return np.array([list(map(float, row[1:5])) for row in list(csv.reader(file))[1:]])


@pytest.fixture(scope="module")
def alone() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "has_bfloat16", lambda device: False)
        return everything()


@pytest.mark.parametrize("processes", [2, 3])
def test_steps_are_those_of_one_process(alone, tmp_path, processes):
    # mini-batches of 7 images: 3 and 4, or 2, 2 and 3
    run(processes, "tests/ranks.py", tmp_path / "found.pt", cwd=tmp_path)
    for name, found in torch.load(tmp_path / "found.pt").items():
        tolerance = 1e-8 if name.endswith("40") else 1e-5
        torch.testing.assert_close(found["losses"], alone[name]["losses"], rtol=tolerance, atol=0)
        for kind in ("gradients", "states") if name.endswith("40") else ("gradients",):
            for key, wanted in alone[name][kind].items():
                scale = wanted.abs().max().item()
                torch.testing.assert_close(found[kind][key], wanted, rtol=0, atol=tolerance * scale, msg=key)


def test_trainings_are_those_of_one_process_also_after_a_change_of_processes(workplace, tmp_path):
    printed = run(3, "train_aae.py", *PHOTOS, "--epochs", 1, cwd=tmp_path)  # 16 images a mini-batch: 5, 5 and 6
    assert "3 processes" in printed and printed.count("validation MSE") == 1  # one of them prints
    printed = run(2, "train_aae.py", *PHOTOS, "--epochs", 2, "--resume", cwd=tmp_path)
    assert "processes was 3 and is 2" in printed
    np.testing.assert_allclose(metrics(tmp_path), metrics(workplace), rtol=0.01)
    assert len(list((tmp_path / "runs" / "aae" / "0").glob("*.png"))) == 2
    checkpoint = torch.load(tmp_path / "runs" / "aae" / "0" / "checkpoint.pt", weights_only=True)
    assert checkpoint["states"]["prior"]["rng_state"].tolist() == [0, 32]


def test_the_others_end_when_one_dies_and_one_goes_on(workplace, tmp_path):
    training = start(2, "train_aae.py", *PHOTOS, "--epochs", 10_000, cwd=tmp_path)
    checkpoint = tmp_path / "runs" / "aae" / "0" / "checkpoint.pt"
    wait_for(checkpoint, training)
    children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    ranks = {}
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks.update({v: int(child) for v in variables if v.startswith(b"RANK=")})
    os.kill(ranks[b"RANK=1"], signal.SIGKILL)
    _, errors = training.communicate(timeout=60)
    said = [line for line in errors.splitlines() if line.startswith("train_aae.py: error: ")]
    assert training.returncode == 1 and len(said) == 1 and "--resume" in said[0], errors
    epochs = len(checkpoints.load_checkpoint(checkpoint)["history"])
    assert epochs >= 1
    printed = run(1, "train_aae.py", *PHOTOS, "--epochs", epochs + 1, "--resume", cwd=tmp_path)
    assert "processes was 2 and is 1" in printed
    np.testing.assert_allclose(metrics(tmp_path)[:2], metrics(workplace)[: epochs + 1], rtol=0.01)


def test_a_signal_stops_all_after_the_same_step(tmp_path):
    training = start(2, "train_aae.py", *PHOTOS, "--epochs", 10_000, cwd=tmp_path)
    folder = tmp_path / "runs" / "aae" / "0"
    wait_for(folder / "metrics.csv", training)
    training.send_signal(signal.SIGTERM)
    _, errors = training.communicate(timeout=60)
    assert training.returncode != 0
    assert "resume with: torchrun --nproc-per-node 2" in errors and "error: " not in errors.split("Traceback")[0]
    saved = checkpoints.load_checkpoint(folder / "checkpoint.pt")
    place = 16 * len(saved["history"]) + len(saved["losses"])
    assert saved["states"]["prior"]["rng_state"].tolist() == [0, place]


def test_mistakes_are_told_once(tmp_path):
    training = start(2, "train_aae.py", *PHOTOS, "--compile", cwd=tmp_path)
    _, errors = training.communicate(timeout=60)
    said = [line for line in errors.splitlines() if "error: argument" in line]
    assert training.returncode == 1 and len(said) == 1 and "--compile" in said[0], errors
