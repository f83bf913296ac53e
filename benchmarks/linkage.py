"""Who has the encoder: does he recognise another photograph of a masked image? Until an audit in results/ says it.

    python benchmarks/linkage.py results/weights/encoder.pt runs/paper/0/encoder.pt   # CIFAR-10 in data/; a minute
    python benchmarks/linkage.py ENCODER... --save                                    # also results/linkage.csv

The first 1,000 validation images are masked. The candidates are other photographs of them, and of 9,000 images beside.
"""

from pathlib import Path

import common
import torch

from maskbench.data import datasets
from maskbench.data.image_set import to_float
from maskbench.data.views import another_photograph
from maskbench.leakage.attacks.reidentification import accepted, distances, ranks_of
from maskbench.leakage.knowledge import batched
from maskbench.leakage.scores import FALSE_POSITIVES
from maskbench.leakage.world import reading
from maskbench.masking import Recipe, make
from maskbench.runtime import command_line
from maskbench.runtime.machine import commit
from maskbench.storage import tables

COLUMNS = ("preset", "candidates", "linked_at_1", "linked_median_rank", "linked_at_fpr", "commit")
MASKED, CANDIDATES = 1000, (1000, 10_000)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("encoders", nargs="+", type=command_line.path, metavar="ENCODER", help="encoder.pt of each")
    parser.add_argument("--data-dir", type=command_line.path, default=Path("data"), help="where CIFAR-10 is")
    args = parser.parse_args()
    images = datasets.load("cifar10", args.data_dir)
    pixels = to_float(images.images[datasets.autoencoder_split(images)[1][: CANDIDATES[-1]]])
    places, photographs = torch.arange(MASKED), another_photograph(pixels, seed=0)
    rows = []
    for path in args.encoders:
        method = make("aae", Recipe(public=list, encoder=path))
        with torch.inference_mode():
            encode = reading(method, method)
            masks, others = batched(encode, pixels[:MASKED]), batched(encode, photographs)
        for count in CANDIDATES:
            apart = distances(masks, others[:count])
            ranks, told = ranks_of(apart, places), accepted(apart, places, FALSE_POSITIVES)
            figures = [(ranks == 1).double().mean().item(), ranks.median().item(), told.mean().item()]
            rows.append([method.encoder.config["preset"], count, *figures, commit()])
    print("\n".join([*common.header(torch.device("cpu")), "", tables.markdown(COLUMNS, rows)]))
    if args.save:
        tables.write_csv(common.RESULTS / "linkage.csv", COLUMNS, rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    command_line.run(main)
