"""How much sooner are several autoencoders trained side by side than one after another?

    python benchmarks/instances.py                  # 1, 2 and 4 instances, commands as anybody types them
    python benchmarks/instances.py --device cuda
    python benchmarks/instances.py --save           # also into results/speed.md

Whole processes of train_aae.py on crops of photographs, one epoch, preset paper, then four of preset invariant;
start-up, whitening, validation and pictures count. The limit is the time of one after another, divided by the cores,
or, on a GPU, by the instances.
"""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import numpy as np
import torch

from maskbench.runtime import command_line
from maskbench.storage import tables

COUNTS = (1, 2, 4)
IMAGES = 20_000  # as many as there are crops: a real training is a hundred times as long
TURNS = 2


def main() -> None:
    parser = common.parser(__doc__, gpu=True)
    parser.add_argument("--images", type=command_line.integer(64), default=IMAGES, help="training images")
    counts = dict(type=command_line.integer(1), nargs="+", default=list(COUNTS))
    parser.add_argument("--counts", **counts, help="instances of preset paper; the last also of preset invariant")
    parser.add_argument("--turns", type=command_line.integer(1), default=TURNS, help="how often each is trained")
    args = parser.parse_args()
    device = torch.device(args.device)
    lines, rows = [], []
    columns = ["instances", "maskbench", "one after another", "limit", "images a second of one alone (metrics.csv)"]
    rule = ["---", *["---:"] * (len(columns) - 1)]
    common.say(lines, *common.header(device), "", *map(tables.markdown_line, (columns, rule)))
    most = torch.get_num_threads() if device.type == "cpu" else max(args.counts)
    with tempfile.TemporaryDirectory() as folder:
        for preset, count in (*(("paper", count) for count in args.counts), ("invariant", args.counts[-1])):
            together, in_turn, rates = [], [], []
            run = functools.partial(train, args.device, preset, args.images)
            for turn in range(args.turns):
                output = Path(folder, f"{preset}-{count}-{turn}")
                together.append(common.timed(functools.partial(run, output / "together", count), device))
                alone = [functools.partial(run, output / str(seed), 1, seed) for seed in range(count)]
                in_turn.append(sum(common.timed(one, device) for one in alone))
                rates += [images_per_second(output / "0")]
            figures = {
                name: (float(np.median(taken)), min(taken), max(taken))
                for name, taken in (("maskbench", together), ("one after another", in_turn))
            }
            limit = figures["one after another"][0] / min(most, count)
            reached = f"{limit:.0f} s ({limit / figures['maskbench'][0]:.0%} reached)"
            rate = f"{np.median(rates):,.0f}"
            cells = [f"{preset}, {count}", *common.against(figures, "one after another", 1, "s"), reached, rate]
            common.say(lines, tables.markdown_line(cells))
            if preset == "paper":
                rows += [("instances", name, count, "seconds", *figure) for name, figure in figures.items()]
    if args.save:
        common.save("instances", "Several instances", lines, rows, device)


def train(device: str, preset: str, images: int, output: Path, instances: int, seed: int = 0) -> None:
    command = [sys.executable, "train_aae.py", "--dataset", "photos", "--limit", str(images), "--epochs", "1"]
    command += ["--preset", preset, "--instances", str(instances), "--seed", str(seed)]
    command += ["--device", device, "--output-dir", str(output)]
    subprocess.run(command, check=True, capture_output=True, cwd=common.ROOT)


def images_per_second(output: Path) -> float:
    return float(tables.read(output / "0" / "metrics.csv")[-1]["images_per_second"])


if __name__ == "__main__":
    main()
