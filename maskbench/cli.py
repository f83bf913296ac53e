"""What the four scripts share at the command line: one-line errors, flag types, the device."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from maskbench.errors import InputError


class ArgumentParser(argparse.ArgumentParser):
    """argparse with the module's docstring as help, defaults shown, and errors in one line."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=_HelpFormatter, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")

    def add_common(self) -> None:
        """The flags that every script has."""
        self.add_argument(
            "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: the GPU if there is one"
        )
        self.add_argument("--seed", type=integer(0), default=0, help="every random choice follows from it")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def integer(minimum: int, maximum: int = 2**31 - 1) -> Callable[[str], int]:
    """An argparse type: a whole number from ``minimum`` to ``maximum``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{value} is not within {minimum} and {maximum}")
        return value

    return parse


def positive_float(text: str) -> float:
    """An argparse type: a finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def pick_device(name: str) -> torch.device:
    """``--device`` as a torch device; InputError when CUDA is asked for and absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    elif name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine (or this build of torch) has no CUDA device; use --device cpu")
    return torch.device(name)


def run(main: Callable[[], None]) -> None:
    """Run a script's ``main``; what the user can mend ends in one line and exit status 2."""
    program = Path(sys.argv[0]).name
    try:
        main()
    except InputError as error:
        sys.exit(_complain(program, str(error)))
    except OSError as error:  # disk full, no permission, a folder that vanished
        sys.exit(_complain(program, f"{error.filename or 'input/output'}: {error.strerror or error}"))
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        sys.exit(130)


def _complain(program: str, message: str) -> int:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
