"""Where the scripts are: ``python -m maskbench``.

The package holds what Python programs import. The scripts are flat files beside it in a checkout: they are made to be
read and changed.
"""

from pathlib import Path

from maskbench.errors import InputError
from maskbench.runtime import command_line

SCRIPTS = ("train_aae.py", "mask_dataset.py", "classify.py", "crosspair.py")


def main() -> None:
    command_line.ArgumentParser(__doc__).parse_args()
    folder = Path(__file__).resolve().parent.parent
    if not all((folder / name).exists() for name in SCRIPTS):
        raise InputError(
            f"the scripts ({', '.join(SCRIPTS)}) are not installed with the package; use them from a checkout of "
            "maskbench, after pip install -e . there"
        )
    for name in SCRIPTS:
        print(f"python {folder / name} --help")


if __name__ == "__main__":
    command_line.run(main)
