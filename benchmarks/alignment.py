"""Can codes be turned into the attacker's own without a pair, and without the images behind them?

    python benchmarks/alignment.py           # instances 0 and 1 of runs/aae, a quarter of an hour on one core
    python benchmarks/alignment.py --save    # also results/alignment.csv

What a decoder of the attacker's makes of masks depends on how well they are turned into its own codes. Of each way
stands the mean cosine of turned masks with the attacker's codes of the same images, both from their means:

  as they are   nothing is turned
  statistics    moments of the axes, then optimal transport (``attacks.alignment.unpaired``, an attack of the audit)
  adversary     a rotation that is trained until a discriminator cannot tell turned masks from own codes (MUSE: Conneau
                et al., "Word translation without parallel data", ICLR 2018)
  transport     what Gromov-Wasserstein transport makes of masks and the own codes of other images (``attacks.
                reidentification.matched_by_transport``), taken as pairs by Procrustes
  500 pairs     Procrustes, for scale; no attacker of this kind has them
  all pairs     likewise, with the images that are judged

Masks are of the 10,000 validation images of CIFAR-10; the first 1,000 are judged. To see that a way works where there
is something to find, it is also tried on planted codes: skewed numbers whose strengths rise and fall together in a way
of their own, turned at random.
"""

import time
from collections.abc import Callable
from pathlib import Path

import common
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from maskbench.data import datasets
from maskbench.data.image_set import to_float
from maskbench.leakage.attacks.alignment import _whitening, procrustes, unpaired
from maskbench.leakage.attacks.reidentification import matched_by_transport
from maskbench.leakage.audit import load_instances
from maskbench.leakage.knowledge import Map, batched
from maskbench.leakage.world import reading
from maskbench.runtime import command_line
from maskbench.storage import tables

JUDGED = 1000
PUBLIC = 10_000  # images whose own codes the attacker takes statistics of
PLANTED = 24  # numbers of a planted code
# of the adversary
STEPS, BATCH, HIDDEN = 6000, 256, 512
ROTATION_STEP, SMOOTH, STRAIGHTEN = 1.0, 0.1, 0.01
COLUMNS = ("codes", "way", "cosine", "seconds")


def adversarial(codes: Tensor, own: Tensor) -> Map:
    """Turn codes ``[N, D]`` into own ones ``[M, D]`` of other images, by a rotation of white codes, as MUSE does."""
    width = codes.shape[1]
    (whiten, _), (own_whiten, own_colour) = (_whitening(z, width) for z in (codes, own))
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


def transported(codes: Tensor, own: Tensor) -> Map:
    """Procrustes on the pairs of codes and others' own codes that transport suggests."""
    some, others = codes[:JUDGED], own[:JUDGED]
    pairs = torch.from_numpy(linear_sum_assignment(matched_by_transport(some, others).numpy())[1])
    return procrustes(some, others[pairs], codes.mean(0), own.mean(0))


def planted() -> tuple[Tensor, Tensor, Tensor]:
    """Codes, other codes that they are turned from, and what the first ones were."""
    generator = torch.Generator().manual_seed(0)
    together = torch.randn(6, PLANTED, generator=generator)

    def numbers() -> Tensor:
        strength = (0.4 * torch.randn(PUBLIC, 6, generator=generator) @ together).exp()
        x = strength * torch.empty(PUBLIC, PLANTED).exponential_(generator=generator)
        return (x - x.mean(0)) / x.std(0)

    turn = torch.linalg.qr(torch.randn(PLANTED, PLANTED, generator=generator))[0]
    true = numbers()
    return true @ turn, numbers(), true


def masks(models: Path, data_dir: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of the validation images, the attacker's own codes of public images, and of these validation images."""
    owner, another, attacker = load_instances(models / "0", models / "1")
    images = datasets.load("cifar10", data_dir, owner.image_size)
    public, validation = datasets.autoencoder_split(images, None)
    known, seen = (to_float(images.images[rows]) for rows in (public[:PUBLIC], validation))
    encode = reading(another, another)
    with torch.inference_mode():
        return batched(reading(owner, attacker), seen), batched(encode, known), batched(encode, seen)


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
        ways: dict[str, Callable[[], Map]] = {
            "as they are": lambda: lambda z: z,
            "statistics": lambda codes=codes, own=own: unpaired(codes, own),
            "adversary": lambda codes=codes, own=own: adversarial(codes, own),
            "transport": lambda codes=codes, own=own: transported(codes, own),
            "500 pairs": lambda codes=codes, true=true, means=means: procrustes(codes[-500:], true[-500:], *means),
            "all pairs": lambda codes=codes, true=true, means=means: procrustes(codes, true, *means),
        }
        for way, make in ways.items():
            begin = time.perf_counter()
            turned = make()(codes[:JUDGED])
            seconds = time.perf_counter() - begin
            centred = turned - turned.mean(0), (true - true.mean(0))[:JUDGED]
            rows.append([name, way, F.cosine_similarity(*centred).mean().item(), seconds])
            print(tables.markdown_line([name, way, *(f"{number:.3f}" for number in rows[-1][2:])]), flush=True)
    if args.save:
        tables.write_csv(common.RESULTS / "alignment.csv", COLUMNS, rows)


if __name__ == "__main__":
    command_line.run(main)
