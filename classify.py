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

Codes of hundreds of numbers of one size overfit, so the MLP has dropout, weight decay, noise on what it reads and a
cosine schedule, benefits from --augment, and reads each number in proportion to how little it differs between the views
of an image. Two are trained, with little noise and with much. The one of lower validation loss after the last epoch is
tested.

A stopped run resumes when it is started again: finished runs are kept and skipped.

--jobs and --backend choose where runs are made, many at once, and change no score. dask and ray start workers on this
machine, or use the cluster that DASK_SCHEDULER_ADDRESS or RAY_ADDRESS names. MLPs on a GPU stay in this process.
"""

import maskbench.runtime.early  # noqa: F401  # isort: skip
import argparse
import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from joblib import parallel_config
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from maskbench.classification import figures
from maskbench.classification.draws import DrawData, class_count, data_parts, draw_classes, eligible_classes, left_out
from maskbench.classification.features import ImageStream, standardised
from maskbench.classification.jobs import Run, Task, finish
from maskbench.classification.scores import METRICS, classification_scores
from maskbench.classification.settings import Settings
from maskbench.classification.tables import print_table, run_rows, write_tables
from maskbench.data import masked_set
from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError
from maskbench.models import ClassifierStack, MaskClassifier
from maskbench.ops import train_mlps  # by name: of a module `ops` cloudpickle thinks torch.ops, which does not travel
from maskbench.runtime import command_line, workers
from maskbench.runtime.seeding import seeded
from maskbench.storage import atomic
from maskbench.storage.ledger import Ledger, code_fingerprint

CLASSIFIERS = ("mlp", "forest", "adaboost")
NO_LABEL = -100  # fills up the shorter parts of draws that are trained together
MLPS_A_THREAD = 4  # fewer are done sooner by one
DECAY_IMAGES = 1000  # weight decay of the MLP is 1 for so many images or fewer, and with more less in proportion
NOISES = (0.25, 1.0)  # added to each number at every reading, in its standard deviations; an MLP for each is trained


def run_mlps(
    draws: Sequence[DrawData],
    steps: int,
    settings: Settings,
    device: torch.device,
    threads: int = 1,
    progress: bool = False,
    compiled: bool | None = None,
) -> list[dict]:
    """Train the MLPs of some draws of as many classes together, each as if it were alone.

    For each draw one is trained with every amount of noise, and the one of least validation loss is kept.

    Args:
        steps: mini-batches an epoch.
        threads: at most so many; how many it is changes no bit.
        progress: draw a bar.
        compiled: train by ``ops.train_mlps``; default: where the settings say so.

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
    sizes = [[len(part["train"]), len(part["test"])] for part in labels]
    deviations = torch.stack([part["train"].std(0, correction=0) for part in features])[:, None].to(device)
    features, labels = (
        {name: pad_sequence([part[name] for part in of_draws], True, filler).to(device) for name in labels[0]}
        for of_draws, filler in ((features, 0.0), (labels, NO_LABEL))
    )
    compiled = settings.compiled(device) if compiled is None else compiled
    name = "MLP" if len(draws) == 1 else f"{len(draws)} MLPs"
    epochs = tqdm(
        total=len(NOISES) * settings.epochs, desc=name, unit="epoch", leave=False, delay=1, disable=not progress
    )
    with epochs:
        fits = [
            fit_mlps(draws, features, labels, noise * deviations, steps, settings, compiled, epochs.update)
            for noise in NOISES
        ]
    curves = torch.stack([curve for _, curve in fits], 1)  # [R, noises, epochs, 4]
    chosen = curves[:, :, -1, 1].argmin(1)
    seconds = round((time.perf_counter() - start) / len(draws), 2)
    results = []
    for number, (size, targets, noise) in enumerate(zip(sizes, labels["test"], chosen, strict=True)):
        real = targets != NO_LABEL
        predictions = fits[noise][0][number]
        scores = classification_scores(targets[real].cpu().numpy(), predictions[real].cpu().numpy())
        results.append({"scores": list(scores.values()), "sizes": size, "seconds": seconds})
        results[-1]["curve"] = curves[number, noise]
    return results


