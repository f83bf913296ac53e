"""The paper's tables and figures, ours beside them, on the real data: hours on two cores.

    make reproduce                              # all of it; given again, it goes on where it stopped
    python -m maskbench.reproduce --draws 3     # fewer draws of classes
    python -m maskbench.reproduce --collate     # run nothing, write results/ from what is finished

Every step is commands that anybody can type, of the four scripts and of ``maskbench.measure``. Several steps run side
by side; what they print is in ``runs/reproduce/logs``. Finished steps are kept in ``runs/reproduce/steps.csv`` and
skipped, unless their command or a step before that they depend on has changed. Paths are relative to the root of the
repository.
"""

import argparse
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from maskbench import cli, collate, files
from maskbench.children import die_with_parent
from maskbench.collate import FEWER_DRAWS, GAUSSIAN_DIMS, IMAGE_SIZES, PRESETS, PRIOR_WEIGHTS, YARDSTICKS
from maskbench.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = {"maskbench": 2, "paper": 4}
# on two cores, to begin with: what is left is scaled by what finished steps took
TRAIN_MINUTES = {"maskbench": 30, "paper": 25}  # four instances
DRAW_MINUTES = {"cifar100": 1, "mnist": 5}  # all methods and class counts
# MNIST's MLP sees 50,000 images an epoch: ten epochs are more steps than fifty on a few classes of CIFAR-100
PROTOCOL = {"cifar100": ["--classes", 2, 3, 4], "mnist": ["--classes", "all", "--epochs", 10]}
AUGMENT = {"cifar100": ["flip", "shift"], "mnist": ["shift"]}
COPIES = {"cifar100": 20, "mnist": 8}
PIXEL_COPIES = 3  # raw pixels take eight times the memory of a mask
STEP_COLUMNS = ("name", "command", "seconds", "commit", "state")
FINISHED, STOPPED = "finished", "stopped"
POLL = 0.2  # seconds between two looks at what runs
LAST_LINES = 15  # of a failed step's log


@dataclass(frozen=True)
class Step:
    """Part of the plan.

    Attributes:
        name: unique.
        minutes: what it takes on two cores, estimated.
        commands: of Python, without the interpreter, done one after another.
        needs: names of the steps whose outputs it reads.
        removes: a large file that nothing needs when it is done.
    """

    name: str
    minutes: float
    commands: Sequence[list[str]]
    needs: tuple[str, ...] = ()
    removes: Path | None = None

    @property
    def command(self) -> str:
        return " && ".join(map(_shown, self.commands))


def main() -> None:
    args = parse_arguments()
    os.chdir(ROOT)
    if not Path("train_aae.py").exists():
        raise InputError(f"{ROOT} is not maskbench's repository; clone it and install maskbench with --editable")
    steps = plan(args.runs, args.data_dir, args.draws, args.instances)

    def write_results(results: Path) -> None:
        log = read_log(args.runs)
        done = finished(steps, log)
        collate.collate(args.runs, results, done, [log[step.name] for step in steps if step.name in done])
        if results.resolve() == ROOT / "results":
            collate.rewrite_section(ROOT / "README.md", collate.readme_tables(results))

    if args.collate:
        if not finished(steps, read_log(args.runs)):
            raise InputError(f"--runs {args.runs}: holds no finished step; run make reproduce first")
    else:
        with files.output_folder(args.runs, "--runs"):
            files.write_text(args.runs / "machine.txt", machine(args.jobs))
            print(f"what the steps print goes to {args.runs / 'logs'}, what is finished to {args.runs / 'results'}")
            # not to --results: a part of a run would take the place of a whole one
            run_steps(steps, args.runs, args.jobs, lambda: write_results(args.runs / "results"))
    write_results(args.results)
    print(f"results: {args.results}/README.md")


