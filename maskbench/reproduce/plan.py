"""Every step of the reproduction: commands that anybody can type."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskbench.reproduce import summary
from maskbench.reproduce.summary import BASELINES, FEWER_DRAWS, GAUSSIAN_DIMS, IMAGE_SIZES, PRESETS, PRIOR_WEIGHTS

EPOCHS = {"maskbench": 2, "paper": 4}
# on two cores, to begin with: what is left is scaled by what finished steps took
TRAIN_MINUTES = {"maskbench": 30, "paper": 25}  # four instances
DRAW_MINUTES = {"cifar100": 1, "mnist": 5}  # all methods and class counts
# MNIST's MLP sees 50,000 images an epoch: ten epochs are more steps than fifty on a few classes of CIFAR-100
PROTOCOL = {"cifar100": ["--classes", 2, 3, 4], "mnist": ["--classes", "all", "--epochs", 10]}
AUGMENT = {"cifar100": ["flip", "shift"], "mnist": ["shift"]}
COPIES = {"cifar100": 20, "mnist": 8}
PIXEL_COPIES = 3  # raw pixels take eight times the memory of a mask


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
        return " && ".join(map(shown_command, self.commands))


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
        return _command("-m", "maskbench.reproduce.measure", "prior", folder, "--data-dir", data_dir)

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
    add("crosspair pca", 1, _command("-m", "maskbench.reproduce.measure", "pca", runs / "pca", "--data-dir", data_dir))
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

    for name in BASELINES:
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
    for number in summary.ESTIMATORS[1:]:  # the first is Table 1's
        flags = [*three_classes, "--methods", "forest", "adaboost", "--estimators", number]
        work = classify(runs / "maskbench", "cifar100", f"estimators-{number}", *flags)
        add(f"estimators {number}", number / 8, work, needs=("mask maskbench cifar100",))
    for size in IMAGE_SIZES:
        flags = ["--dataset", "photos", "--image-size", size, "--limit", 10_000, "--epochs", 1]
        add(f"image size {size}", (size / 32) ** 2, train(runs / f"image-{size}", *flags))
    for name in reversed(BASELINES):  # raw pixels, the slowest, at the very end
        yardstick(name, "mnist")
    return steps


def _command(script: str, *arguments: object) -> list[str]:
    return [script, *map(str, arguments)]


def shown_command(command: list[str]) -> str:
    return shlex.join(["python", *command])
