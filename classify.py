"""Classify masked images three ways: an MLP, a random forest and AdaBoost (paper, Tables 1 and 2).

    python classify.py --classes 3 --repeats 10                            # newest file in masked/
    python classify.py --masked masked/cifar100.pt --classes 2 3 4 --repeats 10
    python classify.py --masked masked/mnist.pt --classes all --repeats 1
    python classify.py --methods forest adaboost --classes 3
    python classify.py --backend loky --jobs 4                             # four processes; or dask, ray: a cluster

Each repeat draws its classes at random from the seed, the same draw for every method, and repeat i is the
same however many there are. What is trained on what is the paper's:

  MLP                    validated on the first 10,000 training images (CIFAR-100, MNIST; elsewhere the first
                         fifth), trained on the rest, tested on the test part
  forest and AdaBoost    training and test parts merged and divided 8 : 2 again, stratified; 100 estimators

Masked augmented copies (mask_dataset.py --augment) are for the MLP's training alone: it sees one view of each image an
epoch. They are never tested on.

Codes that keep a whole picture in 404 numbers of one size overfit, so the MLP has dropout, weight decay and a cosine
schedule, benefits from --augment, and reads each number in proportion to how little it differs between the views of an
image. The weights of its last epoch are tested: no choice is made on validation images, which only draw the curves.

A start that was stopped goes on when it is given again: finished runs are kept and skipped.

--jobs and --backend choose where runs are made, many at once, and change no score. dask and ray start workers on this
machine, or use the cluster that DASK_SCHEDULER_ADDRESS or RAY_ADDRESS names. MLPs on a GPU stay in this process.
"""

import argparse
import contextlib
import functools
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed, parallel_config
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from maskbench.classification import figures
from maskbench.classification.scores import classification_scores
from maskbench.data import masked_set
from maskbench.data.image_set import TEST, TRAIN
from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError
from maskbench.models import ClassifierStack, MaskClassifier
from maskbench.ops import backend, train_mlps
from maskbench.runtime import command_line, cuda_graphs, workers
from maskbench.storage import atomic, tables
from maskbench.storage.ledger import Ledger, code_fingerprint

METHODS = ("mlp", "forest", "adaboost")
METRICS = ("accuracy", "precision", "recall")
NO_LABEL = -100  # fills up the shorter parts of draws that are trained together
COMPILED_ROWS = 64  # of a mini-batch, at most: PyTorch's products of larger ones are faster than the compiled epoch
STACK = 10  # MLPs trained together by PyTorch: enough to fill a core, few enough to lose little when stopped
MLPS_A_THREAD = 4  # fewer are done sooner by one
WEIGHT_DECAY = 0.1
MLP_SETTINGS = ("epochs", "batch_size", "lr")  # the flags that change the MLP's runs, beside --seed
RUN_COLUMNS = ("masked", "method", "classes", "repeat", *METRICS, "train_rows", "test_rows", "seconds", "class_names")
TABLE_COLUMNS = ("method", "classes", "metric", "mean", "std", "draws")


def main() -> None:
    args = parse_arguments()
    device = command_line.pick_device(args.device)
    path = args.masked or newest("masked")
    data = masked_set.load(path)
    print(f"{path}: {len(data.labels):,} rows of {data.width} numbers, masked by {data.method}")
    with atomic.output_folder(args.output_dir):
        classify_all(args, path, data, device)


@dataclass(frozen=True)
class Draw:
    """One repeat: its classes (sorted labels), and the seed of everything else that is random in it."""

    classes: np.ndarray
    seed: int


class Run(NamedTuple):
    count: int
    repeat: int
    method: str


@dataclass(frozen=True)
class DrawData:
    """What is trained on and tested for one draw: all that a worker is given of the masked set.

    Attributes:
        count: of classes. (Another name than ``classes``, which cloudpickle takes for torch.classes and cannot send.)
        seed: of the draw.
        features: float32 ``[rows, F]`` of each part.
        labels: int64 ``[rows]`` of each part, 0 to ``count`` - 1.
        source: int64 ``[rows]`` of each part, the image of each row.
    """

    count: int
    seed: int
    features: dict[str, Tensor]
    labels: dict[str, Tensor]
    source: dict[str, Tensor]


