"""How does training grow with the processes that share its mini-batches under torchrun?

    python benchmarks/processes.py          # 1, 2 and 3 processes on this machine
    python benchmarks/processes.py --save   # also into results/speed.md

Whole trainings by train_aae.py on crops of photographs, one epoch each; images a second as metrics.csv has them, the
whitening at the epoch's end included. One process uses all cores; of several, each uses one. The last columns are
what a step sums over the processes, gradients first of all, and what gloo takes for that alone.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import torch
from instances import images_per_second

from maskbench.models import Decoder, Discriminator, Encoder
from maskbench.runtime import command_line, torchrun
from maskbench.storage.tables import markdown

COUNTS = (1, 2, 3)
RUNS = (("paper", 16), ("paper", 256), ("invariant", 256))
IMAGES = 8_000
TURNS = 3
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--images", type=command_line.integer(512), default=IMAGES, help="training images")
    parser.add_argument("--turns", type=command_line.integer(1), default=TURNS, help="how often each is trained")
    parser.add_argument("--sum", type=int, metavar="BYTES", help="only time a sum, started by torchrun")
    args = parser.parse_args()
    device = torch.device("cpu")
    if args.sum:
        with torchrun.processes(device):
            print(time_of_sum(args.sum, device))
        return
    lines, cells, rows = [*common.header(device), ""], [], []
    for preset, batch in RUNS:
        size = bytes_summed(preset)
        rates = {count: [] for count in COUNTS}
        for _ in range(args.turns):
            for count in COUNTS:
                rates[count].append(train(preset, batch, count, args.images))
        sums = {count: float(started(count, [__file__, "--sum", str(size)])) for count in COUNTS[1:]}
        one = statistics.median(rates[1])
        cell = [f"{preset}, {batch}"]
        for count in COUNTS:
            rate = statistics.median(rates[count])
            low, high = min(rates[count]), max(rates[count])
            cell.append(f"{rate:,.0f} ({low:,.0f} to {high:,.0f}), {rate / one:.2f}x")
            figure = (float(rate), float(low), float(high))
            rows.append(("processes", f"{preset}, mini-batch {batch}", count, "images a second", *figure))
        cells.append([*cell, f"{size / 1e6:.1f} MB", ", ".join(f"{1e3 * sums[count]:.1f} ms" for count in sums)])
    columns = ["preset, mini-batch", *(f"{count} process(es)" for count in COUNTS)]
    lines.append(markdown([*columns, "summed a step", "in 2, in 3 processes"], cells))
    print("\n".join(lines))
    if args.save:
        common.save("processes", "Processes under torchrun, images a second", lines, rows, device)


def bytes_summed(preset: str) -> int:
    """Of the gradients of all three optimisers."""
    encoder, decoder = Encoder(preset), Decoder(preset)
    numbers = [sum(p.numel() for p in network.parameters()) for network in (encoder, decoder)]
    features = encoder.config["gaussian_dim"], encoder.config["categories"]
    discriminators = sum(p.numel() for count in features for p in Discriminator(count).parameters())
    return 4 * ((2 if preset == "paper" else 1) * numbers[0] + numbers[1] + discriminators)


def train(preset: str, batch: int, processes: int, images: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--dataset", "photos", "--limit", images, "--epochs", 1, "--preset", preset, "--batch-size", batch]
        started(processes, ["train_aae.py", *map(str, flags), "--output-dir", folder])
        return images_per_second(Path(folder))


def started(processes: int, command: list[str]) -> str:
    """What a script prints, started by torchrun where it is to have several processes."""
    start = [sys.executable] if processes == 1 else [*TORCHRUN, str(processes)]
    return subprocess.run([*start, *command], check=True, capture_output=True, text=True, cwd=common.ROOT).stdout


def time_of_sum(size: int, device: torch.device) -> float:
    """Median seconds of one sum over the processes."""
    numbers = torch.ones(size // 4)
    return statistics.median(common.timed(lambda: torchrun.total(numbers), device) for _ in range(30))


if __name__ == "__main__":
    main()
