"""The ops of the adversarial phase, sent to the fastest implementation there is.

``sample_prior`` draws both latent priors for a mini-batch, ``discriminator_loss`` and ``generator_loss`` are the two
sides of the adversarial game. ``maskbench.reference`` holds the same names in plain PyTorch: the oracle of the
compiled kernels, and what runs where there are none. ``MASKBENCH_BACKEND=reference`` forces it.

PyTorch is made for large batches; of 16 images, or 4 masks, it spends more on the way than on arithmetic. So the rest
of a training step has kernels, too, on CPUs: ``mlp``, ``convolutions`` and ``radial_norm``, which
``maskbench.models`` uses where :func:`has_step_kernels` says so, and ``adam_step``, which is PyTorch's elsewhere; and
``train_mlps`` is an epoch of classify.py. Their oracle and stand-in is what they replace: the networks' own layers,
``torch.optim.Adam``, ``classify.train_epoch``.

    python -m maskbench.ops        # what was built, and what runs on this machine
"""

import os
import warnings
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

import torch
from torch import Tensor

from maskbench import reference

# rows of an input up to which the training step's kernels were faster than PyTorch, by instruction set; discriminators
# learn from twice as many as a mini-batch has
_STEP_ROWS = {"avx512": 256, "avx2": 64}

_REBUILD = "python setup.py build_ext --inplace --force"


def _load_kernels() -> tuple[frozenset[str], str]:
    """Register the compiled ops; returns the device types that have them, and why the others do not."""
    choice = os.environ.get("MASKBENCH_BACKEND", "")
    if choice not in ("", "reference"):
        raise ValueError(f"MASKBENCH_BACKEND must be reference or unset, got {choice!r}")
    if choice:
        return frozenset(), "MASKBENCH_BACKEND=reference"
    # beside this file, and nowhere else that an installed maskbench may have one
    spec = PathFinder.find_spec("maskbench._C", [str(Path(__file__).parent)])
    if spec is None or spec.origin is None:
        return frozenset(), "maskbench._C is not built"
    # asked of the file, as a library built for another torch may crash while it loads
    if f"maskbench._C built for torch {torch.__version__}\0".encode() not in Path(spec.origin).read_bytes():
        return frozenset(), f"maskbench._C was built for another torch than {torch.__version__}"
    try:
        from maskbench import _C
    except ImportError as error:
        return frozenset(), f"maskbench._C does not load: {error}"
    if _C.build_info()["cuda"] is None:
        return frozenset({"cpu"}), "maskbench._C was built without CUDA"
    return frozenset({"cpu", "cuda"}), "maskbench has no kernels for it"


_COMPILED, _REASON = _load_kernels()
_SIMD = "none"
if _COMPILED:
    from maskbench import _C

    _SIMD = _C.build_info()["simd_in_use"]
_MOST_STEP_ROWS = _STEP_ROWS.get(_SIMD, 0)
if not _COMPILED and os.environ.get("MASKBENCH_BACKEND") != "reference":
    warnings.warn(f"{_REASON}; the slower PyTorch reference runs. Build it: {_REBUILD}", RuntimeWarning, stacklevel=2)


def backend(device: torch.device | str) -> str:
    """Which implementation runs on ``device``: "cuda", "cpu" (compiled kernels) or "reference"."""
    kind = torch.device(device).type
    return kind if kind in _COMPILED else "reference"


