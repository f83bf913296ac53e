"""Mask a dataset: images in, latent vectors and labels out.

    python mask_dataset.py                                  # CIFAR-100 with runs/aae/0 -> masked/cifar100.pt
    python mask_dataset.py --dataset mnist
    python mask_dataset.py --dataset folder:my-images --output masked/mine.pt
    python mask_dataset.py --augment flip shift             # also 20 masked copies of each training image
    python mask_dataset.py --method pca --fit-on cifar10    # a baseline -> masked/cifar100-pca.pt
    python mask_dataset.py --shards 8                       # masked/cifar100-00000-of-00008.pt and so on
    torchrun --nproc-per-node 8 mask_dataset.py --dataset folder:my-images   # a shard or more for each process
    python -m maskbench.key owner.key && python mask_dataset.py --key owner.key   # turned -> masked/cifar100-key.pt
    python -m maskbench.key noise.key && python mask_dataset.py --noise 0.1 --noise-secret noise.key   # in noise

Masking needs encoder.pt alone. The masked file holds no pixels, file names or weights; it may be handed out
as far as you trust the mask itself. An encoder of preset paper keeps most of the picture, one of preset invariant a
blur; whoever has the images finds which mask is whose, and whoever has the encoder can train a decoder (see
docs/leakage.md).

A secret key (--key) turns the masks: the Gaussian part by an orthogonal matrix, the categories by a permutation. So two
owners who share one encoder do not share one mask. Neither key nor matrix is in the masked file, which says `+key`.

Noise (--noise 0.1) keeps 0.1 of each code and releases no category. What masks tell then has a bound, which holds even
for somebody who has the encoder. The noise comes from a secret (--noise-secret, made as a key is), and so does the
order of the images, as their own order would name them. Whoever has the secret takes the noise away.

The baselines a masking method is compared with: `identity` (the raw pixels, masks nothing), `pca` and
`random-projection` (as many numbers as masks of preset paper, or --gaussian-dim + --categories; fitted on the public
set --fit-on), `untrained` (the encoder at its initial weights).

Sets that do not fit into memory: the files of a folder are decoded as they are masked, and masks wait on the disk. Each
shard is a masked file by itself, with its part of the training and of the test images. A stopped run resumes when
it is started again: finished shards are kept. classify.py takes any one of them for the set.
"""

import maskbench.runtime.early  # noqa: F401  # isort: skip
import argparse
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from maskbench.data import datasets, masked_set
from maskbench.data.image_set import ImageSet
from maskbench.data.pixels import Reading
from maskbench.errors import InputError
from maskbench.leakage import bounds
from maskbench.masking import METHODS, MaskingMethod, Recipe, augmentation, key, make
from maskbench.masking.noise import Noised, secret_order
from maskbench.masking.shards import Copies, Shard, Work
from maskbench.models import PRESETS
from maskbench.models.sizes import image_size_argument
from maskbench.runtime import command_line, torchrun
from maskbench.storage import atomic, pt


def main() -> None:
    args = parse_arguments()
    device = command_line.pick_device(args.device)
    # the first process waits for the last one's shards, however many it had finished before
    with torchrun.processes(device, patience=timedelta(days=365)):
        mask_all(args, device)


def mask_all(args: argparse.Namespace, device: torch.device) -> None:
    output = args.output or default_output(args)
    paths = masked_set.shard_paths(output, args.shards or torchrun.size())
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder; name a file")
    if masked_set.shard_of(output):
        raise InputError(f"--output {output}: is called like a shard of another set; choose another name")
    if len(paths) > 1 and output.exists():
        raise InputError(f"--output {output}: would be read instead of the shards; move it away or choose another name")
    secret = key.load(args.key) if args.key else None
    noise_secret = key.load(args.noise_secret, "--noise-secret") if args.noise_secret else None
    if secret is not None and secret == noise_secret:
        raise InputError(f"--noise-secret {args.noise_secret}: is the --key, too; make another with maskbench.key")
    method = make_method(args, secret, noise_secret).to(device)
    size = method.image_size
    images = load(args, args.dataset, size, stream=True)
    if args.output is None:
        refuse_to_replace(next(filter(Path.exists, paths), output), images)
    train, test = datasets.labelled_split(images, args.limit)
    if len(paths) > max(1, len(train)):
        raise InputError(f"--shards {len(paths)}: more than the {len(train)} training images")
    sources = None
    if noise_secret is not None:
        train, test = in_secret_order(noise_secret, method, images, train, test)
        sources = torch.arange(len(train) + len(test))
    atomic.make_folder(output.parent)
    copies = Copies(tuple(args.augment), args.copies if args.augment else 0, args.seed)
    batch_size = args.batch_size or datasets.large_batch(size)
    work = Work(method, images, train, test, copies, len(paths), batch_size, device, sources)

    mine = range(torchrun.rank(), len(paths), torchrun.size())
    finished = set()
    for number in mine if len(paths) > 1 else ():
        if Shard(work, number).is_in(paths[number]):
            finished.add(number)
        else:  # were this run stopped, an earlier one's would stand beside its own
            paths[number].unlink(missing_ok=True)
    torchrun.from_all(None)  # no process begins while another has old ones
    # of several processes the first one's part
    with tqdm(
        total=work.total * len(mine) // len(paths),
        desc=f"masking {args.dataset}",
        unit="img",
        disable=torchrun.rank() > 0,
    ) as progress:
        for number in mine:
            shard = Shard(work, number)
            if number in finished:
                progress.update(len(shard.columns()["view"]))
            else:
                masked_set.save(shard.mask(output.parent, progress), paths[number])

    kept = sum(torchrun.from_all(len(finished)))
    if len(paths) > 1:
        others = f" by {torchrun.size()} processes" if torchrun.size() > 1 else ""
        print(
            f"{paths[0]} and {len(paths) - 1} more shards{others}; {kept} of {len(paths)} were finished before and kept"
        )
    if args.noise is not None:
        print(f"{output}: {bounds.stated(args.noise, method.widths[0], 1 + copies.count)}")
    print(
        f"{output}: {work.total:,} masked vectors of {method.widths[0]} + {method.widths[1]} numbers "
        f"({len(train):,} training and {len(test):,} test images, {copies.count} augmented copies), "
        f"{len(images.classes)} classes, masked by {method.name} {method.fingerprint[:12]}"
    )