def classify_all(args: argparse.Namespace, path: Path, data: MaskedSet, device: torch.device) -> None:
    parts = data_parts(data)
    eligible = eligible_classes(data, parts)
    counts = list(dict.fromkeys(class_count(text, data, eligible, path) for text in args.classes))
    draws = {
        (count, repeat): draw_classes(args.seed, eligible, count, repeat)
        for count in counts
        for repeat in range(args.repeats)
    }
    output = args.output_dir / masked_set.set_name(path)
    name = output.name + path.suffix  # the same for a set in shards
    # finished runs are kept and not repeated, as long as everything that determines them is the same
    ledger = Ledger(Path(f"{output}-runs.pt"), code_fingerprint(__file__))
    masked_file = masked_set.digest(path)
    runs = {
        Run(count, repeat, method): inputs(args, method, device)
        | {"masked": masked_file, "classes": count, "repeat": repeat}
        for count, method, repeat in itertools.product(counts, args.methods, range(args.repeats))
    }
    found = {run: ledger.get(inputs_of_run, like(args, run.method)) for run, inputs_of_run in runs.items()}
    results = {run: result for run, result in found.items() if result is not None}
    missing, kept = [run for run in runs if run not in results], len(results)
    with (
        tqdm(total=len(runs), initial=kept, unit="run") as progress,
        contextlib.closing(finish(args, data, parts, draws, missing, device)) as finished,
    ):
        for run, result in finished:
            ledger.add(runs[run], result)
            results[run] = result
            write_tables(output, run_rows(results, draws, name, data.classes, args.methods))
            progress.set_description(f"{run.count} classes, {run.method}", refresh=False)
            progress.update()

    if kept:
        print(f"{kept} of {len(results)} runs were finished before and kept ({output}-runs.pt)")
    table = write_tables(output, run_rows(results, draws, name, data.classes, args.methods))
    pictures = [Path(f"{output}.png")]
    figures.score_bars(table, f"{name}: mean and deviation of {args.repeats} draws", pictures[0])
    curves_picture = Path(f"{output}-curves.png")
    if "mlp" in args.methods:
        pictures.append(curves_picture)
        curves = {
            count: [results[Run(count, repeat, "mlp")]["curve"].numpy() for repeat in range(args.repeats)]
            for count in counts
        }
        figures.training_curves(curves, curves_picture)
    else:
        curves_picture.unlink(missing_ok=True)  # an earlier run's would not belong to this table
    print_table(table)
    print(f"table: {output}.csv; every run: {output}-runs.csv; pictures: {', '.join(map(str, pictures))}")