def sample_prior(
    rng_state: Tensor, batch: int, gaussian_dim: int, categories: int, first_row: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw both latent parts from their priors, N(0, I) and the uniform categorical.

    The same arguments give the same draws on every device: bit for bit between the compiled kernels, and within
    2e-6 * max(1, abs(x)) of :func:`maskbench.reference.sample_prior`. Not differentiable.

    Args:
        rng_state: int64 ``[2]``, ``(seed, offset)``; not changed. Draws land on its device, where it is also read.
        batch: number of rows.
        gaussian_dim: length of the Gaussian part.
        categories: length of the one-hot part.
        first_row: global index of the first row. Row i of a draw depends on ``first_row + i`` alone.

    Returns:
        ``(gaussian float32 [batch, gaussian_dim], one_hot float32 [batch, categories])``.

    Raises:
        ValueError: ``rng_state`` is not int64 ``[2]``, a size is below 1, or ``first_row`` is negative.
    """
    if _compiled(rng_state):
        return torch.ops.maskbench.sample_prior(rng_state, batch, gaussian_dim, categories, first_row)
    if not isinstance(rng_state, Tensor) or rng_state.dtype != torch.int64 or rng_state.shape != (2,):
        raise ValueError(f"rng_state must be an int64 tensor (seed, offset) of shape [2], got {_describe(rng_state)}")
    if batch < 1 or gaussian_dim < 1 or categories < 1:
        raise ValueError(
            "batch, gaussian_dim and categories must be at least 1, "
            f"got batch={batch}, gaussian_dim={gaussian_dim}, categories={categories}"
        )
    if first_row < 0:
        raise ValueError(f"first_row must not be negative, got {first_row}")
    return reference.sample_prior(rng_state, batch, gaussian_dim, categories, first_row)


def discriminator_loss(prior_logits: Tensor, encoded_logits: Tensor) -> Tensor:
    """What the discriminators minimise: prior draws are real (1), encoded images are fake (0).

    Stable for logits up to 1e4 in size and beyond, until their sum leaves the dtype's range. The compiled kernels
    compute the gradient in the same pass and cannot be differentiated twice.

    Args:
        prior_logits: float32 or float64 ``[D, N]``, one row a discriminator, logits of prior draws.
        encoded_logits: the same shape, dtype and device, logits of encoded images.

    Returns:
        Scalar: the sum over discriminators of mean BCE on prior rows plus mean BCE on encoded rows (paper, section
        "Adversarial autoencoder").

    Raises:
        ValueError: the logits are not two such tensors.
    """
    if _compiled(prior_logits, encoded_logits):
        return torch.ops.maskbench.discriminator_loss(prior_logits, encoded_logits)
    _check_logits("prior_logits", prior_logits)
    _check_logits("encoded_logits", encoded_logits)
    if (
        prior_logits.shape != encoded_logits.shape
        or prior_logits.dtype != encoded_logits.dtype
        or prior_logits.device != encoded_logits.device
    ):
        raise ValueError(
            "prior_logits and encoded_logits must agree in shape, dtype and device, "
            f"got {_describe(prior_logits)} and {_describe(encoded_logits)}"
        )
    return reference.discriminator_loss(prior_logits, encoded_logits)


def generator_loss(encoded_logits: Tensor) -> Tensor:
    """What the encoder minimises in the regularisation phase: its codes pass for prior draws (1).

    As :func:`discriminator_loss`, of one part alone.

    Args:
        encoded_logits: float32 or float64 ``[D, N]``, one row a discriminator.

    Returns:
        Scalar: the sum over discriminators of mean BCE against 1.

    Raises:
        ValueError: the logits are not such a tensor.
    """
    if _compiled(encoded_logits):
        return torch.ops.maskbench.generator_loss(encoded_logits)
    _check_logits("encoded_logits", encoded_logits)
    return reference.generator_loss(encoded_logits)


def step_kernels() -> str:
    """The instruction set of the training step's kernels, or "none" where PyTorch does it all."""
    return _SIMD if _MOST_STEP_ROWS else "none"


def has_step_kernels(x: Tensor) -> bool:
    """Whether ``mlp``, ``convolutions`` and ``radial_norm`` take x, a mini-batch: small, on a CPU, with gradients.

    Not while torch.compile traces. They round as they like: sums are of other order than PyTorch's. Hooks of the layers
    they stand for are not called, and they cannot be differentiated twice.
    """
    return (
        x.device.type == "cpu"
        and 0 < len(x) <= _MOST_STEP_ROWS
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


def radial_norm(
    x: Tensor,
    center: Tensor,
    variance: Tensor,
    log_radius_mean: Tensor,
    log_radius_variance: Tensor,
    weight: float,
    tail: float,
    normal_log_radius: tuple[float, float],
) -> Tensor:
    """A training step of :class:`maskbench.models.RadialGaussianization`, ``[N, F]`` twice.

    Args:
        x: float32 or float64, as are the four statistics, which change.
        weight: of these rows in the statistics.
        tail: degrees of freedom for each feature.
        normal_log_radius: mean and deviation of the log radius under the prior.
    """
    statistics = center, variance, log_radius_mean, log_radius_variance
    return torch.ops.maskbench.radial_norm(x, *statistics, weight, tail, *normal_log_radius)


def adam_step(optimizer: torch.optim.Adam) -> None:
    """``optimizer.step()``; by a kernel, which takes all weights of a group at once, where it is Adam as it comes.

    Args:
        optimizer: whose weights have all taken the same number of steps.
    """
    groups = optimizer.param_groups
    as_it_comes = not any(group[name] for group in groups for name in ("weight_decay", "amsgrad", "maximize"))
    usual = all(w.device.type == "cpu" and w.grad is not None for group in groups for w in group["params"])
    if not (_MOST_STEP_ROWS and as_it_comes and usual and all(group["params"] for group in groups)):
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


def train_mlps(
    optimizer: torch.optim.AdamW, features: Tensor, labels: Tensor, order: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """One epoch of R MLPs of three layers by compiled kernels, on the CPU only.

    ``classify.train_epoch`` is the same in plain PyTorch. Here a step passes over the weights once forward and once
    backward, where AdamW changes each as soon as its gradient is known, and every MLP stays on one core and in its
    cache. How many cores there are changes no bit.

    Args:
        optimizer: of the six parameters of a :class:`maskbench.models.ClassifierStack`, which change with its state.
        features: float32 or float64 ``[R, rows, F]``.
        labels: int64 ``[R, rows]``.
        order: int64 ``[steps, R, batch]``, rows.
        kept: dropout's factors, ``[steps, 2, R, batch, hidden]``.

    Returns:
        Mean training loss and accuracy of each, ``[R]`` twice.

    Raises:
        ValueError: tensors that do not agree in shape or dtype; amsgrad or maximize.
        IndexError: a row of ``order``, or its label, that there is not.
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
            order,
            kept,
            group["lr"],
            *group["betas"],
            group["eps"],
            group["weight_decay"],
            int(states[0]["step"]),
        )
    for state in states:
        state["step"] += len(order)
    return results


def _states(optimizer: torch.optim.Optimizer, weights: list[Tensor]) -> list[dict[str, Tensor]]:
    """What Adam keeps of each weight; made as it makes it itself at its first step."""
    states = [optimizer.state[weight] for weight in weights]
    for weight, state in zip(weights, states, strict=True):
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    return states


def _compiled(*values: object) -> bool:
    """Whether the kernels take these arguments. They check them, too, unless something is no tensor at all."""
    return all(isinstance(value, Tensor) for value in values) and values[0].device.type in _COMPILED


def _check_logits(name: str, logits: Tensor) -> None:
    if (
        not isinstance(logits, Tensor)
        or logits.dtype not in (torch.float32, torch.float64)
        or logits.dim() != 2
        or logits.numel() == 0
    ):
        raise ValueError(f"{name} must be a float32 or float64 tensor [discriminators, rows], got {_describe(logits)}")


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype} {list(value.shape)} on {value.device}"


if _COMPILED:

    @torch.library.register_fake("maskbench::sample_prior")
    def _(rng_state, batch, gaussian_dim, categories, first_row=0):
        return (
            rng_state.new_empty((batch, gaussian_dim), dtype=torch.float32),
            rng_state.new_empty((batch, categories), dtype=torch.float32),
        )

    @torch.library.register_fake("maskbench::bce_forward")
    def _(real_logits, fake_logits):
        parts = 1 if fake_logits is None else 2
        return real_logits.new_empty(()), real_logits.new_empty((parts, *real_logits.shape))

    @torch.library.register_fake("maskbench::bce_backward")
    def _(grad_output, gradients):
        return torch.empty_like(gradients)


def main() -> None:
    """Print what was built and what runs."""
    if _COMPILED:
        for name, value in _C.build_info().items():
            print(f"{name:20}{', '.join(value) if isinstance(value, list) else value}")
    for device in ("cpu", "cuda"):
        reason = "" if device in _COMPILED else f" ({_REASON})"
        print(f"{'runs on ' + device:20}{backend(device)}{reason}")


if __name__ == "__main__":
    main()
