"""Who is trained and who is tested on, where a leak would flatter every figure."""

from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import classify
from maskbench import ops
from maskbench.classification.draws import Draw, DrawData, data_parts, epoch_steps, mlp_data, tree_data
from maskbench.classification.features import ImageStream, reliability, standardised
from maskbench.classification.settings import Settings
from maskbench.data.masked_set import MaskedSet
from maskbench.models import ClassifierStack, MaskClassifier


def augmented_set() -> MaskedSet:
    """100 images of two classes, the last 20 for testing; each training image has one copy.

    The first number of every vector is the index of its source.
    """
    source = torch.cat((torch.arange(100), torch.arange(80)))
    return MaskedSet(
        method="aae",
        encoder="",
        dataset="digits",
        classes=["a", "b"],
        gaussian=torch.stack((source.float(), torch.randn(180)), 1),
        categorical=torch.zeros(180, 0),
        labels=source % 2,
        split=(source >= 80).to(torch.uint8),
        source=source,
        view=(torch.arange(180) >= 100).to(torch.uint8),
    )


def test_the_mlps_parts():
    data = augmented_set()
    parts = {name: data.source[rows] for name, rows in data_parts(data).items()}
    assert parts["validation"].tolist() == list(range(16))
    assert parts["test"].tolist() == list(range(80, 100))
    assert sorted(parts["train"].tolist()) == sorted([*range(16, 80)] * 2)


def test_trees_see_every_image_once_and_no_copies(monkeypatch):
    seen = {}

    class Recorder:
        def __init__(self, *arguments, **keywords):
            pass

        def fit(self, features, labels):
            seen["train"] = features[:, 0].astype(int)

        def predict(self, features):
            seen["test"] = features[:, 0].astype(int)
            return np.zeros(len(features))

    monkeypatch.setattr("sklearn.ensemble.RandomForestClassifier", Recorder)
    draw = tree_data(augmented_set(), Draw(np.array([0, 1]), seed=0))
    result = classify.run_trees("forest", draw, Settings())
    assert result["sizes"] == [len(seen["train"]), len(seen["test"])] and len(seen["test"]) == 20
    assert len(set(seen["test"])) == 20 and not set(seen["train"]) & set(seen["test"])
    assert set(seen["train"]) | set(seen["test"]) == set(range(100))
    assert len(seen["train"]) == 80


def train(data: MaskedSet, seeds: list[int], epochs: int = 5, compiled: bool | None = None) -> list[dict]:
    settings = Settings(epochs=epochs)
    parts = data_parts(data)
    draws = [mlp_data(data, parts, Draw(np.array([0, 1]), seed)) for seed in seeds]
    steps = epoch_steps(data, parts, 2, settings.batch_size)
    return classify.run_mlps(draws, steps, settings, torch.device("cpu"), compiled=compiled)


def test_a_separable_set_is_learnt():
    random = torch.Generator().manual_seed(0)
    data = augmented_set()
    data.gaussian[:, 0] = (data.labels * 2 - 1) * 2.0 + 0.1 * torch.randn(180, generator=random)
    for result in train(data, [0, 1]):
        assert result["scores"] == [1.0, 1.0, 1.0] and result["sizes"] == [128, 20]
        assert result["curve"].shape == (5, 4) and result["curve"][-1, 0] < result["curve"][0, 0]


def test_an_mlp_does_not_depend_on_those_beside_it():
    data = augmented_set()
    together, alone = train(data, [5, 6, 7], epochs=2), train(data, [6], epochs=2)
    torch.testing.assert_close(together[1]["curve"], alone[0]["curve"], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0]["curve"], together[1]["curve"], rtol=1e-3, atol=1e-3)


def test_compiled_or_not_an_mlp_learns_the_same():
    data = augmented_set()
    cpu = torch.device("cpu")
    assert Settings(batch_size=4).compiled(cpu) == (ops.backend("cpu") == "cpu")
    assert not Settings(batch_size=1024).compiled(cpu)
    as_it_is = train(data, [5], epochs=2)
    (result,), (plain,) = as_it_is, train(data, [5], epochs=2, compiled=False)
    torch.testing.assert_close(result["curve"], plain["curve"], rtol=1e-4, atol=1e-4)


