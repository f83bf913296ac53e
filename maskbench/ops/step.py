"""Kernels for the rest of a training step, and for an epoch of the classifier's MLPs, on CPUs.

PyTorch is made for large batches; of 16 images, or 4 masks, it spends more on the way than on arithmetic.
:mod:`maskbench.models.layers` uses ``mlp`` and ``convolutions`` where :func:`has_step_kernels` says so; ``adam_step``
is PyTorch's elsewhere. Their oracle and stand-in is what they replace: the networks' own layers, ``torch.optim.Adam``,
``classify.train_epoch``. docs/kernels.md says what each saves.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from maskbench.ops.loading import SIMD

# rows of an input up to which the kernels were faster than PyTorch, by instruction set; discriminators learn from twice
# as many as a mini-batch has
MOST_ROWS = {"avx512": 128, "avx2": 64}.get(SIMD, 0)


def step_kernels() -> str:
    """The training step's kernels: their instruction set and largest input, or "none" where PyTorch does it all."""
    return f"{SIMD} up to {MOST_ROWS} rows" if MOST_ROWS else "none"


def has_step_kernels(x: Tensor) -> bool:
    """Whether ``mlp`` and ``convolutions`` take x, a mini-batch: small, on a CPU, with gradients.

    Not while torch.compile traces. They round as they like: sums are of other order than PyTorch's. Hooks of the layers
    they stand for are not called, and they cannot be differentiated twice.
    """
    return (
        x.device.type == "cpu"
        and 0 < len(x) <= MOST_ROWS
        and x.dtype in (torch.float32, torch.float64)
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def mlp(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], slope: float = 1.0) -> Tensor:
    """Linear layers with LeakyReLU between them: ``[N, inputs]`` -> ``[N, outputs]``.

    Args:
        x: float32 or float64, as is all else.
        weights: of each layer, ``[outputs, inputs]``.
        biases: of each layer, ``[outputs]``.
        slope: of the LeakyReLU, 0 or more.

    Raises:
        ValueError: tensors that do not agree in shape or dtype.
    """
    return torch.ops.maskbench.mlp(x, weights, biases, slope)


def convolutions(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], slope: float, up: bool = False
) -> Tensor:
    """Convolutions of 4x4, stride 2, padding 1, of square images: ``[N, C, S, S]`` -> ``[N, C', S', S']``.

    Args:
        x: float32 or float64, as is all else.
        weights: of each layer, ``[channels of the small, of the large images, 4, 4]``.
        biases: of each layer.
        slope: 0 or more, of the LeakyReLU behind each convolution or, on the way up, before each.
        up: transposed convolutions, each of which doubles the side; otherwise each halves it.

    Raises:
        ValueError: tensors that do not agree in shape or dtype; a side that cannot be halved so often.
    """
    return torch.ops.maskbench.convolutions(x, weights, biases, slope, up)


def adam_step(optimizer: torch.optim.Adam) -> None:
    """``optimizer.step()``; by a kernel, which takes all weights of a group at once, where it is Adam as it comes.

    Args:
        optimizer: whose weights have all taken the same number of steps.
    """
    groups = optimizer.param_groups
    as_it_comes = not any(group[name] for group in groups for name in ("weight_decay", "amsgrad", "maximize"))
    usual = all(w.device.type == "cpu" and w.grad is not None for group in groups for w in group["params"])
    if not (MOST_ROWS and as_it_comes and usual and all(group["params"] for group in groups)):
        optimizer.step()
        return
    for group in groups:
        weights = group["params"]
        states = _states(optimizer, weights)
        with torch.no_grad():
            torch.ops.maskbench.adam_step(
                weights,
                [weight.grad for weight in weights],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                group["lr"],
                *group["betas"],
                group["eps"],
                int(states[0]["step"]),
            )
        for state in states:
            state["step"] += 1


def train_mlps(optimizer: torch.optim.AdamW, features: Tensor, labels: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """One epoch of R MLPs of three layers by compiled kernels, on the CPU only.

    ``classify.train_epoch`` is the same in plain PyTorch. Here a step passes over the weights once forward and once
    backward, where AdamW changes each as soon as its gradient is known, and every MLP stays on one core and in its
    cache. How many cores there are changes no bit.

    Args:
        optimizer: of the six parameters of a :class:`maskbench.models.ClassifierStack`, which change with its state.
        features: float32 or float64 ``[R, steps * batch, F]``, in the order in which they are read.
        labels: int64 ``[R, steps * batch]``.
        kept: dropout's factors, ``[steps, 2, R, batch, hidden]``.

    Returns:
        Mean training loss and accuracy of each, ``[R]`` twice.

    Raises:
        ValueError: tensors that do not agree in shape or dtype; amsgrad or maximize.
        IndexError: a label that there is not.
    """
    (group,) = optimizer.param_groups
    if group["amsgrad"] or group["maximize"]:
        raise ValueError("optimizer must be AdamW without amsgrad and maximize")
    weights = group["params"]
    states = _states(optimizer, weights)
    with torch.no_grad():
        results = torch.ops.maskbench.train_mlps(
            weights,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            features,
            labels,
            kept,
            group["lr"],
            *group["betas"],
            group["eps"],
            group["weight_decay"],
            int(states[0]["step"]),
        )
    for state in states:
        state["step"] += len(kept)
    return results


def _states(optimizer: torch.optim.Optimizer, weights: list[Tensor]) -> list[dict[str, Tensor]]:
    """What Adam keeps of each weight; made as it makes it itself at its first step."""
    states = [optimizer.state[weight] for weight in weights]
    for weight, state in zip(weights, states, strict=True):
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    return states
