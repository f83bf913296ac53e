"""How fast does preset invariant train, beside what people would install for it?

    pip install lightly                             # the peer
    python benchmarks/agreement.py                  # images a second of whole training loops
    python benchmarks/agreement.py --device cuda    # the captured step beside its own eager one, too
    python benchmarks/agreement.py --save           # also into results/speed.md

The peers train the same network on the same crops of photographs, in mini-batches of 128:

  maskbench      the loop of train_aae.py: images and views of them, drawn in batches; agreement, decoder,
                 discriminators and priors
  barlow twins   lightly's loss (BarlowTwinsLoss), its SimCLR transform with our crop and jitter, PyTorch's DataLoader
                 with a worker a spare core, Adam; float32, no decoder, no adversary
  vicreg         the same with lightly's VICRegLoss
"""

import functools
import importlib.util
from collections.abc import Iterator

import common
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from maskbench.data import views
from maskbench.data.bundled_sets import photos
from maskbench.data.torchvision_import import torchvision  # noqa: F401, before lightly imports it in a way that may fail
from maskbench.models import PRESETS, Encoder
from maskbench.runtime import command_line, torchrun
from maskbench.storage.tables import markdown
from maskbench.training.images import TrainingImages
from maskbench.training.run import Run
from maskbench.training.settings import Settings
from train_aae import begin, step_function

SIZES = PRESETS["invariant"]
BATCH = SIZES["batch_size"]
SECONDS = 120.0  # for all peers together


def main() -> None:
    parser = common.parser(__doc__, SECONDS, gpu=True)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    device = torch.device(args.device)
    lines, images = [], photos(32).images
    common.say(lines, *common.header(device))
    loops = {"maskbench": ours(images.to(device))}
    if device.type == "cuda":
        loops["maskbench eager"] = ours(images.to(device), eager=True)
    if importlib.util.find_spec("lightly"):
        loops["barlow twins"] = lightly_loop(images, "BarlowTwinsLoss", device)
        loops["vicreg"] = lightly_loop(images, "VICRegLoss", device)
    else:
        common.say(lines, "- lightly, the peer, is not installed (pip install lightly)")
    turns = {name: functools.partial(next, loop) for name, loop in loops.items()}
    times = common.take_turns(turns, device, args.seconds)
    peer = "barlow twins" if "barlow twins" in times else list(times)[-1]
    cells = [
        [name, f"{BATCH / times[name][0]:,.0f}", shown]
        for name, shown in zip(times, common.against(times, peer, 1e3, "ms"), strict=True)
    ]
    common.say(lines, "", markdown(["peer", "images a second", f"a mini-batch of {BATCH}"], cells))
    if args.save:
        rows = [("agreement", name, BATCH, "seconds a step", *figure) for name, figure in times.items()]
        common.save("agreement", "A training step of preset invariant", lines, rows, device)


def ours(images: Tensor, eager: bool = False) -> Iterator[None]:
    """One mini-batch a turn, as train_aae.py does it; on a GPU captured, unless eager."""
    settings = Settings("", None, 32, SIZES["gaussian_dim"], 20, "invariant", 1.0, BATCH, SIZES["lr"], 0)
    run = Run(settings, 1, TrainingImages(images, images[:BATCH], ""), environment={})
    state = begin(run, 0, fit=False)
    state.make_capturable(images.device)
    step = step_function(state, run, 0)
    step = step.function if eager else step
    epoch = torch.zeros((), dtype=torch.int64, device=images.device)
    while True:
        epoch += 1
        for rows in torch.randperm(len(images)).to(images.device).split(BATCH):
            if len(rows) == BATCH:
                step(images[rows], rows, epoch)
                yield


def lightly_loop(images: Tensor, loss: str, device: torch.device) -> Iterator[None]:
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
    network = nn.Sequential(encoder.features.convolutions, pool, encoder.features.hidden, encoder.gaussian).to(device)
    criterion = getattr(lightly.loss, loss)()
    optimizer = torch.optim.Adam(network.parameters(), lr=SIZES["lr"])
    workers = torchrun.spare_cores()
    loader = DataLoader(Pictures(), BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    while True:
        for one, two in loader:
            loss_value = criterion(network(one.to(device)), network(two.to(device)))
            optimizer.zero_grad()
            loss_value.backward()
            optimizer.step()
            yield


if __name__ == "__main__":
    command_line.run(main)