def fit_mlps(
    draws: Sequence[DrawData],
    features: dict[str, Tensor],
    labels: dict[str, Tensor],
    noise: Tensor,
    steps: int,
    settings: Settings,
    compiled: bool,
    epoch_done: Callable[[], object],
) -> tuple[Tensor, Tensor]:
    """Train an MLP for each of R draws; all that is random in one is from its draw's seed.

    Args:
        features: ``[R, rows, F]`` of each part, on the MLPs' device.
        labels: int64 ``[R, rows]`` of each part; ``NO_LABEL`` where a draw has fewer rows.
        noise: standard deviations of what is added to the features, ``[R, 1, F]``.

    Returns:
        Predicted classes of the test part, int64 ``[R, rows]``, and curves, float64 ``[R, epochs, 4]``.
    """
    device = noise.device
    generators = [torch.Generator().manual_seed(draw.seed) for draw in draws]
    streams = [ImageStream(draw.source["train"], generator) for draw, generator in zip(draws, generators, strict=True)]
    classifiers = []
    for draw in draws:
        with seeded(draw.seed):
            classifiers.append(MaskClassifier(noise.shape[2], draw.count))
    model = ClassifierStack(classifiers).to(device)
    images = steps * settings.batch_size  # an epoch
    decay = min(1.0, DECAY_IMAGES / images)
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, weight_decay=decay, fused=True)
    # on a CPU, ops.train_mlps is train_epoch in compiled code
    train = train_mlps if compiled else functools.partial(train_epoch, model)

    curve = []
    for epoch in range(settings.epochs):
        optimizer.param_groups[0]["lr"] = settings.lr * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
        rows = torch.stack([stream.take(images) for stream in streams]).to(device)
        kept = model.draw_dropout(steps, settings.batch_size, generators).to(device)
        read = features["train"].gather(1, rows[..., None].expand(-1, -1, noise.shape[2]))
        shifts = torch.stack([torch.randn(read.shape[1:], generator=generator) for generator in generators])
        read = torch.addcmul(read, noise, shifts.to(device))
        training = train(optimizer, read, labels["train"].gather(1, rows), kept)
        with torch.inference_mode():
            validation = loss_and_accuracy(model(features["validation"]), labels["validation"])
        curve.append(torch.stack((training[0], validation[0], training[1], validation[1]), 1).cpu())
        if not curve[-1].isfinite().all():
            raise InputError(
                f"--lr {settings.lr}: an MLP's loss is not finite in epoch {len(curve)}; lower it, or see whether the "
                "masked vectors are of a sensible size"
            )
        epoch_done()
    with torch.inference_mode():
        predictions = model(features["test"]).argmax(2)
    return predictions, torch.stack(curve, 1).double()


