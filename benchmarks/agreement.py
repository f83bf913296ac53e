"""How fast does preset invariant train, beside what people would install for it?

    pip install lightly                       # the peer
    python benchmarks/agreement.py            # images a second of whole training loops
    python benchmarks/agreement.py --save     # also into results/speed.md

The peers train the same network on the same crops of photographs, in mini-batches of 128:

  maskbench      the loop of train_aae.py: images and views of them, drawn in batches; agreement, decoder,
                 discriminators and priors
  barlow twins   lightly's loss (BarlowTwinsLoss), its SimCLR transform with our crop and jitter, PyTorch's DataLoader
                 with a worker a spare core, Adam; float32, no decoder, no adversary
  vicreg         the same with lightly's VICRegLoss
"""

import functools
from collections.abc import Iterator

import common
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from maskbench.data import views
from maskbench.data.bundled_sets import photos
from maskbench.data.image_set import to_float
from maskbench.models import PRESETS, Encoder
from maskbench.runtime import command_line, torchrun
from maskbench.storage.tables import markdown
from maskbench.training.images import TrainingImages
from maskbench.training.run import Run
from maskbench.training.settings import Settings
from train_aae import begin, take_step

SIZES = PRESETS["invariant"]
BATCH = SIZES["batch_size"]
SECONDS = 120.0  # for all peers together


def main() -> None:
    parser = common.parser(__doc__, SECONDS)
    args = parser.parse_args()
    try:
        import lightly  # noqa: F401
    except ImportError:
        parser.error("lightly is the peer; pip install lightly")
    torch.set_flush_denormal(True)
    device = torch.device("cpu")
    images = photos(32).images
    loops = {
        "maskbench": ours(images),
        "barlow twins": lightly_loop(images, "BarlowTwinsLoss"),
        "vicreg": lightly_loop(images, "VICRegLoss"),
    }
    turns = {name: functools.partial(next, loop) for name, loop in loops.items()}
    times = common.take_turns(turns, device, args.seconds)
    cells = [
        [name, f"{BATCH / times[name][0]:,.0f}", shown]
        for name, shown in zip(times, common.against(times, "barlow twins", 1e3, "ms"), strict=True)
    ]
    lines = [*common.header(device), "", markdown(["peer", "images a second", f"a mini-batch of {BATCH}"], cells)]
    print("\n".join(lines))
    if args.save:
        rows = [("agreement", name, BATCH, "seconds a step", *figure) for name, figure in times.items()]
        common.save("agreement", "A training step of preset invariant", lines, rows, device)


def ours(images: Tensor) -> Iterator[None]:
    """One mini-batch a turn, as train_aae.py does it."""
    settings = Settings("", None, 32, SIZES["gaussian_dim"], 20, "invariant", 1.0, BATCH, SIZES["lr"], 0)
    state = begin(Run(settings, 1, TrainingImages(images, images[:BATCH], ""), environment={}), 0, fit=False)
    epoch = 0
    while True:
        epoch += 1
        for rows in torch.randperm(len(images)).split(BATCH):
            pixels = to_float(images[rows])
            take_step(state, pixels, views.random_views(pixels, rows, 0, epoch))
            yield


def lightly_loop(images: Tensor, loss: str) -> Iterator[None]:
    """One mini-batch a turn, as lightly's examples do it."""
    import lightly.loss
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(
        input_size=32,
        min_scale=views.AREA,
        cj_strength=1.0,
        cj_prob=1.0,
        cj_bright=views.JITTER,
        cj_contrast=views.JITTER,
        cj_sat=views.JITTER,
        cj_hue=0.05,
        random_gray_scale=views.GREY,
        gaussian_blur=0.0,
        normalize=None,
    )

    class Pictures(Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, row: int) -> list[Tensor]:
            return transform(Image.fromarray(images[row].permute(1, 2, 0).numpy()))

    encoder = Encoder("invariant")
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(encoder.features.convolutions, pool, encoder.features.hidden, encoder.gaussian)
    criterion = getattr(lightly.loss, loss)()
    optimizer = torch.optim.Adam(network.parameters(), lr=SIZES["lr"])
    workers = torchrun.spare_cores()
    loader = DataLoader(Pictures(), BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    while True:
        for one, two in loader:
            loss_value = criterion(network(one), network(two))
            optimizer.zero_grad()
            loss_value.backward()
            optimizer.step()
            yield


if __name__ == "__main__":
    command_line.run(main)
