"""How fast are the MLPs of repeated draws, beside one after another and scikit-learn's?

    python benchmarks/classify.py          # 1, 3, 10 and 30 repeats of three classes
    python benchmarks/classify.py --save   # also into results/speed.md

Peers, on synthetic masks of 404 numbers, 400 training images a class, mini-batches of 4, hidden layers of 256:

  maskbench          classify.py: each repeat in compiled code, one a core
  stacks             its other way, which a GPU takes: PyTorch trains up to ten repeats together
  one after another  the same, each repeat alone
  textbook           a DataLoader, an nn.Sequential and torch.optim.Adam, each repeat alone
  MLPClassifier      scikit-learn's, each repeat alone

The limit is a step's arithmetic, 2 operations a weight and row in every product and 12 a weight for AdamW, at the rate
of the machine's products of matrices.
"""

import functools
import importlib.util
import sys

import common
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neural_network import MLPClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from maskbench.classification.draws import data_parts, draw_classes, epoch_steps, mlp_data
from maskbench.classification.features import standardised
from maskbench.classification.jobs import STACK, Run, finish
from maskbench.classification.settings import Settings
from maskbench.data.masked_set import MaskedSet
from maskbench.models import MaskClassifier
from maskbench.storage.tables import markdown

REPEATS = (1, 3, 10, 30)
EPOCHS, BATCH, CLASSES = 2, 4, 3
OF_A_CLASS = 600  # images, 100 of them for testing
SECONDS = 100.0  # for a line's peers together
CORES = torch.get_num_threads()
SETTINGS = Settings(epochs=EPOCHS, batch_size=BATCH)

# the script of this name, which an import would not find from here
specification = importlib.util.spec_from_file_location("classify_script", common.ROOT / "classify.py")
script = sys.modules["classify_script"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(script)
script.NOISES = script.NOISES[:1]  # peers train one MLP a repeat


def main() -> None:
    args = common.parser(__doc__, SECONDS).parse_args()
    device = torch.device("cpu")
    rate = common.matrix_rate(device)
    lines = [*common.header(device), f"- products of 1024 x 1024 matrices: {rate / 1e9:.0f} GFLOP/s", ""]
    data = synthetic()
    parts = data_parts(data)
    cells, rows = [], []
    for repeats in REPEATS:
        draws = [draw_classes(0, np.arange(len(data.classes)), CLASSES, repeat) for repeat in range(repeats)]
        peers = {
            "maskbench": functools.partial(as_it_is, data, parts, draws),
            "stacks": functools.partial(stacked, data, parts, draws, STACK),
            "one after another": functools.partial(stacked, data, parts, draws, 1),
            "textbook": lambda draws=draws: [textbook(data, parts, draw) for draw in draws],
            "MLPClassifier": lambda draws=draws: [sklearns(data, parts, draw) for draw in draws],
        }
        times = common.take_turns(peers, device, args.seconds, turns=3)
        layers = [layer.weight for layer in MaskClassifier(data.width, CLASSES).layers if hasattr(layer, "weight")]
        products = 3 * sum(weight.numel() for weight in layers) - layers[0].numel()  # nothing is behind the first
        operations = 2 * BATCH * products + 12 * sum(weight.numel() for weight in layers)
        limit = repeats * EPOCHS * epoch_steps(data, parts, CLASSES, BATCH) * operations / rate
        reached = f"{limit:.2f} s ({limit / times['maskbench'][0]:.0%} reached)"
        cells.append([f"{repeats}", *common.against(times, "one after another", 1, "s"), reached])
        rows += [("classify", name, repeats, f"seconds, {EPOCHS} epochs", *figure) for name, figure in times.items()]
    lines.append(markdown(["repeats", *peers, "limit"], cells))
    print("\n".join(lines))
    if args.save:
        common.save("classify", f"The MLPs of `classify.py`, {EPOCHS} epochs", lines, rows, device)


def synthetic() -> MaskedSet:
    """Ten classes of noise around a mean each."""
    labels = torch.arange(10 * OF_A_CLASS) % 10
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(10, 404, generator=generator)
    codes = 0.2 * means[labels] + torch.randn(len(labels), 404, generator=generator)
    return MaskedSet(
        method="aae",
        encoder="0" * 64,
        dataset="synthetic",
        classes=[str(label) for label in range(10)],
        gaussian=codes[:, :384].contiguous(),
        categorical=codes[:, 384:].contiguous(),
        labels=labels,
        split=(torch.arange(len(labels)) >= 10 * (OF_A_CLASS - 100)).to(torch.uint8),
        source=torch.arange(len(labels)),
        view=torch.zeros(len(labels), dtype=torch.uint8),
    )


def as_it_is(data: MaskedSet, parts: dict, draws: list) -> None:
    runs = [Run(CLASSES, repeat, "mlp") for repeat in range(len(draws))]
    of_repeats = {(CLASSES, repeat): draw for repeat, draw in enumerate(draws)}
    for _ in finish(script.run_task, data, parts, of_repeats, runs, SETTINGS, torch.device("cpu")):
        pass


def stacked(data: MaskedSet, parts: dict, draws: list, size: int) -> None:
    steps = epoch_steps(data, parts, CLASSES, BATCH)
    for first in range(0, len(draws), size):
        of_stack = [mlp_data(data, parts, draw) for draw in draws[first : first + size]]
        script.run_mlps(of_stack, steps, SETTINGS, torch.device("cpu"), CORES, compiled=False)


def textbook(data: MaskedSet, parts: dict, draw) -> None:
    torch.set_num_threads(CORES)  # as it comes; the script chooses for itself
    of_draw = mlp_data(data, parts, draw)
    features, labels = standardised(of_draw), of_draw.labels
    loader = DataLoader(TensorDataset(features["train"], labels["train"]), BATCH, shuffle=True, drop_last=True)
    layers = [nn.Linear(data.width, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.3)]
    model = nn.Sequential(*layers, nn.Linear(256, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        model.train()
        for masks, targets in loader:
            loss = F.cross_entropy(model(masks), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            F.cross_entropy(model(features["validation"]), labels["validation"])
    with torch.no_grad():
        model(features["test"]).argmax(1)


def sklearns(data: MaskedSet, parts: dict, draw) -> None:
    of_draw = mlp_data(data, parts, draw)
    features, targets = standardised(of_draw), of_draw.labels["train"].numpy()
    model = MLPClassifier((256, 256), batch_size=BATCH, learning_rate_init=1e-3, max_iter=EPOCHS, random_state=0)
    classes = np.arange(CLASSES)
    for _ in range(EPOCHS):
        model.partial_fit(features["train"].numpy(), targets, classes=classes)
    model.predict(features["test"].numpy())


if __name__ == "__main__":
    main()
