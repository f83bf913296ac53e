"""What the reproduction measures beside the four scripts.

    python -m maskbench.reproduce.measure prior FOLDER   # FOLDER/aae -> FOLDER/prior: how codes follow the prior
    python -m maskbench.reproduce.measure pca FOLDER     # FOLDER/crosspair: the MSE of PCA of as many numbers

Both read CIFAR-10's images.
"""

import itertools
from pathlib import Path

import torch

from maskbench.data import datasets, image_quality
from maskbench.data.image_set import to_float
from maskbench.data.patterns import test_patterns
from maskbench.masking import Recipe
from maskbench.masking.pca import Pca
from maskbench.models import checkpoints, evaluation
from maskbench.reproduce.paper import PRIOR_GOALS
from maskbench.reproduce.prior_figures import draw_prior_fit, draw_prior_samples
from maskbench.reproduce.summary import COLUMNS
from maskbench.runtime import command_line
from maskbench.storage import atomic, tables


def main() -> None:
    parser = command_line.ArgumentParser(__doc__)
    measures = {"prior": measure_prior, "pca": measure_pca}
    parser.add_argument("measure", choices=measures, help="what is measured")
    parser.add_argument(
        "folder", type=command_line.path, metavar="FOLDER", help="holds the outputs, and what is measured"
    )
    parser.add_argument(
        "--data-dir", type=command_line.path, default=Path("data"), help="where datasets are or are downloaded to"
    )
    args = parser.parse_args()
    measures[args.measure](args.folder, args.data_dir)


def measure_prior(folder: Path, data_dir: Path) -> None:
    """How well the codes of CIFAR-10's validation images follow the prior: ``prior/prior.csv``, and two pictures of 0.

    The losses in it are means over the last epoch.

    Args:
        folder: holds ``aae/0`` and so on, trained instances; ``prior`` is made in it.
    """
    output = folder / "prior"
    atomic.make_folder(output)
    table, images = [], None
    for number in itertools.takewhile(lambda i: i == 0 or (folder / "aae" / str(i)).exists(), itertools.count()):
        instance = folder / "aae" / str(number)
        encoder, decoder, _ = checkpoints.load_pair(instance)
        images = images or datasets.load("cifar10", data_dir, encoder.config["image_size"])
        _, rows = datasets.autoencoder_split(images)
        codes = evaluation.encode(encoder, datasets.batches(images.images, rows, 500))
        measures = evaluation.latent_summary(*codes) | evaluation.told_from_prior(codes[0])
        last = tables.read(instance / "metrics.csv")[-1]
        measures |= {name: float(last[name]) for name in PRIOR_GOALS if name.endswith("_loss")}
        table += [(number, name, value) for name, value in measures.items()]
        if number == 0:
            draw_prior_fit(*codes, output / "prior-fit.png")
            draw_prior_samples(decoder, output / "prior-samples.png")
    tables.write_csv(output / "prior.csv", COLUMNS["priors"][1:4], table)


def measure_pca(folder: Path, data_dir: Path) -> None:
    """MSE of PCA with as many numbers as a mask, fitted on the autoencoders' training images: ``crosspair.csv``."""
    images = datasets.load("cifar10", data_dir)
    train_rows, validation_rows = datasets.autoencoder_split(images)
    sets = {
        "patterns": torch.stack(list(test_patterns().values())),
        "train": images.images[train_rows],
        "validation": images.images[validation_rows],
    }
    pca = Pca.make(Recipe(public=lambda: sets["train"]))
    table = []
    for name, part in sets.items():
        errors = []
        for batch in part.split(500):
            pixels = to_float(batch)
            errors.append(image_quality.image_mse(pca.rebuild(*pca.encode(pixels)), pixels).double())
        deviation, mean = torch.std_mean(torch.cat(errors), correction=0)
        table.append([name, "matched", mean.item(), deviation.item(), "", ""])
    output = folder / "crosspair"
    atomic.make_folder(output)
    tables.write_csv(output / "crosspair.csv", COLUMNS["crosspair"][1:], table)


if __name__ == "__main__":
    command_line.run(main)
