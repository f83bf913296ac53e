"""What does noise on masks cost, and what does it prove?

    python benchmarks/noise.py                                                   # encoders 0 and 1 of runs/aae
    python benchmarks/noise.py --encoder A/encoder.pt --own B/encoder.pt --save  # also results/noise.csv

For every amount: accuracy on CIFAR-100 without augmented copies, of the MLP at 2, 3 and 4 classes, of trees at 3. How
many of the first 1,000 test images somebody names without a known pair who has these images and an encoder of the same
kind (by transport), or the encoder itself (by the likeliest code). The bound on that; the bits of a mask.
"""

from pathlib import Path

import common
import torch
from torch import Tensor

from classify import mean_accuracies
from maskbench.data import datasets
from maskbench.data.image_set import TEST, TRAIN, to_float
from maskbench.leakage import bounds
from maskbench.leakage.attacks.reidentification import matched_by_transport, ranks_of
from maskbench.masking import Recipe, make
from maskbench.masking.noise import Noised, clipped
from maskbench.masking.shards import Shard, Work
from maskbench.runtime import command_line
from maskbench.storage import tables

KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2, 0.1)
CANDIDATES = 1000
DRAWS = 5
SCORES = (("mlp", 2), ("mlp", 3), ("mlp", 4), ("forest", 3), ("adaboost", 3))
COLUMNS = (
    *("kept", *(f"{name}_{classes}" for name, classes in SCORES)),
    *("named_without_pairs", "named_with_encoder", "bound", "bits"),
)
SECRET = bytes(32)  # none at all: a figure is to be made again


def main() -> None:
    parser = common.parser(__doc__)
    for flag, number, what in (("--encoder", 0, "what masks"), ("--own", 1, "the attacker's own, of another seed")):
        default = Path("runs/aae") / str(number) / "encoder.pt"
        parser.add_argument(flag, type=command_line.path, default=default, help=what)
    parser.add_argument("--data-dir", type=command_line.path, default="data", help="where CIFAR-100 is")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    device = torch.device("cpu")
    images = datasets.load("cifar100", args.data_dir, 32)
    train, test = (torch.nonzero(images.split == part).flatten() for part in (TRAIN, TEST))
    pixels = to_float(images.images[test[:CANDIDATES]])
    encoder, own = (make("aae", Recipe(public=list, encoder=path)) for path in (args.encoder, args.own))
    rows, places = [], torch.arange(CANDIDATES)
    with torch.inference_mode():
        codes, own_codes = (clipped(method, pixels) for method in (encoder, own))
    for kept in KEPT:
        method = Noised(encoder, kept, SECRET)
        data = Shard(Work(method, images, train, test), 0).mask()
        released, size = data.gaussian[data.split == TEST][:CANDIDATES], data.gaussian.shape[1]
        rows.append(
            [
                kept,
                *(mean_accuracies(data, [name], classes, DRAWS)[name][0] for name, classes in SCORES),
                (ranks_of(matched_by_transport(released, own_codes), places) == 1).double().mean().item(),
                named(released, codes, kept),
                bounds.naming_bound(kept, size, 1, CANDIDATES),
                bounds.mask_bits(kept, size),
            ]
        )
        print(f"kept {kept}: done", flush=True)
    report = tables.markdown(COLUMNS, [[f"{number:.4g}" for number in row] for row in rows])
    print("\n".join([*common.header(device), "", report]))
    if args.save:
        tables.write_csv(common.RESULTS / "noise.csv", COLUMNS, rows)


def named(released: Tensor, codes: Tensor, kept: float) -> float:
    """The part of the masks whose own code is the likeliest: the nearest to what was released.

    Args:
        released: ``[N, G]``.
        codes: ``[N, G]``, clipped, of the same images.
    """
    nearest = torch.cdist(released, kept * codes).argmin(1)
    return (nearest == torch.arange(len(codes))).float().mean().item()


if __name__ == "__main__":
    command_line.run(main)