def test_mlps_read_fresh_noise_of_a_quarter_and_a_whole_standard_deviation(monkeypatch):
    assert classify.NOISES == (0.25, 1.0)
    data, read, decays = augmented_set(), [], set()
    data.gaussian[:, 1] = 7.0  # tells nothing, and stays what it is

    def keep(model, optimizer, features, *_rest):
        read.append(features[0])
        decays.add(optimizer.param_groups[0]["weight_decay"])
        return torch.zeros(1), torch.zeros(1)

    monkeypatch.setattr(classify, "train_epoch", keep)
    monkeypatch.setattr(classify, "NOISES", (*classify.NOISES, 0.0))
    train(data, [5], epochs=40, compiled=False)
    *noisy, plain = torch.stack(read).chunk(3)
    parts = data_parts(data)
    deviation = standardised(mlp_data(data, parts, Draw(np.array([0, 1]), 5)))["train"].std(0, correction=0)
    varied = deviation > 0
    assert not varied[1] and decays == {1.0}  # 64 images
    for amount, features in zip((0.25, 1.0), noisy, strict=True):
        noise = ((features - plain)[..., varied] / deviation[varied]).flatten(0, 1)
        assert (features == plain)[..., ~varied].all()
        torch.testing.assert_close(noise.std(0), torch.full_like(noise[0], amount), rtol=0.05, atol=0)
        torch.testing.assert_close(noise.mean(0), torch.zeros_like(noise[0]), rtol=0, atol=0.06 * amount)
        assert not torch.equal(noise[: len(noise) // 2], noise[len(noise) // 2 :])


def test_the_mlp_of_less_validation_loss_is_tested():
    data = augmented_set()
    draws = [mlp_data(data, data_parts(data), Draw(np.array([0, 1]), seed)) for seed in (1, 2)]
    right = torch.stack([draw.labels["test"] for draw in draws])
    curves = torch.rand(2, 2, 5, 4, dtype=torch.float64)  # noises, draws, epochs
    curves[:, :, -1, 1] = torch.tensor([[0.3, 0.6], [0.4, 0.5]])  # the first is best with little noise
    fits = [(torch.stack((right[0], 1 - right[1])), curves[0]), (torch.stack((1 - right[0], right[1])), curves[1])]
    with mock.patch.object(classify, "fit_mlps", side_effect=fits):
        results = classify.run_mlps(draws, 1, Settings(), torch.device("cpu"))
    for number, result in enumerate(results):
        assert result["scores"] == [1.0, 1.0, 1.0]
        assert torch.equal(result["curve"], curves[number, number])


def test_weight_decay_falls_with_the_images():
    with mock.patch.object(torch.optim, "AdamW", side_effect=RuntimeError) as adam, pytest.raises(RuntimeError):
        draws = [mlp_data(augmented_set(), data_parts(augmented_set()), Draw(np.array([0, 1]), 0))]
        classify.run_mlps(draws, 1000, Settings(batch_size=4), torch.device("cpu"))
    assert adam.call_args.kwargs["weight_decay"] == 1000 / 4000


def alone_and_together(dtype: torch.dtype, steps: int) -> tuple[list[MaskClassifier], ClassifierStack]:
    """Three MLPs trained by themselves, in plain PyTorch, and as a stack."""
    torch.manual_seed(0)
    alone = [MaskClassifier(6, 3, hidden=8, dropout=0).to(dtype) for _ in range(3)]
    stack = ClassifierStack(alone)
    features, labels = torch.randn(3, steps * 4, 6, dtype=dtype), torch.randint(3, (3, steps * 4))
    for number, classifier in enumerate(alone):
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-2)
        for x, y in zip(features[number].split(4), labels[number].split(4), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(classifier(x), y).backward()
            optimizer.step()
    optimizer = torch.optim.AdamW(stack.parameters(), lr=1e-2)
    kept = stack.draw_dropout(steps, 4, [torch.Generator()] * 3).to(dtype)
    classify.train_epoch(stack, optimizer, features, labels, kept)
    return alone, stack


def layers(classifier: MaskClassifier) -> list[nn.Linear]:
    return [layer for layer in classifier.layers if isinstance(layer, nn.Linear)]


def test_a_stack_trains_as_each_would_alone():
    alone, stack = alone_and_together(torch.float64, steps=40)
    for number, classifier in enumerate(alone):
        for place, layer in enumerate(layers(classifier), 1):
            together = getattr(stack, f"weight{place}")[number].T, getattr(stack, f"bias{place}")[number, 0]
            torch.testing.assert_close(together, (layer.weight, layer.bias), rtol=1e-8, atol=1e-8)
    alone, stack = alone_and_together(torch.float32, steps=1)  # Adam turns noise in tiny gradients into full steps
    for number, classifier in enumerate(alone):
        for place, layer in enumerate(layers(classifier), 1):
            together = getattr(stack, f"weight{place}").grad[number].T, getattr(stack, f"bias{place}").grad[number, 0]
            torch.testing.assert_close(together, (layer.weight.grad, layer.bias.grad), rtol=1e-5, atol=1e-6)


def test_dropout_of_a_stack():
    stack = ClassifierStack([MaskClassifier(6, 3, hidden=500) for _ in range(2)])
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    kept = stack.draw_dropout(5, 4, generators)
    assert kept.shape == (5, 2, 2, 4, 500)
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 1 / 0.7]))
    assert abs(kept.mean() - 1) < 0.02
    again = stack.draw_dropout(5, 4, [torch.Generator().manual_seed(4)] * 2)
    assert torch.equal(kept[:, :, 1], again[:, :, 0]) and not torch.equal(kept[:, :, 0], again[:, :, 0])
    x = torch.randn(2, 4, 6)
    first = torch.baddbmm(stack.bias1, x, stack.weight1).relu() * kept[0, 0]
    second = torch.baddbmm(stack.bias2, first, stack.weight2).relu() * kept[0, 1]
    torch.testing.assert_close(stack(x, kept[0]), torch.baddbmm(stack.bias3, second, stack.weight3))


