"""What does noise on masks cost, and what does it prove?

    python benchmarks/noise.py                            # instances 0 and 1 of runs/aae, hours on one core
    python benchmarks/noise.py --kept 0.9 0.8 --draws 5   # these amounts alone, and few draws of classes
    python benchmarks/noise.py --models FOLDER --save     # also results/noise.csv

For every amount: accuracy on CIFAR-100 without augmented copies, of the MLP in all draws of Table 1, of trees in five.
How many of the first 1,000 test images somebody names without a known pair who has these images and

- an encoder of the same kind (by transport), in the mean of three noises, and in the worst for the owner;
- the encoder itself: the likeliest code is the nearest to the mask;
- the encoder, and knows what the labels that travel with masks say of the images: the nearest code of the same label;
- the encoder, and masks of 20 copies of each image beside (flips, shifts): whose codes are nearest in all.

Beside each of the last three stands its bound; then the bits of a mask.
"""

import common
import torch

from classify import mean_accuracies
from maskbench.data import datasets
from maskbench.data.image_set import TEST, TRAIN, to_float
from maskbench.leakage import bounds
from maskbench.leakage.attacks.gromov_wasserstein import matched_by_transport
from maskbench.leakage.audit import load_instances
from maskbench.masking.augmentation import NAMES, SHIFT, augmented
from maskbench.masking.noise import Noised, clipped
from maskbench.masking.shards import Shard, Work
from maskbench.runtime import command_line
from maskbench.storage import tables

KEPT = (1.0, 0.9, 0.85, 0.8, 0.75, 0.7, 0.5, 0.3, 0.2, 0.1)
CANDIDATES = 1000
DRAWS = {"mlp": 30, "forest": 5, "adaboost": 5}
SCORES = (("mlp", 2), ("mlp", 3), ("mlp", 4), ("forest", 3), ("adaboost", 3))
COPIES = 20
COLUMNS = (
    *("kept", "mlp_draws", *(f"{name}_{classes}" for name, classes in SCORES)),
    *("named_without_pairs", "most_without_pairs"),
    *("named", "bound", "named_by_label", "bound_by_label", "named_by_copies", "bound_by_copies", "bits"),
)
SECRETS = [bytes(31) + bytes([number]) for number in range(3)]  # fixed, so that figures can be reproduced


def main() -> None:
    parser = common.parser(__doc__, models=common.PAIR)
    parser.add_argument("--kept", type=command_line.share, nargs="+", default=KEPT, help="A of mask_dataset.py --noise")
    parser.add_argument("--draws", type=command_line.integer(1), default=DRAWS["mlp"], help="of classes, for the MLP")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    device = torch.device("cpu")
    images = datasets.load("cifar100", args.data_dir, 32)
    train, test = (torch.nonzero(images.split == part).flatten() for part in (TRAIN, TEST))
    first = test[:CANDIDATES]
    pixels, labels = to_float(images.images[first]), images.labels[first]
    # the same copies of every image, all of them different: equal ones would have equal noise, and tell nothing more
    places = torch.tensor([2, 2 * SHIFT + 1, 2 * SHIFT + 1])
    variants = (torch.cartesian_prod(*map(torch.arange, places.tolist())) + 0.5) / places
    variants = variants[torch.randperm(len(variants), generator=torch.Generator().manual_seed(0))]
    copies = [augmented(pixels, NAMES, variant.expand(CANDIDATES, 3)) for variant in variants]
    copies = [copy for copy in copies if not torch.equal(copy, pixels)][:COPIES]
    owner, another, _ = load_instances(args.models / "0", args.models / "1")
    with torch.inference_mode():
        views = [clipped(owner, view) for view in (pixels, *copies)]
        own_codes = clipped(another, pixels)
    shuffled = torch.randperm(CANDIDATES, generator=torch.Generator().manual_seed(1))
    rows, same_label = [], labels[:, None] == labels
    draws = DRAWS | {"mlp": args.draws}
    common.begin_table(COLUMNS, device)
    for kept in args.kept:
        method, *others = [Noised(owner, kept, secret) for secret in SECRETS]
        data = Shard(Work(method, images, train, test), 0).mask()
        size = data.gaussian.shape[1]
        # their noise follows from their codes, so this is what would be released
        released = [method.add_noise(codes).to(codes.dtype) for codes in views]
        apart = [torch.cdist(masks, kept * codes).square() for masks, codes in zip(released, views, strict=True)]
        again = [other.add_noise(views[0]).to(views[0].dtype) for other in others] if kept < 1 else []
        found = [matched_by_transport(masks, own_codes[shuffled]) for masks in (released[0], *again)]
        without_pairs = [common.named(each[:, shuffled.argsort()]) for each in found]
        by_label = [bounds.naming_bound(kept, size, 1, count) for count in same_label.sum(1).tolist()]
        rows.append(
            [
                kept,
                args.draws,
                *(mean_accuracies(data, [name], classes, draws[name])[name][0] for name, classes in SCORES),
                sum(without_pairs) / len(without_pairs),
                max(without_pairs),
                common.named(apart[0]),
                bounds.naming_bound(kept, size, 1, CANDIDATES),
                common.named(apart[0].masked_fill(~same_label, torch.inf)),
                sum(by_label) / CANDIDATES,
                common.named(sum(apart)),
                bounds.naming_bound(kept, size, 1 + COPIES, CANDIDATES),
                bounds.mask_bits(kept, size),
            ]
        )
        print(tables.markdown_line([f"{number:.4g}" for number in rows[-1]]), flush=True)
    if args.save:
        tables.write_csv(common.RESULTS / "noise.csv", COLUMNS, rows)


if __name__ == "__main__":
    command_line.run(main)
