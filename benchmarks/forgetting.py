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
import owners
import torch

from maskbench.data.image_set import to_float
from maskbench.masking import Autoencoder
from maskbench.models import checkpoints, features_and_pictures
from maskbench.runtime import command_line
from maskbench.storage import pt
from train_aae import STATISTICS_IMAGES, forgetful_pair

PATTERNS = ((0, 0), (5, 0), (7, 2), (8, 8))


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
    trial = owners.Trial(args.models, args.data_dir)
    *remembering, _ = checkpoints.load_in_training(args.models / "0" / "checkpoint.pt")
    some = [to_float(trial.images.public[rows]) for rows in torch.arange(STATISTICS_IMAGES["invariant"]).split(500)]
    features, *pictures = features_and_pictures(remembering[0], some)
    table = owners.Table(("light", "contrast", *owners.COLUMNS), names=2)
    for counts in args.patterns:
        encoder, decoder = forgetful_pair(*remembering, features, pictures, counts, seed=0)
        owner = Autoencoder(encoder, pt.fingerprint(encoder.state_dict()), decoder)
        table.add([*counts], trial.measure(trial.victim(owner)))
    if args.save:
        table.save(common.RESULTS / "forgetting.csv")


if __name__ == "__main__":
    command_line.run(main)
