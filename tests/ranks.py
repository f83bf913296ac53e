"""Training steps as one process of torchrun takes them, for test_distributed.py.

torchrun --nproc-per-node 3 tests/ranks.py OUTPUT.pt
"""

import sys

import torch
from test_training import SIZES, make, mini_batches

from maskbench.models import decoder, whiten
from maskbench.runtime import torchrun
from train_aae import take_step


def steps_of(sizes: str, dtype: torch.dtype, steps: int, learning: bool = True) -> dict:
    """Losses of each step, the last step's gradients and the final states, from this process's rows of each batch."""
    state, losses = make(sizes, dtype), []
    if not learning:
        for group in [group for optimizer in state.optimizers for group in optimizer.param_groups]:
            group["lr"] = 0.0
    batches = mini_batches(steps, dtype)
    mine = torchrun.share(len(batches[0]))
    for images in batches:
        losses.append(take_step(state, images[mine], len(images), mine.start))
    networks = state.networks()
    gradients = {f"{name}.{key}": p.grad for name, part in networks.items() for key, p in part.named_parameters()}
    if learning:
        whiten(state.encoder, state.decoder, [images[mine] for images in batches], seed=0)
    states = {f"{name}.{key}": value for name, part in networks.items() for key, value in part.state_dict().items()}
    return {"losses": torch.stack(losses), "gradients": gradients, "states": states}


def everything() -> dict:
    found = {}
    for sizes in SIZES:
        found[f"{sizes} 40"] = steps_of(sizes, torch.float64, 40)
        found[f"{sizes} 1"] = steps_of(sizes, torch.float32, 1, learning=False)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    decoder.has_bfloat16 = lambda device: False  # its rounding depends on the share
    with torchrun.processes(torch.device("cpu")):
        result = everything()
        if torchrun.rank() == 0:
            torch.save(result, sys.argv[1])
