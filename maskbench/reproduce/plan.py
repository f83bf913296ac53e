"""Every step of the reproduction: commands that anybody can type."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskbench.masking import BASELINES
from maskbench.models import DEFAULT_PRESET, PRESETS

AUDITED = 2  # instances of preset invariant: the victim and the attacker's own; the paper's four are of preset paper
# on two cores, to begin with: what is left is scaled by what finished steps took
TRAIN_MINUTES = {"invariant": 60, "paper": 33}  # all instances
DRAW_MINUTES = {"cifar100": 1, "mnist": 5}  # all classifiers and class counts
# MNIST's MLP sees 50,000 images an epoch: twenty epochs are more steps than a hundred on a few classes of CIFAR-100
PROTOCOL = {"cifar100": ["--classes", 2, 3, 4], "mnist": ["--classes", "all", "--epochs", 20]}
AUGMENT = {"cifar100": ["flip", "shift"], "mnist": ["shift"]}
COPIES = {"cifar100": 20, "mnist": 8}
PIXEL_COPIES = 3  # raw pixels take eight times the memory of a mask

FEWER_DRAWS = 5  # of the baselines and what else stands beside Table 1: its first five draws
NUMBERS = 404  # in a mask of preset paper, with its categories
PRIOR_WEIGHTS = (0, 0.1, 1, 3)
BOUNDING = 0.1  # what is kept in noise that bounds links
IN_NOISE = "cifar100-noise"  # name of such masks
NOISE_REPORT = f"release-{IN_NOISE}.html"
# audited beside the autoencoder's masks: the first noise leaves the MLP the paper's accuracy
BESIDE = ("aae+key", *BASELINES, "aae+noise0.85", f"aae+noise{BOUNDING}")
# of examples of release reports: what their owner would accept
THRESHOLDS = {"--most-ssim": 0.23, "--most-named": 0.2, "--most-linked": 0.2, "--most-inferred": 0.3}


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


def make_plan(runs: Path, data_dir: Path, draws: int, instances: int) -> list[Step]:
    """Every step, the most important first, and none before what it needs.

    Args:
        runs: where the steps leave their outputs, a folder for each preset, baseline and variation.
        data_dir: where datasets are kept.
        draws: of the classes in Table 1.
        instances: autoencoders of preset paper.
    """
    commands = _Commands(runs, data_dir)
    fewer = min(FEWER_DRAWS, draws)
    return [
        *_preset_steps(commands, draws, instances),
        *(_baseline_step(commands, name, "cifar100", fewer) for name in BASELINES),
        *_noise_steps(commands),
        _audit_step(commands),
        *_prior_weight_steps(commands),
        # raw pixels, the slowest, at the very end
        *(_baseline_step(commands, name, "mnist", fewer) for name in reversed(BASELINES)),
    ]


@dataclass(frozen=True)
class _Commands:
    """The scripts' commands, with the folders of this plan in them."""

    runs: Path
    data_dir: Path

    def train(self, folder: Path, *flags: object) -> list[str]:
        output = ["--data-dir", self.data_dir, "--output-dir", folder / "aae"]
        return _command("train_aae.py", *flags, "--resume", *output)

    def mask(self, folder: Path, dataset: str, *flags: object) -> list[str]:
        copies = PIXEL_COPIES if folder.name == "identity" else COPIES[dataset]
        augment = ["--augment", *AUGMENT[dataset], "--copies", copies]
        output = ["--data-dir", self.data_dir, "--output", folder / f"{dataset}.pt"]
        return _command("mask_dataset.py", "--dataset", dataset, *flags, *augment, *output)

    def mask_by_encoder(self, models: Path, dataset: str, number: int = 0, output: Path | None = None) -> list[str]:
        encoder = models / "aae" / str(number) / "encoder.pt"
        return self.mask(output or models, dataset, "--encoder", encoder)

    def classify(self, folder: Path, dataset: str, output: str, *flags: object) -> list[str]:
        return _command("classify.py", "--masked", folder / f"{dataset}.pt", *flags, "--output-dir", folder / output)

    def score(self, folder: Path, dataset: str, draws: int) -> list[str]:
        """The rows of Table 1 or 2; a folder for each, as classify.py refuses one that another process writes to."""
        flags = [*PROTOCOL[dataset], "--repeats", _draws(dataset, draws)]
        return self.classify(folder, dataset, f"classify-{dataset}", *flags)

    def pair(self, folder: Path, output: Path, *flags: object) -> list[str]:
        models = ["--models", folder / "aae", "--data-dir", self.data_dir, "--output-dir", output]
        return _command("crosspair.py", *flags, *models)

    def measure(self, what: str, folder: Path) -> list[str]:
        return _command("-m", "maskbench.reproduce.measure", what, folder, "--data-dir", self.data_dir)


def _command(script: str, *arguments: object) -> list[str]:
    return [script, *map(str, arguments)]


def shown_command(command: list[str]) -> str:
    return shlex.join(["python", *command])


def _draws(dataset: str, draws: int) -> int:
    """Table 2 has all classes, so there is one draw of them."""
    return draws if dataset == "cifar100" else 1


def _score_minutes(dataset: str, draws: int) -> float:
    return DRAW_MINUTES[dataset] * _draws(dataset, draws)


