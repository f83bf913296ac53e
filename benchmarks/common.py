"""What the benchmarks share: peers taking turns, the machine's own limits, ``results/speed.md``, and who is named."""

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the scripts are not part of the package

from maskbench.runtime import command_line
from maskbench.runtime.machine import commit, processor
from maskbench.storage import atomic, tables
from maskbench.storage.tables import read

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
# in the order of the page
QUESTIONS = ("train_step", "agreement", "instances", "processes", "classify", "mask", "memory")
PAIR = "of trained instances: 0 is the owner's, 1 the attacker's"  # what --models are
COLUMNS = ("benchmark", "contestant", "size", "unit", "median", "low", "high")  # a contestant is a peer
WARM_UP = 3  # calls at the start of a turn: the peer before has emptied the caches
PANELS = {  # of the picture: title, name of the horizontal axis, scale of the vertical one
    "train_step": ("training step", "images in a mini-batch", "log"),
    "agreement": ("agreement step", "images in a mini-batch", "log"),
    "instances": ("instances", "autoencoders trained", "linear"),
    "processes": ("processes", "processes under torchrun", "log"),
    "classify": ("classifiers", "repeats (draws of classes)", "log"),
    "mask": ("masking", "images", "log"),
    "memory": ("memory", "images", "linear"),
}
SHOWN_UNITS = {  # of a unit of the table: the picture's, and by what the figures are multiplied
    "seconds a step": ("milliseconds a step", 1e3),
    "bytes": ("MiB", 2**-20),
}

Row = tuple[str, str, int, str, float, float, float]


def parser(
    description: str,
    seconds: float | None = None,
    gpu: bool = False,
    batches: Sequence[int] = (),
    models: str | None = None,
) -> command_line.ArgumentParser:
    """A benchmark's flags.

    Args:
        seconds: what is measured for by default, for a line of a table.
        gpu: whether it can be run on a GPU.
        batches: what sizes are measured by default, where they can be chosen.
        models: what the trained instances are that are measured, in words, where there are some.
    """
    flags = command_line.ArgumentParser(description)
    if gpu:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        flags.add_argument("--device", choices=("cpu", "cuda"), default=default, help="what is measured")
    if seconds:
        what = "of measuring, a line of a table"
        flags.add_argument("--seconds", type=command_line.positive_float, default=seconds, help=what)
    if batches:
        sizes = dict(type=command_line.integer(1), nargs="+", default=list(batches))
        flags.add_argument("--batches", **sizes, help="rows a call, a line of a table for each")
    if models:
        flags.add_argument("--models", type=command_line.path, default=Path("runs/aae"), help=models)
        flags.add_argument("--data-dir", type=command_line.path, default=Path("data"), help="where the images are")
    flags.add_argument("--save", action="store_true", help="also write into results/")
    return flags


def take_turns(
    peers: dict[str, Callable[[], object]], device: torch.device, seconds: float, turns: int = 5
) -> dict[str, tuple[float, float, float]]:
    """Median, 10% and 90% quantile of the seconds of a call, so that a busy machine slows all peers alike.

    Args:
        peers: are called once before anything is timed.
        seconds: for all peers and turns together, about.
        turns: of each peer; in a turn as many calls as fit, one at least.
    """
    times = {name: [] for name in peers}
    for function in peers.values():
        function()
    share = seconds / turns / len(peers)
    for _ in range(turns):
        for name, function in peers.items():
            end = time.perf_counter() + share
            begun = [timed(function, device) for _ in range(WARM_UP) if time.perf_counter() < end]
            taken = []
            while time.perf_counter() < end:
                taken.append(timed(function, device))
            times[name] += taken or begun[-1:]
    return {name: tuple(map(float, np.quantile(values, (0.5, 0.1, 0.9)))) for name, values in times.items()}


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device) -> float:
    """Floating-point operations a second of float32 products of 1024 x 1024 matrices, the best of twenty."""
    a, b = (torch.randn(1024, 1024, device=device) for _ in range(2))
    return 2 * 1024**3 / min(timed(lambda: a @ b, device) for _ in range(20))


def write_bandwidth(device: torch.device) -> float:
    """Bytes a second that a fill reaches, the best of ten."""
    target = torch.empty(2**26, device=device)
    return target.nbytes / min(timed(lambda: target.fill_(1.0), device) for _ in range(10))


def named(apart: torch.Tensor) -> float:
    """The part of masks that are nearest to their own candidate: distances ``[N, N]``, candidates in order."""
    return (apart.argmin(1) == torch.arange(len(apart))).double().mean().item()


def cosines(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of each code ``[N, D]`` and what it should be, both from the mean of all."""
    return torch.nn.functional.cosine_similarity(found - found.mean(0), wanted - wanted.mean(0))


def header(device: torch.device) -> list[str]:
    """Hardware, versions and commit."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = (
            f"{processor()}, {torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f} at the start"
        )
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, commit {commit()}"
    return [f"- {hardware}", f"- {versions}"]


