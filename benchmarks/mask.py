"""How fast are images masked, beside a loop over a DataLoader?

    python benchmarks/mask.py                  # 1,000, 10,000 and 60,000 images
    python benchmarks/mask.py --device cuda
    python benchmarks/mask.py --images 1000
    python benchmarks/mask.py --save           # also into results/speed.md

Peers, with the encoder of preset invariant in inference mode and mini-batches of 500:

  maskbench              what mask_dataset.py does between reading the images and writing the file
  DataLoader             over torchvision's kind of dataset (a PIL image and ToTensor for each), torch.cat at the end
  DataLoader, 2 workers  the same, images prepared by two processes

The limit is the encoder's floating-point operations at the machine's measured rate of matrix products.
"""

import tempfile
from pathlib import Path

import common
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from maskbench.data.image_set import ImageSet
from maskbench.data.torchvision_import import torchvision
from maskbench.masking.autoencoder import Autoencoder
from maskbench.masking.shards import Shard, Work
from maskbench.models import Encoder
from maskbench.runtime import command_line
from maskbench.storage import pt
from maskbench.storage.tables import markdown_line

COUNTS = (1_000, 10_000, 60_000)
BATCH = 500
SECONDS = 60.0  # for a line's peers together
COLUMNS = ("images", "maskbench", "DataLoader", "DataLoader, 2 workers", "limit")


def main() -> None:
    parser = common.parser(__doc__, SECONDS, gpu=True)
    parser.add_argument("--images", type=command_line.integer(1), nargs="+", default=COUNTS, help="how many")
    args = parser.parse_args()
    device = torch.device(args.device)
    rate = common.matrix_rate(device)
    lines, rows = [], []
    common.say(lines, *common.header(device), f"- products of 1024 x 1024 matrices: {rate / 1e9:,.0f} GFLOP/s", "")
    encoder = Encoder("invariant").to(device).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder(torch.rand(BATCH, 3, 32, 32, device=device))
    common.say(lines, *map(markdown_line, (COLUMNS, ["---:"] * len(COLUMNS))))
    for count in args.images:
        images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
        peers = {
            "maskbench": lambda images=images: ours(encoder, images, device),
            "DataLoader": lambda images=images: loop(encoder, images, device, workers=0),
            "DataLoader, 2 workers": lambda images=images: loop(encoder, images, device, workers=2),
        }
        times = common.take_turns(peers, device, args.seconds, turns=3)
        limit = count / BATCH * counter.get_total_flops() / rate
        reached = f"{limit:.3f} s ({limit / times['maskbench'][0]:.0%} reached)"
        common.say(lines, markdown_line([f"{count:,}", *common.against(times, "DataLoader", 1, "s"), reached]))
        rows += [("mask", name, count, "seconds", *figure) for name, figure in times.items()]
    if args.save:
        common.save("mask", "Masking", lines, rows, device)


def ours(encoder: Encoder, images: Tensor, device: torch.device) -> None:
    count = len(images)
    image_set = ImageSet("cifar100", images, torch.zeros(count).long(), torch.zeros(count, dtype=torch.uint8), ["any"])
    method = Autoencoder(encoder, pt.fingerprint({}))
    work = Work(method, image_set, torch.arange(count), torch.arange(0), batch_size=BATCH, device=device)
    with tempfile.TemporaryDirectory() as folder:
        Shard(work, 0).mask(Path(folder))


class Pictures(Dataset):
    """As torchvision's CIFAR100 with ``transform=ToTensor()`` does it."""

    def __init__(self, images: Tensor):
        self.data = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = torchvision.transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), 0


@torch.inference_mode()
def loop(encoder: Encoder, images: Tensor, device: torch.device, workers: int) -> None:
    gaussian, categorical = [], []
    for pictures, _ in DataLoader(Pictures(images), batch_size=BATCH, num_workers=workers):
        parts = encoder(pictures.to(device))
        gaussian.append(parts[0].cpu())
        categorical.append(parts[1].cpu())
    torch.cat(gaussian), torch.cat(categorical)


if __name__ == "__main__":
    main()