def _preset_steps(commands: _Commands, draws: int, instances: int) -> list[Step]:
    """Both presets through the four scripts, and PCA's errors beside the cross-pairs."""
    steps = []
    runs = commands.runs
    for preset in PRESETS:
        flags = ["--preset", preset, "--epochs", PRESETS[preset]["epochs"]]
        flags += ["--instances", _instances(preset, instances)]
        steps.append(Step(f"train {preset}", TRAIN_MINUTES[preset], [commands.train(runs / preset, *flags)]))
    for preset in PRESETS:
        work = [commands.mask_by_encoder(runs / preset, "cifar100")]
        steps.append(Step(f"mask {preset} cifar100", 3, work, needs=(f"train {preset}",)))
    for preset in PRESETS:
        work = [commands.score(runs / preset, "cifar100", draws)]
        minutes = _score_minutes("cifar100", draws)
        steps.append(Step(f"classify {preset} cifar100", minutes, work, needs=(f"mask {preset} cifar100",)))
    for preset in PRESETS:
        work = [commands.pair(runs / preset, runs / preset / "crosspair")]
        steps.append(Step(f"crosspair {preset}", 6, work, needs=(f"train {preset}",)))
    steps.append(Step("crosspair pca", 1, [commands.measure("pca", runs / "pca")]))
    for preset in PRESETS:
        work = [commands.measure("prior", runs / preset)]
        steps.append(Step(f"prior {preset}", 2 * _instances(preset, instances), work, needs=(f"train {preset}",)))
    for preset in PRESETS:
        steps += [_digits_step(commands, preset, number, draws) for number in range(_instances(preset, instances))]
    return steps


def _instances(preset: str, instances: int) -> int:
    """How many autoencoders of a preset are trained, where preset paper has ``instances`` of them."""
    return instances if preset == "paper" else min(AUDITED, instances)


def _digits_step(commands: _Commands, preset: str, number: int, draws: int) -> Step:
    """MNIST by one encoder: all classes leave nothing to draw, so Table 2 is a mean over encoders."""
    folder = digits_folder(commands.runs, preset, number)
    masked = commands.mask_by_encoder(commands.runs / preset, "mnist", number, folder)
    work = [masked, commands.score(folder, "mnist", draws)]
    minutes = 3 + _score_minutes("mnist", draws)
    name = digits_step_name(preset, number)
    return Step(name, minutes, work, needs=(f"train {preset}",), removes=folder / "mnist.pt")


def digits_folder(runs: Path, preset: str, number: int) -> Path:
    """Where MNIST is masked and classified by instance ``number`` of a preset."""
    return runs / preset / f"mnist-{number}"


def digits_step_name(preset: str, number: int | str) -> str:
    """The step that masks and classifies MNIST by instance ``number`` of a preset, which stands last."""
    return f"classify {preset} mnist {number}"


def _baseline_step(commands: _Commands, name: str, dataset: str, draws: int) -> Step:
    """Masked and classified in one step, so that the masked file may go when it is done."""
    folder = commands.runs / name
    flags = ["--method", name, *(["--preset", "paper"] if name == "untrained" else [])]
    work = [commands.mask(folder, dataset, *flags), commands.score(folder, dataset, draws)]
    minutes = (5 if name == "identity" else 1) * _score_minutes(dataset, draws)
    return Step(f"classify {name} {dataset}", minutes, work, removes=folder / f"{dataset}.pt")


def _noise_steps(commands: _Commands) -> list[Step]:
    """A secret, of its own step as none is overwritten, and masks in noise from it, for a release report."""
    folder = commands.runs / DEFAULT_PRESET
    secret, masked = folder / "noise.key", noise_file(commands.runs)
    flags = ["--encoder", folder / "aae" / "0" / "encoder.pt", "--noise", BOUNDING, "--noise-secret", secret]
    work = _command("mask_dataset.py", *flags, "--data-dir", commands.data_dir, "--output", masked)
    needed = f"train {DEFAULT_PRESET}"
    return [
        Step("noise secret", 0.1, [_command("-m", "maskbench.key", secret)], (needed,)),
        Step("mask in noise", 1, [work], (needed, "noise secret")),
    ]


def noise_file(runs: Path) -> Path:
    """The masks in noise that a release report is about."""
    return runs / DEFAULT_PRESET / f"{IN_NOISE}.pt"


def _audit_step(commands: _Commands) -> Step:
    runs = commands.runs
    others = [preset for preset in PRESETS if preset != DEFAULT_PRESET]
    work = commands.pair(runs / DEFAULT_PRESET, runs / "audit", "--audit")
    work += ["--masks", *BESIDE, "--more-models", *(str(runs / preset / "aae") for preset in others)]
    work += ["--release", str(runs / DEFAULT_PRESET / "cifar100.pt"), str(noise_file(runs))]
    work += ["--recipient", "a laboratory, for example"]
    work += [str(word) for threshold in THRESHOLDS.items() for word in threshold]
    needs = *(f"train {preset}" for preset in PRESETS), f"mask {DEFAULT_PRESET} cifar100", "mask in noise"
    return Step("audit", 150, [work], needs)


def _prior_weight_steps(commands: _Commands) -> list[Step]:
    steps = []
    for weight in PRIOR_WEIGHTS:
        folder = commands.runs / f"prior-{weight}"
        flags = ["--preset", "paper", "--prior-weight", weight, "--epochs", 4, "--limit", 20_000]
        work = [commands.train(folder, *flags), commands.measure("prior", folder)]
        steps.append(Step(f"prior weight {weight}", 4, work))
    return steps
