"""The paper's tables and figures, ours beside them, on the real data: hours on two cores.

    make reproduce                              # all of it; given again, it goes on where it stopped
    python -m maskbench.reproduce --draws 3     # fewer draws of classes
    python -m maskbench.reproduce --collate     # run nothing, write results/ from what is finished

Every step is a command of the four scripts, or a measurement made here. Finished steps are kept in
``runs/reproduce/steps.csv`` and skipped, unless their command or a step before that they depend on has changed.
Paths are relative to the root of the repository.
"""

import argparse
import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from maskbench import checkpoints, cli, collate, datasets, figures, files, metrics
from maskbench.children import die_with_parent
from maskbench.collate import FEWER_DRAWS, GAUSSIAN_DIMS, IMAGE_SIZES, NUMBERS, PRESETS, PRIOR_WEIGHTS, YARDSTICKS
from maskbench.datasets import to_float
from maskbench.errors import InputError
from maskbench.patterns import test_patterns

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = {"maskbench": 2, "paper": 4}
# on two cores, to begin with: what is left is scaled by what finished steps took
TRAIN_MINUTES = {"maskbench": 30, "paper": 25}  # four instances
DRAW_MINUTES = {"cifar100": 1, "mnist": 15}  # all methods and class counts
# raw pixels take eight times the memory of a mask and eight times the trees' time: fewer copies of them
AUGMENT = {
    "cifar100": {"identity": ["flip"]},
    "mnist": {"identity": []},
}
EVERY_COPY = {"cifar100": ["flip", "shift"], "mnist": ["shift"]}
STEP_COLUMNS = ("name", "command", "seconds", "commit", "state")
FINISHED, STOPPED = "finished", "stopped"

Work = list[str] | functools.partial


@dataclass(frozen=True)
class Step:
    """Part of the plan.

    Attributes:
        name: unique.
        minutes: what it takes on two cores, estimated.
        work: commands of Python, without the interpreter, and functions, done one after another.
        needs: names of the steps whose outputs it reads.
        removes: a large file that nothing needs when it is done.
    """

    name: str
    minutes: float
    work: Sequence[Work]
    needs: tuple[str, ...] = ()
    removes: Path | None = None

    @property
    def command(self) -> str:
        return " && ".join(map(_shown, self.work))


def main() -> None:
    args = parse_arguments()
    os.chdir(ROOT)
    if not Path("train_aae.py").exists():
        raise InputError(f"{ROOT} is not maskbench's repository; clone it and install maskbench with --editable")
    steps = plan(args.runs, args.data_dir, args.draws, args.instances)

    def write_results() -> None:
        log = read_log(args.runs)
        done = finished(steps, log)
        collate.collate(args.runs, args.results, done, [log[step.name] for step in steps if step.name in done])
        if args.results.resolve() == ROOT / "results":
            collate.rewrite_section(ROOT / "README.md", collate.readme_tables(args.results))

    if not args.collate:
        with files.output_folder(args.runs, "--runs"):
            files.write_text(args.runs / "machine.txt", machine())
            run_steps(steps, args.runs, write_results)
    write_results()
    print(f"results: {args.results}/README.md")


