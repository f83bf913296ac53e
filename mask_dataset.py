"""Mask a dataset: images in, latent vectors and labels out.

    python mask_dataset.py                                  # CIFAR-100 with runs/aae/0 -> masked/cifar100.pt
    python mask_dataset.py --dataset mnist
    python mask_dataset.py --dataset folder:my-images --output masked/mine.pt
    python mask_dataset.py --augment flip shift             # also 20 masked copies of each training image
    python mask_dataset.py --method pca --fit-on cifar10    # a yardstick -> masked/cifar100-pca.pt
    python -m maskbench.key owner.key && python mask_dataset.py --key owner.key   # turned -> masked/cifar100-key.pt

Masking needs encoder.pt alone. The masked file holds no pixels, file names or weights; it may be handed out
as far as you trust the mask itself: whoever has the encoder too can train a decoder (see README).

A secret key (--key) turns the masks: the Gaussian part by an orthogonal matrix, the categories by a permutation. So two
owners who share one encoder do not share one mask. Neither key nor matrix is in the masked file, which says `+key`.

The yardsticks a masking method is compared with: `identity` (the raw pixels, masks nothing), `pca` and
`random-projection` (as many numbers as the AAE's masks, fitted on the public set --fit-on), `untrained` (the
encoder at its initial weights).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from maskbench import checkpoints, cli, datasets, files, key, masked
from maskbench.datasets import ImageSet, to_float
from maskbench.errors import InputError
from maskbench.models import PRESETS, Encoder

SHIFT = 2  # pixels

Mask = Callable[[Tensor], tuple[Tensor, Tensor]]  # float images [N, 3, S, S] -> [N, G], [N, K]


def main() -> None:
    args = parse_arguments()
    device = cli.pick_device(args.device)
    secret = key.load(args.key) if args.key else None
    mask, fingerprint, image_size = make_mask(args, device)
    if secret:
        mask = keyed(mask, secret, image_size, device)
    images = datasets.load(args.dataset, args.data_dir, image_size, args.workers)
    train_rows, test_rows = datasets.labelled_split(images, args.limit)
    output = args.output or default_output(args.dataset, args.method, args.key is not None)
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder; name a file")
    files.make_folder(output.parent)

    # copies of the training images only: one of a test image would be tested on
    views = [torch.cat((train_rows, test_rows)), *[train_rows] * (args.copies if args.augment else 0)]
    result = mask_views(args, mask, fingerprint, images, views, output.parent, device)

    masked.save(result, output)
    gaussian, categorical = result.gaussian.shape[1], result.categorical.shape[1]
    print(
        f"{output}: {len(result.labels):,} masked vectors of {gaussian} + {categorical} numbers "
        f"({len(train_rows):,} training and {len(test_rows):,} test images, {len(views) - 1} augmented copies), "
        f"{len(result.classes)} classes, masked by {result.method} {fingerprint[:12]}"
    )


@torch.inference_mode()
def mask_views(
    args: argparse.Namespace,
    mask: Mask,
    fingerprint: str,
    images: ImageSet,
    views: list[Tensor],
    folder: Path,
    device: torch.device,
) -> masked.MaskedSet:
    """Run every view of every image through the mask, batch by batch.

    Args:
        views: int64 ``[rows]``, the images themselves, then for every augmented copy.
        folder: the masks lie in a file without a name there until they are saved, not in memory.
    """
    total, done = sum(map(len, views)), 0
    parts = [files.scratch(total, width, folder) for width in widths(mask, images.images.shape[-1], device)]
    generator = torch.Generator().manual_seed(args.seed)
    with tqdm(total=total, desc=f"masking {args.dataset}", unit="img") as progress:
        for view, rows in enumerate(views):
            # drawn for all images at once: a copy does not depend on the batch it is masked in
            random = torch.rand(len(rows), 3, generator=generator)
            for batch, numbers in zip(rows.split(args.batch_size), random.split(args.batch_size), strict=True):
                pixels = to_float(images.images[batch].to(device))
                found = mask(augmented(pixels, args.augment, numbers.to(device)) if view else pixels)
                for part, rows_found in zip(parts, found, strict=True):
                    part[done : done + len(batch)] = rows_found
                done += len(batch)
                progress.update(len(batch))
    source = torch.cat(views)
    return masked.MaskedSet(
        method=args.method + (masked.KEYED if args.key else ""),
        encoder=fingerprint,
        dataset=args.dataset.split(":")[0],  # a folder's path stays at home
        classes=images.classes,
        gaussian=parts[0],
        categorical=parts[1],
        labels=images.labels[source],
        split=images.split[source],
        source=source,
        view=torch.cat([torch.full((len(rows),), number, dtype=torch.uint8) for number, rows in enumerate(views)]),
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


def keyed(mask: Mask, secret: bytes, image_size: int, device: torch.device) -> Mask:
    """The same mask, turned by a key."""
    transform = key.KeyedTransform(secret, *widths(mask, image_size, device))
    return lambda images: transform.apply(*mask(images))


@torch.inference_mode()
def widths(mask: Mask, image_size: int, device: torch.device) -> list[int]:
    """Length of both latent parts."""
    return [part.shape[1] for part in mask(torch.zeros(1, 3, image_size, image_size, device=device))]


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


def augmented(images: Tensor, names: Sequence[str], random: Tensor) -> Tensor:
    """A random copy of every image.

    Args:
        images: ``[N, 3, S, S]``.
        names: what may happen to an image: ``flip`` swaps left and right in half of the copies, ``shift`` moves by up
            to SHIFT pixels each way, and the border repeats into what that uncovers.
        random: uniform in [0, 1), ``[N, 3]``.

    Returns:
        ``[N, 3, S, S]``.
    """
    size = images.shape[-1]
    steps = torch.arange(size, device=images.device)
    rows, columns = steps.expand(2, len(images), size)
    if "flip" in names:
        columns = torch.where(random[:, :1] < 0.5, columns.flip(1), columns)
    if "shift" in names:
        down, right = ((2 * SHIFT + 1) * random[:, 1:]).long().sub(SHIFT).T[:, :, None]
        rows, columns = (rows - down).clamp(0, size - 1), (columns - right).clamp(0, size - 1)
    every = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def default_output(dataset: str, method: str, has_key: bool) -> Path:
    name = Path(dataset.removeprefix("folder:")).resolve().name if dataset.startswith("folder:") else dataset
    name += ("" if method == "aae" else f"-{method}") + ("-key" if has_key else "")
    return Path("masked") / f"{name}.pt"


def parse_arguments() -> argparse.Namespace:
    parser = cli.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--dataset", default="cifar100", help="images to mask: cifar10, cifar100, mnist, photos, digits or folder:PATH")
    add("--encoder", type=Path, default=Path("runs/aae/0/encoder.pt"), help="the trained encoder (--method aae)")
    add("--output", type=Path, help="the masked file; default: masked/DATASET[-METHOD][-key].pt")
    add("--method", choices=masked.METHODS, default="aae", help="what masks: the encoder, or a yardstick")
    add("--key", type=Path, metavar="FILE", help="turn the masks by this secret key; python -m maskbench.key makes one")
    add("--fit-on", default="cifar10", help="public set that pca and random-projection are fitted on")
    add(
        "--augment",
        nargs="+",
        choices=("flip", "shift"),
        default=[],
        help="add masked random copies of the training images (flips are not for digits)",
    )
    add("--copies", type=cli.integer(1, 255), default=20, help="augmented copies of each training image")
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
