"""What the scripts share at the command line: one-line errors, flag types, the device."""

import argparse
import atexit
import errno
import io
import math
import os
import shlex
import signal
import stat
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.dummy import DummyProcess
from pathlib import Path

import torch

from maskbench.errors import InputError, is_of_memory
from maskbench.runtime import torchrun
from maskbench.runtime.stopping import Stopped

# variables that libraries read as whole numbers, when they are imported or later
NUMBERS = ("LOKY_MAX_CPU_COUNT", "SKLEARN_WORKING_MEMORY", "SKLEARN_PAIRWISE_DIST_CHUNK_SIZE")
# control characters, halves of characters (bytes of a file name that are no UTF-8), ends of lines and paragraphs
_STEERING = {"Cc", "Cs", "Zl", "Zp"}
_TURNS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # make what follows read backwards


class ArgumentParser(argparse.ArgumentParser):
    """argparse with the module's docstring as help, defaults shown, and errors in one line."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=_HelpFormatter, allow_abbrev=False)

    def error(self, message: str):
        if _rank():  # every process of torchrun has the same mistake, one tells
            self.exit(2)
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")

    def add_data(self) -> None:
        """The flags of every script that reads images."""
        self.add_argument("--data-dir", type=path, default=Path("data"), help="where datasets are or are downloaded to")
        workers = "processes that decode the files of folder:PATH; 0: the script itself"
        self.add_argument("--workers", type=integer(0), default=torchrun.spare_cores(), help=workers)
        skip = "leave out files of folder:PATH that cannot be decoded, and list them, instead of stopping there"
        self.add_argument("--skip-corrupt", action="store_true", help=skip)
        levels = "the values that become black and white, of images with more than 8 bits a channel; refused without it"
        self.add_argument("--levels", type=finite_float, nargs=2, metavar=("LOW", "HIGH"), help=levels)
        page = "of files with several pages or frames, read this one, from 1; refused without it"
        self.add_argument("--page", type=integer(1), help=page)
        ground = "what shines through where images are transparent"
        self.add_argument("--ground", choices=("white", "grey", "black"), default="white", help=ground)

    def add_common(self) -> None:
        """The flags that every script has."""
        self.add_argument(
            "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: the GPU if there is one"
        )
        self.add_argument("--seed", type=integer(0), default=0, help="every random choice follows from it")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default is None or action.default is False
        return action.help if says_nothing else super()._get_help_string(action)


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
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def nonnegative_float(text: str) -> float:
    """An argparse type: a finite number, zero or above."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of 0 or more")
    return value


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1 of at most six decimals, as it is written into a file."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 1")
    if value != round(value, 6):
        raise argparse.ArgumentTypeError(f"{text} has more than six decimals")
    return value + 0.0  # of -0, 0


def path(text: str) -> Path:
    """An argparse type: a path, in which ~ stands for a home folder also where no shell has seen to that."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # of a user that there is not
        raise argparse.ArgumentTypeError(f"{text!r} is in no user's home folder") from None


def finite_float(text: str) -> float:
    """An argparse type: a finite number."""
    value = _number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def pick_device(name: str) -> torch.device:
    """``--device`` as a torch device; InputError when CUDA is asked for and absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    elif name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine (or this build of torch) has no CUDA device; use --device cpu")
    return torch.device(name)


def run(main: Callable[[], None]) -> None:
    """Run a script's ``main``; what the user can mend ends in one line and exit status 2."""
    try:
        _run(main)
    except SystemExit as leaving:
        atexit.register(_leave_threads, leaving.code)
        raise


