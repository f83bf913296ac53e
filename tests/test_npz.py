"""NumPy arrays: both layouts by value, and each array that is refused by name."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from maskbench import system
from maskbench.data import datasets
from maskbench.data.image_set import TEST, TRAIN, ImageSet
from maskbench.data.pixels import Reading
from maskbench.errors import InputError

VALUES = np.arange(20, dtype=np.uint8) * 10  # of each image
LABELS = np.arange(20) % 2 * 5 + 2  # 2 and 7
GREY = np.broadcast_to(VALUES[:, None, None], (20, 8, 8))


def load(path: Path, size: int = 8, **flags: object) -> ImageSet:
    return datasets.load(f"npz:{path}", image_size=size, reading=Reading(**flags))


def by_value(images: ImageSet, split: int | None = None) -> dict[int, str]:
    """Name of the class by the value of an image's first pixel."""
    chosen = range(len(images.labels)) if split is None else torch.nonzero(images.split == split).flatten().tolist()
    return {int(images.images[row, 0, 0, 0]): images.classes[images.labels[row]] for row in chosen}


WANTED = {int(value): str(label) for value, label in zip(VALUES, LABELS, strict=True)}


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (16, 24)])
def test_images_and_labels(tmp_path, shape, capsys):
    images = np.broadcast_to(VALUES.reshape(20, *[1] * len(shape)), (20, *shape))
    np.savez_compressed(tmp_path / "x.npz", images=images, labels=LABELS[:, None].astype(np.uint8))
    found = load(tmp_path / "x.npz")
    assert found.images.shape == (20, 3, 8, 8) and found.images.dtype == torch.uint8
    assert (found.images == found.images[:, :1, :1, :1]).all() and by_value(found) == WANTED
    assert found.classes == ["2", "7"] and found.split.tolist() == [TRAIN] * 16 + [TEST] * 4
    assert capsys.readouterr().out == ""
    assert torch.equal(found.images, load(tmp_path / "x.npz").images)