def test_the_mlp_sees_one_view_of_each_image_a_pass():
    source = torch.tensor([7, 3, 7, 9, 7, 3])  # three images of 3, 2 and 1 views
    stream = ImageStream(source, torch.Generator().manual_seed(0))
    parts = [stream.take(count) for count in (1, 4, 3, 8_992)]  # however it is taken
    drawn = torch.cat(parts).view(3000, 3)
    assert [len(part) for part in parts] == [1, 4, 3, 8_992]
    assert (source[drawn].sort(1).values == torch.tensor([3, 7, 9])).all()
    shares = torch.bincount(drawn.flatten(), minlength=6) / 3000
    expected = torch.tensor([1 / 3, 1 / 2, 1 / 3, 1, 1 / 3, 1 / 2])
    torch.testing.assert_close(shares, expected, atol=0.04, rtol=0)
    places = torch.bincount((source[drawn] == 9).nonzero()[:, 1], minlength=3) / 3000
    torch.testing.assert_close(places, torch.full((3,), 1 / 3), atol=0.04, rtol=0)


def test_losses_of_parts_of_unequal_length():
    logits = torch.randn(2, 4, 3)
    labels = torch.tensor([[0, 1, 2, 1], [2, 0, classify.NO_LABEL, classify.NO_LABEL]])
    logits[1, 1, 0] = 9  # right
    losses, accuracy = classify.loss_and_accuracy(logits, labels)
    torch.testing.assert_close(losses[0], F.cross_entropy(logits[0], labels[0]))
    torch.testing.assert_close(losses[1], F.cross_entropy(logits[1, :2], labels[1, :2]))
    expected = (logits[1, :2].argmax(1) == labels[1, :2]).float().mean()
    assert accuracy[1] == expected >= 0.5


def test_a_category_that_no_training_image_has_tells_the_mlp_nothing():
    train = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [4.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    test = torch.tensor([[2.0, 1.0, 1.0]])
    rows = {"train": torch.arange(4), "test": torch.arange(1)}
    draw = DrawData(count=2, seed=0, features={"train": train, "test": test}, labels=rows, source=rows)
    found = standardised(draw)
    assert found["train"][:, 2].eq(0).all() and found["test"][0, 2] == 0
    assert found["test"].abs().max() < 2


def test_reliability():
    random = torch.Generator().manual_seed(0)
    image = torch.randn(500, 3, generator=random).repeat(8, 1)
    noise = torch.randn(4000, 3, generator=random) * torch.tensor([0.0, 1.0, 1e3])
    features = image + noise
    features = (features - features.mean(0)) / features.std(0, correction=0)
    source = torch.arange(500).repeat(8)
    found = reliability(features, source)
    # eight views leave an eighth of the noise in their mean
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5 + 0.5 / 8, 1 / 8]), atol=0.03, rtol=0)
    torch.testing.assert_close(reliability(features, torch.arange(4000)), torch.ones(3))
