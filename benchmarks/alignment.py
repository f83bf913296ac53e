"""Can codes be turned into the attacker's own without a pair, and without the images behind them?

    python benchmarks/alignment.py           # instances 0 and 1 of runs/aae, a quarter of an hour on one core
    python benchmarks/alignment.py --save    # also results/alignment.csv

Of each way stands the mean cosine of turned masks with the attacker's own codes of the same images, Gaussian parts
from their means:

  as they are   nothing is turned
  statistics    moments of the axes, then optimal transport (``attacks.alignment.unpaired``)
  adversary     a rotation that is trained until a discriminator cannot tell turned masks from own codes (MUSE: Conneau
                et al., "Word translation without parallel data", ICLR 2018); no attack of the audit
  transport     crowds are matched, then transport and Procrustes take turns (``attacks.alignment.turned_by_transport``)
  500 pairs     Procrustes, for scale; no attacker of this kind has them
  all pairs     likewise, with the images that are judged

Masks are of the 10,000 validation images of CIFAR-10, own codes of all public images. Planted codes lie on a curved
surface, and are turned at random: there each way can be seen to work, or not.
"""

import time
from collections.abc import Callable
from pathlib import Path

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskbench.data import datasets
from maskbench.data.image_set import to_float
from maskbench.leakage.attacks.alignment import procrustes, turned_by_transport, unpaired, whitening
from maskbench.leakage.audit import load_instances
from maskbench.leakage.knowledge import Map, batched
from maskbench.leakage.world import reading
from maskbench.runtime import command_line
from maskbench.storage import tables

JUDGED = 1000
PUBLIC = 10_000  # planted codes on each side
PLANTED = 24  # numbers of a planted code
# of the adversary
STEPS, BATCH, HIDDEN = 9000, 256, 512
ROTATION_STEP, SMOOTH, STRAIGHTEN = 1.0, 0.1, 0.01
COLUMNS = ("codes", "way", "cosine", "seconds")


@torch.enable_grad()
def adversarial(codes: Tensor, own: Tensor) -> Map:
    """Turn codes ``[N, D]`` into own ones ``[M, D]`` of other images, by a rotation of white codes, as MUSE does."""
    width = codes.shape[1]
    (whiten, _), (own_whiten, own_colour) = (whitening(z, width) for z in (codes, own))
    white = [turn(z).float() for turn, z in ((whiten, codes), (own_whiten, own))]
    torch.manual_seed(0)
    units = (nn.Linear(width, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU(0.2))
    discriminator = nn.Sequential(nn.Dropout(0.1), *units, nn.Linear(HIDDEN, 1))
    rotation = nn.Parameter(torch.eye(width))
    learn = torch.optim.Adam(discriminator.parameters(), betas=(0.5, 0.999))
    turn = torch.optim.SGD([rotation], ROTATION_STEP)
    is_own = torch.cat((torch.full((BATCH,), SMOOTH), torch.full((BATCH,), 1 - SMOOTH)))

    def drawn(z: Tensor) -> Tensor:
        return z[torch.randint(len(z), (BATCH,))]

    def loss(z: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(discriminator(z).squeeze(1), target)

    for _ in range(STEPS):
        for _ in range(2):
            learn.zero_grad()
            loss(torch.cat((drawn(white[0]) @ rotation.detach(), drawn(white[1]))), is_own).backward()
            learn.step()
        turn.zero_grad()
        loss(drawn(white[0]) @ rotation, is_own[BATCH:]).backward()
        turn.step()
        with torch.no_grad():  # back towards a rotation
            rotation.copy_((1 + STRAIGHTEN) * rotation - STRAIGHTEN * rotation @ rotation.T @ rotation)
    left, _, right = torch.linalg.svd(rotation.detach().double())
    return lambda z: own_colour(whiten(z) @ (left @ right)).to(z)


def planted() -> tuple[Tensor, Tensor, Tensor]:
    """Codes, own codes of others, and own codes of the first ones."""
    generator = torch.Generator().manual_seed(0)
    inner, outer = 0.75 * torch.randn(4, 64, generator=generator), torch.randn(64, PLANTED, generator=generator) / 8

    def drawn() -> Tensor:
        places = torch.empty(PUBLIC, 4).exponential_(generator=generator) - 1
        return torch.tanh(places @ inner + 0.5) @ outer + 0.1 * torch.randn(PUBLIC, PLANTED, generator=generator)

    turn = torch.linalg.qr(torch.randn(PLANTED, PLANTED, generator=generator))[0]
    true = drawn()
    return true @ turn, drawn(), true


def masks(models: Path, data_dir: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of the validation images, own codes of all public images, and own codes of the validation images."""
    owner, another, attacker = load_instances(models / "0", models / "1")
    images = datasets.load("cifar10", data_dir, owner.image_size)
    public, seen = (to_float(images.images[rows]) for rows in datasets.autoencoder_split(images, None))
    encode, width = reading(another, another), owner.widths[0]
    codes = batched(reading(owner, attacker), seen), batched(encode, public), batched(encode, seen)
    return tuple(each[:, :width] for each in codes)


@torch.no_grad()
def main() -> None:
    parser = common.parser(__doc__)
    models = "of trained instances: 0 is the owner's, 1 the attacker's"
    parser.add_argument("--models", type=command_line.path, default=Path("runs/aae"), help=models)
    parser.add_argument("--data-dir", type=command_line.path, default=Path("data"), help="where the images are")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    rows = []
    print("\n".join([*common.header(torch.device("cpu")), "", tables.markdown(COLUMNS, [])]), end="", flush=True)
    for name, (codes, own, true) in (("planted", planted()), ("masks", masks(args.models, args.data_dir))):
        means = codes.mean(0), true.mean(0)
        white = whitening(own, own.shape[1])[0](true).float()
        ways: dict[str, Callable[[], Tensor]] = {
            "as they are": lambda codes=codes: codes,
            "statistics": lambda codes=codes, own=own: unpaired(codes, own)(codes),
            "adversary": lambda codes=codes, own=own: adversarial(codes, own)(codes),
            "transport": lambda codes=codes, own=own: turned_by_transport(codes, own)[0],
            "500 pairs": lambda codes=codes, true=true, means=means: procrustes(codes[-500:], true[-500:], *means)(
                codes
            ),
            "all pairs": lambda codes=codes, true=true, means=means: procrustes(codes, true, *means)(codes),
        }
        for way, make in ways.items():
            begin = time.perf_counter()
            turned = make()
            seconds = time.perf_counter() - begin
            wanted = white if way == "transport" else true
            cosines = F.cosine_similarity(turned - turned.mean(0), wanted - wanted.mean(0))
            rows.append([name, way, cosines[:JUDGED].mean().item(), seconds])
            print(tables.markdown_line([name, way, *(f"{number:.3f}" for number in rows[-1][2:])]), flush=True)
    if args.save:
        tables.write_csv(common.RESULTS / "alignment.csv", COLUMNS, rows)


if __name__ == "__main__":
    command_line.run(main)
