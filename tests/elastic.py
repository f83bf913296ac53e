"""What torchrun does with a script, but with processes that are forked from one that has imported torch.

What depends on a fresh process, such as the order of imports and of what is ended, continuous integration looks at with
torchrun itself.

elastic.py PROCESSES SCRIPT ARGUMENTS...
"""

import runpy
import sys

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def run(script: str, arguments: list[str]) -> None:
    torch.set_num_threads(1)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    processes, script, *arguments = sys.argv[1:]
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=int(processes),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    try:
        elastic_launch(config, run)(script, arguments)
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