def refuse_to_replace(path: Path, images: ImageSet) -> None:
    """InputError where the default output holds masks of other classes, such as of another folder called alike."""
    try:
        classes = pt.load(path, masked_set.FORMAT, mapped=True).get("classes")
    except InputError:  # none, or damaged
        return
    if isinstance(classes, list) and classes != images.classes:
        names = command_line.printable(", ".join(map(str, classes[:3])))
        raise InputError(f"{path}: holds masks of other classes ({names}); move it away, or choose another --output")


def in_secret_order(
    secret: bytes, method: MaskingMethod, images: ImageSet, train: Tensor, test: Tensor
) -> tuple[Tensor, Tensor]:
    """Both parts in an order of this method's and set's own: another release does not tell it."""
    first = next(datasets.batches(images.images, torch.cat((train, test))[:1], 1))
    what = f"{method.name} {method.fingerprint} {pt.fingerprint({'labels': images.labels, 'first': first})}"
    orders = (secret_order(secret, f"{what} {part}", len(rows)) for part, rows in (("train", train), ("test", test)))
    return tuple(rows[order] for rows, order in zip((train, test), orders, strict=True))


def load(args: argparse.Namespace, name: str, image_size: int, **how: object) -> ImageSet:
    """A dataset as the flags say that its files are read."""
    files = args.data_dir, image_size, args.workers, args.skip_corrupt
    return datasets.load(name, *files, reading=Reading.of(args), **how)


def make_method(args: argparse.Namespace, secret: bytes | None, noise_secret: bytes | None) -> MaskingMethod:
    """The method of ``--method``, made of what the flags say, in the noise of ``--noise``, and turned by ``--key``."""

    def public() -> Tensor:
        size = args.image_size or 32
        found = load(args, args.fit_on, size, flag="--fit-on")
        return found.images[datasets.autoencoder_split(found)[0]]

    recipe = Recipe(
        public=public,
        image_size=args.image_size,
        gaussian_dim=args.gaussian_dim,
        categories=args.categories,
        seed=args.seed,
        preset=args.preset,
        encoder=args.encoder,
    )
    method = make(args.method, recipe)
    if args.noise is not None:
        method = Noised(method, args.noise, noise_secret)
    return key.Keyed(method, secret) if secret else method


def default_output(args: argparse.Namespace) -> Path:
    kind, _, path = args.dataset.partition(":")
    name = {"folder": Path(path).resolve().name, "npz": Path(path).stem}.get(kind, args.dataset)
    name += "" if args.method == "aae" else f"-{args.method}"
    name += ("" if args.noise is None else "-noise") + ("-key" if args.key else "")
    return Path("masked") / f"{name}.pt"


def parse_arguments() -> argparse.Namespace:
    parser = command_line.ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--dataset",
        default="cifar100",
        help="images to mask: cifar10, cifar100, mnist, photos, digits, folder:PATH or npz:FILE",
    )
    add(
        "--encoder",
        type=command_line.path,
        default=Path("runs/aae/0/encoder.pt"),
        help="the trained encoder (--method aae)",
    )
    add("--output", type=command_line.path, help="the masked file; default: masked/DATASET[-METHOD][-noise][-key].pt")
    add("--method", choices=tuple(METHODS), default="aae", help="what masks: the encoder, or a baseline")
    add(
        "--key",
        type=command_line.path,
        metavar="FILE",
        help="turn the masks by this secret key; python -m maskbench.key makes one",
    )
    kept = "keep A of each code, 0 to 1, in noise that makes up for the rest; no category is released"
    add("--noise", type=command_line.share, metavar="A", help=kept)
    whose = "what the noise is drawn from, by --noise; python -m maskbench.key makes one"
    add("--noise-secret", type=command_line.path, metavar="FILE", help=whose)
    add("--fit-on", default="cifar10", help="public set that pca and random-projection are fitted on")
    add(
        "--augment",
        nargs="+",
        choices=augmentation.NAMES,
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
    add("--image-size", type=image_size_argument, help="side of images; default: the encoder's, 32 for baselines")
    add(
        "--gaussian-dim",
        type=command_line.integer(1, 2**16),
        help="Gaussian part; default: the encoder's, 384 for baselines",
    )
    add(
        "--categories",
        type=command_line.integer(1, 2**16),
        help="categories; default: the encoder's, 20 for baselines",
    )
    whose = "whose network --method untrained has; its sizes are the paper's"
    add("--preset", choices=tuple(PRESETS), default="paper", help=whose)
    parser.add_data()
    parser.add_common()
    args = parser.parse_args()
    if args.noise is not None and args.noise_secret is None:
        parser.error("argument --noise: needs --noise-secret FILE; make one with: python -m maskbench.key noise.key")
    if args.noise is None and args.noise_secret is not None:
        parser.error("argument --noise-secret: without --noise there is no noise")
    return args


if __name__ == "__main__":
    command_line.run(main)
