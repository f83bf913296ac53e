"""What the reproduction measures beside the four scripts.

    python -m maskbench.measure prior FOLDER   # FOLDER/aae/0 -> FOLDER/prior: do the codes follow the prior?
    python -m maskbench.measure pca FOLDER     # FOLDER/crosspair: the MSE of PCA with as many numbers as a mask

Both read CIFAR-10's images.
"""

from pathlib import Path

import torch

from maskbench import checkpoints, cli, collate, datasets, figures, files, metrics
from maskbench.datasets import to_float
from maskbench.patterns import test_patterns


def main() -> None:
    parser = cli.ArgumentParser(__doc__)
    measures = {"prior": measure_prior, "pca": measure_pca}
    parser.add_argument("measure", choices=measures, help="what is measured")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds the outputs, and what is measured")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where datasets are or are downloaded to")
    args = parser.parse_args()
    measures[args.measure](args.folder, args.data_dir)


def measure_prior(folder: Path, data_dir: Path) -> None:
    """How well the codes of CIFAR-10's validation images follow the prior: ``prior/prior.csv`` and two pictures.

    Args:
        folder: holds ``aae/0``, a trained instance; ``prior`` is made in it.
    """
    encoder, decoder, _ = checkpoints.load_pair(folder / "aae" / "0")
    images = datasets.load("cifar10", data_dir, encoder.config["image_size"])
    _, rows = datasets.autoencoder_split(images)
    gaussian, categorical = metrics.encode(encoder, datasets.batches(images.images, rows, 500))
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
    model = PCA(collate.NUMBERS, svd_solver="covariance_eigh").fit(to_float(sets["train"]).flatten(1).numpy())
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


if __name__ == "__main__":
    cli.run(main)