def test_channels_keep_their_colours_and_their_place(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(10) // 5)
    found = load(tmp_path / "x.npz").images
    as_set = {image.tobytes() for image in images.transpose(0, 3, 1, 2)}
    assert {image.numpy().tobytes() for image in found} == as_set


def test_split_and_classes(tmp_path, capsys):
    split = np.zeros((20, 1), np.int8)
    split[[0, 1, 8, 9]] = 1
    names = np.array(["می\u200cخواهم", "b"])  # noqa: RUF001 (Persian)
    np.savez(tmp_path / "x.npz", images=GREY, labels=LABELS // 7, split=split, classes=names, patients=np.arange(20))
    found = load(tmp_path / "x.npz")
    assert found.classes == names.tolist() and int((found.split == TEST).sum()) == 4
    assert by_value(found, TEST) == {0: names[0], 10: names[1], 80: names[0], 90: names[1]}
    assert capsys.readouterr().out == f"npz:{tmp_path}/x.npz: not read: patients\n"


@pytest.mark.parametrize("validation", [True, False, None])
def test_the_layout_of_medmnist(tmp_path, capsys, validation):
    parts = {"train": slice(0, 10), "val": slice(10, 14), "test": slice(14, 20)}
    if validation is None:
        parts["val"] = slice(0, 0)  # there, and empty
    elif not validation:
        del parts["val"]
    arrays = {f"{part}_images": GREY[rows] for part, rows in parts.items()}
    arrays |= {f"{part}_labels": LABELS[rows, None] for part, rows in parts.items()}
    np.savez(tmp_path / "x.npz", **arrays)
    found = load(tmp_path / "x.npz")
    assert by_value(found, TEST) == {value: name for value, name in WANTED.items() if value >= 140}
    known = range(0, 140 if validation else 100, 10)
    assert by_value(found, TRAIN) == {value: WANTED[value] for value in known}
    assert ("images of val join the training part" in capsys.readouterr().out) == bool(validation)
    labels = {name: array // 7 for name, array in arrays.items() if name.endswith("labels")}
    np.savez(tmp_path / "x.npz", **arrays | labels, classes=np.array(["two", "seven"]))
    assert load(tmp_path / "x.npz").classes == ["two", "seven"]


def test_values_of_other_kinds(tmp_path):
    path = tmp_path / "x.npz"

    def save(images: np.ndarray) -> None:
        np.savez(path, images=images, labels=LABELS)

    for dtype in (np.float16, np.float32, np.float64):
        save((GREY / 255).astype(dtype))
        assert by_value(load(path)) == WANTED
    save(GREY / 255 * 4095)
    with pytest.raises(InputError, match=r"images: is float64 with values from 0 to 3051.*--levels LOW HIGH"):
        load(path)
    assert by_value(load(path, levels=(0, 4095))) == WANTED
    save(GREY.astype(">u2"))
    with pytest.raises(InputError, match=r"is >u2 with values from 0 to 190|is uint16 with values from 0 to 190"):
        load(path)
    assert by_value(load(path, levels=(0, 255))) == WANTED
    save(GREY.astype(np.int64) - 100)
    assert by_value(load(path, levels=(-100, 155))) == WANTED
    save(GREY)
    assert by_value(load(path, levels=(0, 1))) == WANTED  # bytes stay as they are
    save(GREY >= 100)
    assert set(by_value(load(path))) == {0, 255}
    save((GREY >= 100).astype(np.uint8))  # black to the eye
    with pytest.raises(InputError, match=r"images: is uint8 with no value above 1.*as bool"):
        load(path)
    save(np.zeros_like(GREY))
    assert set(by_value(load(path))) == {0}
    save(np.where(GREY == 50, np.nan, 0.5))
    for flags in ({}, {"levels": (0, 1)}):
        with pytest.raises(InputError, match="not finite"):
            load(path, **flags)


def test_transparent_images_show_the_ground(tmp_path):
    images = np.zeros((20, 8, 8, 4), np.uint8)
    images[..., 3] = 255 * (np.arange(20) % 2)[:, None, None]
    images[..., 0] = 77  # hidden where nothing is to be seen
    np.savez(tmp_path / "x.npz", images=images, labels=LABELS)
    for ground, value in (("white", 255), ("black", 0)):
        found = load(tmp_path / "x.npz", ground=ground)
        for label, wanted in enumerate(([value] * 3, [77, 0, 0])):
            assert (found.images[found.labels == label] == torch.tensor(wanted)[:, None, None]).all()


GOOD = {"images": GREY, "labels": LABELS}
MEDMNIST = {"train_images": GREY, "train_labels": LABELS, "test_images": GREY, "test_labels": LABELS}
BAD = {
    "lacks labels": {"images": GREY},
    "lacks images": {"x_train": GREY, "y_train": LABELS},
    "lacks test_images and test_labels": {"train_images": GREY, "train_labels": LABELS},
    "lacks val_labels": MEDMNIST | {"val_images": GREY},
    "has images beside train_images": MEDMNIST | GOOD,
    "labels has the shape .20, 14.; give one number for each": GOOD | {"labels": np.zeros((20, 14), int)},
    "labels has the shape .19.; give one number": GOOD | {"labels": LABELS[:19]},
    "labels has the shape ..; give": GOOD | {"labels": np.array(3)},
    "brings the channels to the end": GOOD | {"images": np.zeros((20, 3, 8, 8), np.uint8)},
    "labels holds float64; give whole numbers, such as .astype.np.int64.": GOOD | {"labels": LABELS.astype(float)},
    "split holds text; give whole numbers: .split == 'test'.": GOOD | {"split": np.array(["train", "test"] * 10)},
    "labels holds Python objects": GOOD | {"labels": LABELS.astype(object)},
    "images holds Python objects": GOOD | {"images": GREY.astype(object)},
    "images has the shape .20, 3, 8, 8.; give": GOOD | {"images": np.zeros((20, 3, 8, 8), np.uint8)},
    "images has the shape .20, 64.; give": GOOD | {"images": np.zeros((20, 64), np.uint8)},
    "images has the shape .0, 8, 8.; give": GOOD | {"images": GREY[:0], "labels": LABELS[:0]},
    "images holds no numbers, but complex128": GOOD | {"images": GREY.astype(complex)},
    "transparent and not of uint8": GOOD | {"images": np.zeros((20, 8, 8, 4), np.float32)},
    "split has the shape .3.": GOOD | {"split": np.array([0, 1, 0])},
    "split must hold 0 .training. and 1 .test., both": GOOD | {"split": np.arange(20) % 3},
    "split must hold": GOOD | {"split": np.zeros(20, int)},
    "split holds float64": GOOD | {"split": np.arange(20) % 2 / 1},
    "class 7 has no images in the test part": GOOD | {"split": np.arange(20) % 4 == 0},
    "class 2 has no images in the training part": GOOD | {"split": np.arange(20) % 2 == 0},
    "classes must be text": GOOD | {"classes": np.arange(8)},
    "labels outside its 2 classes": GOOD | {"classes": np.array(["a", "b"])},
    "class a has no images": GOOD | {"classes": np.array(list("abcdefgh"))},
    r"class name 'a\\\\n' has control": GOOD | {"labels": LABELS // 7, "classes": np.array(["a\n", "b"])},
    "A and a are one name": GOOD | {"labels": LABELS // 7, "classes": np.array(["A", "a"])},
}


@pytest.mark.parametrize("complaint", BAD)
def test_arrays_that_are_refused(tmp_path, complaint):
    np.savez(tmp_path / "x.npz", **BAD[complaint])
    with pytest.raises(InputError, match=rf"x\.npz: .*{complaint}") as refusal:
        load(tmp_path / "x.npz")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["U", "S"])
def test_names_instead_of_numbers_are_refused_with_the_line_that_mends_it(tmp_path, kind):
    path, names = tmp_path / "x.npz", np.where(LABELS == 2, "two", "seven").astype(kind)
    np.savez(path, images=GREY, labels=names)
    with pytest.raises(InputError, match="labels holds text; give whole numbers: ") as refusal:
        load(path)
    line = str(refusal.value).split("numbers: ")[1].removesuffix(", and save both")
    arrays = {"np": np, "labels": names}
    exec(line, arrays)
    np.savez(path, images=GREY, labels=arrays["labels"], classes=arrays["classes"])
    assert by_value(load(path)) == {value: {"2": "two", "7": "seven"}[label] for value, label in WANTED.items()}
    np.savez(path, **MEDMNIST | {"train_labels": names})
    with pytest.raises(InputError, match=r"train_labels holds text; .*np\.searchsorted\(classes, train_labels"):
        load(path)


def test_files_that_are_refused(tmp_path):
    for name, content in {"torn.npz": b"PK\3\4torn", "empty.npz": b"", "pickle.npz": b"\x80\x04N."}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: damaged"):
            load(tmp_path / name)
    np.save(tmp_path / "one.npy", GREY)
    with pytest.raises(InputError, match=r"one\.npy: damaged, or not a file of np\.savez"):
        load(tmp_path / "one.npy")
    for missing in (tmp_path, tmp_path / "gone.npz"):
        with pytest.raises(InputError, match=r"--dataset npz:.* is not a file"):
            load(missing)
    np.savez(tmp_path / "x.npz", **GOOD)
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(data[:400] + bytes(20) + data[420:])
    with pytest.raises(InputError, match=r"x\.npz: damaged"):
        load(tmp_path / "x.npz")


def test_a_claimed_size_takes_no_memory(tmp_path, monkeypatch):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 1000, 1000)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("images.npy", header.getvalue())
        file.writestr("labels.npy", header.getvalue())
    with pytest.raises(InputError, match=r"x\.npz: its pixels take .*; keep fewer or smaller images in it"):
        load(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", **GOOD)
    monkeypatch.setattr(system, "memory", lambda: 10_000)
    with pytest.raises(InputError, match=r"y\.npz: images: its pixels take"):
        load(tmp_path / "y.npz", 16)
