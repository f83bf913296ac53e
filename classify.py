"""Classify masked images three ways: an MLP, a random forest and AdaBoost (paper, Tables 1 and 2).

    python classify.py --classes 3 --repeats 10                            # newest file in masked/
    python classify.py --masked masked/cifar100.pt --classes 2 3 4 --repeats 10
    python classify.py --masked masked/mnist.pt --classes all --repeats 1
    python classify.py --methods forest adaboost --classes 3

Each repeat draws its classes at random from the seed, the same draw for every method, and repeat i is the
same however many there are. What is trained on what is the paper's:

  MLP                    validated on the first 10,000 training images (CIFAR-100, MNIST; elsewhere the first
                         fifth), trained on the rest, tested on the test part
  forest and AdaBoost    training and test parts merged and divided 8 : 2 again, stratified; 100 estimators

Masked augmented copies (mask_dataset.py --augment) are trained on when their source is, and never tested on; the
MLP sees one view of each image an epoch.

Codes that keep a whole picture in 404 numbers of one size overfit, so the MLP has dropout, weight decay, standardised
inputs and a cosine schedule, and benefits from --augment. The weights of its last epoch are tested: no choice is made
on validation images, which only draw the curves.

A start that was stopped goes on when it is given again: finished runs are kept and skipped.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.model_selection import train_test_split
from torch import Tensor
from tqdm import tqdm

from maskbench import cli, figures, files, masked
from maskbench.datasets import TEST, TRAIN
from maskbench.errors import InputError
from maskbench.ledger import Ledger, code_fingerprint
from maskbench.masked import MaskedSet
from maskbench.metrics import classification_scores
from maskbench.models import MaskClassifier

METHODS = ("mlp", "forest", "adaboost")
METRICS = ("accuracy", "precision", "recall")
ESTIMATORS = 100
WEIGHT_DECAY = 0.01
MLP_SETTINGS = ("epochs", "batch_size", "lr")  # the flags that change the MLP's runs, beside --seed
RUN_COLUMNS = ("masked", "method", "classes", "repeat", *METRICS, "train_rows", "test_rows", "seconds", "class_names")
TABLE_COLUMNS = ("method", "classes", "metric", "mean", "std", "draws")


def main() -> None:
    args = parse_arguments()
    device = cli.pick_device(args.device)
    torch.set_num_threads(1)  # a mini-batch of 4 is too little work to share
    path = args.masked or newest("masked")
    data = masked.load(path)
    print(f"{path}: {len(data.labels):,} rows of {data.width} numbers, masked by {data.method}")
    with files.output_folder(args.output_dir):
        classify_all(args, path, data, device)


def classify_all(args: argparse.Namespace, path: Path, data: MaskedSet, device: torch.device) -> None:
    parts = data_parts(data)
    eligible = eligible_classes(data, parts)
    counts = list(dict.fromkeys(class_count(text, data, eligible, path) for text in args.classes))
    output = args.output_dir / path.stem
    # finished runs are kept and not repeated, as long as everything that determines them is the same
    ledger = Ledger(Path(f"{output}-runs.pt"), code_fingerprint(__file__))
    inputs = {
        "masked": files.digest(path),
        "seed": args.seed,
        "torch": torch.__version__,
        "sklearn": sklearn.__version__,
    }
    runs, curves, kept = [], {}, 0
    with tqdm(total=len(counts) * args.repeats * len(args.methods), unit="run") as progress:
        for count in counts:
            for repeat in range(args.repeats):
                # one stream a (class count, repeat): more repeats, or another method, change no earlier draw
                random = np.random.default_rng([args.seed, count, repeat])
                chosen = np.sort(random.choice(eligible, count, replace=False))
                seed = int(random.integers(2**31))
                for method in args.methods:
                    progress.set_description(f"{count} classes, draw {repeat + 1}/{args.repeats}, {method}")
                    run = inputs | {"method": method, "classes": count, "repeat": repeat}
                    like = {"scores": [0.0] * len(METRICS), "sizes": [0, 0], "seconds": 0.0}
                    if method == "mlp":
                        run |= {name: getattr(args, name) for name in MLP_SETTINGS} | {"device": device.type}
                        like["curve"] = torch.empty(args.epochs, 4, dtype=torch.float64)
                    result = ledger.get(run, like)
                    new = result is None
                    if new:
                        start = time.perf_counter()
                        curve = {}
                        if method == "mlp":
                            scores, sizes, losses = run_mlp(args, data, parts, chosen, seed, device)
                            curve = {"curve": torch.from_numpy(losses)}
                        else:
                            scores, sizes = run_trees(method, data, chosen, seed)
                        seconds = round(time.perf_counter() - start, 2)
                        result = {"scores": list(scores.values()), "sizes": list(sizes), "seconds": seconds} | curve
                        ledger.add(run, result)
                    if method == "mlp":
                        curves.setdefault(count, []).append(result["curve"].numpy())
                    names = " ".join(data.classes[label].replace(" ", "_") for label in chosen)
                    columns = [path.name, method, count, repeat]
                    runs.append([*columns, *result["scores"], *result["sizes"], result["seconds"], names])
                    kept += not new
                    if new:
                        write_tables(output, runs)
                    progress.update()

    if kept:
        print(f"{kept} of {len(runs)} runs were finished before and kept ({output}-runs.pt)")
    table = write_tables(output, runs)
    pictures = [Path(f"{output}.png")]
    figures.score_bars(table, f"{path.name}: mean and deviation of {args.repeats} draws", pictures[0])
    curves_picture = Path(f"{output}-curves.png")
    if curves:
        pictures.append(curves_picture)
        figures.training_curves(curves, curves_picture)
    else:
        curves_picture.unlink(missing_ok=True)  # an earlier run's would not belong to this table
    print_table(table)
    print(f"table: {output}.csv; every run: {output}-runs.csv; pictures: {', '.join(map(str, pictures))}")


def run_mlp(
    args: argparse.Namespace, data: MaskedSet, parts: dict, chosen: np.ndarray, seed: int, device: torch.device
) -> tuple[dict[str, float], tuple[int, int], np.ndarray]:
    """Train the MLP on some classes; test scores, (training, test) rows, and its curve.

    The curve is ``[epochs, 4]``: training loss, validation loss, training accuracy, validation accuracy.
    """
    rows = {name: rows[torch.isin(data.labels[rows], torch.from_numpy(chosen))] for name, rows in parts.items()}
    labels = {name: torch.searchsorted(torch.from_numpy(chosen), data.labels[rows[name]]).to(device) for name in rows}
    features = {name: data.features(rows[name]).to(device) for name in rows}
    deviation, mean = torch.std_mean(features["train"], 0, correction=0)
    features = {name: (part - mean) / deviation.clamp_min(1e-6) for name, part in features.items()}
    torch.manual_seed(seed)
    model = MaskClassifier(features["train"].shape[1], len(chosen)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)

    images = ImageViews(data.source[rows["train"]])
    curve = []
    for _ in tqdm(range(args.epochs), desc="mlp", unit="epoch", leave=False):
        total_loss = torch.zeros((), device=device)
        correct = torch.zeros((), device=device, dtype=torch.int64)
        # a last incomplete mini-batch is dropped, unless it is all there is
        order = images.draw()[: images.count // args.batch_size * args.batch_size or images.count]
        for batch in order.to(device).split(args.batch_size):
            logits = model(features["train"][batch])
            loss = F.cross_entropy(logits, labels["train"][batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += loss.detach() * len(batch)
            correct += (logits.argmax(1) == labels["train"][batch]).sum()
        schedule.step()
        model.eval()
        with torch.inference_mode():
            logits = model(features["validation"])
            validation_loss = F.cross_entropy(logits, labels["validation"]).item()
            validation_accuracy = (logits.argmax(1) == labels["validation"]).float().mean().item()
        model.train()
        seen = len(order)
        curve.append((total_loss.item() / seen, validation_loss, correct.item() / seen, validation_accuracy))
        if not np.isfinite(curve[-1]).all():
            raise InputError(
                f"--lr {args.lr}: the MLP's loss is not finite in epoch {len(curve)}; lower it, or see whether the "
                "masked vectors are of a sensible size"
            )

    model.eval()
    with torch.inference_mode():
        predictions = model(features["test"]).argmax(1)
    scores = classification_scores(labels["test"].cpu().numpy(), predictions.cpu().numpy())
    return scores, (len(rows["train"]), len(predictions)), np.array(curve)


class ImageViews:
    """Rows of a masked set, grouped by the image they are views of.

    Args:
        source: int64 ``[rows]``, the image of each row.
    """

    def __init__(self, source: Tensor):
        _, image, self._views = source.unique(return_inverse=True, return_counts=True)
        self._rows = image.argsort(stable=True)
        self._first = self._views.cumsum(0) - self._views
        self.count = len(self._views)

    def draw(self) -> Tensor:
        """One random row of every image, in random order: int64 ``[count]``."""
        chosen = self._first + (torch.rand(self.count, dtype=torch.float64) * self._views).long()
        return self._rows[chosen[torch.randperm(self.count)]]


def run_trees(method: str, data: MaskedSet, chosen: np.ndarray, seed: int) -> tuple[dict[str, float], tuple[int, int]]:
    """Fit a forest or AdaBoost on some classes; test scores and (training, test) rows."""
    of_classes = torch.isin(data.labels, torch.from_numpy(chosen))
    images = torch.nonzero(of_classes & (data.view == 0)).flatten()
    train, test = train_test_split(images, test_size=0.2, stratify=data.labels[images], random_state=seed)
    if (data.view > 0).any():  # copies follow their source
        copies = of_classes & (data.view > 0) & torch.isin(data.source, data.source[train])
        train = torch.cat((train, torch.nonzero(copies).flatten()))
    if method == "forest":
        model = RandomForestClassifier(ESTIMATORS, random_state=seed, n_jobs=-1)
    else:
        model = AdaBoostClassifier(n_estimators=ESTIMATORS, random_state=seed)

    try:
        model.fit(data.features(train).numpy(), data.labels[train].numpy())
    except ValueError as error:  # AdaBoost on masks that are all the same
        raise InputError(f"--methods {method}: cannot be fitted to these masks ({error}); leave it out") from None
    scores = classification_scores(data.labels[test].numpy(), model.predict(data.features(test).numpy()))
    return scores, (len(train), len(test))


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


def write_tables(output: Path, runs: list[list]) -> list[list]:
    """Write every run and their summary as CSV; returns the summary."""
    table = summarise(runs)
    files.write_csv(Path(f"{output}-runs.csv"), RUN_COLUMNS, runs)
    files.write_csv(Path(f"{output}.csv"), TABLE_COLUMNS, table)
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
    return text if text == "all" else str(cli.integer(2)(text))


def parse_arguments() -> argparse.Namespace:
    parser = cli.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--masked", type=Path, help="a masked file of mask_dataset.py; default: the newest in masked/")
    add("--classes", nargs="+", type=class_argument, default=["2", "3", "4"], help="classes a draw, or all")
    add("--repeats", type=cli.integer(1), default=10, help="random draws of the classes")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="classifiers to train")
    add("--output-dir", type=Path, default=Path("runs/classify"), help="where tables and pictures go")
    add("--epochs", type=cli.integer(1), default=50, help="the MLP's passes over its training rows")
    add("--batch-size", type=cli.integer(1), default=4, help="the MLP's mini-batch")
    add("--lr", type=cli.positive_float, default=1e-3, help="the MLP's learning rate (Adam)")
    parser.add_common()
    args = parser.parse_args()
    args.classes, args.methods = list(dict.fromkeys(args.classes)), list(dict.fromkeys(args.methods))
    return args


if __name__ == "__main__":
    cli.run(main)
