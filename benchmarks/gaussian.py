"""What would masks hide, and what would it cost, if their codes followed the prior N(0, I) more closely?

    python benchmarks/gaussian.py                                   # instances 0 and 1 of runs/aae, an hour and a half
    python benchmarks/gaussian.py --models FOLDER --layers 0 4      # these numbers of layers alone
    python benchmarks/gaussian.py --save                            # also results/gaussian.csv

Who has no pair lines up crowds: where the owner's codes are dense with where his own are. Draws of N(0, I) have no
crowds, and look the same however they are turned. Here the owner's trained codes are made more and more Gaussian by
:class:`Layers`. The attacker is that of the audit; which layers the owner has, he does not know. Columns:

  cosine                                of turned masks with the attacker's own codes, without a pair
  longer                                the same, after 400 turns of 2,000 codes and 400 of 5,000
  masks only, 1000 pairs, 10000 pairs   SSIM of ``ssim-guessed-pairs`` on CIFAR-10, as the audit judges it
  mlp_2, mlp_3, mlp_4                   accuracy of the MLP on CIFAR-100, ten draws that are not Table 1's
"""

import common
import owners
import torch
from torch import Tensor

from maskbench.data.image_set import to_float
from maskbench.leakage.attacks.alignment import by_transport, turned_by_transport, whitening
from maskbench.leakage.knowledge import MOST_PAIRS, batched
from maskbench.leakage.threats import THREATS
from maskbench.leakage.world import Victim
from maskbench.masking import Autoencoder
from maskbench.runtime import command_line

LAYERS = (0, 2, 4, 8)
KNOTS, TURNS = 32, 15
LONGER = (400, 2000, 3.0), (400, 5000, 4.0)


class Layers:
    """Maps of codes to ones that are nearer to draws of N(0, I), fitted to codes ``[N, G]``.

    Each whitens, turns to the axes along which codes are the most skewed, and gives each axis a normal distribution by
    a monotone map (Chen and Gopinath, "Gaussianization", NIPS 2000), linear between knots and beyond them.

    Args:
        codes: float32 ``[N, G]``, many times G.
        count: of layers.
    """

    def __init__(self, codes: Tensor, count: int):
        generator, self.layers = torch.Generator().manual_seed(0), []
        for _ in range(count):
            white, _ = whitening(codes, codes.shape[1])
            x = white(codes).float()
            turn = skewed_axes(x, generator)
            x = x @ turn
            knots = torch.stack([share.mean(0) for share in x.sort(0).values.tensor_split(KNOTS)], 1)
            self.layers.append((white, turn, knots))
            codes = with_normal_axes(x, knots) @ turn.T
        self.last, _ = whitening(codes, codes.shape[1])

    def __call__(self, codes: Tensor) -> Tensor:
        for white, turn, knots in self.layers:
            codes = with_normal_axes(white(codes).float() @ turn, knots) @ turn.T
        return self.last(codes).float() if self.layers else codes


def with_normal_axes(x: Tensor, knots: Tensor) -> Tensor:
    """Each axis of ``[N, G]`` by a monotone map: from its knots ``[G, KNOTS]`` to means of equal shares of N(0, 1)."""
    edges = torch.special.ndtri(torch.linspace(0, 1, KNOTS + 1))
    density = (-0.5 * edges.square()).exp() / (2 * torch.pi) ** 0.5
    normal = (KNOTS * (density[:-1] - density[1:])).expand_as(knots)
    columns = x.T.contiguous()
    above = torch.searchsorted(knots, columns).clamp(1, KNOTS - 1)
    (start, end), (first, last) = ((values.gather(1, above - 1), values.gather(1, above)) for values in (knots, normal))
    return (first + (columns - start) * (last - first) / (end - start)).T


def skewed_axes(white: Tensor, generator: torch.Generator) -> Tensor:
    """The rotation ``[G, G]`` to axes along which white vectors ``[N, G]`` are skewed: FastICA, all axes at once.

    (Hyvärinen and Oja, "A fast fixed-point algorithm for independent component analysis", Neural Computation 1997.)
    """
    turn = torch.linalg.qr(torch.randn(white.shape[1], white.shape[1], generator=generator))[0]
    for _ in range(TURNS):
        left, _, right = torch.linalg.svd(white.T @ (white @ turn).square())
        turn = left @ right
    return turn


class Gaussianised(Autoencoder):
    """An autoencoder whose Gaussian parts go through layers."""

    def __init__(self, owner: Autoencoder, layers: Layers):
        super().__init__(owner.encoder, owner.fingerprint, owner.decoder)
        self.layers = layers

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        gaussian, categorical = super().encode(images)
        return self.layers(gaussian), categorical


def cosines(victim: Victim) -> list[float]:
    """Of turned masks with the attacker's own codes: as the audit turns them, and by larger turns."""
    world = victim.world
    knowledge = THREATS["masks-only"].knowledge(world, victim, 0)
    judged, width = world.judged[world.first], world.owner.widths[0]
    masks, wanted = knowledge.masks[world.first][:, :width], batched(knowledge.own.encode, judged)[:, :width]
    # Gaussian parts of as many masks as the audit's attack takes
    codes, own_codes = knowledge.collection[:MOST_PAIRS, :width], knowledge.own.every_expected[:, :width]
    longer = turned_by_transport(codes, own_codes, stages=LONGER)
    ways = by_transport(knowledge.collection, knowledge.own, None), longer
    return [common.cosines(turn(masks), own_turn(wanted)).mean().item() for turn, own_turn in ways]


@torch.no_grad()
def main() -> None:
    parser = common.parser(__doc__, models=common.PAIR)
    layers = "numbers of layers, 0 for the codes as they are"
    parser.add_argument("--layers", type=command_line.integer(0, 100), nargs="+", default=LAYERS, help=layers)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    trial = owners.Trial(args.models, args.data_dir)
    codes = batched(lambda pixels: trial.trained.encode(pixels)[0], to_float(trial.images.public))
    table = owners.Table(("layers", "cosine", "longer", *owners.COLUMNS), names=1)
    for count in args.layers:
        owner = Gaussianised(trial.trained, Layers(codes, count))
        victim = trial.victim(owner, as_released=count > 0)
        table.add([count], cosines(victim) + trial.measure(victim))
    if args.save:
        table.save(common.RESULTS / "gaussian.csv")


if __name__ == "__main__":
    command_line.run(main)
