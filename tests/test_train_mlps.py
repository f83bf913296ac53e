"""An epoch of the classifier's MLPs by the compiled kernels against classify.train_epoch, plain PyTorch."""

import pytest
import torch
from ops_common import needs_kernels

import classify
from maskbench import ops
from maskbench.models import ClassifierStack, MaskClassifier

pytestmark = needs_kernels


def mlps(dtype: torch.dtype, features: int = 6, hidden: int = 8, classes: int = 3, dropout: float = 0.3):
    """Three MLPs and their optimiser."""
    torch.manual_seed(0)
    stack = ClassifierStack([MaskClassifier(features, classes, hidden, dropout) for _ in range(3)]).to(dtype)
    return stack, torch.optim.AdamW(stack.parameters(), lr=1e-2, weight_decay=0.1)


def epoch_of(stack: ClassifierStack, steps: int, batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """``features, labels, kept``."""
    generators = [torch.Generator().manual_seed(seed + number) for number in range(3)]
    features, classes = stack.weight1.shape[1], stack.weight3.shape[2]
    rows = torch.randn(3, steps * batch, features, generator=generators[0], dtype=torch.float64).to(stack.weight1)
    labels = torch.randint(classes, (3, steps * batch), generator=generators[0])
    return rows, labels, stack.draw_dropout(steps, batch, generators).to(rows)


def state_of(stack: ClassifierStack, optimizer: torch.optim.AdamW) -> list[torch.Tensor]:
    moments = [optimizer.state[weight][name] for weight in stack.parameters() for name in ("exp_avg", "exp_avg_sq")]
    return [*(weight.detach() for weight in stack.parameters()), *moments]


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 64])
@pytest.mark.parametrize(("features", "hidden", "classes"), [(6, 8, 3), (1, 1, 1), (5, 70, 2), (404, 256, 100)])
def test_train_mlps_matches_pytorch(each_path, features, hidden, classes, batch):
    steps = 20 if features < 404 else 4

    def two_epochs(train) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        stack, optimizer = mlps(torch.float64, features, hidden, classes)
        losses, accuracies = [], []
        for number, rate in enumerate((1e-2, 3e-3)):
            optimizer.param_groups[0]["lr"] = rate
            loss, accuracy = train(stack, optimizer, *epoch_of(stack, steps, batch, seed=number))
            losses.append(loss)
            accuracies.append(accuracy.float())
        assert all(state["step"] == 2 * steps for state in optimizer.state.values())
        return [*losses, *state_of(stack, optimizer)], accuracies

    expected, right = two_epochs(classify.train_epoch)
    for results, accuracies in each_path(lambda: two_epochs(lambda _, *epoch: ops.train_mlps(*epoch))).values():
        torch.testing.assert_close(results, expected, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(accuracies, right, rtol=1e-6, atol=0)


def test_train_mlps_matches_pytorch_in_float32():
    """At the first step, as AdamW then turns rounding noise in tiny gradients into full steps."""
    stack, optimizer = mlps(torch.float32, 404, 256, 10)
    twin, its_optimizer = mlps(torch.float32, 404, 256, 10)
    epoch = epoch_of(stack, 1, 4)
    losses, accuracies = ops.train_mlps(optimizer, *epoch)
    expected = classify.train_epoch(twin, its_optimizer, *epoch)
    torch.testing.assert_close((losses, accuracies), expected, rtol=1e-5, atol=0)
    for weight, other in zip(stack.parameters(), twin.parameters(), strict=True):
        gradient, oracle = optimizer.state[weight]["exp_avg"], its_optimizer.state[other]["exp_avg"]
        assert (gradient - oracle).abs().max() <= 1e-5 * oracle.abs().max() and oracle.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_train_mlps_gives_the_same_bits_on_every_path_and_any_threads(each_path, dtype):
    def run() -> list[torch.Tensor]:
        stack, optimizer = mlps(dtype, 37, 75, 5)
        results = ops.train_mlps(optimizer, *epoch_of(stack, 30, 5))
        return [*results, *state_of(stack, optimizer)]

    first, *others = each_path(run).values()
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            others.append(run())
    finally:
        torch.set_num_threads(threads)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_train_mlps_does_not_hide_not_a_number():
    stack, optimizer = mlps(torch.float32)
    features, *others = epoch_of(stack, 20, 4)
    features[1] = float("nan")
    losses, _ = ops.train_mlps(optimizer, features, *others)
    assert losses.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (0, lambda x: x[0], "features must be"),
        (0, lambda x: x.double(), "features' dtype"),
        (0, lambda x: x[:, :, :5], "weight 0"),
        (1, lambda x: x.int(), "labels must be int64"),
        (1, lambda x: x[:, :-1], "labels must be int64"),
        (2, lambda x: x[:19], "76 rows of 19 steps of 4, got 80"),
        (2, lambda x: x[..., :7], "weight 0"),
        (2, lambda x: x[:, :1], "kept"),
    ],
)
def test_train_mlps_says_what_is_wrong(place, wrong, message):
    stack, optimizer = mlps(torch.float32)
    epoch = list(epoch_of(stack, 20, 4))
    epoch[place] = wrong(epoch[place])
    before = [weight.clone() for weight in stack.parameters()]
    with pytest.raises(ValueError, match=message):
        ops.train_mlps(optimizer, *epoch)
    assert all(torch.equal(a, b) for a, b in zip(before, stack.parameters(), strict=True))


@pytest.mark.parametrize("value", [-100, 3])
def test_train_mlps_refuses_labels_that_there_are_not(value):
    stack, optimizer = mlps(torch.float32)
    epoch = epoch_of(stack, 20, 4)
    epoch[1][2, -1] = value
    with pytest.raises(IndexError, match=f"labels: class {value} of 3"):
        ops.train_mlps(optimizer, *epoch)


def test_train_mlps_takes_plain_adamw():
    stack, _ = mlps(torch.float32)
    with pytest.raises(ValueError, match="amsgrad"):
        ops.train_mlps(torch.optim.AdamW(stack.parameters(), amsgrad=True), *epoch_of(stack, 20, 4))
