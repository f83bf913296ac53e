"""The compiled ops against what one would write without them: eager PyTorch, torch.compile of it, NumPy.

    python benchmarks/ops.py                  # a table on the CPU
    python benchmarks/ops.py --device cuda --batches 16 4096 1048576
    python benchmarks/ops.py --save           # table, hardware and commit into results/ops.md (ops-cuda.md on a GPU)

Medians of many calls, the peers taking turns so that a busy machine slows all of them alike. The ratio is
eager's time over the peer's. The limit is what writing the draws, or reading the logits and writing the
gradients, would take at the memory bandwidth measured in the same run.
"""

import time
from collections.abc import Callable, Iterator

import common
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskbench import ops
from maskbench.storage import atomic
from maskbench.storage.tables import markdown_line

GAUSSIAN_DIM, CATEGORIES, DISCRIMINATORS = 384, 20, 2
BATCHES = (16, 128, 4096, 65536)
SECONDS = 2.0  # for a line's peers together
RESULTS = {"cpu": "ops.md", "cuda": "ops-cuda.md"}

Peers = dict[str, Callable[[], object]]


def main() -> None:
    parser = common.parser(__doc__, SECONDS, gpu=True, batches=BATCHES)
    args = parser.parse_args()
    device = torch.device(args.device)
    if ops.backend(device) == "reference":
        parser.error(f"no compiled kernels for {device}; see python -m maskbench.ops")

    bandwidth = common.write_bandwidth(device)
    lines = []
    common.say(lines, *common.header(device), f"- writes {bandwidth / 1e9:.1f} GB/s (`fill_` of 256 MB)", "")
    for title, peers, bytes_a_row in (
        (f"Sampling, {GAUSSIAN_DIM} normals and one of {CATEGORIES} categories a row", sampling, sampled_bytes),
        (f"Discriminator loss, {DISCRIMINATORS} discriminators, forward", forward, forward_bytes),
        (f"Discriminator loss, {DISCRIMINATORS} discriminators, forward and backward", training, training_bytes),
    ):
        for line in table(title, peers, bytes_a_row(), args.batches, device, bandwidth, args.seconds):
            common.say(lines, line)
    if args.save:
        path = common.RESULTS / RESULTS[device.type]
        head = ["# The compiled ops", "", f"`python benchmarks/ops.py --device {device} --save`", ""]
        atomic.write_text(path, "\n".join([*head, *lines, ""]))


# Peers: functions to be timed, by name, for one batch size


def sampling(batch: int, device: torch.device) -> Peers:
    rng_state = torch.tensor([0, 0], device=device)

    def eager() -> tuple[Tensor, Tensor]:
        category = torch.randint(CATEGORIES, (batch,), device=device)
        return torch.randn(batch, GAUSSIAN_DIM, device=device), F.one_hot(category, CATEGORIES).float()

    peers = {
        "maskbench": lambda: ops.sample_prior(rng_state, batch, GAUSSIAN_DIM, CATEGORIES),
        "eager": eager,
        "compile": torch.compile(eager, dynamic=False),
    }
    if device.type == "cpu":
        generator, identity = np.random.default_rng(0), np.eye(CATEGORIES, dtype=np.float32)
        peers["NumPy"] = lambda: (
            generator.standard_normal((batch, GAUSSIAN_DIM), dtype=np.float32),
            identity[generator.integers(CATEGORIES, size=batch)],
        )
    return peers


def forward(batch: int, device: torch.device) -> Peers:
    prior, encoded = (torch.randn(DISCRIMINATORS, batch, device=device) for _ in range(2))
    losses = {"maskbench": ops.discriminator_loss, "eager": four_bce, "compile": torch.compile(four_bce, dynamic=False)}
    return {name: lambda loss=loss: loss(prior, encoded) for name, loss in losses.items()}


def training(batch: int, device: torch.device) -> Peers:
    inputs = [torch.randn(DISCRIMINATORS, batch, device=device, requires_grad=True) for _ in range(2)]
    losses = {"maskbench": ops.discriminator_loss, "eager": four_bce, "compile": torch.compile(four_bce, dynamic=False)}
    return {name: lambda loss=loss: torch.autograd.grad(loss(*inputs), inputs) for name, loss in losses.items()}


def four_bce(prior: Tensor, encoded: Tensor) -> Tensor:
    """What a training loop has without the op: one BCE a discriminator and side."""
    real, fake = torch.ones_like(prior[0]), torch.zeros_like(encoded[0])
    bce = F.binary_cross_entropy_with_logits
    return sum(bce(row, real) for row in prior) + sum(bce(row, fake) for row in encoded)


# Bytes a row that no implementation can do without


def sampled_bytes() -> int:
    return 4 * (GAUSSIAN_DIM + CATEGORIES)


def forward_bytes() -> int:
    return 4 * 2 * DISCRIMINATORS


def training_bytes() -> int:
    return 2 * forward_bytes()


def table(
    title: str,
    peers: Callable[[int, torch.device], Peers],
    bytes_a_row: int,
    batches: tuple[int, ...],
    device: torch.device,
    bandwidth: float,
    seconds: float,
) -> Iterator[str]:
    """A heading, and a line for each batch size when it is ready."""
    names = list(peers(1, device))
    columns = ["batch", *names, "limit"]
    yield from (f"## {title}", "", *map(markdown_line, (columns, ["---:"] * len(columns))))
    for batch in batches:
        medians = time_in_turns(peers(batch, device), device, seconds)
        torch.compiler.reset()  # after eight sizes it would give up, and run eagerly
        limit = batch * bytes_a_row / bandwidth
        cells = [f"{medians[name] * 1e6:,.1f} us ({medians['eager'] / medians[name]:.2f}x)" for name in names]
        share = f"{limit * 1e6:,.1f} us ({limit / medians['maskbench']:.0%} reached)"
        yield markdown_line([f"{batch:,}", *cells, share])
    yield ""


def time_in_turns(peers: Peers, device: torch.device, seconds: float) -> dict[str, float]:
    """Median seconds of a call. Calls are timed in groups of 1 ms or so, as a single one may be shorter than noise."""

    def of_a_call(function: Callable[[], object], calls: int) -> float:
        common.synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            function()
        common.synchronize(device)
        return (time.perf_counter() - start) / calls

    calls = {}
    for name, function in peers.items():
        of_a_call(function, 3)  # warm up, compile
        calls[name] = max(1, int(1e-3 / of_a_call(function, 3)))
    times = {name: [] for name in peers}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["eager"]) < 5:
        for name, function in peers.items():
            times[name].append(of_a_call(function, calls[name]))
    return {name: float(np.median(values)) for name, values in times.items()}


if __name__ == "__main__":
    main()
