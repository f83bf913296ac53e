"""Mask a dataset: images in, latent vectors and labels out.

    python mask_dataset.py                                  # CIFAR-100 with runs/aae/0 -> masked/cifar100.pt
    python mask_dataset.py --dataset mnist
    python mask_dataset.py --dataset folder:my-images --output masked/mine.pt
    python mask_dataset.py --augment flip shift             # also masked copies of the training images
    python mask_dataset.py --method pca --fit-on cifar10    # a yardstick -> masked/cifar100-pca.pt

Masking needs encoder.pt alone. The masked file holds no pixels, file names or weights; it may be handed out
as far as you trust the mask itself: whoever has the encoder too can train a decoder (see README).

The yardsticks a masking method is compared with: `identity` (the raw pixels, masks nothing), `pca` and
`random-projection` (as many numbers as the AAE's masks, fitted on the public set --fit-on), `untrained` (the
encoder at its initial weights).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from maskbench import checkpoints, cli, datasets, files, masked
from maskbench.datasets import ImageSet, to_float
from maskbench.errors import InputError
from maskbench.models import PRESETS, Encoder

SHIFT = 2  # pixels

Mask = Callable[[Tensor], tuple[Tensor, Tensor]]  # float images [N, 3, S, S] -> [N, G], [N, K]


def main() -> None:
    args = parse_arguments()
    device = cli.pick_device(args.device)
    mask, fingerprint, image_size = make_mask(args, device)
    images = datasets.load(args.dataset, args.data_dir, image_size, args.workers)
    train_rows, test_rows = datasets.labelled_split(images, args.limit)
    output = args.output or default_output(args.dataset, args.method)
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder; name a file")
    files.make_folder(output.parent)

    views = [(0, same, torch.cat((train_rows, test_rows)))]
    # of the training images only: a copy of a test image would be tested on
    views += [(number, augment, train_rows) for number, augment in enumerate(augmentations(args.augment), 1)]
    result = mask_views(args, mask, fingerprint, images, views, device)

    masked.save(result, output)
    gaussian, categorical = result.gaussian.shape[1], result.categorical.shape[1]
    print(
        f"{output}: {len(result.labels):,} masked vectors of {gaussian} + {categorical} numbers "
        f"({len(train_rows):,} training and {len(test_rows):,} test images, {len(views) - 1} augmented views), "
        f"{len(result.classes)} classes, masked by {args.method} {fingerprint[:12]}"
    )


@torch.inference_mode()
def mask_views(
    args: argparse.Namespace, mask: Mask, fingerprint: str, images: ImageSet, views: list, device: torch.device
) -> masked.MaskedSet:
    """Run every view of every image through the mask, batch by batch."""
    gaussian, categorical = [], []
    total = sum(len(rows) for _, _, rows in views)
    with tqdm(total=total, desc=f"masking {args.dataset}", unit="img") as progress:
        for _, augment, rows in views:
            for batch in rows.split(args.batch_size):
                parts = mask(to_float(augment(images.images[batch]).to(device)))
                gaussian.append(parts[0].cpu())
                categorical.append(parts[1].cpu())
                progress.update(len(batch))
    source = torch.cat([rows for _, _, rows in views])
    return masked.MaskedSet(
        method=args.method,
        encoder=fingerprint,
        dataset=args.dataset.split(":")[0],  # a folder's path stays at home
        classes=images.classes,
        gaussian=torch.cat(gaussian),
        categorical=torch.cat(categorical),
        labels=images.labels[source],
        split=images.split[source],
        source=source,
        view=torch.cat([torch.full((len(rows),), number, dtype=torch.uint8) for number, _, rows in views]),
    )


def make_mask(args: argparse.Namespace, device: torch.device) -> tuple[Mask, str, int]:
    """The masking function of ``--method``, its fingerprint, and the image size it wants."""
    if args.method == "aae":
        encoder, fingerprint = checkpoints.load_encoder(args.encoder)
        for name in ("image_size", "gaussian_dim", "categories"):
            if getattr(args, name) not in (None, encoder.config[name]):
                flag, value = f"--{name.replace('_', '-')}", getattr(args, name)
                raise InputError(f"{flag} {value}: {args.encoder} was trained with {encoder.config[name]}")
        return encoder.to(device), fingerprint, encoder.config["image_size"]

    image_size = args.image_size or 32
    gaussian_dim, categories = args.gaussian_dim or 384, args.categories or 20
    if args.method == "untrained":
        torch.manual_seed(args.seed)
        encoder = Encoder(image_size, gaussian_dim=gaussian_dim, categories=categories, **PRESETS[args.preset]).eval()
        return encoder.to(device), files.fingerprint(encoder.state_dict()), image_size
    if args.method == "identity":
        return lambda images: (images.flatten(1), images.new_empty(len(images), 0)), files.fingerprint({}), image_size

    mean, matrix = fit_linear(args, image_size, gaussian_dim + categories)
    fingerprint = files.fingerprint({"mean": mean, "matrix": matrix})
    mean, matrix = mean.to(device), matrix.to(device)
    return (
        lambda images: ((images.flatten(1) - mean) @ matrix.T, images.new_empty(len(images), 0)),
        fingerprint,
        image_size,
    )


def fit_linear(args: argparse.Namespace, image_size: int, width: int) -> tuple[Tensor, Tensor]:
    """Mean ``[3 S S]`` and matrix ``[width, 3 S S]`` of PCA or the random projection, from public images only."""
    from sklearn.decomposition import PCA
    from sklearn.random_projection import GaussianRandomProjection

    public = datasets.load(args.fit_on, args.data_dir, image_size, args.workers, flag="--fit-on")
    rows, _ = datasets.autoencoder_split(public)
    if width > min(len(rows), 3 * image_size**2):
        raise InputError(
            f"--method {args.method}: {width} numbers need at least {width} images in --fit-on {args.fit_on}"
        )
    pixels = to_float(public.images[rows]).flatten(1).numpy()
    if args.method == "pca":
        # the exact decomposition of the small covariance matrix: fast when there are far more images than pixels
        model = PCA(width, svd_solver="covariance_eigh").fit(pixels)
    else:
        model = GaussianRandomProjection(width, random_state=args.seed).fit(pixels[:1])
    mean = torch.from_numpy(pixels.mean(0))
    return mean, torch.from_numpy(model.components_).to(torch.float32)


def same(images: Tensor) -> Tensor:
    return images


def flip(images: Tensor) -> Tensor:
    """Left and right swapped: ``[N, 3, S, S]`` -> the same shape."""
    return images.flip(3)


def shifted(down: int, right: int) -> Callable[[Tensor], Tensor]:
    """A shift by whole pixels; the border repeats into what it uncovers."""

    def shift(images: Tensor) -> Tensor:
        steps = torch.arange(images.shape[-1])
        rows = (steps - down).clamp(0, len(steps) - 1)
        columns = (steps - right).clamp(0, len(steps) - 1)
        return images[:, :, rows][..., columns]

    return shift


def augmentations(names: list[str]) -> list[Callable[[Tensor], Tensor]]:
    """The copies of a training image: every combination of what is named, but the image itself."""
    flips = [same, flip] if "flip" in names else [same]
    shifts = [same]
    if "shift" in names:
        shifts += [shifted(-SHIFT, 0), shifted(SHIFT, 0), shifted(0, -SHIFT), shifted(0, SHIFT)]
    copies = [(mirror, shift) for mirror in flips for shift in shifts]
    return [lambda images, mirror=mirror, shift=shift: shift(mirror(images)) for mirror, shift in copies[1:]]


def default_output(dataset: str, method: str) -> Path:
    name = Path(dataset.removeprefix("folder:")).resolve().name if dataset.startswith("folder:") else dataset
    return Path("masked") / (f"{name}.pt" if method == "aae" else f"{name}-{method}.pt")


def parse_arguments() -> argparse.Namespace:
    parser = cli.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--dataset", default="cifar100", help="images to mask: cifar10, cifar100, mnist, photos, digits or folder:PATH")
    add("--encoder", type=Path, default=Path("runs/aae/0/encoder.pt"), help="the trained encoder (--method aae)")
    add("--output", type=Path, help="the masked file; default: masked/DATASET.pt, masked/DATASET-METHOD.pt")
    add("--method", choices=masked.METHODS, default="aae", help="what masks: the encoder, or a yardstick")
    add("--fit-on", default="cifar10", help="public set that pca and random-projection are fitted on")
    add(
        "--augment",
        nargs="+",
        choices=("flip", "shift"),
        default=[],
        help="add masked copies of the training images: mirrored (not for digits), shifted by 2 pixels, or both",
    )
    add("--batch-size", type=cli.integer(1), default=500, help="images masked at once")
    add("--limit", type=cli.integer(4), help="keep the first LIMIT training and LIMIT // 4 test images")
    add("--image-size", type=cli.integer(8, 2**12), help="side of images; default: the encoder's, 32 for yardsticks")
    add("--gaussian-dim", type=cli.integer(1, 2**16), help="Gaussian part; default: the encoder's, 384 for yardsticks")
    add("--categories", type=cli.integer(1, 2**16), help="categories; default: the encoder's, 20 for yardsticks")
    add("--preset", choices=tuple(PRESETS), default="paper", help="the untrained encoder's widths")
    add("--workers", type=cli.integer(0), default=0, help="processes that decode the files of folder:PATH")
    add("--data-dir", type=Path, default=Path("data"), help="where datasets are kept or downloaded to")
    parser.add_common()
    args = parser.parse_args()
    if args.image_size and args.image_size % 8:
        parser.error(f"argument --image-size: {args.image_size} is not a multiple of 8")
    return args


if __name__ == "__main__":
    cli.run(main)
