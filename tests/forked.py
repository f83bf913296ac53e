"""What a process of ``conftest.Forked`` does. It stands alone: what the tests import, such a process need not."""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(command: list[str], cwd: Path, environment: dict[str, str], told: str) -> None:
    """What the interpreter does with its arguments: ``-c`` and code, ``-m`` and a module, or a script."""
    import torch  # not for the process that makes others of it

    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # its own children begin as those of any process
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(told, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    os.chdir(cwd)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if command[0] in ("-c", "-m"):
        kind, what, *arguments = command
        sys.path.insert(0, str(cwd))
        sys.argv = [kind, *arguments]
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
    else:
        script = ROOT / command[0]
        sys.path.insert(0, str(script.parent))
        sys.argv = [str(script), *command[1:]]
        runpy.run_path(str(script), run_name="__main__")