def mean_accuracies(
    data: MaskedSet, methods: Sequence[str], classes: int = 3, repeats: int = 5, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each method's test accuracy over random draws, with the flags' defaults."""
    args = argparse.Namespace(seed=seed, estimators=100, epochs=50, batch_size=4, lr=1e-3, jobs=None)
    args.backend = "threading"
    parts = data_parts(data)
    eligible = eligible_classes(data, parts)
    count = class_count(str(classes), data, eligible, Path(data.dataset))
    draws = {(count, repeat): draw_classes(seed, eligible, count, repeat) for repeat in range(repeats)}
    runs = [Run(count, repeat, method) for method in methods for repeat in range(repeats)]
    threads = torch.get_num_threads()
    results = dict(finish(args, data, parts, draws, runs, command_line.pick_device("auto")))
    torch.set_num_threads(threads)  # runs set it
    accuracy = {method: [results[run]["scores"][0] for run in runs if run.method == method] for method in methods}
    return {method: (float(np.mean(of)), float(np.std(of))) for method, of in accuracy.items()}


def draw_classes(seed: int, eligible: np.ndarray, count: int, repeat: int) -> Draw:
    """One stream a (class count, repeat): more repeats, or another method, change no earlier draw."""
    random = np.random.default_rng([seed, count, repeat])
    chosen = np.sort(random.choice(eligible, count, replace=False))
    return Draw(chosen, int(random.integers(2**31)))


def inputs(args: argparse.Namespace, method: str, device: torch.device) -> dict:
    """What determines a method's runs, beside the masked file and the draw."""
    shared = {"method": method, "seed": args.seed, "torch": torch.__version__, "sklearn": sklearn.__version__}
    if method == "mlp":
        where = {"device": device.type, "compiled": compiled(args, device)}
        return shared | {name: getattr(args, name) for name in MLP_SETTINGS} | where
    return shared | {"estimators": args.estimators}


def compiled(args: argparse.Namespace, device: torch.device) -> bool:
    """Whether MLPs are trained by ``ops.train_mlps``, one a core, and not together by PyTorch."""
    return backend(device) == "cpu" and args.batch_size <= COMPILED_ROWS


def like(args: argparse.Namespace, method: str) -> dict:
    """The shape of a method's result."""
    shape = {"scores": [0.0] * len(METRICS), "sizes": [0, 0], "seconds": 0.0}
    return shape | ({"curve": torch.empty(args.epochs, 4, dtype=torch.float64)} if method == "mlp" else {})


def finish(
    args: argparse.Namespace, data: MaskedSet, parts: dict, draws: dict, missing: Sequence[Run], device: torch.device
) -> Iterator[tuple[Run, dict]]:
    """Missing runs and their results, each as soon as it is known, in any order."""
    tasks = []
    for (_, method), group in itertools.groupby(missing, key=lambda run: (run.count, run.method)):
        alike, size = list(group), STACK if method == "mlp" and not compiled(args, device) else 1
        tasks += [alike[first : first + size] for first in range(0, len(alike), size)]
    steps = {count: epoch_steps(data, parts, count, args.batch_size) for count in {run.count for run in missing}}

    def arguments(task: list[Run]) -> tuple:
        """Those of :func:`run_task`; the rows are read here, when a worker is free for them."""
        of_task = [draws[run.count, run.repeat] for run in task]
        if task[0].method == "mlp":
            return task, [mlp_data(data, parts, draw) for draw in of_task], steps[task[0].count]
        return task, [tree_data(data, draw) for draw in of_task], 0

    if device.type == "cuda":  # there is one GPU
        stacks = [task for task in tasks if task[0].method == "mlp"]
        tasks = [task for task in tasks if task not in stacks]
        for task in stacks:
            yield from run_task(args, *arguments(task), device)
    if not tasks:
        return
    with workers.workers(args.backend, args.jobs) as cores:
        # few forests use every core; the threads of MLPs wait for each other, so they only get what is left over
        forests = sum(task[0].method == "forest" for task in tasks)
        threads = {"mlp": cores // len(tasks), "forest": cores // max(1, forests), "adaboost": 1}
        parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
        calls = (
            delayed(run_task)(args, *arguments(task), torch.device("cpu"), max(1, threads[task[0].method]))
            for task in tasks
        )
        with contextlib.closing(parallel(calls)) as finished:
            for results in finished:
                yield from results


def run_task(
    args: argparse.Namespace,
    runs: Sequence[Run],
    draws: Sequence[DrawData],
    steps: int,
    device: torch.device,
    threads: int = 1,
) -> list[tuple[Run, dict]]:
    """Some runs of one method and their results, see :func:`run_mlps` and :func:`run_trees`; what a worker does."""
    torch.set_flush_denormal(True)  # a CPU is slow with the tiny moments of weights that no longer move
    method = runs[0].method
    if method == "mlp":
        results = run_mlps(args, draws, steps, device, threads)
    else:
        results = [run_trees(args, method, draw, threads) for draw in draws]
    return list(zip(runs, results, strict=True))


def run_mlps(
    args: argparse.Namespace, draws: Sequence[DrawData], steps: int, device: torch.device, threads: int
) -> list[dict]:
    """Train the MLPs of some draws of as many classes together, each as if it were alone.

    Every one has its own images, initial weights, order and dropout, all from its own seed.

    Args:
        steps: mini-batches an epoch.
        threads: at most so many; how many it is changes no bit.

    Returns:
        For each, test scores, (training, test) rows, seconds, and its curve ``[epochs, 4]``: training loss,
        validation loss, training accuracy, validation accuracy.

    Raises:
        InputError: a loss is not finite.
    """
    start = time.perf_counter()
    # a mini-batch of 4 is too little work to share, those of several MLPs are not
    torch.set_num_threads(max(1, min(threads, len(draws) // MLPS_A_THREAD)))
    features, labels = [standardised(draw) for draw in draws], [draw.labels for draw in draws]
    generators = [torch.Generator().manual_seed(draw.seed) for draw in draws]
    streams = [ImageStream(draw.source["train"], generator) for draw, generator in zip(draws, generators, strict=True)]
    classifiers = []
    for draw in draws:
        with cuda_graphs.ONE_AT_A_TIME:  # torch's generator belongs to all threads
            torch.manual_seed(draw.seed)
            classifiers.append(MaskClassifier(features[0]["train"].shape[1], draw.count))
    sizes = [[len(part["train"]), len(part["test"])] for part in labels]
    features, labels = (
        {name: pad_sequence([part[name] for part in of_draws], True, filler).to(device) for name in labels[0]}
        for of_draws, filler in ((features, 0.0), (labels, NO_LABEL))
    )
    model = ClassifierStack(classifiers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=WEIGHT_DECAY, fused=True)
    train = train_mlps if compiled(args, device) else functools.partial(train_epoch, model)

    curve = []
    epochs = range(args.epochs)
    if args.backend == "threading":  # another process's bar would spoil this one's
        name = "MLP" if len(draws) == 1 else f"{len(draws)} MLPs"
        epochs = tqdm(epochs, desc=name, unit="epoch", leave=False, delay=1)
    for epoch in epochs:
        optimizer.param_groups[0]["lr"] = args.lr * (1 + math.cos(math.pi * epoch / args.epochs)) / 2
        order = torch.stack([stream.take(steps * args.batch_size) for stream in streams], 1)
        order = order.view(steps, args.batch_size, len(draws)).mT.to(device)
        kept = model.draw_dropout(steps, args.batch_size, generators).to(device)
        training = train(optimizer, features["train"], labels["train"], order, kept)
        with torch.inference_mode():
            validation = loss_and_accuracy(model(features["validation"]), labels["validation"])
        curve.append(torch.stack((training[0], validation[0], training[1], validation[1])).cpu())
        if not curve[-1].isfinite().all():
            raise InputError(
                f"--lr {args.lr}: an MLP's loss is not finite in epoch {len(curve)}; lower it, or see whether the "
                "masked vectors are of a sensible size"
            )

    with torch.inference_mode():
        predictions = model(features["test"]).argmax(2)
    results = []
    for number, (size, targets) in enumerate(zip(sizes, labels["test"], strict=True)):
        real = targets != NO_LABEL
        scores = classification_scores(targets[real].cpu().numpy(), predictions[number, real].cpu().numpy())
        results.append({"scores": list(scores.values()), "sizes": size, "seconds": 0.0})
        results[-1]["curve"] = torch.stack(curve)[:, :, number].double()
    seconds = round((time.perf_counter() - start) / len(draws), 2)
    return [result | {"seconds": seconds} for result in results]


def train_epoch(
    model: ClassifierStack,
    optimizer: torch.optim.Optimizer,
    features: Tensor,
    labels: Tensor,
    order: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    """One epoch of R classifiers; what ``ops.train_mlps`` is a compiled form of.

    Args:
        features: ``[R, rows, F]``.
        labels: int64 ``[R, rows]``.
        order: int64 ``[steps, R, batch]``, rows.
        kept: dropout's factors, see :meth:`ClassifierStack.draw_dropout`.

    Returns:
        Mean training loss and accuracy of each, ``[R]`` twice.
    """
    every = torch.arange(len(features), device=features.device)[:, None]
    loss, accuracy = features.new_zeros(2, len(features))
    for rows, factors in zip(order, kept, strict=True):
        losses, correct = loss_and_accuracy(model(features[every, rows], factors), labels[every, rows])
        optimizer.zero_grad()
        losses.sum().backward()  # none of them depends on another's weights
        optimizer.step()
        loss += losses.detach()
        accuracy += correct
    return loss / len(order), accuracy / len(order)


def loss_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy of each classifier: ``[R, N, K]`` and ``[R, N]`` -> ``[R]`` twice."""
    rows = (labels != NO_LABEL).sum(1)
    losses = F.cross_entropy(logits.mT, labels, ignore_index=NO_LABEL, reduction="none").sum(1) / rows
    return losses, (logits.argmax(2) == labels).sum(1) / rows


def mlp_data(data: MaskedSet, parts: dict[str, Tensor], draw: Draw) -> DrawData:
    """The rows of a draw's classes in each of the MLP's parts."""
    classes = torch.from_numpy(draw.classes)
    return draw_data(data, draw, {name: rows[torch.isin(data.labels[rows], classes)] for name, rows in parts.items()})


def tree_data(data: MaskedSet, draw: Draw) -> DrawData:
    """The images of a draw's classes, training and test part together, divided 8 : 2."""
    of_classes = torch.isin(data.labels, torch.from_numpy(draw.classes))
    images = torch.nonzero(of_classes & (data.view == 0)).flatten()
    train, test = train_test_split(images, test_size=0.2, stratify=data.labels[images], random_state=draw.seed)
    return draw_data(data, draw, {"train": train, "test": test})


def draw_data(data: MaskedSet, draw: Draw, parts: dict[str, Tensor]) -> DrawData:
    classes = torch.from_numpy(draw.classes)
    return DrawData(
        count=len(classes),
        seed=draw.seed,
        features={name: data.features(rows) for name, rows in parts.items()},
        labels={name: torch.searchsorted(classes, data.labels[rows]) for name, rows in parts.items()},
        source={name: data.source[rows] for name, rows in parts.items()},
    )


def epoch_steps(data: MaskedSet, parts: dict[str, Tensor], count: int, batch_size: int) -> int:
    """Mini-batches an epoch, for every draw of as many classes: as many as the images of average classes fill."""
    images = len(data.source[parts["train"]].unique()) * count / len(data.labels[parts["train"]].unique())
    return max(1, int(images / batch_size))


def standardised(draw: DrawData) -> dict[str, Tensor]:
    """What the MLP reads of each part.

    Every number is standardised by the training part, and weighted by its reliability there: what flips and shifts of
    an image change says little of what is in it.
    """
    deviation, mean = torch.std_mean(draw.features["train"], 0, correction=0)
    features = {name: (part - mean) / deviation.clamp_min(1e-6) for name, part in draw.features.items()}
    weight = reliability(features["train"], draw.source["train"])
    weight = weight / weight.square().mean().sqrt().clamp_min(1e-6)
    return {name: weight * part for name, part in features.items()}


def reliability(features: Tensor, source: Tensor) -> Tensor:
    """How much of each number's variance lies between images, not between the views of one image: ``[F]``, 0 to 1.

    Args:
        features: ``[rows, F]``, of variance 1 (or constant).
        source: int64 ``[rows]``, the image of each row. With one view an image, every number is fully reliable.
    """
    _, image, views = source.unique(return_inverse=True, return_counts=True)
    mean = features.new_zeros(len(views), features.shape[1]).index_add_(0, image, features) / views[:, None]
    return 1 - (features - mean[image]).square().mean(0).clamp(0, 1)


class ImageStream:
    """Rows of a masked set, image by image: shuffled passes one after another, of each image a random view.

    Args:
        source: int64 ``[rows]``, the image of each row.
        generator: makes the choices.
    """

    def __init__(self, source: Tensor, generator: torch.Generator):
        _, image, self._views = source.unique(return_inverse=True, return_counts=True)
        self._rows = image.argsort(stable=True)
        self._first = self._views.cumsum(0) - self._views
        self._generator = generator
        self._ahead = self._rows[:0]

    def take(self, count: int) -> Tensor:
        """The next ``count`` rows, int64."""
        while len(self._ahead) < count:
            self._ahead = torch.cat((self._ahead, self._one_pass()))
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken

    def _one_pass(self) -> Tensor:
        count = len(self._views)
        view = (torch.rand(count, dtype=torch.float64, generator=self._generator) * self._views).long()
        return self._rows[(self._first + view)[torch.randperm(count, generator=self._generator)]]


def run_trees(args: argparse.Namespace, method: str, draw: DrawData, threads: int) -> dict:
    """Fit a forest or AdaBoost on some classes; test scores, (training, test) rows and seconds.

    Raises:
        InputError: it cannot be fitted.
    """
    start = time.perf_counter()
    if method == "forest":
        model = RandomForestClassifier(args.estimators, random_state=draw.seed)
    else:
        model = AdaBoostClassifier(n_estimators=args.estimators, random_state=draw.seed)

    features, labels = ({name: part.numpy() for name, part in of.items()} for of in (draw.features, draw.labels))
    try:
        with parallel_config("threading", n_jobs=threads):  # in a dask worker trees would be sent to the others
            model.fit(features["train"], labels["train"])
    except ValueError as error:  # AdaBoost on masks that are all the same
        raise InputError(f"--methods {method}: cannot be fitted to these masks ({error}); leave it out") from None
    with parallel_config("threading", n_jobs=1):  # several threads would add up the trees' votes in any order
        predictions = model.predict(features["test"])
    scores = classification_scores(labels["test"], predictions)
    sizes = [len(labels["train"]), len(labels["test"])]
    return {"scores": list(scores.values()), "sizes": sizes, "seconds": round(time.perf_counter() - start, 2)}


def data_parts(data: MaskedSet) -> dict[str, Tensor]:
    """Row numbers of the MLP's training, validation and test parts; only training has augmented copies."""
    held_out, original = data.validation_rows(), data.view == 0
    parts = {
        "train": (data.split == TRAIN) & ~held_out,
        "validation": held_out & original,
        "test": (data.split == TEST) & original,
    }
    return {name: torch.nonzero(rows).flatten() for name, rows in parts.items()}


def eligible_classes(data: MaskedSet, parts: dict[str, Tensor]) -> np.ndarray:
    """Classes that have images in every part, and enough of them to be divided 8 : 2."""
    images = torch.bincount(data.labels[data.view == 0], minlength=len(data.classes))
    eligible = images >= 5
    for rows in parts.values():
        eligible &= torch.bincount(data.labels[rows], minlength=len(data.classes)) > 0
    return torch.nonzero(eligible).flatten().numpy()


def class_count(text: str, data: MaskedSet, eligible: np.ndarray, path: Path) -> int:
    count = len(eligible) if text == "all" else int(text)
    if count > len(eligible) or count < 2:
        raise InputError(
            f"--classes {text}: {path} has {len(data.classes)} classes, {len(eligible)} of them with training, "
            "validation and test images; two or more are needed"
        )
    return count


def newest(folder: str) -> Path:
    files_there = [path for path in Path(folder).glob("*.pt") if not path.name.endswith("-runs.pt")]
    found = sorted(files_there, key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"no masked file in {folder}/: make one with mask_dataset.py, or name it with --masked")
    return found[-1]


def run_rows(results: dict, draws: dict, masked_name: str, classes: list[str], methods: Sequence[str]) -> list[list]:
    """One row a finished run, see RUN_COLUMNS, draw by draw."""
    rows = []
    for (count, repeat), draw in draws.items():
        names = " ".join(classes[label].replace(" ", "_") for label in draw.classes)
        for method in methods:
            if result := results.get((count, repeat, method)):
                columns = [masked_name, method, count, repeat]
                rows.append([*columns, *result["scores"], *result["sizes"], result["seconds"], names])
    return rows


def write_tables(output: Path, runs: list[list]) -> list[list]:
    """Write every run and their summary as CSV; returns the summary."""
    table = summarise(runs)
    tables.write_csv(Path(f"{output}-runs.csv"), RUN_COLUMNS, runs)
    tables.write_csv(Path(f"{output}.csv"), TABLE_COLUMNS, table)
    return table


def summarise(runs: list[list]) -> list[list]:
    """Mean and deviation (ddof 0) of every metric over the repeats, one row a (method, classes, metric)."""
    groups = {}
    for _, method, count, _, *rest in runs:
        groups.setdefault((method, count), []).append(rest[: len(METRICS)])
    return [
        [method, count, metric, np.mean(values), np.std(values), len(values)]
        for (method, count), scores in groups.items()
        for metric, values in zip(METRICS, zip(*scores, strict=True), strict=True)
    ]


def print_table(table: list[list]) -> None:
    """The paper's Table 1: methods down, class counts and metrics across."""
    cells = {(method, count, metric): f"{mean:.3f} ± {std:.3f}" for method, count, metric, mean, std, _ in table}
    counts = list(dict.fromkeys(row[1] for row in table))
    for count in counts:
        print(f"\n{count} classes".ljust(12) + "".join(metric.rjust(16) for metric in METRICS))
        for method in dict.fromkeys(row[0] for row in table):
            print(method.ljust(11) + "".join(cells[method, count, metric].rjust(16) for metric in METRICS))
    print()


def class_argument(text: str) -> str:
    return text if text == "all" else str(command_line.integer(2)(text))


def parse_arguments() -> argparse.Namespace:
    parser = command_line.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--masked", type=Path, help="a masked file of mask_dataset.py, or a shard; default: the newest in masked/")
    add("--classes", nargs="+", type=class_argument, default=["2", "3", "4"], help="classes a draw, or all")
    add("--repeats", type=command_line.integer(1), default=10, help="random draws of the classes")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="classifiers to train")
    add("--output-dir", type=Path, default=Path("runs/classify"), help="where tables and pictures go")
    add("--estimators", type=command_line.integer(1), default=100, help="trees of the forest, stumps of AdaBoost")
    add("--epochs", type=command_line.integer(1), default=50, help="the MLP's passes over its training rows")
    add("--batch-size", type=command_line.integer(1), default=4, help="the MLP's mini-batch")
    add("--lr", type=command_line.positive_float, default=1e-3, help="the MLP's learning rate (Adam)")
    add("--jobs", type=command_line.integer(1), help="runs made at once; default: as many as there are cores")
    add("--backend", choices=workers.NAMES, default="threading", help="joblib's: what the runs are made in")
    parser.add_common()
    args = parser.parse_args()
    args.classes, args.methods = list(dict.fromkeys(args.classes)), list(dict.fromkeys(args.methods))
    return args


if __name__ == "__main__":
    command_line.run(main)
