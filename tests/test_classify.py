"""Who is trained and who is tested on, where a leak would flatter every figure."""

import numpy as np
import torch

import classify
from maskbench.masked import MaskedSet


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
    parts = {name: data.source[rows] for name, rows in classify.data_parts(data).items()}
    assert parts["validation"].tolist() == list(range(16))
    assert parts["test"].tolist() == list(range(80, 100))
    assert sorted(parts["train"].tolist()) == sorted([*range(16, 80)] * 2)


def test_copies_follow_their_source_into_the_trees_training(monkeypatch):
    seen = {}

    class Recorder:
        def __init__(self, *arguments, **keywords):
            pass

        def fit(self, features, labels):
            seen["train"] = features[:, 0].astype(int)

        def predict(self, features):
            seen["test"] = features[:, 0].astype(int)
            return np.zeros(len(features))

    monkeypatch.setattr(classify, "RandomForestClassifier", Recorder)
    _, sizes = classify.run_trees("forest", augmented_set(), np.array([0, 1]), seed=0)
    assert sizes == (len(seen["train"]), len(seen["test"])) and len(seen["test"]) == 20
    assert len(set(seen["test"])) == 20 and not set(seen["train"]) & set(seen["test"])
    assert set(seen["train"]) | set(seen["test"]) == set(range(100))
    counts = np.bincount(seen["train"], minlength=100)
    assert all(counts[source] == (2 if source < 80 else 1) for source in set(seen["train"]))


def test_a_separable_set_is_learnt(tmp_path):
    random = torch.Generator().manual_seed(0)
    data = augmented_set()
    data.gaussian[:, 0] = (data.labels * 2 - 1) * 2.0 + 0.1 * torch.randn(180, generator=random)
    arguments = classify.argparse.Namespace(lr=1e-3, epochs=5, batch_size=4)
    parts = classify.data_parts(data)
    scores, sizes, curve = classify.run_mlp(arguments, data, parts, np.array([0, 1]), 0, torch.device("cpu"))
    assert scores == {"accuracy": 1.0, "precision": 1.0, "recall": 1.0}
    assert sizes == (128, 20) and curve.shape == (5, 4) and curve[-1, 0] < curve[0, 0]


def test_the_mlp_sees_one_view_of_each_image_an_epoch():
    torch.manual_seed(0)
    source = torch.tensor([7, 3, 7, 9, 7, 3])  # three images of 3, 2 and 1 views
    views = classify.ImageViews(source)
    drawn = torch.stack([views.draw() for _ in range(3000)])
    assert views.count == 3 and (source[drawn].sort(1).values == torch.tensor([3, 7, 9])).all()
    shares = torch.bincount(drawn.flatten(), minlength=6) / 3000
    expected = torch.tensor([1 / 3, 1 / 2, 1 / 3, 1, 1 / 3, 1 / 2])
    torch.testing.assert_close(shares, expected, atol=0.04, rtol=0)
    places = torch.bincount((source[drawn] == 9).nonzero()[:, 1], minlength=3) / 3000
    torch.testing.assert_close(places, torch.full((3,), 1 / 3), atol=0.04, rtol=0)
