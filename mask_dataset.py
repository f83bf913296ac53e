"""Mask a dataset: images in, latent vectors and labels out.

    python mask_dataset.py                                  # CIFAR-100 with runs/aae/0 -> masked/cifar100.pt
    python mask_dataset.py --dataset mnist
    python mask_dataset.py --dataset folder:my-images --output masked/mine.pt
    python mask_dataset.py --augment flip shift             # also 20 masked copies of each training image
    python mask_dataset.py --method pca --fit-on cifar10    # a yardstick -> masked/cifar100-pca.pt
    python mask_dataset.py --shards 8                       # masked/cifar100-00000-of-00008.pt and so on
    torchrun --nproc-per-node 8 mask_dataset.py --dataset folder:my-images   # a shard or more for each process
    python -m maskbench.key owner.key && python mask_dataset.py --key owner.key   # turned -> masked/cifar100-key.pt

Masking needs encoder.pt alone. The masked file holds no pixels, file names or weights; it may be handed out
as far as you trust the mask itself: whoever has the encoder too can train a decoder (see README).

A secret key (--key) turns the masks: the Gaussian part by an orthogonal matrix, the categories by a permutation. So two
owners who share one encoder do not share one mask. Neither key nor matrix is in the masked file, which says `+key`.

The yardsticks a masking method is compared with: `identity` (the raw pixels, masks nothing), `pca` and
`random-projection` (as many numbers as the AAE's masks, fitted on the public set --fit-on), `untrained` (the
encoder at its initial weights).

Sets that do not fit into memory: the files of a folder are decoded as they are masked, and masks wait on the disk. Each
shard is a masked file by itself, with its part of the training and of the test images. A start that was stopped goes on
when it is given again: finished shards are kept. classify.py takes any one of them for the set.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from maskbench.data import datasets, masked_set
from maskbench.data.image_set import ImageSet, to_float
from maskbench.errors import InputError
from maskbench.masking import key
from maskbench.models import PRESETS, Encoder, checkpoints
from maskbench.models.sizes import image_size_argument
from maskbench.runtime import command_line, torchrun
from maskbench.storage import atomic, pt

SHIFT = 2  # pixels

Mask = Callable[[Tensor], tuple[Tensor, Tensor]]  # float images [N, 3, S, S] -> [N, G], [N, K]


def main() -> None:
    args = parse_arguments()
    device = command_line.pick_device(args.device)
    # the first process waits for the last one's shards, however many it had finished before
    with torchrun.processes(device, patience=timedelta(days=365)):
        mask_all(args, device)


@torch.inference_mode()
def mask_all(args: argparse.Namespace, device: torch.device) -> None:
    output = args.output or default_output(args.dataset, args.method, args.key is not None)
    paths = masked_set.shard_paths(output, args.shards or torchrun.size())
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder; name a file")
    if len(paths) > 1 and output.exists():
        raise InputError(f"--output {output}: would be read instead of the shards; move it away or choose another name")
    secret = key.load(args.key) if args.key else None
    mask, fingerprint, image_size = make_mask(args, device)
    if secret:
        mask = keyed(mask, secret, image_size, device)
    images = datasets.load(args.dataset, args.data_dir, image_size, args.workers, args.skip_corrupt, stream=True)
    train_rows, test_rows = datasets.labelled_split(images, args.limit)
    atomic.make_folder(output.parent)
    if len(paths) > max(1, len(train_rows)):
        raise InputError(f"--shards {len(paths)}: more than the {len(train_rows)} training images")
    copies = args.copies if args.augment else 0  # of the training images only: one of a test image would be tested on
    total = copies * len(train_rows) + len(train_rows) + len(test_rows)
    mine = range(torchrun.rank(), len(paths), torchrun.size())
    sizes = widths(mask, image_size, device)
    head = {
        "method": args.method + (masked_set.KEYED if args.key else ""),
        "encoder": fingerprint,
        "dataset": args.dataset.split(":")[0],  # a folder's path stays at home
        "classes": images.classes,
    }
    kept = 0
    # of several processes the first one's part
    with tqdm(
        total=total * len(mine) // len(paths),
        desc=f"masking {args.dataset}",
        unit="img",
        disable=torchrun.rank() > 0,
    ) as progress:
        for number in mine:
            shard = Shard(train_rows, test_rows, number, len(paths), copies)
            columns = shard.columns(images)
            found = masks(args, mask, images, shard, image_size, device)
            if len(paths) > 1 and is_finished(paths[number], head, columns, found):
                kept += 1
                progress.update(len(columns["view"]))
                continue
            found = masks(args, mask, images, shard, image_size, device)
            gaussian, categorical = collect(found, len(columns["view"]), sizes, output.parent, progress)
            result = masked_set.MaskedSet(**head, **columns, gaussian=gaussian, categorical=categorical)
            masked_set.save(result, paths[number])

    kept = sum(torchrun.from_all(kept))
    if len(paths) > 1:
        others = f" by {torchrun.size()} processes" if torchrun.size() > 1 else ""
        print(
            f"{paths[0]} and {len(paths) - 1} more shards{others}; {kept} of {len(paths)} were finished before and kept"
        )
    print(
        f"{output}: {total:,} masked vectors of {sizes[0]} + {sizes[1]} numbers "
        f"({len(train_rows):,} training and {len(test_rows):,} test images, {copies} augmented copies), "
        f"{len(images.classes)} classes, masked by {head['method']} {fingerprint[:12]}"
    )


class Shard:
    """One of several equal parts of a dataset, and the places of its masks in its file.

    The masks of the images come first, training before test, then the first copies of the training images, and so on.

    Args:
        train, test: int64 rows of the whole dataset.
        number: of the shard.
        of: how many shards there are.
        copies: augmented copies of each training image.
    """

    def __init__(self, train: Tensor, test: Tensor, number: int, of: int, copies: int):
        self.train = train[number::of]
        self.images = torch.cat((self.train, test[number::of]))
        self.number, self.of, self.copies = number, of, copies
        self.views = [len(train) + len(test), *[len(train)] * copies]  # rows of each view in the whole dataset

    def columns(self, images: ImageSet) -> dict[str, Tensor]:
        """What a masked set says of each mask beside its numbers."""
        views = [self.images, *[self.train] * self.copies]
        source = torch.cat(views)
        numbers = [torch.full((len(rows),), view, dtype=torch.uint8) for view, rows in enumerate(views)]
        return {
            "labels": images.labels[source],
            "split": images.split[source],
            "source": source,
            "view": torch.cat(numbers),
        }


def masks(
    args: argparse.Namespace, mask: Mask, images: ImageSet, shard: Shard, image_size: int, device: torch.device
) -> Iterator[tuple[slice, tuple[Tensor, Tensor]]]:
    """Run every view of a shard's images through the mask, batch by batch.

    Yields:
        Places in the shard, and both latent parts of the masks that belong there.
    """
    # drawn for all images at once: a copy depends neither on its batch nor on its shard
    generator = torch.Generator().manual_seed(args.seed)
    random = [torch.rand(rows, 3, generator=generator)[shard.number :: shard.of].clone() for rows in shard.views]
    batch_size = args.batch_size or datasets.large_batch(image_size)
    done = 0
    for pixels in datasets.batches(images.images, shard.images, batch_size):
        pixels = to_float(pixels.to(device))
        yield slice(done, done + len(pixels)), mask(pixels)
        training = pixels[: max(0, len(shard.train) - done)]
        for view in range(1, shard.copies + 1) if len(training) else ():
            numbers = random[view][done : done + len(training)].to(device)
            first = len(shard.images) + (view - 1) * len(shard.train) + done
            yield slice(first, first + len(training)), mask(augmented(training, args.augment, numbers))
        done += len(pixels)


def collect(
    found: Iterator[tuple[slice, tuple[Tensor, Tensor]]], rows: int, sizes: list[int], folder: Path, progress: tqdm
) -> list[Tensor]:
    """What :func:`masks` yields, put together; it lies in files without a name in ``folder``, not in memory."""
    parts = [atomic.scratch(rows, width, folder) for width in sizes]
    for places, of_batch in found:
        for part, of_part in zip(parts, of_batch, strict=True):
            part[places] = of_part.cpu()
        progress.update(len(of_batch[0]))
    return parts


def is_finished(path: Path, head: dict, columns: dict[str, Tensor], found: Iterator) -> bool:
    """Whether a shard is there already, of the same rows, and the first masks made again are those in it."""
    if not path.exists():
        return False
    try:
        there = masked_set.load_file(path)
    except InputError:  # damaged: it is made again
        return False
    same = all(getattr(there, name) == value for name, value in head.items())
    same = same and all(torch.equal(getattr(there, name), column) for name, column in columns.items())
    if same:
        for places, of_batch in itertools.islice(found, 2):  # the second are copies, where there are any
            for part, rows in zip((there.gaussian, there.categorical), of_batch, strict=True):
                same = (
                    same and part[places].shape == rows.shape and torch.allclose(part[places], rows.cpu(), 1e-3, 1e-3)
                )
    return same


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
        return encoder.to(device), pt.fingerprint(encoder.state_dict()), image_size
    if args.method == "identity":
        return lambda images: (images.flatten(1), images.new_empty(len(images), 0)), pt.fingerprint({}), image_size

    mean, matrix = fit_linear(args, image_size, gaussian_dim + categories)
    fingerprint = pt.fingerprint({"mean": mean, "matrix": matrix})
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

    public = datasets.load(args.fit_on, args.data_dir, image_size, args.workers, args.skip_corrupt, "--fit-on")
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
    parser = command_line.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--dataset", default="cifar100", help="images to mask: cifar10, cifar100, mnist, photos, digits or folder:PATH")
    add("--encoder", type=Path, default=Path("runs/aae/0/encoder.pt"), help="the trained encoder (--method aae)")
    add("--output", type=Path, help="the masked file; default: masked/DATASET[-METHOD][-key].pt")
    add("--method", choices=masked_set.METHODS, default="aae", help="what masks: the encoder, or a yardstick")
    add("--key", type=Path, metavar="FILE", help="turn the masks by this secret key; python -m maskbench.key makes one")
    add("--fit-on", default="cifar10", help="public set that pca and random-projection are fitted on")
    add(
        "--augment",
        nargs="+",
        choices=("flip", "shift"),
        default=[],
        help="add masked random copies of the training images (flips are not for digits)",
    )
    add("--copies", type=command_line.integer(1, 255), default=20, help="augmented copies of each training image")
    add("--shards", type=command_line.integer(1, masked_set.MOST_SHARDS), help="files to make; default: one a process")
    add(
        "--batch-size",
        type=command_line.integer(1),
        help="images masked at once; default: 500, fewer above 32 x 32 pixels",
    )
    add("--limit", type=command_line.integer(4), help="keep the first LIMIT training and LIMIT // 4 test images")
    add("--image-size", type=image_size_argument, help="side of images; default: the encoder's, 32 for yardsticks")
    add(
        "--gaussian-dim",
        type=command_line.integer(1, 2**16),
        help="Gaussian part; default: the encoder's, 384 for yardsticks",
    )
    add(
        "--categories",
        type=command_line.integer(1, 2**16),
        help="categories; default: the encoder's, 20 for yardsticks",
    )
    add("--preset", choices=tuple(PRESETS), default="paper", help="the untrained encoder's widths")
    parser.add_data()
    parser.add_common()
    return parser.parse_args()


if __name__ == "__main__":
    command_line.run(main)
