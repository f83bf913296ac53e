"""Run a plan: several steps side by side; what is finished is kept."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from maskbench.errors import InputError
from maskbench.reproduce.plan import Step, shown_command
from maskbench.reproduce.wording import duration
from maskbench.runtime.machine import commit
from maskbench.storage import atomic, tables
from maskbench.system import BEFORE_EXEC

STEP_COLUMNS = ("name", "command", "seconds", "commit", "state")
FINISHED, STOPPED = "finished", "stopped"
POLL = 0.2  # seconds between two looks at what runs
LAST_LINES = 15  # of a failed step's log


class Running:
    """A step that runs: its commands one after another, all they print appended to one log.

    Args:
        step: begins at once.
        folder: of the logs.
        environment: of the commands.
        spent: seconds that earlier starts took.
    """

    def __init__(self, step: Step, folder: Path, environment: dict[str, str], spent: float):
        self.step = step
        self.log = folder / f"{step.name.replace(' ', '-')}.log"
        self._environment, self._spent = environment, spent
        self._row = {"name": step.name, "command": step.command, "commit": commit()}
        self._to_do = list(step.commands)
        self._start = time.monotonic()
        self._begin()

    def _begin(self) -> None:
        command = self._to_do.pop(0)
        with open(self.log, "ab") as log:
            log.write(f"$ {shown_command(command)}\n".encode())
            log.flush()
            # a process group of its own: at a terminal Ctrl-C would reach it twice, and a second one stops without
            # saving; unbuffered, so that the log is in order
            self.process = subprocess.Popen(
                [sys.executable, "-u", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                process_group=0,
                preexec_fn=BEFORE_EXEC,
            )

    def ended(self) -> bool:
        """Whether the step is done or a command failed; where one is done the next begins."""
        while self.process.poll() == 0 and self._to_do:
            self._begin()
        return self.process.returncode is not None

    def row(self) -> dict[str, str]:
        """The row of steps.csv, once no command runs; what the step need not leave behind is removed."""
        state = STOPPED
        if self.process.returncode == 0 and not self._to_do:
            state = FINISHED
            if self.step.removes:
                self.step.removes.unlink(missing_ok=True)
        return self._row | {"seconds": f"{self._spent + time.monotonic() - self._start:.1f}", "state": state}


def run_steps(steps: list[Step], runs: Path, jobs: int, after: Callable[[], None]) -> None:
    """Do what is not finished, at most ``jobs`` steps at once; ``after`` is called when a step is.

    Where one fails or a signal comes, those that run are told once, save, and are waited for.

    Raises:
        SystemExit: a command failed, or the run was stopped; a second start resumes what was stopped.
    """
    logs = runs / "logs"
    atomic.make_folder(logs)
    threads = str(threads_of(jobs))
    own = {"OMP_NUM_THREADS": threads, "LOKY_MAX_CPU_COUNT": threads, "TQDM_MININTERVAL": "10"}
    environment = {**os.environ, **own}
    numbers = {step.name: f"[{number}/{len(steps)}] {step.name}" for number, step in enumerate(steps, 1)}
    log = read_log(runs)
    running: dict[str, Running] = {}
    heard = []
    before = {
        number: signal.signal(number, lambda number, _: heard.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        while not heard:
            done = finished(steps, log)
            ready = [step for step in steps if step.name not in done | running.keys() and done.issuperset(step.needs)]
            for step in ready[: jobs - len(running)]:
                print(f"{numbers[step.name]}: {step.command}", flush=True)
                spent = _seconds_before(step, log)
                # what was made of this step's earlier outputs is to be made again
                for name in dependents(steps, step.name):
                    log.pop(name, None)
                write_log(log, runs)
                running[step.name] = Running(step, logs, environment, spent)
            if not running:
                return
            time.sleep(POLL)
            for name in [name for name, run in running.items() if run.ended()]:
                run = running.pop(name)
                log[name] = run.row()
                write_log(log, runs)
                if status := run.process.returncode:
                    _say_failed(name, run, status)
                    sys.exit(128 - status if status < 0 else status)
                took = duration(float(log[name]["seconds"]))
                left = duration(seconds_left(steps, log, finished(steps, log), jobs))
                print(f"{numbers[name]}: finished in {took}, about {left} left", flush=True)
                after()
        print("stopping what runs; what is finished is kept, the same command resumes", file=sys.stderr)
        sys.exit(128 + heard[0])
    finally:
        for run in running.values():
            run.process.send_signal(heard[0] if heard else signal.SIGTERM)
        for name, run in running.items():
            run.process.wait()
            log[name] = run.row()
        write_log(log, runs)
        for number, handler in before.items():
            signal.signal(number, handler)


def _seconds_before(step: Step, log: dict[str, dict]) -> float:
    """What stopped starts of the same command took."""
    old = log.get(step.name)
    return float(old["seconds"]) if old and (old["command"], old["state"]) == (step.command, STOPPED) else 0.0


def _say_failed(name: str, run: Running, status: int) -> None:
    printed = run.log.read_text(errors="replace").splitlines()
    print(*printed[-LAST_LINES:], sep="\n", file=sys.stderr)
    print(f"{name} ended with exit status {status}, see {run.log}; what is finished is kept", file=sys.stderr)


def threads_of(jobs: int) -> int:
    """A step's share of the cores."""
    return max(1, os.cpu_count() // jobs)


def seconds_left(steps: list[Step], log: dict[str, dict], done: set[str], jobs: int) -> float:
    """Estimates of what is still to be done, scaled by how the finished steps compare to theirs."""
    estimated = 60 * sum(step.minutes for step in steps if step.name in done)
    measured = sum(float(log[name]["seconds"]) for name in done)
    to_do = [60 * step.minutes for step in steps if step.name not in done]
    return sum(to_do) * (measured / estimated if estimated else 1) / max(1, min(jobs, len(to_do)))


def finished(steps: list[Step], log: dict[str, dict]) -> set[str]:
    """Names of the steps that need not be done: done with the same command, as is all they need."""
    done = set()
    for step in steps:
        row = log.get(step.name)
        if row and (row["state"], row["command"]) == (FINISHED, step.command) and done.issuperset(step.needs):
            done.add(step.name)
    return done


def dependents(steps: list[Step], name: str) -> set[str]:
    """The step and all that need it, directly or not."""
    found = {name}
    for step in steps:
        if found.intersection(step.needs):
            found.add(step.name)
    return found


def read_log(runs: Path) -> dict[str, dict[str, str]]:
    path = runs / "steps.csv"
    rows = tables.read(path) if path.exists() else []
    if any(tuple(row) != STEP_COLUMNS for row in rows):
        raise InputError(f"{path}: damaged; delete it, then the steps are done again")
    return {row["name"]: row for row in rows}


def write_log(log: dict[str, dict], runs: Path) -> None:
    rows = [[row[column] for column in STEP_COLUMNS] for row in log.values()]
    tables.write_csv(runs / "steps.csv", STEP_COLUMNS, rows)