def plan(runs: Path, data_dir: Path, draws: int, instances: int) -> list[Step]:
    """Every step, in an order in which each finds what it needs."""

    def train(folder: Path, *flags: object) -> list[str]:
        return _command("train_aae.py", *flags, "--resume", "--data-dir", data_dir, "--output-dir", folder / "aae")

    def mask(folder: Path, dataset: str, *flags: object) -> list[str]:
        copies = AUGMENT[dataset].get(folder.name, EVERY_COPY[dataset])
        augment = ["--augment", *copies] if copies else []
        output = ["--data-dir", data_dir, "--output", folder / f"{dataset}.pt"]
        return _command("mask_dataset.py", "--dataset", dataset, *flags, *augment, *output)

    def classify(folder: Path, dataset: str, output: str, *flags: object) -> list[str]:
        return _command("classify.py", "--masked", folder / f"{dataset}.pt", *flags, "--output-dir", folder / output)

    steps = []
    protocol = {
        "cifar100": ["--classes", 2, 3, 4, "--repeats", draws],
        "mnist": ["--classes", "all", "--repeats", 1],
    }
    minutes = {dataset: DRAW_MINUTES[dataset] * flags[-1] for dataset, flags in protocol.items()}
    fewer = ["--classes", 3, "--repeats", min(FEWER_DRAWS, draws)]
    for preset in PRESETS:
        folder = runs / preset
        trained = (f"train {preset}",)
        flags = ["--preset", preset, "--epochs", EPOCHS[preset], "--instances", instances]
        steps.append(Step(trained[0], TRAIN_MINUTES[preset] * instances / 4, [train(folder, *flags)]))
        pairs = _command(
            "crosspair.py", "--models", folder / "aae", "--data-dir", data_dir, "--output-dir", folder / "crosspair"
        )
        steps.append(Step(f"crosspair {preset}", 6, [pairs], trained))
        for dataset in protocol:
            work = mask(folder, dataset, "--encoder", folder / "aae" / "0" / "encoder.pt")
            steps.append(Step(f"mask {preset} {dataset}", 3, [work], trained))
        for dataset, flags in protocol.items():
            work = classify(folder, dataset, "classify", *flags)
            steps.append(Step(f"classify {preset} {dataset}", minutes[dataset], [work], (f"mask {preset} {dataset}",)))
        work = functools.partial(measure_prior, folder, data_dir)
        steps.append(Step(f"prior {preset}", 2, [work], trained))

    steps.append(Step("crosspair pca", 1, [functools.partial(measure_pca, runs / "pca", data_dir)]))
    for yardstick in YARDSTICKS:
        folder = runs / yardstick
        flags = ["--method", yardstick, *(["--preset", "paper"] if yardstick == "untrained" else [])]
        slower = 1.5 if yardstick == "identity" else 1
        for dataset in protocol:
            # masked and classified in one step, so that the masked file may go when it is done
            work = [mask(folder, dataset, *flags), classify(folder, dataset, "classify", *protocol[dataset])]
            name = f"classify {yardstick} {dataset}"
            steps.append(Step(name, slower * minutes[dataset], work, removes=folder / f"{dataset}.pt"))

    for number in collate.ESTIMATORS[1:]:  # the first is Table 1's
        flags = [*fewer, "--methods", "forest", "adaboost", "--estimators", number]
        work = classify(runs / "maskbench", "cifar100", f"estimators-{number}", *flags)
        steps.append(Step(f"estimators {number}", number / 8, [work], ("mask maskbench cifar100",)))
    for size in GAUSSIAN_DIMS:
        if size == 384:  # the main run's
            continue
        folder = runs / f"gaussian-{size}"
        work = [
            train(folder, "--gaussian-dim", size, "--epochs", 1),
            mask(folder, "cifar100", "--encoder", folder / "aae" / "0" / "encoder.pt"),
            classify(folder, "cifar100", "classify", *fewer, "--methods", "mlp", "forest"),
        ]
        steps.append(Step(f"latent size {size}", 15, work, removes=folder / "cifar100.pt"))
    for size in IMAGE_SIZES:
        flags = ["--dataset", "photos", "--image-size", size, "--limit", 10_000, "--epochs", 1]
        steps.append(Step(f"image size {size}", (size / 32) ** 2, [train(runs / f"image-{size}", *flags)]))
    for weight in PRIOR_WEIGHTS:
        folder = runs / f"prior-{weight}"
        work = [
            train(folder, "--prior-weight", weight, "--epochs", 1, "--limit", 20_000),
            functools.partial(measure_prior, folder, data_dir),
        ]
        steps.append(Step(f"prior weight {weight}", 4, work))
    return steps


def measure_prior(folder: Path, data_dir: Path) -> None:
    """How well the codes of CIFAR-10's validation images follow the prior: ``prior/prior.csv`` and two pictures.

    Args:
        folder: holds ``aae/0``, a trained instance; ``prior`` is made in it.
    """
    encoder, decoder, _ = checkpoints.load_pair(folder / "aae" / "0")
    images = datasets.load("cifar10", data_dir, encoder.config["image_size"])
    _, rows = datasets.autoencoder_split(images)
    gaussian, categorical = metrics.encode(encoder, images.images[rows])
    measures = metrics.latent_summary(gaussian, categorical) | metrics.told_from_prior(gaussian)
    output = folder / "prior"
    files.make_folder(output)
    files.write_csv(output / "prior.csv", ("measure", "value"), measures.items())
    figures.prior_fit(gaussian, categorical, output / "prior-fit.png")
    figures.prior_samples(decoder, output / "prior-samples.png")


