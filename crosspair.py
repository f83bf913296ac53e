"""Pair every encoder with every decoder: only the matching decoder should rebuild the image.

    python train_aae.py --instances 4 && python crosspair.py
    python crosspair.py --models runs/aae --dataset cifar10 --limit 4000

For each pair the mean squared error of every image is taken on black and white test patterns, on the
training and on the validation images of the autoencoders (paper, Eqs 1-12). Mean and standard deviation run over
all images of all matched pairs (an encoder with its own decoder), and over those of all unmatched pairs.

With --audit, what a mask really gives away: attacks under five threat models, on CIFAR-10 and CIFAR-100.

    python crosspair.py --audit                                    # -> runs/audit: audit.md, audit.csv, pictures

  masks-only       the attacker has masks, and public images of the same kind
  known-pairs      also k = 10 to 10,000 of the masks' images, of each set that is judged
  oracle           instead may have n images of their choice masked
  two-releases     has masks of the same images from two releases, and no image
  stolen-encoder   has encoder.pt (but not the key of mask_dataset.py --key)

Instance 0 is the victim, instance 1 the attacker's own autoencoder, of preset invariant with its checkpoint.pt; so it
is in each folder of --more-models. A page for the person who signs, release.html, judges masks by thresholds; each
further file of --release has one, too, release-NAME.html:

    python crosspair.py --audit --release masked/cifar100.pt --recipient "Lab B" --most-ssim 0.3 --most-named 0.2

A stopped run resumes when it is started again: finished sets of images are kept and skipped.
"""

import maskbench.runtime.early  # noqa: F401  # isort: skip
import argparse
import functools
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from maskbench.data import datasets
from maskbench.data.image_quality import image_mse
from maskbench.data.image_set import to_float
from maskbench.data.patterns import test_patterns
from maskbench.data.pixels import Reading
from maskbench.errors import InputError
from maskbench.leakage import figures
from maskbench.models import Decoder, Encoder, checkpoints
from maskbench.reproduce.paper import CROSS_PAIR_ERRORS
from maskbench.runtime import command_line
from maskbench.storage import atomic, pt, tables
from maskbench.storage.ledger import Ledger, code_fingerprint

COLUMNS = ("images", "pair", "mean", "std", "paper_mean", "paper_std")
PAIR_COLUMNS = ("images", "encoder", "decoder", "mean", "std")
GRID_PATTERNS = ("checkers", "rings", "cross")
GRID_IMAGES = 3
BATCH_SIZE = 500
AUDIT_FLAGS = ("private", "more_models", "masks", "jobs", "release", "recipient", "known_pairs")
AUDIT_FLAGS += ("most_ssim", "most_named", "most_linked", "most_inferred")


def main() -> None:
    args = parse_arguments()
    torch.set_flush_denormal(True)  # a CPU is slow with the tiny shares of a plan of transport
    device = command_line.pick_device(args.device)
    folders = instance_folders(args)
    if args.audit:
        audit_all(args, folders, device)
    else:
        encoders, decoders, image_size = load_instances(folders)
        with atomic.output_folder(args.output_dir):
            pair_all(args, encoders, decoders, image_size, device)


def audit_all(args: argparse.Namespace, folders: list[Path], device: torch.device) -> None:
    import classify
    from maskbench.leakage import audit, frontier
    from maskbench.leakage.settings import NOTHING_SAID, Release

    audit.audit(
        victim=folders[0],
        attacker=folders[1],
        output_dir=args.output_dir,
        dataset=args.dataset,
        private=args.private,
        accuracy=functools.partial(
            classify.mean_accuracies, classes=frontier.CLASSES, repeats=frontier.DRAWS, seed=args.seed, device=device
        ),
        limit=args.limit,
        seed=args.seed,
        more_models=args.more_models or (),
        data_dir=args.data_dir,
        workers=args.workers,
        skip_corrupt=args.skip_corrupt,
        reading=Reading.of(args),
        masks=audit.BESIDE if args.masks is None else args.masks,
        terms=Release(
            masked=tuple(args.release or ()),
            recipient=args.recipient or "",
            pairs=NOTHING_SAID.pairs if args.known_pairs is None else args.known_pairs,
            most_ssim=args.most_ssim,
            most_named=args.most_named,
            most_linked=args.most_linked,
            most_inferred=args.most_inferred,
        ),
        jobs=args.jobs or 1,
    )


