"""Training steps as one process of torchrun takes them, for test_distributed.py.

torchrun --nproc-per-node 3 tests/ranks.py OUTPUT.pt
"""

import sys

import torch
from test_training import make, mini_batches

from maskbench.models import (
    PRESETS,
    encoder,
    features_and_pictures,
    forget,
    linear_outputs,
    start_with_even_categories,
    whiten,
)
from maskbench.runtime import torchrun
from maskbench.training.state import TrainingState
from train_aae import FORGOTTEN, take_step


def steps_of(preset: str, dtype: torch.dtype, steps: int, learning: bool = True) -> dict:
    """Losses of each step, the last step's gradients and the final states, from this process's rows of each batch."""
    state, losses = make(preset, dtype), []
    if not learning:
        for group in [group for optimizer in state.optimizers for group in optimizer.param_groups]:
            group["lr"] = 0.0
    batches = mini_batches(preset, steps, dtype)
    mine = torchrun.share(len(batches[0][0]))
    for images, *views in batches:
        views = [each[mine] for each in views] or [None]
        losses.append(take_step(state, images[mine], *views, len(images), mine.start))
    networks = state.networks()
    gradients = {f"{name}.{key}": p.grad for name, part in networks.items() for key, p in part.named_parameters()}
    if learning:
        learn_closed_forms(state, [images[mine] for images, *_ in batches])
    states = {f"{name}.{key}": value for name, part in networks.items() for key, value in part.state_dict().items()}
    return {"losses": torch.stack(losses), "gradients": gradients, "states": states}


@torch.no_grad()
def learn_closed_forms(state: TrainingState, shares: list[torch.Tensor]) -> None:
    encoder, decoder = state.encoder.eval(), state.decoder.eval()
    features, *pictures = features_and_pictures(encoder, shares)
    start_with_even_categories(encoder.categorical, linear_outputs(encoder, shares)[1])
    if state.preset == "invariant":
        forget(encoder.gaussian, features, *zip(pictures, FORGOTTEN, strict=True))
    whiten(encoder, decoder, encoder.gaussian(features), seed=0)


def everything() -> dict:
    found = {}
    for preset in PRESETS:
        found[f"{preset} 10"] = steps_of(preset, torch.float64, 10)
        found[f"{preset} 1"] = steps_of(preset, torch.float32, 1, learning=False)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    encoder.has_bfloat16 = lambda device: False  # its rounding depends on the share
    with torchrun.processes(torch.device("cpu")):
        result = everything()
        if torchrun.rank() == 0:
            torch.save(result, sys.argv[1])
