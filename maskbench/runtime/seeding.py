"""Torch's generator, which belongs to all threads of a process, for one of them at a time."""

import contextlib
from collections.abc import Iterator

import torch

from maskbench.runtime.cuda_graphs import ONE_AT_A_TIME


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, torch's default generator starts from ``seed`` and no other thread draws from it."""
    with ONE_AT_A_TIME:
        torch.manual_seed(seed)
        yield