def pair_all(
    args: argparse.Namespace, encoders: list[Encoder], decoders: list[Decoder], image_size: int, device: torch.device
) -> None:
    files = args.data_dir, image_size, args.workers, args.skip_corrupt
    image_set = datasets.load(args.dataset, *files, reading=Reading.of(args))
    train_rows, validation_rows = datasets.autoencoder_split(image_set, args.limit)
    patterns = test_patterns(image_size)
    sets = {
        "patterns": torch.stack(list(patterns.values())),
        "train": image_set.images[train_rows],
        "validation": image_set.images[validation_rows],
    }
    for name, images in sets.items():
        if len(images) == 0:
            raise InputError(
                f"--dataset {args.dataset}: leaves no {name} images; use a larger one, or --limit 4 or more"
            )
    # finished sets are kept and not repeated, as long as everything that determines them is the same
    ledger = Ledger(args.output_dir / "crosspair-runs.pt", code_fingerprint(__file__))
    networks = [*encoders, *decoders]
    inputs = {"networks": [pt.fingerprint(network.state_dict()) for network in networks]}
    inputs |= {"batch_size": args.batch_size, "device": device.type, "torch": torch.__version__}
    for network in networks:
        network.to(device)

    count = len(encoders)
    table, pairs, kept = [], [], []
    for name, images in sets.items():
        run = inputs | {"set": name, "images": pt.fingerprint({"images": images})}
        result = ledger.get(run, {"both": [[0.0] * 2] * 2, "pairs": [[0.0] * 2] * count**2})
        if result is None:
            errors = pair_errors(encoders, decoders, images, args.batch_size, device, name)
            matched = torch.eye(count, dtype=torch.bool)
            both = [mean_and_deviation(errors[chosen]) for chosen in (matched, ~matched)]
            result = {"both": both, "pairs": [mean_and_deviation(pair) for pair in errors.flatten(0, 1)]}
            ledger.add(run, result)
        else:
            kept.append(name)
        for pair, values in zip(("matched", "unmatched"), result["both"], strict=True):
            table.append([name, pair, *values, *CROSS_PAIR_ERRORS[name, pair]])
        for number, values in enumerate(result["pairs"]):
            pairs.append([name, *divmod(number, count), *values])
    if kept:
        print(f"finished before and kept: {', '.join(kept)} ({args.output_dir}/crosspair-runs.pt)")

    tables.write_csv(args.output_dir / "crosspair.csv", COLUMNS, table)
    tables.write_csv(args.output_dir / "pairs.csv", PAIR_COLUMNS, pairs)
    pictures = []
    examples = [(f"pattern-{name}", patterns[name]) for name in GRID_PATTERNS]
    examples += [(f"image-{number}", image) for number, image in enumerate(sets["validation"][:GRID_IMAGES])]
    for name, image in examples:
        pictures.append(args.output_dir / f"grid-{name}.png")
        figures.pair_grid(encoders, decoders, image.to(device), pictures[-1])
    print_table(table, len(encoders))
    if encoders[0].config["preset"] != "paper":
        print("these encoders are not meant to be rebuilt, as the paper's are: a large error is their aim")
    pictures = [str(path) for path in pictures if path.exists()]
    print(f"tables: {args.output_dir}/crosspair.csv, pairs.csv; pictures: {', '.join(pictures)}")


def mean_and_deviation(errors: Tensor) -> list[float]:
    deviation, mean = torch.std_mean(errors, correction=0)
    return [mean.item(), deviation.item()]


@torch.inference_mode()
def pair_errors(
    encoders: list[Encoder], decoders: list[Decoder], images: Tensor, batch_size: int, device: torch.device, name: str
) -> Tensor:
    """MSE of every image under every pair: uint8 ``[N, 3, S, S]`` -> float64 ``[encoders, decoders, N]``."""
    errors = torch.empty(len(encoders), len(decoders), len(images), dtype=torch.float64)
    with tqdm(total=len(images), desc=f"{name}: {len(encoders)} x {len(decoders)} pairs", unit="img") as progress:
        for start in range(0, len(images), batch_size):
            batch = to_float(images[start : start + batch_size].to(device))
            for i, encoder in enumerate(encoders):
                latent = torch.cat(encoder(batch), 1)
                for j, decoder in enumerate(decoders):
                    errors[i, j, start : start + len(batch)] = image_mse(decoder(latent), batch).cpu()
            progress.update(len(batch))
    return errors


def instance_folders(args: argparse.Namespace) -> list[Path]:
    """All instances of ``--models``, or the first ``--instances``; InputError where there are fewer than two."""
    folders = sorted(
        (path for path in args.models.glob("*") if path.name.isdecimal() and (path / "encoder.pt").exists()),
        key=lambda path: int(path.name),
    )
    if args.instances and args.instances > len(folders):
        raise InputError(f"--instances {args.instances}: --models {args.models} holds {len(folders)}")
    folders = folders[: args.instances]
    if len(folders) < 2:
        raise InputError(
            f"--models {args.models} holds {len(folders)} trained autoencoder(s), two or more are needed: "
            f"train them with train_aae.py --instances {2 if args.audit else 4}"
        )
    return folders


