"""What is each part of a preset worth? Of preset paper, each addition to the paper's text.

    python benchmarks/ablation.py                      # CIFAR-10 and CIFAR-100 in data/; about 50 minutes on one core
    python benchmarks/ablation.py --save               # also into results/ablation.csv
    python benchmarks/ablation.py --preset invariant   # what keeps its codes from collapsing; about 30 minutes

A row "added" is a training by train_aae.py without the additions of the rows below it, a row "left out" one of the
whole preset without that part. Then the encoder masks CIFAR-100, and a random forest classifies draws of three classes.
docs/method.md has the tables.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import common
import torch

import classify
import mask_dataset
import train_aae
from maskbench.data import datasets
from maskbench.models import PRESETS, Discriminator, checkpoints, decoder, encoder, evaluation, heads, layers
from maskbench.runtime import command_line
from maskbench.runtime.machine import commit
from maskbench.storage import tables
from maskbench.training.state import TrainingState

COLUMNS = (
    "addition",
    "is",
    "validation_mse",
    "gaussian_discriminator_loss",
    "categorical_discriminator_loss",
    "generator_loss",
    "told_from_prior",
    "told_by_length",
    "category_max",
    "dimensions",
    "forest_accuracy",
    "commit",
)


def patched(place: object, **values: object) -> list[mock._patch]:
    return [mock.patch.object(place, name, value) for name, value in values.items()]


# each addition, and what stands there without it
ADDITIONS: dict[str, list[mock._patch]] = {
    "the paper's text": [],
    "one-hot categories": patched(encoder, one_hot=lambda logits: logits.softmax(1)),
    "even categories at the start": patched(train_aae, start_with_even_categories=lambda *arguments: None),
    "half the step against the discriminators": patched(train_aae, GENERATOR_STEP=1.0),
    "falling rates": patched(TrainingState, anneal=lambda self, epochs, end: None),
    "second beta 0.95": patched(train_aae, BETAS=(0.9, 0.999), DISCRIMINATOR_BETAS={"paper": (0.9, 0.999)}),
    "slope 0.5": [patch for module in (encoder, decoder, layers) for patch in patched(module, SLOPE=0.2)],
    "gradient penalty": patched(train_aae, GRADIENT_PENALTY={"paper": 0.0}),
    "a learned power of the length": patched(heads.Contrast, forward=lambda self, x: x, inverse=lambda self, x: x),
    "whitening": patched(train_aae, whiten=lambda *arguments: None),
    "two steps of the discriminators": patched(train_aae, DISCRIMINATOR_STEPS={"paper": 1}),
    "the length as a further number": patched(
        train_aae, Discriminator=lambda features, reads_length=False: Discriminator(features)
    ),
}
# what may keep the codes of preset invariant from collapsing
PARTS: dict[str, list[mock._patch]] = {
    "nothing": [],
    "the priors": patched(train_aae, PRIOR_PULL=0.0),
    "the decorrelation": patched(train_aae, DECORRELATION=0.0),
    "both": patched(train_aae, PRIOR_PULL=0.0, DECORRELATION=0.0),
}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="paper", help="whose parts are left out")
    parser.add_argument("--epochs", type=command_line.integer(1), default=3, help="of each training")
    parser.add_argument("--limit", type=command_line.integer(2000), default=20_000, help="images trained on")
    parser.add_argument("--draws", type=command_line.integer(1), default=5, help="of three classes")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where datasets are")
    args = parser.parse_args()
    rows = []
    if args.preset == "paper":
        file, parts, names = "ablation.csv", ADDITIONS, list(ADDITIONS)
        trainings = [(name, "added", names[number:]) for number, name in enumerate(names, 1)]
        # without the last one: the last but one of the rows above
        trainings += [(name, "left out", [name]) for name in names[1:-1]]
    else:
        file, parts = "ablation_invariant.csv", PARTS
        trainings = [(name, "left out", [name]) for name in PARTS]
    for name, kind, missing in trainings:
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
            # rows below first, so that of two patches of one name the upper row's holds
            for patch in (patch for other in reversed(missing) for patch in parts[other]):
                stack.enter_context(patch)
            rows.append([name, kind, *measure(Path(folder), args), commit()])
        print(tables.markdown(COLUMNS, [[shown(value) for value in row] for row in rows]), flush=True)
        if args.save:
            tables.write_csv(common.RESULTS / file, COLUMNS, rows)


def measure(folder: Path, args: argparse.Namespace) -> list[float]:
    """Train one autoencoder, mask, classify; the numbers of COLUMNS.

    *Dimensions* is how many uncorrelated ones of equal variance would be spread as the last epoch's codes are (their
    participation ratio).
    """
    models, masked = folder / "aae", folder / "cifar100.pt"
    common_flags = ["--data-dir", args.data_dir, "--device", "cpu"]
    outputs, whiten = [], train_aae.whiten

    def watched(*arguments: object) -> None:
        outputs.append(arguments[2])
        whiten(*arguments)

    with mock.patch.object(train_aae, "whiten", watched):
        call(train_aae.main, "--preset", args.preset, "--epochs", args.epochs, "--limit", args.limit, *common_flags,
             "--output-dir", models)  # fmt: skip
    call(mask_dataset.main, "--encoder", models / "0" / "encoder.pt", *common_flags, "--output", masked)
    call(classify.main, "--masked", masked, "--classes", 3, "--repeats", args.draws, "--methods", "forest",
         "--device", "cpu", "--output-dir", folder)  # fmt: skip

    trained, *_ = checkpoints.load_pair(models / "0")
    images = datasets.load("cifar10", args.data_dir)
    _, validation = datasets.autoencoder_split(images)
    codes = evaluation.encode(trained, datasets.batches(images.images, validation, 500))
    last = tables.read(models / "0" / "metrics.csv")[-1]
    (forest,) = (row for row in tables.read(folder / "cifar100.csv") if row["metric"] == "accuracy")
    told = evaluation.told_from_prior(codes[0])
    # before the last whitening of the codes in training; a mask of preset invariant is whitened once more
    spread = outputs[-2 if args.preset == "invariant" else -1].T.cov()
    return [
        *(float(last[name]) for name in COLUMNS[2:6]),
        told["mlp"],
        told["length"],
        evaluation.latent_summary(*codes)["category_max"],
        float(spread.trace() ** 2 / spread.square().sum()),
        float(forest["mean"]),
    ]


def call(script: Callable[[], None], *arguments: object) -> None:
    """A script's main with these arguments, in this process, whose patches it sees."""
    with mock.patch("sys.argv", [script.__module__, *map(str, arguments)]):
        script()


def shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    command_line.run(main)