def train_epoch(
    model: ClassifierStack,
    optimizer: torch.optim.Optimizer,
    features: Tensor,
    labels: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    """One epoch of R classifiers; what ``ops.train_mlps`` is a compiled form of.

    Args:
        features: ``[R, steps * batch, F]``, in the order in which they are read.
        labels: int64 ``[R, steps * batch]``.
        kept: dropout's factors, see :meth:`ClassifierStack.draw_dropout`.

    Returns:
        Mean training loss and accuracy of each, ``[R]`` twice.
    """
    loss, accuracy = features.new_zeros(2, len(features))
    batches = (of_all.unflatten(1, (len(kept), -1)).unbind(1) for of_all in (features, labels))
    for x, y, factors in zip(*batches, kept, strict=True):
        losses, correct = loss_and_accuracy(model(x, factors), y)
        optimizer.zero_grad()
        losses.sum().backward()  # none of them depends on another's weights
        optimizer.step()
        loss += losses.detach()
        accuracy += correct
    return loss / len(kept), accuracy / len(kept)


def loss_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy of each classifier: ``[R, N, K]`` and ``[R, N]`` -> ``[R]`` twice."""
    rows = (labels != NO_LABEL).sum(1)
    losses = F.cross_entropy(logits.mT, labels, ignore_index=NO_LABEL, reduction="none").sum(1) / rows
    return losses, (logits.argmax(2) == labels).sum(1) / rows


def run_trees(method: str, draw: DrawData, settings: Settings, threads: int = 1) -> dict:
    """Fit a forest or AdaBoost on some classes; test scores, (training, test) rows and seconds.

    Raises:
        InputError: it cannot be fitted.
    """
    # scikit-learn takes a second and a half, which --help and mistakes need not wait for
    from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier

    start = time.perf_counter()
    if method == "forest":
        model = RandomForestClassifier(settings.estimators, random_state=draw.seed)
    else:
        model = AdaBoostClassifier(n_estimators=settings.estimators, random_state=draw.seed)

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


def run_task(task: Task, device: torch.device) -> list[dict]:
    """Some runs of one method; what a worker does."""
    torch.set_flush_denormal(True)  # a CPU is slow with the tiny moments of weights that no longer move
    method = task.runs[0].method
    if method == "mlp":
        return run_mlps(task.draws, task.steps, task.settings, device, task.threads, task.progress)
    return [run_trees(method, draw, task.settings, task.threads) for draw in task.draws]


def mean_accuracies(
    data: MaskedSet,
    methods: Sequence[str],
    classes: int = 3,
    repeats: int = 5,
    seed: int = 0,
    device: torch.device | None = None,
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (ddof 0) of each method's accuracy over some draws; for ``crosspair.py --audit``.

    Args:
        device: of the MLPs; default: the CPU.

    Raises:
        InputError: the set has too few classes.
    """
    parts = data_parts(data)
    eligible = eligible_classes(data, parts)
    if len(eligible) < classes:
        raise InputError(f"{data.dataset}: {len(eligible)} classes have enough images, {classes} are needed")
    draws = {(classes, repeat): draw_classes(seed, eligible, classes, repeat) for repeat in range(repeats)}
    runs = [Run(classes, repeat, method) for method in methods for repeat in range(repeats)]
    found = dict(finish(run_task, data, parts, draws, runs, Settings(seed=seed), device or torch.device("cpu")))
    accuracy = {method: [found[run]["scores"][0] for run in runs if run.method == method] for method in methods}
    return {method: (float(np.mean(values)), float(np.std(values))) for method, values in accuracy.items()}


def main() -> None:
    args = parse_arguments()
    device = command_line.pick_device(args.device)
    path = args.masked or newest("masked")
    data = masked_set.load(path)
    print(f"{path}: {len(data.labels):,} rows of {data.width} numbers, masked by {data.method}")
    with atomic.output_folder(args.output_dir):
        classify_all(args, path, data, device)


def classify_all(args: argparse.Namespace, path: Path, data: MaskedSet, device: torch.device) -> None:
    settings = Settings(args.seed, args.epochs, args.batch_size, args.lr, args.estimators)
    parts = data_parts(data)
    eligible = eligible_classes(data, parts)
    counts = list(dict.fromkeys(class_count(text, data, parts, eligible, path) for text in args.classes))
    draws = {
        (count, repeat): draw_classes(args.seed, eligible, count, repeat)
        for count in counts
        for repeat in range(args.repeats)
    }
    if lacking := left_out(data, parts, eligible):
        print(f"never drawn: {lacking}")
    output = args.output_dir / masked_set.set_name(path)
    name = output.name + path.suffix  # the same for a set in shards
    # finished runs are kept and not repeated, as long as everything that determines them is the same
    ledger = Ledger(Path(f"{output}-runs.pt"), code_fingerprint(__file__))
    masked_file = masked_set.digest(path)
    runs = {
        Run(count, repeat, method): settings.inputs(method, device)
        | {"masked": masked_file, "classes": count, "repeat": repeat}
        for count, method, repeat in itertools.product(counts, args.methods, range(args.repeats))
    }
    found = {run: ledger.get(inputs, result_template(run.method, args.epochs)) for run, inputs in runs.items()}
    results = {run: result for run, result in found.items() if result is not None}
    missing, kept = [run for run in runs if run not in results], len(results)
    work = finish(run_task, data, parts, draws, missing, settings, device, args.backend, args.jobs)
    with tqdm(total=len(runs), initial=kept, unit="run") as progress, contextlib.closing(work) as finished:
        for run, result in finished:
            ledger.add(runs[run], result)
            results[run] = result
            write_tables(output, run_rows(results, draws, name, data.classes, args.methods))
            progress.set_description(f"{run.count} classes, {run.method}", refresh=False)
            progress.update()

    if kept:
        print(f"{kept} of {len(results)} runs were finished before and kept ({output}-runs.pt)")
    table = write_tables(output, run_rows(results, draws, name, data.classes, args.methods))
    pictures = [path for path in draw_pictures(output, name, table, results, args) if path.exists()]
    print_table(table)
    print(f"table: {output}.csv; every run: {output}-runs.csv; pictures: {', '.join(map(str, pictures))}")


def result_template(method: str, epochs: int) -> dict:
    """A method's result without its values."""
    shape = {"scores": [0.0] * len(METRICS), "sizes": [0, 0], "seconds": 0.0}
    return shape | ({"curve": torch.empty(epochs, 4, dtype=torch.float64)} if method == "mlp" else {})


def draw_pictures(output: Path, name: str, table: list[list], results: dict, args: argparse.Namespace) -> list[Path]:
    """The scores as bars and, of MLPs, their training; their files."""
    pictures = [Path(f"{output}.png"), Path(f"{output}-curves.png")]
    figures.score_bars(table, f"{name}: mean and standard deviation of {args.repeats} draws", pictures[0])
    if "mlp" not in args.methods:
        pictures.pop().unlink(missing_ok=True)  # an earlier run's would not belong to this table
        return pictures
    curves = {}
    for run, result in sorted(results.items()):
        if run.method == "mlp":
            curves.setdefault(run.count, []).append(result["curve"].numpy())
    figures.training_curves(curves, pictures[1])
    return pictures


def newest(folder: str) -> Path:
    files_there = [path for path in Path(folder).glob("*.pt") if not path.name.endswith("-runs.pt")]
    found = sorted(files_there, key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"no masked file in {folder}/: make one with mask_dataset.py, or name it with --masked")
    return found[-1]


def class_argument(text: str) -> str:
    return text if text == "all" else str(command_line.integer(2)(text))


def parse_arguments() -> argparse.Namespace:
    parser = command_line.ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--masked",
        type=command_line.path,
        help="a masked file of mask_dataset.py, or a shard; default: the newest in masked/",
    )
    add("--classes", nargs="+", type=class_argument, default=["2", "3", "4"], help="classes a draw, or all")
    add("--repeats", type=command_line.integer(1), default=10, help="random draws of the classes")
    add("--methods", nargs="+", choices=CLASSIFIERS, default=list(CLASSIFIERS), help="classifiers to train")
    add("--output-dir", type=command_line.path, default=Path("runs/classify"), help="where tables and pictures go")
    add("--estimators", type=command_line.integer(1), default=100, help="trees of the forest, stumps of AdaBoost")
    add("--epochs", type=command_line.integer(1), default=100, help="the MLP's passes over its training rows")
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