def load_instances(folders: list[Path]) -> tuple[list[Encoder], list[Decoder], int]:
    """Encoders, decoders and image size of the instances; InputError where they are not of one size."""
    encoders, decoders = [], []
    for folder in folders:
        encoder, decoder, _ = checkpoints.load_pair(folder)
        if encoders and encoder.config != encoders[0].config:
            raise InputError(f"{folder}: its sizes {encoder.config} are not those of {folders[0]}")
        encoders.append(encoder)
        decoders.append(decoder)
    return encoders, decoders, encoders[0].config["image_size"]


def print_table(table: list[list], instances: int) -> None:
    """The paper's figures beside ours, and how many times worse an unmatched decoder is."""
    print(
        f"\nMSE of {instances} encoders x {instances} decoders".ljust(42) + "mean".rjust(11) + "std. dev.".rjust(11),
        end="",
    )
    print("paper".rjust(16) + "std. dev.".rjust(11))
    for images, pair, mean, deviation, paper_mean, paper_deviation in table:
        print(f"{images:12}{pair:29}{mean:11.6f}{deviation:11.6f}{paper_mean:16.6f}{paper_deviation:11.6f}")
    for matched, unmatched in zip(table[::2], table[1::2], strict=True):
        ratio, paper = unmatched[2] / matched[2], unmatched[4] / matched[4]
        print(f"{matched[0]:12}{'unmatched / matched':29}{ratio:11.1f}{'':11}{paper:16.1f}")
    print()


def parse_arguments() -> argparse.Namespace:
    parser = command_line.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--models", type=command_line.path, default=Path("runs/aae"), help="folder of the trained instances 0, 1, ...")
    add("--instances", type=command_line.integer(2), help="pair the first INSTANCES only; default: all there are")
    add("--dataset", default="cifar10", help="what they were trained on: cifar10, photos, ..., folder:PATH or npz:FILE")
    add(
        "--output-dir", type=command_line.path, help="where tables and pictures go; default: runs/crosspair, runs/audit"
    )
    add("--audit", action="store_true", help="measure what masks leak, see above")
    private = "audit: also judge masks of this labelled set, and their accuracy; default: cifar100 beside cifar10"
    add("--private", metavar="DATASET", help=private)
    more = "audit: folders of autoencoders of other sizes or presets, for the picture of accuracy against leakage"
    add("--more-models", type=command_line.path, nargs="+", metavar="FOLDER", help=more)
    masks = (
        "audit: masks beside the autoencoder's own, such as aae+noise0.5 for --noise 0.5 of mask_dataset.py; default: "
        "with a key, and four baselines; without a name: none"
    )
    add("--masks", nargs="*", metavar="MASK", help=masks)
    jobs = "audit: steps made at once, each in a process with one thread; needs Linux (default: 1)"
    add("--jobs", type=command_line.integer(1), help=jobs)
    release = "audit: masked files, or the names of their shards; there is a page about each"
    add("--release", type=command_line.path, nargs="+", metavar="FILE", help=release)
    add("--recipient", help="audit: who gets the release")
    known = "audit: images of each set behind masks that an attacker may know, in release.html (default: 1000)"
    add("--known-pairs", type=command_line.integer(0), help=known)
    for name, what in (
        ("ssim", "the mean SSIM of the best reconstruction"),
        ("named", "the share of masks whose image is named among candidates"),
        ("linked", "the share whose other photograph is named"),
        ("inferred", "the accuracy of a withheld label"),
    ):
        accepted = f"audit: {what} that is accepted, 0 to 1; a line of release.html passes or fails by it"
        add(f"--most-{name}", type=command_line.share, metavar="SHARE", help=accepted)
    encoded = f"images encoded at once (default: {BATCH_SIZE}); the audit chooses for itself"
    add("--batch-size", type=command_line.integer(1), help=encoded)
    add("--limit", type=command_line.integer(4), help="keep the first LIMIT training and LIMIT // 4 validation images")
    parser.add_data()
    parser.add_common()
    args = parser.parse_args()
    told = [flag for flag in AUDIT_FLAGS if getattr(args, flag) is not None]
    if told and not args.audit:
        parser.error(f"argument --{told[0].replace('_', '-')}: is of the audit; add --audit, or leave it out")
    if args.audit and args.batch_size is not None:
        parser.error("argument --batch-size: the audit chooses for itself; leave it out")
    if args.batch_size is None:
        args.batch_size = BATCH_SIZE
    if args.output_dir is None:
        args.output_dir = Path("runs/audit" if args.audit else "runs/crosspair")
    if args.audit and args.private is None and args.dataset == "cifar10":
        args.private = "cifar100"
    return args


if __name__ == "__main__":
    command_line.run(main)
