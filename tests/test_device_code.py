"""What nvcc makes of the kernels' device code: its warnings, registers, local memory, stores. No GPU is needed."""

import ast
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

NVCC_FLAGS = ast.literal_eval(re.search(r"^NVCC_FLAGS = (.*)$", (ROOT / "setup.py").read_text(), re.MULTILINE)[1])
# of a thread, at most; with 32 a multiprocessor of an A100 or H100 holds the 2,048 threads that csrc/cuda/launch.h asks
# for, with 40 it holds 1,536
REGISTERS = {"draw_rows": 32, "bce_forward_kernelIf": 32, "bce_forward_kernelId": 40}

pytestmark = pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")


def nvcc(*flags: object, architecture: int = 80) -> str:
    """What it prints when it compiles the device code as setup.py does."""
    command = ["nvcc", "-std=c++20", *NVCC_FLAGS, "-Werror", "all-warnings", f"-arch=sm_{architecture}"]
    source = ROOT / "tests" / "device_code.cu"
    command += [f"-I{ROOT}/csrc/cuda", *map(str, flags), str(source)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout
    return result.stdout


def named(text: str) -> str:
    """The kernel whose mangled name is in ``text``."""
    return next(kernel for kernel in REGISTERS if kernel in text)


@pytest.mark.parametrize("architecture", [80, 90])
def test_kernels_fit_into_registers(tmp_path, architecture, capfd):
    report = nvcc("-cubin", "--resource-usage", "-o", tmp_path / "kernels.cubin", architecture=architecture)
    parts = report.split("Compiling entry function")[1:]
    assert {named(part) for part in parts} == REGISTERS.keys()
    used = {named(part): int(re.search(r"Used (\d+) registers", part)[1]) for part in parts}
    with capfd.disabled():  # for the log of continuous integration, also from a worker of pytest-xdist
        print(f"\nregisters of a thread, sm_{architecture}: {used}", file=sys.stderr)
    for part in parts:
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in part, part
        assert used[named(part)] <= REGISTERS[named(part)], part


def test_stores_of_draws_are_16_bytes_wide(tmp_path):
    """One wide store where rows start on such a boundary, and else four, each for itself; nothing in local memory."""
    nvcc("-ptx", "-o", tmp_path / "kernels.ptx")
    entries = (tmp_path / "kernels.ptx").read_text().split(".entry ")[1:]
    assert {named(entry) for entry in entries} == REGISTERS.keys()
    draws = next(entry for entry in entries if named(entry) == "draw_rows")
    assert re.findall(r"st\.global\.(\S+)", draws) == 4 * ["f32"] + ["wb.v4.f32"]
    assert not any(re.search(r"\b(ld|st)\.local|\.local ", entry) for entry in entries)