def begin_table(columns: Sequence[str], device: torch.device) -> None:
    """Print what stands above a table's rows: the machine, and the names of the columns."""
    print("\n".join([*header(device), "", tables.markdown(columns, [])]), end="", flush=True)


def against(times: dict[str, tuple[float, float, float]], other: str, scale: float, unit: str) -> list[str]:
    """For each peer median, spread, and how many times as fast as the other one it is."""
    return [
        f"{scale * median:,.3g} {unit} ({scale * low:,.3g} to {scale * high:,.3g}), {times[other][0] / median:.2f}x"
        for median, low, high in times.values()
    ]


def say(lines: list[str], *more: str) -> None:
    """Add to a page's lines and print them at once: a run that is ended has said what it measured."""
    lines += more
    print("\n".join(more), flush=True)


def save(question: str, title: str, lines: list[str], rows: list[Row], device: torch.device) -> None:
    """Put a benchmark's section into ``results/speed.md``, its figures into ``speed.csv`` and the picture."""
    stem = "speed" if device.type == "cpu" else "speed-cuda"
    page = RESULTS / f"{stem}.md"
    text = page.read_text() if page.exists() else ""
    sections = dict(re.findall(r"^<!-- (\w+) -->\n(.*?)(?=^<!-- \w+ -->$|\Z)", text, re.MULTILINE | re.DOTALL))
    sections[question] = "\n".join([f"## {title}", "", f"`python benchmarks/{question}.py --save`", "", *lines])
    body = [f"<!-- {name} -->\n{sections[name].strip()}\n" for name in QUESTIONS if name in sections]
    path = RESULTS / f"{stem}.csv"
    before = []
    if path.exists():
        before = [tuple(row.values()) for row in read(path) if row["benchmark"] != question]
    every = sorted([*before, *rows], key=lambda row: QUESTIONS.index(row[0]))
    tables.write_csv(path, COLUMNS, every)
    draw(every, RESULTS / f"{stem}.png")
    introduction = (
        "# Speed\n\nMedians, in parentheses the 10% and 90% quantiles of the calls; peers take turns in one run. "
        '"x" is how many times as fast as the peer whose figure is 1.00x.\n\n'
        f"![Cost against size]({stem}.png)\n"
    )
    atomic.write_text(page, "\n".join([introduction, *body]))


def draw(rows: list[Row], path: Path) -> None:
    """Cost against size, one panel a benchmark, three in a row: to be read where it is 900 pixels wide."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    questions = [name for name in QUESTIONS if any(row[0] == name for row in rows)]
    columns = min(3, len(questions))
    lines = -(-len(questions) // columns)
    with plt.rc_context({"font.size": 9, "axes.titlesize": 10.5, "legend.fontsize": 8, "lines.linewidth": 1.3}):
        # a picture three panels wide has 100 pixels an inch where it is shown with 900
        figure, axes = plt.subplots(lines, columns, figsize=(3 * columns, 3.3 * lines), layout="constrained")
        axes = np.atleast_1d(axes).flatten()
        for axis, question in zip(axes, questions, strict=False):
            draw_panel(axis, [row for row in rows if row[0] == question])
        for axis in axes[len(questions) :]:
            axis.remove()
        with atomic.writing(path) as file:
            figure.savefig(file, dpi=150, format="png")
    plt.close(figure)


def draw_panel(axis, rows: list[Row]) -> None:
    """The rows of one benchmark: a line a peer, a band between its quantiles."""
    from matplotlib import ticker

    title, sizes_name, scale = PANELS[rows[0][0]]
    unit, factor = SHOWN_UNITS.get(rows[0][3], (rows[0][3], 1))
    for peer in dict.fromkeys(row[1] for row in rows):
        line = [[float(value) for value in (row[2], *row[4:])] for row in rows if row[1] == peer]
        sizes, *figures = zip(*line, strict=True)
        median, low, high = (factor * np.array(values) for values in figures)
        axis.plot(sizes, median, marker="o", markersize=3.5, label=peer)
        axis.fill_between(sizes, low, high, alpha=0.2, linewidth=0)
    axis.set(title=title, xlabel=sizes_name, ylabel=unit, xscale="log", yscale=scale)
    lowest, highest = axis.get_ylim()
    above = 0.1 * len(axis.get_lines())  # room for the legend
    if scale == "log":
        axis.set_ylim(lowest, highest * (highest / lowest) ** above)
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(ticker.NullLocator())
    else:
        axis.set_ylim(0, highest * (1 + above))
    axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.6g}"))
    sizes = sorted({int(row[2]) for row in rows})
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="upper left")