def measure_pca(folder: Path, data_dir: Path) -> None:
    """MSE of PCA with as many numbers as a mask, fitted on the autoencoders' training images: ``crosspair.csv``."""
    from sklearn.decomposition import PCA

    images = datasets.load("cifar10", data_dir)
    train_rows, validation_rows = datasets.autoencoder_split(images)
    sets = {
        "patterns": torch.stack(list(test_patterns().values())),
        "train": images.images[train_rows],
        "validation": images.images[validation_rows],
    }
    model = PCA(NUMBERS, svd_solver="covariance_eigh").fit(to_float(sets["train"]).flatten(1).numpy())
    mean, components = torch.from_numpy(model.mean_), torch.from_numpy(model.components_)
    table = []
    for name, part in sets.items():
        errors = []
        for batch in part.split(500):
            pixels = to_float(batch)
            rebuilt = ((pixels.flatten(1) - mean) @ components.T @ components + mean).clamp(0, 1)
            errors.append(metrics.image_mse(rebuilt.view_as(pixels), pixels).double())
        deviation, average = torch.std_mean(torch.cat(errors), correction=0)
        table.append([name, "matched", average.item(), deviation.item(), "", ""])
    output = folder / "crosspair"
    files.make_folder(output)
    files.write_csv(output / "crosspair.csv", collate.COLUMNS["crosspair"][1:], table)


def run_steps(steps: list[Step], runs: Path, after: Callable[[], None]) -> None:
    """Do what is not finished; ``after`` is called when a step is.

    Raises:
        SystemExit: a command failed or was stopped, with its exit status; a second start goes on with it.
    """
    for number, step in enumerate(steps, 1):
        log = read_log(runs)
        done = finished(steps, log)
        if step.name in done:
            continue
        print(f"\n[{number}/{len(steps)}] {step.name}: {step.command}")
        print(f"about {collate.duration(seconds_left(steps, log, done))} left", flush=True)
        before, spent = log.get(step.name), 0.0
        if before and (before["command"], before["state"]) == (step.command, STOPPED):
            spent = float(before["seconds"])
        # what was made of this step's earlier outputs is to be made again
        for name in dependents(steps, step.name):
            log.pop(name, None)
        write_log(log, runs)
        row = {"name": step.name, "command": step.command, "commit": commit()}
        start = time.monotonic()
        state = STOPPED
        try:
            for work in step.work:
                work() if callable(work) else _call(work)
            if step.removes:
                step.removes.unlink(missing_ok=True)
            state = FINISHED
        finally:
            log[step.name] = row | {"seconds": f"{spent + time.monotonic() - start:.1f}", "state": state}
            write_log(log, runs)
        after()


def seconds_left(steps: list[Step], log: dict[str, dict], done: set[str]) -> float:
    """Estimates of what is still to be done, scaled by how the finished steps compare to theirs."""
    estimated = 60 * sum(step.minutes for step in steps if step.name in done)
    measured = sum(float(log[name]["seconds"]) for name in done)
    to_do = 60 * sum(step.minutes for step in steps if step.name not in done)
    return to_do * (measured / estimated if estimated else 1)


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


def _shown(work: Work) -> str:
    if callable(work):
        return f"{work.func.__name__}({', '.join(map(str, work.args))})"
    return shlex.join(["python", *work])


def _call(command: list[str]) -> None:
    """Run a command; SIGINT and SIGTERM go to it, once, and are waited for."""
    heard = []
    # a process group of its own: at a terminal Ctrl-C would reach it twice, and a second one stops without saving
    process = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.DEVNULL, process_group=0, preexec_fn=die_with_parent
    )

    def forward(number: int, _frame: object) -> None:
        heard.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        print("stopped; what is finished is kept, the same command goes on", file=sys.stderr)
        sys.exit(128 + heard[-1])
    if status:
        status = 128 - status if status < 0 else status
        print(f"{_shown(command)} ended with exit status {status}; what is finished is kept", file=sys.stderr)
        sys.exit(status)


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


def machine() -> str:
    """Processor, cores, memory and the versions that results depend on, in one line."""
    import platform

    import sklearn

    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB of memory{gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}\n"
    )


def parse_arguments() -> argparse.Namespace:
    parser = cli.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--runs", type=Path, default=Path("runs/reproduce"), help="where the steps leave their outputs")
    add("--results", type=Path, default=Path("results"), help="where tables and pictures go")
    add("--data-dir", type=Path, default=Path("data"), help="where datasets are kept or downloaded to")
    add("--draws", type=cli.integer(1), default=30, help="random draws of the classes in Table 1")
    add("--instances", type=cli.integer(2), default=4, help="autoencoders of each preset, paired in all ways")
    add("--collate", action="store_true", help="run nothing; give the flags of the run whose steps are collated")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