def _leave_threads(status: int) -> None:
    """End at once where threads of a pool still compute: none can be stopped, and Python's own end would crash them."""
    if any(isinstance(thread, DummyProcess) for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(status)


def _run(main: Callable[[], None]) -> None:
    program = Path(sys.argv[0]).name
    signal.signal(signal.SIGTERM, _terminate)
    _open_streams()
    try:
        _check_environment()
        main()
    except InputError as error:
        sys.exit(_complain(program, str(error)))
    except OSError as error:  # no permission, a folder that vanished
        sys.exit(_complain(program, f"{error.filename or 'input/output'}: {error.strerror or error}"))
    except (MemoryError, RuntimeError) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            fault = f"this machine cannot compile ({_reason(error)}); mend that, or leave it out"
            sys.exit(_complain(program, f"--compile: {fault}"))
        if flag := _flag_of_workers(error):
            sys.exit(_complain(program, f"a worker was killed, often for want of memory; use fewer {flag}"))
        if not is_of_memory(error):
            raise
        sys.exit(_complain(program, "this machine's memory is not enough; use fewer or smaller images, or --limit"))
    except Stopped as stopped:
        if _rank() == 0:
            print(f"\n{program}: {stopped}; resume with: {shlex.join(_command_to_resume())}", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted; what is finished is kept", file=sys.stderr)
        sys.exit(130)


def _flag_of_workers(error: Exception) -> str | None:
    """Of an error that says that a worker process is gone, the flag that says how many there are."""
    if isinstance(error, BrokenProcessPool):  # joblib's is one, too
        return "--jobs"
    return "--workers" if str(error).startswith("DataLoader worker (pid") else None  # torch says so in words alone


def _reason(error: Exception) -> str:
    """The first line of what a compiler said that names the fault."""
    text = f"{type(error).__name__}: {error}"
    if "InvalidCxxCompiler" in text and (name := os.environ.get("CXX")):
        return f"CXX in the environment, {name!r}, is no compiler's name, and torch takes no more"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "Error" in line or "compiler" in line.lower()), lines[0])[:200]


def _open_streams() -> None:
    """Let every line be printed: into nowhere where a stream is closed, with ? for what its encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", errors="replace"))  # noqa: SIM115  open as long as the program runs
        elif isinstance(stream, io.TextIOWrapper):  # not a notebook's
            stream.reconfigure(errors="replace")
            setattr(sys, name, _Unbroken(stream))


class _Unbroken:
    """A stream whose reader may go away: what is printed from then on goes nowhere, and the work goes on."""

    def __init__(self, stream: io.TextIOWrapper):
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _is_gone(self, number: int | None) -> bool:
        """Whether an error is of a closed pipe, here or on Windows, or of a terminal that went away."""
        terminal = number == errno.EIO and stat.S_ISCHR(os.fstat(self._stream.fileno()).st_mode)
        return number == errno.EPIPE or terminal or (number == errno.EINVAL and os.name == "nt")

    def _try(self, act: Callable, *arguments: str) -> None:
        try:
            act(*arguments)
        except OSError as error:
            if not self._is_gone(error.errno):
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # Python flushes it once more at its end
            os.close(nowhere)


def _check_environment() -> None:
    """InputError that names a variable whose value would end in a traceback of the library that reads it.

    A line where one promises other processes that there are not.
    """
    for name in NUMBERS:
        if (value := os.environ.get(name)) is not None and not value.isdecimal():
            raise InputError(f"{name} in the environment: {value!r} is not a whole number; mend or unset it")
    if (value := os.environ.get("MASKBENCH_BACKEND", "")) not in ("", "reference"):
        raise InputError(f"MASKBENCH_BACKEND in the environment: {value!r} is not reference; mend or unset it")
    others = os.environ.get("WORLD_SIZE", "")
    if not torchrun.started() and others.isdecimal() and int(others) > 1:
        print(f"WORLD_SIZE is {others}, and torchrun did not start this process: it works alone", file=sys.stderr)


def _terminate(number: int, _frame: object) -> None:
    """End as Python does on its own accord, so that half-written files are removed."""
    print(f"\n{Path(sys.argv[0]).name}: terminated; what is finished is kept", file=sys.stderr)
    sys.exit(128 + number)


def _command_to_resume() -> list[str]:
    arguments = [argument for argument in sys.argv if argument != "--resume"]
    processes = torchrun.local_size()
    start = ["torchrun", "--nproc-per-node", str(processes)] if processes > 1 else ["python"]
    return [*start, *arguments, "--resume"]


def steers(character: str) -> bool:
    """Whether a character steers a terminal or is none; letters, marks, joiners and spaces of any kind are text."""
    return unicodedata.category(character) in _STEERING or character in _TURNS


def printable(text: str) -> str:
    """Text of a file for a terminal: in one line, without characters that steer it, otherwise as it is."""
    return "".join((" " if c.isspace() else "?") if steers(c) else c for c in text)


def _complain(program: str, message: str) -> int:
    program += f" (process {_rank()})" if _rank() else ""
    print(f"{program}: error: {printable(message)}", file=sys.stderr)
    return 2


def _rank() -> int:
    """torchrun's number of this process, also where it has not joined the others or left them already."""
    return torchrun.told("RANK", 0)
