"""Many runs of classifiers at once: in this process, in others, or on a cluster."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from joblib import Parallel, delayed
from torch import Tensor

from maskbench.classification.draws import Draw, DrawData, epoch_steps, mlp_data, tree_data
from maskbench.classification.settings import Settings
from maskbench.data.masked_set import MaskedSet
from maskbench.runtime import workers

STACK = 10  # MLPs trained together by PyTorch: enough to fill a core, few enough to lose little when stopped


class Run(NamedTuple):
    """One classifier on one draw: classes of the draw, its number, and the method."""

    count: int
    repeat: int
    method: str


@dataclass(frozen=True)
class Task:
    """Some runs of one method that are made together: all that a worker is given.

    Attributes:
        runs: all of one method and class count.
        draws: their data, in the same order.
        steps: of an MLP, mini-batches an epoch.
        settings: see there.
        threads: at most.
        progress: whether a bar may be drawn.
    """

    runs: Sequence[Run]
    draws: Sequence[DrawData]
    steps: int
    settings: Settings
    threads: int = 1
    progress: bool = False


def finish(
    work: Callable[[Task, torch.device], list[dict]],
    data: MaskedSet,
    parts: dict[str, Tensor],
    draws: dict[tuple[int, int], Draw],
    missing: Sequence[Run],
    settings: Settings,
    device: torch.device,
    backend: str = "threading",
    jobs: int | None = None,
) -> Iterator[tuple[Run, dict]]:
    """Missing runs and their results, each as soon as it is known, in any order.

    Args:
        work: makes the runs of a task; in a worker.
        parts: see :func:`maskbench.classification.draws.data_parts`.
        draws: by class count and repeat.
        device: of MLPs; a GPU's stay in this process.
        backend: joblib's, see :mod:`maskbench.runtime.workers`.
        jobs: tasks at once; None for one a core.
    """
    groups = []
    for (_, method), group in itertools.groupby(missing, key=lambda run: (run.count, run.method)):
        alike, size = list(group), STACK if method == "mlp" and not settings.compiled(device) else 1
        groups += [alike[first : first + size] for first in range(0, len(alike), size)]
    steps = {count: epoch_steps(data, parts, count, settings.batch_size) for count in {run.count for run in missing}}

    def task(runs: list[Run], threads: int = 1) -> Task:
        """The rows are read here, when a worker is free for them."""
        of_runs = [draws[run.count, run.repeat] for run in runs]
        is_mlp = runs[0].method == "mlp"
        rows = [mlp_data(data, parts, draw) if is_mlp else tree_data(data, draw) for draw in of_runs]
        # another process's bar would spoil this one's
        return Task(runs, rows, steps[runs[0].count], settings, threads, progress=backend == "threading")

    if device.type == "cuda":  # there is one GPU
        stacks = [runs for runs in groups if runs[0].method == "mlp"]
        groups = [runs for runs in groups if runs not in stacks]
        for runs in stacks:
            yield from zip(runs, work(task(runs), device), strict=True)
    if not groups:
        return
    with workers.workers(backend, jobs) as cores:
        # few forests use every core; the threads of MLPs wait for each other, so they only get what is left over
        forests = sum(runs[0].method == "forest" for runs in groups)
        threads = {"mlp": cores // len(groups), "forest": cores // max(1, forests), "adaboost": 1}
        parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
        calls = (
            delayed(_with_runs)(work, task(runs, max(1, threads[runs[0].method])), torch.device("cpu"))
            for runs in groups
        )
        with contextlib.closing(parallel(calls)) as finished:
            for results in finished:
                yield from results


def _with_runs(work: Callable[[Task, torch.device], list[dict]], task: Task, device: torch.device) -> list:
    return list(zip(task.runs, work(task, device), strict=True))
