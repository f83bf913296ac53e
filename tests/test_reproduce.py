"""The reproduction: its plan, and how it runs, stops and resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, Forked, wait_for

import classify
import crosspair
import mask_dataset
import maskbench.key
import train_aae
from maskbench.leakage import audit
from maskbench.masking import key
from maskbench.reproduce import (
    measure,
    plan,
    runner,
    wording,
)
from maskbench.reproduce.plan import Step


def test_the_scripts_accept_the_plans_commands(monkeypatch):
    parsers = {
        f"{script.__name__}.py": script.parse_arguments for script in (train_aae, mask_dataset, classify, crosspair)
    }
    called = []
    monkeypatch.setattr(measure, "measure_prior", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(measure, "measure_pca", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(key, "create", lambda path: called.append(path))
    parsers |= {"maskbench.reproduce.measure": measure.main, "maskbench.key": maskbench.key.main}
    steps = plan.make_plan(Path("runs/reproduce"), Path("data"), draws=30, instances=4)
    used = set()
    for step in steps:
        for command in step.commands:
            command = command[1:] if command[0] == "-m" else command
            monkeypatch.setattr(sys, "argv", command)
            flags = parsers[command[0]]()  # would exit
            for mask in getattr(flags, "masks", None) or ():
                assert audit.mask_name(mask) == mask
            used.add(command[0])
    assert used == set(parsers)
    assert called[:2] == [(Path("runs/reproduce", name), Path("data")) for name in ("pca", "invariant")]
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for number, step in enumerate(steps):
        assert set(step.needs) <= set(names[:number]), step.name


def test_the_papers_numbers_need_nothing_else():
    program = "import sys; old = set(sys.modules); import maskbench.reproduce.paper; print(*set(sys.modules) - old)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert set(loaded.stdout.split()) == {"maskbench", "maskbench.reproduce", "maskbench.reproduce.paper"}


def test_every_output_has_one_command():
    steps = plan.make_plan(Path("r"), Path("data"), draws=30, instances=4)
    commands = [command for step in steps for command in step.commands]
    outputs = [
        command[command.index(flag) + 1]
        for command in commands
        for flag in ("--output-dir", "--output")
        if flag in command
    ]
    assert len(set(outputs)) == len(outputs)  # a folder in which another process writes is refused


def note(path: Path, text: str) -> list[str]:
    """A command that appends a line to a file."""
    return ["-c", f"open({str(path)!r}, 'a').write({text!r} + '\\n')"]


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    monkeypatch.setattr(runner, "POLL", 0.02)


def run_all(steps: list[Step], runs: Path, jobs: int = 1, after=lambda: None) -> None:
    runner.run_steps(steps, runs, jobs, after)


def states(runs: Path) -> dict[str, str]:
    return {name: row["state"] for name, row in runner.read_log(runs).items()}


def test_a_failing_step_ends_the_run_and_nothing_is_repeated(tmp_path, capsys):
    notes, repaired, collated = tmp_path / "notes", tmp_path / "repaired", []
    failing = ["-c", f"import os, sys; print('why'); sys.exit(0 if os.path.exists({str(repaired)!r}) else 3)"]
    masked = tmp_path / "masked.pt"
    masked.touch()
    steps = [
        Step("a", 1, [note(notes, "a1"), note(notes, "a2")], removes=masked),
        Step("step c", 3, [note(notes, "c1"), failing]),
        Step("d", 4, [note(notes, "d")], needs=("step c",)),
    ]
    with pytest.raises(SystemExit) as ended:
        run_all(steps, tmp_path, after=lambda: collated.append(len(runner.read_log(tmp_path))))
    assert ended.value.code == 3
    printed = capsys.readouterr()
    path = tmp_path / "logs" / "step-c.log"
    last = f"step c ended with exit status 3, see {path}; what is finished is kept"
    assert printed.err.splitlines()[-2:] == ["why", last]
    assert f"[1/3] a: {steps[0].command}\n[1/3] a: finished in " in printed.out
    assert collated == [1] and not masked.exists()
    assert states(tmp_path) == {"a": "finished", "step c": "stopped"}
    log = runner.read_log(tmp_path)
    assert log["a"]["command"] == " && ".join(map(plan.shown_command, steps[0].commands))
    spent = float(log["step c"]["seconds"])

    repaired.touch()
    run_all(steps, tmp_path)
    assert notes.read_text().split() == ["a1", "a2", "c1", "c1", "d"]
    log = runner.read_log(tmp_path)
    assert runner.finished(steps, log) == {"a", "step c", "d"}
    assert float(log["step c"]["seconds"]) >= spent  # both starts
    assert path.read_text().count("why\n") == 2
    run_all(steps, tmp_path, after=lambda: pytest.fail("something was repeated"))


def test_steps_run_side_by_side_once_what_they_need_is_finished(tmp_path):
    notes = tmp_path / "notes"

    def step(name: str, *needs: str) -> Step:
        code = (
            "import os, time\n"
            f"notes = open({str(notes)!r}, 'a', buffering=1)\n"
            f"print('+{name}', os.environ['OMP_NUM_THREADS'], os.environ['LOKY_MAX_CPU_COUNT'], file=notes)\n"
            f"time.sleep(0.5); print('-{name}', file=notes)"
        )
        return Step(name, 1, [["-c", code]], needs)

    steps = [step("a"), step("b", "a"), step("c"), step("d"), step("e", "b", "d")]
    run_all(steps, tmp_path, jobs=2)
    lines = notes.read_text().splitlines()
    running, most = set(), 0
    for line in lines:
        name, *threads = line[1:].split()
        if line[0] == "-":
            running.remove(name)
            continue
        assert threads == 2 * [str(max(1, os.cpu_count() // 2))]
        for needed in next(step for step in steps if step.name == name).needs:
            assert f"-{needed}" in lines[: lines.index(line)]
        running.add(name)
        most = max(most, len(running))
    assert most == 2 and not running and len(lines) == 10
    assert [line[1] for line in lines if line[0] == "+"][-1] == "e"  # the last of the plan
    assert set(states(tmp_path).values()) == {"finished"}


def patient(heard: Path, status: int, *lines: str) -> list[str]:
    """A command that notes SIGINT and SIGTERM, saves for a while, and ends; ``lines`` are run when it listens."""
    code = (
        "import os, signal, sys, time\n"
        "def hear(number, _):\n"
        f"    open({str(heard)!r}, 'a').write(f'{{number}} '); time.sleep(0.5); sys.exit({status})\n"
        "signal.signal(signal.SIGINT, hear); signal.signal(signal.SIGTERM, hear)\n"
    )
    return ["-c", code + "\n".join((*lines, "time.sleep(30)"))]


def test_a_failing_step_stops_the_others(tmp_path):
    heard, listens, notes = tmp_path / "heard", tmp_path / "listens", tmp_path / "notes"
    waits = patient(heard, 143, f"open({str(listens)!r}, 'w')")
    failing = ["-c", f"import os, sys\nwhile not os.path.exists({str(listens)!r}): pass\nsys.exit(4)"]
    steps = [
        Step("waits", 1, [waits]),
        Step("fails", 1, [failing]),
        Step("never", 1, [note(notes, "never")], needs=("fails",)),
    ]
    with pytest.raises(SystemExit) as ended:
        run_all(steps, tmp_path, jobs=3)
    assert ended.value.code == 4 and heard.read_text() == f"{signal.SIGTERM:d} " and not notes.exists()
    assert states(tmp_path) == {"fails": "stopped", "waits": "stopped"}
    assert float(runner.read_log(tmp_path)["waits"]["seconds"]) > 0.5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_command_once(tmp_path, capsys, number):
    paths, notes = [tmp_path / "heard-a", tmp_path / "heard-b"], tmp_path / "notes"
    listens = tmp_path / "listens"
    steps = [
        Step("a", 1, [patient(paths[0], 1, f"open({str(listens)!r}, 'w')")]),
        Step(
            "b",
            1,
            [
                patient(
                    paths[1],
                    0,  # done with this command, not with the step
                    f"while not os.path.exists({str(listens)!r}): pass",
                    f"os.kill(os.getppid(), {number:d})",
                ),
                note(notes, "next"),
            ],
        ),
        Step("c", 1, [note(notes, "c")]),
    ]
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        run_all(steps, tmp_path, jobs=2)
    assert ended.value.code == 128 + number
    assert [path.read_text() for path in paths] == 2 * [f"{number:d} "]
    assert states(tmp_path) == {"a": "stopped", "b": "stopped"} and not notes.exists()
    assert "the same command resumes" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_changed_command_is_done_again_with_what_needs_it(tmp_path):
    notes = tmp_path / "notes"
    steps = [
        Step("a", 1, [note(notes, "a")]),
        Step("b", 1, [note(notes, "b")], needs=("a",)),
        Step("c", 1, [note(notes, "c")], needs=("b",)),
        Step("other", 1, [note(notes, "other")]),
    ]
    run_all(steps, tmp_path)
    steps[0] = Step("a", 1, [note(notes, "new")])
    assert runner.finished(steps, runner.read_log(tmp_path)) == {"other"}
    run_all(steps, tmp_path)
    assert notes.read_text().split() == ["a", "b", "c", "other", "new", "b", "c"]


def test_a_killed_run_resumes_after_its_finished_steps(tmp_path):
    notes, pid = tmp_path / "notes", tmp_path / "pid"
    sleep = ["-c", f"import os, time; open({str(pid)!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(60)"]
    program = (
        "from maskbench.reproduce.runner import *\n"
        f"steps = [Step('a', 1, [{note(notes, 'a')}]), Step('b', 1, [{sleep}])]\n"
        f"run_steps(steps, Path({str(tmp_path)!r}), 1, lambda: None)"
    )
    forked = Forked("-c", program, cwd=ROOT)
    wait_for(lambda: pid.exists() and pid.read_text().endswith(" "), forked)
    forked.process.kill()
    forked.finish()
    deadline, command = time.monotonic() + 10, Path(f"/proc/{int(pid.read_text())}/cmdline")
    while command.exists() and command.read_bytes():  # empty: ended, and not waited for yet
        assert time.monotonic() < deadline, "the command outlives its parent"
        time.sleep(0.02)
    steps = [Step("a", 1, [note(notes, "a")]), Step("b", 1, [note(notes, "b")])]
    run_all(steps, tmp_path)
    assert notes.read_text().split() == ["a", "b"]


def test_the_time_left_is_scaled_by_what_was_measured():
    steps = [Step(name, minutes, [["-c", ""]]) for name, minutes in (("a", 10), ("b", 20), ("c", 5))]
    assert runner.seconds_left(steps, {}, set(), 1) == 35 * 60
    log = {"a": {"seconds": "300"}}
    assert runner.seconds_left(steps, log, {"a"}, 1) == 25 * 60 / 2
    assert runner.seconds_left(steps, log, {"a"}, 8) == 25 * 60 / 2 / 2  # two steps are left
    assert runner.seconds_left(steps, dict.fromkeys("abc", log["a"]), {"a", "b", "c"}, 8) == 0
    assert [wording.duration(seconds) for seconds in (12.4, 60, 5400, 36_000)] == [
        "12 s",
        "1 min",
        "1 h 30 min",
        "10 h 0 min",
    ]
