"""What would masks hide, and what would it cost, if their codes followed the prior N(0, I) more closely?

    python benchmarks/gaussian.py                                   # instances 0 and 1 of runs/aae, about an hour
    python benchmarks/gaussian.py --models FOLDER --layers 0 4      # these numbers of layers alone
    python benchmarks/gaussian.py --save                            # also results/gaussian.csv

Who has no pair lines up crowds: where the owner's codes are dense with where his own are. Draws of N(0, I) have no
crowds, and look the same however they are turned. Here the owner's trained codes are made more and more Gaussian by
:class:`Layers`. The attacker is that of the audit; which layers the owner has, he does not know. Columns:

  cosine                                of turned masks with the attacker's own codes, without a pair
  masks only, 1000 pairs, 10000 pairs   SSIM of ``ssim-guessed-pairs`` on CIFAR-10, as the audit judges it
  mlp_2, mlp_3, mlp_4                   accuracy of the MLP on CIFAR-100, ten draws that are not Table 1's
"""

import common
import torch
import torch.nn.functional as F
from torch import Tensor

from classify import mean_accuracies
from maskbench.data import datasets
from maskbench.data.image_quality import similarity
from maskbench.data.image_set import to_float
from maskbench.leakage import scores
from maskbench.leakage.attacks.alignment import by_transport, similar_from_guessed_pairs, whitening
from maskbench.leakage.audit import load_images, load_instances
from maskbench.leakage.knowledge import batched
from maskbench.leakage.settings import Settings
from maskbench.leakage.threats import THREATS
from maskbench.leakage.world import AsReleased, World, reading
from maskbench.masking import Autoencoder
from maskbench.masking.shards import Shard, Work
from maskbench.runtime import command_line
from maskbench.storage import tables

LAYERS = (0, 2, 4, 8)
KNOTS, TURNS = 32, 15
KNOWN = (("masks-only", 0), ("known-pairs", 1000), ("known-pairs", 10_000))
CLASSES, DRAWS, SEED = (2, 3, 4), 10, 11
COLUMNS = ("layers", "cosine", "masks only", "1000 pairs", "10000 pairs", *(f"mlp_{count}" for count in CLASSES))


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


@torch.no_grad()
def main() -> None:
    parser = common.parser(__doc__, models=common.PAIR)
    layers = "numbers of layers, 0 for the codes as they are"
    parser.add_argument("--layers", type=command_line.integer(0, 100), nargs="+", default=LAYERS, help=layers)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    trained, another, attacker = load_instances(args.models / "0", args.models / "1")
    settings = Settings("cifar10", "cifar100", None, 0, args.models, (), args.data_dir, 0, False)
    images, private = load_images(settings, another.image_size, sum(another.widths))
    work = (private, *datasets.labelled_split(private, None))
    codes = batched(lambda pixels: trained.encode(pixels)[0], to_float(images.public))
    rows = []
    print("\n".join([*common.header(torch.device("cpu")), "", tables.markdown(COLUMNS, [])]), end="", flush=True)
    for count in args.layers:
        owner = Gaussianised(trained, Layers(codes, count))
        world = World(images, owner, another, attacker, bytes(32), 0)
        victim, judged = world.victim("aae"), ~scores.chooses(len(world.judged[world.first]))
        if count:  # there is no contrast left that could be undone
            victim.encode = reading(owner, AsReleased())
        ssim = []
        for threat, known in KNOWN:
            knowledge = THREATS[threat].knowledge(world, victim, known)
            rebuilt = similar_from_guessed_pairs(knowledge)[world.first]
            ssim.append(similarity(rebuilt, world.judged[world.first])[judged].mean().item())
            if threat == "masks-only":
                turn, own_turn = by_transport(knowledge.collection, knowledge.own, None)
                found = turn(knowledge.masks[world.first])
                wanted = own_turn(batched(knowledge.own.encode, world.judged[world.first]))
                cosine = F.cosine_similarity(found - found.mean(0), wanted - wanted.mean(0))[judged].mean().item()
        masked = Shard(Work(owner, *work), 0).mask()
        accuracies = [mean_accuracies(masked, ["mlp"], classes, DRAWS, SEED)["mlp"][0] for classes in CLASSES]
        rows.append([count, cosine, *ssim, *accuracies])
        print(tables.markdown_line([str(count), *(f"{number:.3f}" for number in rows[-1][1:])]), flush=True)
    if args.save:
        tables.write_csv(common.RESULTS / "gaussian.csv", COLUMNS, rows)


if __name__ == "__main__":
    command_line.run(main)
