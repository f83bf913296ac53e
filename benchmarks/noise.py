"""What does noise on masks cost, and what does it prove?

    python benchmarks/noise.py                                        # the encoder in results/weights
    python benchmarks/noise.py --encoder runs/aae/0/encoder.pt --save # also results/noise.csv

For every amount: accuracy on CIFAR-100 without augmented copies, of the MLP at 2, 3 and 4 classes, of trees at 3; how
many of the first 1,000 test images somebody names who has the encoder and these images, by the likeliest code; the
bound on that; the bits of a mask.
"""

import common
import torch
from torch import Tensor

from classify import mean_accuracies
from maskbench.data import datasets
from maskbench.data.image_set import TEST, TRAIN, to_float
from maskbench.leakage import bounds
from maskbench.masking import Recipe, make
from maskbench.masking.noise import Noised
from maskbench.masking.shards import Shard, Work
from maskbench.runtime import command_line
from maskbench.storage import tables

KEPT = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
CANDIDATES = 1000
DRAWS = 5
SCORES = (("mlp", 2), ("mlp", 3), ("mlp", 4), ("forest", 3), ("adaboost", 3))
COLUMNS = ("kept", *(f"{name}_{classes}" for name, classes in SCORES), "named", "bound", "bits")
SECRET = bytes(32)  # none at all: a figure is to be made again


def main() -> None:
    parser = common.parser(__doc__)
    default = common.RESULTS / "weights" / "encoder.pt"
    parser.add_argument("--encoder", type=command_line.path, default=default, help="what masks")
    parser.add_argument("--data-dir", type=command_line.path, default="data", help="where CIFAR-100 is")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    device = torch.device("cpu")
    images = datasets.load("cifar100", args.data_dir, 32)
    train, test = (torch.nonzero(images.split == part).flatten() for part in (TRAIN, TEST))
    pixels = to_float(images.images[test[:CANDIDATES]])
    encoder = make("aae", Recipe(public=list, encoder=args.encoder))
    rows = []
    with torch.inference_mode():
        codes = Noised(encoder, 1.0, SECRET).encode(pixels)[0]
    for kept in KEPT:
        method = Noised(encoder, kept, SECRET)
        data = Shard(Work(method, images, train, test), 0).mask()
        released, size = data.gaussian[data.split == TEST][:CANDIDATES], data.gaussian.shape[1]
        rows.append(
            [
                kept,
                *(mean_accuracies(data, [name], classes, DRAWS)[name][0] for name, classes in SCORES),
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