def plan(runs: Path, data_dir: Path, draws: int, instances: int) -> list[Step]:
    """Every step, the most important first, and none before what it needs."""
    steps = []

    def add(name: str, minutes: float, *commands: list[str], needs: tuple[str, ...] = (), **more: Path) -> None:
        steps.append(Step(name, minutes, commands, needs, **more))

    def train(folder: Path, *flags: object) -> list[str]:
        return _command("train_aae.py", *flags, "--resume", "--data-dir", data_dir, "--output-dir", folder / "aae")

    def mask(folder: Path, dataset: str, *flags: object) -> list[str]:
        copies = PIXEL_COPIES if folder.name == "identity" else COPIES[dataset]
        augment = ["--augment", *AUGMENT[dataset], "--copies", copies]
        output = ["--data-dir", data_dir, "--output", folder / f"{dataset}.pt"]
        return _command("mask_dataset.py", "--dataset", dataset, *flags, *augment, *output)

    def classify(folder: Path, dataset: str, output: str, *flags: object) -> list[str]:
        return _command("classify.py", "--masked", folder / f"{dataset}.pt", *flags, "--output-dir", folder / output)

    def table(folder: Path, dataset: str, draws: int) -> tuple[float, list[str]]:
        """Table 1 or 2: estimated minutes and the command."""
        draws = draws if dataset == "cifar100" else 1
        flags = [*PROTOCOL[dataset], "--repeats", draws]
        # a folder for each dataset: classify.py refuses one that another process writes to
        return DRAW_MINUTES[dataset] * draws, classify(folder, dataset, f"classify-{dataset}", *flags)

    def prior(folder: Path) -> list[str]:
        return _command("-m", "maskbench.measure", "prior", folder, "--data-dir", data_dir)

    fewer = min(FEWER_DRAWS, draws)
    three_classes = ["--classes", 3, "--repeats", fewer]
    for preset in PRESETS:
        flags = ["--preset", preset, "--epochs", EPOCHS[preset], "--instances", instances]
        add(f"train {preset}", TRAIN_MINUTES[preset] * instances / 4, train(runs / preset, *flags))
    for preset in PRESETS:
        for dataset in PROTOCOL:
            work = mask(runs / preset, dataset, "--encoder", runs / preset / "aae" / "0" / "encoder.pt")
            add(f"mask {preset} {dataset}", 3, work, needs=(f"train {preset}",))
    for preset in PRESETS:
        needs = (f"mask {preset} cifar100",)
        add(f"classify {preset} cifar100", *table(runs / preset, "cifar100", draws), needs=needs)
    for preset in PRESETS:
        flags = ["--models", runs / preset / "aae", "--data-dir", data_dir, "--output-dir", runs / preset / "crosspair"]
        add(f"crosspair {preset}", 6, _command("crosspair.py", *flags), needs=(f"train {preset}",))
    add("crosspair pca", 1, _command("-m", "maskbench.measure", "pca", runs / "pca", "--data-dir", data_dir))
    for preset in PRESETS:
        add(f"prior {preset}", 2, prior(runs / preset), needs=(f"train {preset}",))
    for preset in PRESETS:
        needs = (f"mask {preset} mnist",)
        add(f"classify {preset} mnist", *table(runs / preset, "mnist", draws), needs=needs)

    def yardstick(name: str, dataset: str) -> None:
        folder = runs / name
        flags = ["--method", name, *(["--preset", "paper"] if name == "untrained" else [])]
        slower = 5 if name == "identity" else 1
        minutes, work = table(folder, dataset, fewer)
        # masked and classified in one step, so that the masked file may go when it is done
        work = [mask(folder, dataset, *flags), work]
        add(f"classify {name} {dataset}", slower * minutes, *work, removes=folder / f"{dataset}.pt")

    for name in YARDSTICKS:
        yardstick(name, "cifar100")
    for size in GAUSSIAN_DIMS:
        if size == 384:  # the main run's
            continue
        folder = runs / f"gaussian-{size}"
        work = [
            train(folder, "--gaussian-dim", size, "--epochs", 1),
            mask(folder, "cifar100", "--encoder", folder / "aae" / "0" / "encoder.pt"),
            classify(folder, "cifar100", "classify-cifar100", *three_classes, "--methods", "mlp", "forest"),
        ]
        add(f"latent size {size}", 15, *work, removes=folder / "cifar100.pt")
    others = [size for size in GAUSSIAN_DIMS if size != 384]
    flags = ["--models", runs / "maskbench" / "aae", "--data-dir", data_dir, "--output-dir", runs / "audit"]
    flags += ["--more-models", *(runs / f"gaussian-{size}" / "aae" for size in others)]
    needs = ("train maskbench", *(f"latent size {size}" for size in others))
    add("audit", 40, _command("crosspair.py", "--audit", *flags), needs=needs)
    for weight in PRIOR_WEIGHTS:
        folder = runs / f"prior-{weight}"
        flags = ["--prior-weight", weight, "--epochs", 1, "--limit", 20_000]
        add(f"prior weight {weight}", 4, train(folder, *flags), prior(folder))
    for number in collate.ESTIMATORS[1:]:  # the first is Table 1's
        flags = [*three_classes, "--methods", "forest", "adaboost", "--estimators", number]
        work = classify(runs / "maskbench", "cifar100", f"estimators-{number}", *flags)
        add(f"estimators {number}", number / 8, work, needs=("mask maskbench cifar100",))
    for size in IMAGE_SIZES:
        flags = ["--dataset", "photos", "--image-size", size, "--limit", 10_000, "--epochs", 1]
        add(f"image size {size}", (size / 32) ** 2, train(runs / f"image-{size}", *flags))
    for name in reversed(YARDSTICKS):  # raw pixels, the slowest, at the very end
        yardstick(name, "mnist")
    return steps


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
            log.write(f"$ {_shown(command)}\n".encode())
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
                preexec_fn=die_with_parent,
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
        SystemExit: a command failed, or the run was stopped; a second start goes on with what was stopped.
    """
    logs = runs / "logs"
    files.make_folder(logs)
    threads = str(threads_of(jobs))
    environment = {"OMP_NUM_THREADS": threads, "LOKY_MAX_CPU_COUNT": threads, "TQDM_MININTERVAL": "10"}
    environment = {**os.environ, **environment}
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
                old, spent = log.get(step.name), 0.0
                if old and (old["command"], old["state"]) == (step.command, STOPPED):
                    spent = float(old["seconds"])
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
                took = collate.duration(float(log[name]["seconds"]))
                left = collate.duration(seconds_left(steps, log, finished(steps, log), jobs))
                print(f"{numbers[name]}: finished in {took}, about {left} left", flush=True)
                after()
        print("stopping what runs; what is finished is kept, the same command goes on", file=sys.stderr)
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
    rows = collate.read(path) if path.exists() else []
    if any(tuple(row) != STEP_COLUMNS for row in rows):
        raise InputError(f"{path}: damaged; delete it, then the steps are done again")
    return {row["name"]: row for row in rows}


def write_log(log: dict[str, dict], runs: Path) -> None:
    rows = [[row[column] for column in STEP_COLUMNS] for row in log.values()]
    files.write_csv(runs / "steps.csv", STEP_COLUMNS, rows)


def _command(script: str, *arguments: object) -> list[str]:
    return [script, *map(str, arguments)]


def _shown(command: list[str]) -> str:
    return shlex.join(["python", *command])


def commit() -> str:
    """The commit that is checked out, with a + where the program differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        # a collation changes results and README.md, which no step depends on
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!README.md")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """The processor's name."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def machine(jobs: int) -> str:
    """Processor, cores, memory and the versions that results depend on, in one line."""
    import sklearn

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory{gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, "
        f"{jobs} steps at once, OMP_NUM_THREADS={threads_of(jobs)}\n"
    )


def parse_arguments() -> argparse.Namespace:
    parser = cli.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--runs", type=Path, default=Path("runs/reproduce"), help="where the steps leave their outputs")
    add("--results", type=Path, default=Path("results"), help="where tables and pictures go when all is done")
    add("--data-dir", type=Path, default=Path("data"), help="where datasets are kept or downloaded to")
    add("--draws", type=cli.integer(1), default=30, help="random draws of the classes in Table 1")
    add("--instances", type=cli.integer(2), default=4, help="autoencoders of each preset, paired in all ways")
    jobs = "steps at once, by default one a core; fewer share the cores and take less memory"
    add("--jobs", type=cli.integer(1), default=os.cpu_count(), help=jobs)
    add("--collate", action="store_true", help="run nothing; write what is finished; give the flags of that run")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
