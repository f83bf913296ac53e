"""Does the memory of masking and classifying grow with the number of images?

    python benchmarks/memory.py                          # 10,000 and 1,000,000 synthetic images, 4 GB of disk
    python benchmarks/memory.py --images 10000 100000
    python benchmarks/memory.py --save                   # also into results/speed.md

Whole processes: mask_dataset.py on a folder of small pictures, 1,000 a class, into shards of 10,000 masks by an encoder
of preset invariant at its initial weights, then classify.py on the shards (two classes, one draw, the MLP). Memory is
the largest resident set of the script's process.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import common
import numpy as np
import torch
from PIL import Image

from maskbench.models import Encoder, checkpoints
from maskbench.runtime import command_line
from maskbench.storage.tables import markdown

OF_A_CLASS = 1_000
SHARD = 10_000


def main() -> None:
    parser = common.parser(__doc__)
    counts = (10_000, 1_000_000)
    images = "how many, a multiple of 10,000 each"
    parser.add_argument("--images", type=command_line.integer(SHARD), nargs="+", default=counts, help=images)
    args = parser.parse_args()
    device = torch.device("cpu")
    lines, cells, rows = [*common.header(device), ""], [], []
    for count in args.images:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            with ProcessPoolExecutor() as pool:
                list(pool.map(draw_class, [folder / "pictures"] * (count // OF_A_CLASS), range(count // OF_A_CLASS)))
            checkpoints.save_encoder(Encoder("invariant"), folder / "encoder.pt")
            mask = ["mask_dataset.py", "--dataset", "folder:pictures", "--encoder", "encoder.pt", "--workers", "1"]
            masking, seconds = peak([*mask, "--shards", str(count // SHARD)], folder)
            classify = ["classify.py", "--masked", "masked/pictures.pt", "--classes", "2", "--repeats", "1"]
            classifying, _ = peak([*classify, "--methods", "mlp", "--epochs", "1"], folder)
            disk = sum(path.stat().st_size for path in (folder / "masked").iterdir())
        figures = [f"{masking / 2**20:,.0f} MiB", f"{classifying / 2**20:,.0f} MiB"]
        cells.append([f"{count:,}", *figures, f"{count / seconds:,.0f}", f"{disk / count:,.0f}"])
        rows += [("memory", "mask_dataset.py", count, "bytes", *[float(masking)] * 3)]
        rows += [("memory", "classify.py", count, "bytes", *[float(classifying)] * 3)]
    columns = ["images", "mask_dataset.py", "classify.py", "images masked a second", "bytes a mask on the disk"]
    lines.append(markdown(columns, cells))
    print("\n".join(lines))
    if args.save:
        common.save("memory", "Memory against images", lines, rows, device)


def draw_class(folder: Path, label: int) -> None:
    """Gradients of random colours, uncompressed: reading them costs little beside masking them."""
    place = folder / f"{label:04}"
    place.mkdir(parents=True)
    random, ramp = np.random.default_rng(label), np.linspace(0, 1, 32)
    for number in range(OF_A_CLASS):
        down, right, base = random.random((3, 3)) * 85
        pixels = np.outer(ramp, down)[:, None] + np.outer(ramp, right) + base
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number:03}.bmp")


def peak(command: list[str], folder: Path) -> tuple[int, float]:
    """The largest resident set of a script in bytes, and its seconds."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, common.ROOT / command[0], *command[1:]], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), time.perf_counter() - start


if __name__ == "__main__":
    main()
