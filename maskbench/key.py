"""A secret key that turns masks: two owners who share one encoder do not share one mask.

    python -m maskbench.key owner.key                       # makes a key: 256 bits, readable by you alone
    python mask_dataset.py --key owner.key                  # CIFAR-100, turned by it -> masked/cifar100-key.pt

The Gaussian part is multiplied by a secret orthogonal matrix, the categories are permuted. Lengths, distances and
angles stay, so classifiers learn as before; and so an attacker has these too. What the key protects against, and from
how many known pairs on it does not, is measured by ``crosspair.py --audit``.
"""

from maskbench.masking import key
from maskbench.runtime import command_line


def main() -> None:
    parser = command_line.ArgumentParser(__doc__)
    parser.add_argument(
        "key", type=command_line.path, metavar="FILE", help="the key file to make; one that exists is kept"
    )
    path = parser.parse_args().key
    key.create(path)
    print(f"{path}: a new key; keep it and hand it to nobody. Masks made with it stay comparable only with each other")


if __name__ == "__main__":
    command_line.run(main)
