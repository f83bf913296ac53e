"""Can codes be turned into the attacker's own without a pair, and without the images behind them?

    python benchmarks/alignment.py           # instances 0 and 1 of runs/aae, 20 minutes on one core
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
surface, and are turned at random: there each way can be seen to work, or not. The adversary, which takes minutes, is
left out where the instances are swapped and where masks are in noise.
"""

import functools
import time

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
from maskbench.masking import MaskingMethod
from maskbench.masking.noise import clipped
from maskbench.runtime import command_line
from maskbench.storage import tables

Codes = tuple[Tensor, Tensor, Tensor]

JUDGED, PAIRS = 1000, 500
KEPT = 0.85  # of masks in noise
WAYS = ("as they are", "statistics", "adversary", "transport", f"{PAIRS} pairs", "all pairs")
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


def planted() -> Codes:
    """Codes, own codes of others, and own codes of the first ones."""
    generator = torch.Generator().manual_seed(0)
    inner, outer = 0.75 * torch.randn(4, 64, generator=generator), torch.randn(64, PLANTED, generator=generator) / 8

    def drawn() -> Tensor:
        places = torch.empty(PUBLIC, 4).exponential_(generator=generator) - 1
        return torch.tanh(places @ inner + 0.5) @ outer + 0.1 * torch.randn(PUBLIC, PLANTED, generator=generator)

    turn = torch.linalg.qr(torch.randn(PLANTED, PLANTED, generator=generator))[0]
    true = drawn()
    return true @ turn, drawn(), true


def masks(
    owner: MaskingMethod, another: MaskingMethod, reader: MaskingMethod, public: Tensor, seen: Tensor, kept: float = 1.0
) -> Codes:
    """Masks of the validation images, own codes of all public images, and own codes of the validation images.

    Gaussian parts, as the audit's attacker reads them.
    """
    if kept < 1:
        encode, own_encode = (functools.partial(clipped, method) for method in (owner, another))
    else:
        encode, own_encode = reading(owner, reader), reading(another, another)
    width = owner.widths[0]
    codes, own, true = (
        batched(way, images)[:, :width] for way, images in ((encode, seen), (own_encode, public), (own_encode, seen))
    )
    noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    return kept * codes + (1 - kept**2) ** 0.5 * noise, own, true


def turned(way: str, codes: Tensor, own: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Codes as a way turns them, and what they should be."""
    if way == "as they are":
        return codes, true
    if way == "statistics":
        return unpaired(codes, own)(codes), true
    if way == "adversary":
        return adversarial(codes, own)(codes), true
    if way == "transport":
        turn, own_turn = turned_by_transport(codes, own)
        return turn(codes), own_turn(true)
    some = slice(-PAIRS, None) if way == f"{PAIRS} pairs" else slice(None)
    return procrustes(codes[some], true[some], codes.mean(0), true.mean(0))(codes), true


@torch.no_grad()
def main() -> None:
    parser = common.parser(__doc__, models=common.PAIR)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    owner, another, reader = load_instances(args.models / "0", args.models / "1")
    images = datasets.load("cifar10", args.data_dir, owner.image_size)
    public, seen = (to_float(images.images[rows]) for rows in datasets.autoencoder_split(images, None))
    quick = [way for way in WAYS if way != "adversary"]
    sets = (
        ("planted", WAYS, planted),
        ("masks", WAYS, lambda: masks(owner, another, reader, public, seen)),
        ("masks, instances swapped", quick, lambda: masks(another, owner, reader, public, seen)),
        (f"masks in noise of {KEPT}", quick, lambda: masks(owner, another, reader, public, seen, KEPT)),
    )
    rows = []
    common.begin_table(COLUMNS, torch.device("cpu"))
    for name, ways, make in sets:
        codes = make()
        for way in ways:
            begin = time.perf_counter()
            found, wanted = turned(way, *codes)
            seconds = time.perf_counter() - begin
            rows.append([name, way, common.cosines(found, wanted)[:JUDGED].mean().item(), seconds])
            print(tables.markdown_line([name, way, *(f"{number:.3f}" for number in rows[-1][2:])]), flush=True)
    if args.save:
        tables.write_csv(common.RESULTS / "alignment.csv", COLUMNS, rows)


if __name__ == "__main__":
    command_line.run(main)
