"""How often are masks linked to images without a known pair?

    python benchmarks/links.py                 # instances 0 and 1 of runs/aae, some minutes on one core
    python benchmarks/links.py --kept 1 0.8    # in noise, too
    python benchmarks/links.py --save          # also results/links.csv

The validation images of CIFAR-10 and the test images of CIFAR-100, 1,000 at a time. Of each thousand, the share that
somebody names at the first guess who has all masks, the images in another order, and an encoder of the same kind
(``maskbench.leakage.attacks.gromov_wasserstein.matched_by_transport``). Then the share that somebody names who has
another photograph of each image instead.
"""

import time
from functools import partial

import common
import torch

from maskbench.data import datasets
from maskbench.data.image_set import TEST, to_float
from maskbench.data.views import another_photograph
from maskbench.leakage.attacks.gromov_wasserstein import matched_by_transport
from maskbench.leakage.audit import load_instances
from maskbench.leakage.knowledge import batched
from maskbench.leakage.world import AsReleased, reading
from maskbench.masking.noise import Noised, clipped
from maskbench.runtime import command_line
from maskbench.storage import tables

CANDIDATES = 1000
SECRET = bytes(32)  # fixed, so that figures can be reproduced
COLUMNS = ("images", "first", "kept", "named", "seconds", "linked", "linked_seconds")


@torch.inference_mode()
def main() -> None:
    parser = common.parser(__doc__, models=common.PAIR)
    kept = "A of mask_dataset.py --noise; 1 is no noise"
    parser.add_argument("--kept", type=command_line.share, nargs="+", default=[1.0], help=kept)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    owner, another, attacker = load_instances(args.models / "0", args.models / "1")
    rows, sets = [], {name: datasets.load(name, args.data_dir, owner.image_size) for name in ("cifar10", "cifar100")}
    judged = {"cifar10": datasets.autoencoder_split(sets["cifar10"], None)[1], "cifar100": sets["cifar100"].rows(TEST)}
    common.begin_table(COLUMNS, torch.device("cpu"))
    for name, images in sets.items():
        for first in range(0, len(judged[name]) - CANDIDATES + 1, CANDIDATES):
            pixels = to_float(images.images[judged[name][first : first + CANDIDATES]])
            order = torch.randperm(CANDIDATES, generator=torch.Generator().manual_seed(first))
            for share in args.kept:
                released, known = reading(owner, attacker), reading(another, another)
                if share < 1:
                    released, known = reading(Noised(owner, share, SECRET), AsReleased()), partial(clipped, another)
                masks, row = batched(released, pixels), [name, first, share]
                for photographs in (pixels, another_photograph(pixels, 0)):
                    candidates = batched(known, photographs[order])
                    begin = time.perf_counter()
                    found = matched_by_transport(masks, candidates)[:, order.argsort()]
                    row += [common.named(found), time.perf_counter() - begin]
                rows.append(row)
                print(tables.markdown_line([name, *(f"{number:.4g}" for number in row[1:])]), flush=True)
    if args.save:
        tables.write_csv(common.RESULTS / "links.csv", COLUMNS, rows)


if __name__ == "__main__":
    command_line.run(main)
