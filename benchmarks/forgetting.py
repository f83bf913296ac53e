"""What is gained, and what does it cost, where masks of preset invariant forget patterns of light and of contrast?

    python benchmarks/forgetting.py                                     # instances 0 and 1 of runs/aae, about an hour
    python benchmarks/forgetting.py --models FOLDER --patterns 0,0 7,2  # these numbers alone, light and contrast
    python benchmarks/forgetting.py --save                              # also results/forgetting.csv

For every number of patterns, the owner's encoder of ``checkpoint.pt``, which forgot nothing, forgets so many. The
attacker is that of the audit, whatever the owner's encoder forgot. Columns:

  masks only, 1000 pairs, 10000 pairs   SSIM of ``ssim-guessed-pairs`` on CIFAR-10, as the audit judges it
  mlp_2, mlp_3, mlp_4                   accuracy of the MLP on CIFAR-100, ten draws that are not Table 1's
"""

import common
import torch

from classify import mean_accuracies
from maskbench.data import datasets
from maskbench.data.image_quality import similarity
from maskbench.data.image_set import to_float
from maskbench.leakage import scores
from maskbench.leakage.attacks.alignment import similar_from_guessed_pairs
from maskbench.leakage.audit import load_images, load_instances
from maskbench.leakage.settings import Settings
from maskbench.leakage.threats import THREATS
from maskbench.leakage.world import World
from maskbench.masking import Autoencoder
from maskbench.masking.shards import Shard, Work
from maskbench.models import checkpoints, features_and_pictures
from maskbench.runtime import command_line
from maskbench.storage import pt, tables
from train_aae import STATISTICS_IMAGES, forgetful_pair

PATTERNS = ((0, 0), (5, 0), (7, 2), (8, 8))
KNOWN = (("masks-only", 0), ("known-pairs", 1000), ("known-pairs", 10_000))
CLASSES, DRAWS, SEED = (2, 3, 4), 10, 11
COLUMNS = ("light", "contrast", "masks only", "1000 pairs", "10000 pairs", *(f"mlp_{count}" for count in CLASSES))


def patterns(text: str) -> tuple[int, int]:
    """Of light and of contrast."""
    light, contrast = map(int, text.split(","))
    if min(light, contrast) < 0:
        raise ValueError(text)
    return light, contrast


@torch.no_grad()
def main() -> None:
    parser = common.parser(
        __doc__, models="of trained instances with their checkpoint.pt: 0 is the owner's, 1 the attacker's"
    )
    parser.add_argument("--patterns", type=patterns, nargs="+", default=PATTERNS, help="of light and of contrast: 7,2")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    _, another, attacker = load_instances(args.models / "0", args.models / "1")
    *remembering, _ = checkpoints.load_in_training(args.models / "0" / "checkpoint.pt")
    settings = Settings("cifar10", "cifar100", None, 0, args.models, (), args.data_dir, 0, False)
    images, private = load_images(settings, another.image_size, sum(another.widths))
    work = (private, *datasets.labelled_split(private, None))
    some = [to_float(images.public[rows]) for rows in torch.arange(STATISTICS_IMAGES["invariant"]).split(500)]
    features, *pictures = features_and_pictures(remembering[0], some)
    rows = []
    print("\n".join([*common.header(torch.device("cpu")), "", tables.markdown(COLUMNS, [])]), end="", flush=True)
    for light, contrast in args.patterns:
        encoder, decoder = forgetful_pair(*remembering, features, pictures, (light, contrast), seed=0)
        owner = Autoencoder(encoder, pt.fingerprint(encoder.state_dict()), decoder)
        world = World(images, owner, another, attacker, bytes(32), 0)
        victim, judged = world.victim("aae"), ~scores.chooses(len(world.judged[world.first]))
        ssim = []
        for threat, count in KNOWN:
            knowledge = THREATS[threat].knowledge(world, victim, count)
            rebuilt = similar_from_guessed_pairs(knowledge)[world.first]
            ssim.append(similarity(rebuilt, world.judged[world.first])[judged].mean().item())
        masked = Shard(Work(owner, *work), 0).mask()
        accuracies = [mean_accuracies(masked, ["mlp"], count, DRAWS, SEED)["mlp"][0] for count in CLASSES]
        rows.append([light, contrast, *ssim, *accuracies])
        print(
            tables.markdown_line([str(light), str(contrast), *(f"{number:.3f}" for number in rows[-1][2:])]), flush=True
        )
    if args.save:
        tables.write_csv(common.RESULTS / "forgetting.csv", COLUMNS, rows)


if __name__ == "__main__":
    command_line.run(main)
