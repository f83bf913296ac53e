"""Folders as people have them: what is a picture of which class, what is skipped and said, what is refused by name."""

import errno
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskbench.data import class_names, datasets, folder_files, folders
from maskbench.data.image_set import TEST, TRAIN, ImageSet
from maskbench.errors import InputError


def grey(path: Path, value: int, count: int = 1) -> None:
    """Pictures 0.png, 1.png, ... of one grey value in a folder."""
    path.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("L", (8, 8), value).save(path / f"{number}.png")


def load(root: Path, **how: object) -> ImageSet:
    return datasets.load(f"folder:{root}", image_size=8, **how)


def values(images: ImageSet, split: int | None = None) -> dict[str, list[int]]:
    """Of each class the grey values of its pictures, sorted."""
    chosen = torch.ones(len(images.labels), dtype=torch.bool) if split is None else images.split == split
    return {
        name: sorted(images.images[chosen & (images.labels == label)][:, 0, 0, 0].tolist())
        for label, name in enumerate(images.classes)
    }


def refusal(root: Path, **how: object) -> str:
    with pytest.raises(InputError) as stop:
        load(root, **how)
    return str(stop.value)


@pytest.fixture
def pets(tmp_path) -> Path:
    """Six pictures in two classes."""
    grey(tmp_path / "cats", 10, 3)
    grey(tmp_path / "dogs", 200, 3)
    return tmp_path


PETS = {"cats": [10] * 3, "dogs": [200] * 3}
LEFT = [
    *(".ipynb_checkpoints", ".git", ".Trash-1000", ".thumbnails", ".AppleDouble", "__MACOSX", "@eaDir", "#recycle"),
    *("$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbnails"),
    *(
        "~snapshot",
        "@Recently-Snapshot",
        "@tmp",
        "@__thumb",
        "Recycle Bin",
        "FOUND.012",
        "LOST.DIR",
        "thumbnail",
        "ipynb_checkpoints",
    ),
]


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("place", ["", "cats"])
def test_folders_of_systems_are_no_classes_and_double_nothing(pets, capsys, name, place):
    grey(pets / place / name / "deep", 99, 2)
    grey(pets / place / name, 99)
    images = load(pets)
    assert values(images) == PETS
    assert f"skipped 1 files or folders, hidden or left by a system: {Path(place, name)}\n" in capsys.readouterr().out


def test_files_of_systems_are_skipped_and_counted_in_one_line(pets, capsys):
    names = (
        "cats/._0.png",
        "cats/.hidden.jpg",
        "Thumbs.db",
        "dogs/desktop.ini",
        "dogs/.DS_Store",
        "DICOMDIR",
        "cats/0.png:Zone.Identifier",
        "cats/IMG_0001.AAE",
    )
    for name in names:
        (pets / name).write_bytes(bytes(82))
    assert values(load(pets)) == PETS
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and said[0].startswith(f"folder:{pets}: skipped 8 files or folders") and "..." in said[0]


def test_a_folder_of_pictures_alone_says_nothing(pets, capsys):
    load(pets)
    assert capsys.readouterr().out == ""


SPELLINGS = [
    ("train", "test"),
    ("Train", "Test"),
    ("TRAIN", "TEST"),
    ("training", "testing"),
    ("train_images", "test1"),
    tuple("".join(chr(ord(letter) + 0xFEE0) for letter in name) for name in ("train", "test")),  # wide letters
]


@pytest.mark.parametrize("train, test", SPELLINGS)
@pytest.mark.parametrize("validation", [None, "val", "Valid", "VALIDATION"])
def test_parts_are_parts_in_any_spelling_and_none_is_dropped(tmp_path, capsys, train, test, validation):
    for name, value in (("cats", 10), ("dogs", 200)):
        grey(tmp_path / train / name, value, 4)
        grey(tmp_path / test / name, value + 1, 2)
        if validation:
            grey(tmp_path / validation / name, value + 2, 3)
    images = load(tmp_path)
    more = 3 if validation else 0
    assert values(images, TRAIN) == {"cats": [10] * 4 + [12] * more, "dogs": [200] * 4 + [202] * more}
    assert values(images, TEST) == {"cats": [11] * 2, "dogs": [201] * 2}
    said = capsys.readouterr().out
    assert (f"{train} is the training part, {test} the test part" in said) == ((train, test) != ("train", "test"))
    assert (f"images of {validation} join the training part" in said) == bool(validation)


def test_parts_in_doubt_are_refused_by_name(tmp_path):
    for part in ("train", "test"):
        grey(tmp_path / part / "cats", 10, 2)
        grey(tmp_path / part / "dogs", 200, 2)
    load(tmp_path)
    doubts = {
        "Train/cats": "train and Train|Train and train",  # two of one part
        "masks/cats": "masks: is no part of the set, and stands beside train and test",
        "test/birds": "test/birds: .*train has no class folder of this name",
        "train/cats/val": "cats/val: is called like a part",
        "train/test": "train/test: is called like a part of a set, and stands among classes",
    }
    for place, complaint in doubts.items():
        grey(tmp_path / place, 10)
        with pytest.raises(InputError, match=complaint):
            load(tmp_path)
        for path in sorted((tmp_path / place).rglob("*")):
            path.unlink()
        (tmp_path / place).rmdir()
        if place.count("/") and not list((tmp_path / place).parent.iterdir()):
            (tmp_path / place).parent.rmdir()
    (tmp_path / "0.png").write_bytes((tmp_path / "train/cats/0.png").read_bytes())
    assert f"{tmp_path}/0.png: not an image in a class folder; move it into one, or away" in refusal(tmp_path)


LOOK_LIKE_PARTS = [
    *(("X_train", "X_test"), ("trainA", "testA"), ("imagesTr", "imagesTs"), ("train (1)", "val (1)")),
    *(("Xtrain", "Xtest"), ("dev", "eval"), ("fold1", "fold2", "fold3"), ("split_a", "split_b")),
    *(
        ("tr", "te"),
        ("Xtr", "Xte"),
        ("set1", "set2"),
        ("part1", "part2"),
        ("entrenamiento", "prueba"),
        ("treino", "teste"),
    ),
    *(("训练", "测试"), ("images", "masks"), ("original", "augmented")),
]


@pytest.mark.parametrize("names", LOOK_LIKE_PARTS)
def test_what_looks_like_parts_is_no_class(tmp_path, names):
    for name in names:
        grey(tmp_path / name / "cats", 10)
        grey(tmp_path / name / "dogs", 10)
    assert "look like parts; call them train and test" in refusal(tmp_path)


@pytest.mark.parametrize(
    "names", [("seg_train/seg_train", "seg_test/seg_test", "seg_pred"), ("X_train", "X_test", "plots")]
)
def test_a_folder_beside_what_looks_like_parts_changes_nothing(tmp_path, names):
    for name in names[:2]:
        grey(tmp_path / name / "cats", 10)
        grey(tmp_path / name / "dogs", 10)
    grey(tmp_path / names[2], 10)
    told = sorted(name.split("/")[0] for name in names[:2])
    assert f"{' and '.join(told)} look like parts; call them train and test" in refusal(tmp_path)


def test_a_test_tube_and_a_bullet_train_are_classes(tmp_path):
    for number, name in enumerate(("bullet train", "test tube", "cats")):
        grey(tmp_path / name, number)
    assert values(load(tmp_path)) == {"bullet train": [0], "cats": [2], "test tube": [1]}


@pytest.mark.parametrize("name", ["masks", "Labels", "segmented", "ground truth", "thumbs", "grayscale", "Original"])
def test_copies_and_outlines_beside_the_pictures_of_a_class_are_refused(tmp_path, name):
    """COVID-19 Radiography and its like."""
    grey(tmp_path / "dogs", 200)
    grey(tmp_path / "cats" / name / "deep", 99)
    assert values(load(tmp_path)) == {"cats": [99], "dogs": [200]}  # all there is
    grey(tmp_path / "cats" / "images", 10)
    assert f"cats/{name}: is called like copies or outlines of the pictures beside it" in refusal(tmp_path)
    (tmp_path / "cats" / "images").rename(tmp_path / "images")
    (tmp_path / "images" / "0.png").rename(tmp_path / "cats" / "0.png")
    (tmp_path / "images").rmdir()
    assert f"cats/{name}: is called like copies or outlines of the pictures beside it" in refusal(tmp_path)


def test_a_set_that_is_there_three_times_is_refused(tmp_path):
    """PlantVillage."""
    for copy in ("color", "grayscale", "segmented"):
        for name in ("apple", "grape"):
            grey(tmp_path / copy / name, 10)
    assert f"grayscale is called like a copy; choose one, such as folder:{tmp_path}/color" in refusal(tmp_path)
    assert load(tmp_path / "color").classes == ["apple", "grape"]


def test_classes_that_have_a_word_of_parts_are_classes(tmp_path):
    for number, name in enumerate(("test positive", "test negative")):
        grey(tmp_path / name, number)
    assert values(load(tmp_path)) == {"test negative": [1], "test positive": [0]}


def test_classes_that_hold_the_same_folders_are_classes(tmp_path):
    for number, name in enumerate(("with_mask", "without_mask")):
        for kind in ("men", "women"):
            grey(tmp_path / name / kind, number)
    assert values(load(tmp_path)) == {"with_mask": [0, 0], "without_mask": [1, 1]}


def test_two_kinds_of_trains_are_classes(tmp_path):
    for number, name in enumerate(("steam train", "toy train")):
        grey(tmp_path / name, number)
    assert values(load(tmp_path)) == {"steam train": [0], "toy train": [1]}


def test_classes_that_are_divided_in_the_same_way_are_classes(tmp_path):
    for number, name in enumerate(("benign", "malignant")):
        grey(tmp_path / name / "40X", number)
        grey(tmp_path / name / "100X", number + 10)
    assert values(load(tmp_path)) == {"benign": [0, 10], "malignant": [1, 11]}


def test_parts_among_classes_are_refused(pets):
    grey(pets / "test", 99, 2)  # a flat one without labels, as competitions have them
    assert f"{pets}/test: is called like a part" in refusal(pets)
    (pets / "test").rename(pets / "train")  # a train is a class of CIFAR-100, too
    assert values(load(pets)) == {**PETS, "train": [99, 99]}
    grey(pets / "train" / "cats", 99, 2)
    assert f"{pets}/train: is called like a part" in refusal(pets)


def test_deeper_folders_belong_to_their_class_and_it_is_said(pets, capsys):
    grey(pets / "cats" / "ward2" / "monday", 30, 2)
    assert values(load(pets))["cats"] == [10] * 3 + [30] * 2
    assert "2 images in deeper folders belong to the class folder above them" in capsys.readouterr().out


def test_a_folder_around_the_folder_is_refused(tmp_path):
    for name in ("cats", "dogs"):
        grey(tmp_path / "data" / name, 10, 3)
    assert f"say folder:{tmp_path}/data" in refusal(tmp_path)


def test_what_icloud_leaves_in_a_files_place_is_refused(pets):
    (pets / "cats" / ".7.png.icloud").write_bytes(b"bplist00")
    assert f"{pets}/cats/.7.png.icloud: stands for a file that is in iCloud alone; download it" in refusal(pets)


@pytest.mark.parametrize("content", [None, ".DS_Store", ".hidden/0.png"])
def test_a_class_folder_without_pictures_is_refused(pets, content):
    (pets / "birds").mkdir()
    if content:
        (pets / "birds" / content).parent.mkdir(exist_ok=True)
        (pets / "birds" / content).write_bytes(b"x")
    assert f"{pets}/birds: a class folder without images" in refusal(pets)


@pytest.mark.parametrize("workers", [0, 1])
def test_skipping_never_empties_a_class(pets, workers):
    for path in (pets / "dogs").iterdir():
        path.write_bytes(b"broken")
    assert f"folder:{pets}: none of the images of class dogs can be decoded" in refusal(
        pets, skip_corrupt=True, workers=workers
    )
    assert "class dogs" in refusal(pets, skip_corrupt=True, stream=True)
    grey(pets / "dogs", 200)
    assert values(load(pets, skip_corrupt=True)) == {"cats": [10] * 3, "dogs": [200]}


def test_skipping_never_empties_a_class_of_one_part(tmp_path):
    for part in ("train", "test"):
        grey(tmp_path / part / "cats", 10, 2)
        grey(tmp_path / part / "dogs", 200, 2)
    for path in (tmp_path / "test" / "cats").iterdir():
        path.write_bytes(b"broken")
    assert "class cats in the test part" in refusal(tmp_path, skip_corrupt=True)


def test_links(pets, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    grey(outside / "more", 60, 2)
    (pets / "cats" / "one.png").symlink_to(outside / "more" / "0.png")
    grey(outside / "birds", 50, 2)
    (pets / "birds").symlink_to(outside / "birds")
    assert values(load(pets)) == {"birds": [50, 50], "cats": [10, 10, 10, 60], "dogs": [200] * 3}
    # as git-annex keeps files
    grey(pets / ".git" / "annex", 70)
    (pets / "dogs" / "annexed.png").symlink_to("../.git/annex/0.png")
    assert values(load(pets))["dogs"] == [70, 200, 200, 200]
    bad = {
        "cats/up": (pets, "cats/up: is the same folder as"),
        "cats/above": (pets.parent, "cats/above: is a link that leads back up"),
        "cats/loop": ("loop", "cats/loop: "),
        "cats/nothing.png": ("gone.png", "cats/nothing.png: is a link to nothing"),
        "cats/twice.png": (pets / "dogs" / "0.png", "cats/twice.png: is a link to dogs/0.png"),
        "cats2": ("cats", "cats2: is the same folder as .*cats"),
        "more": (outside / "more", r"more: leads by a link to what .*cats/one\.png leads to"),
        "dogs/bird.png": (outside / "birds" / "0.png", r"bird\.png: leads by a link to what .*birds leads to"),
    }
    for name, (target, complaint) in bad.items():
        (pets / name).symlink_to(target)
        with pytest.raises(InputError, match=complaint):
            load(pets)
        (pets / name).unlink()


def test_what_is_no_file_is_refused_and_not_waited_for(pets, monkeypatch):
    os.mkfifo(pets / "cats" / "pipe.png")
    assert "cats/pipe.png: is neither a file nor a folder" in refusal(pets)
    (pets / "cats" / "pipe.png").unlink()
    monkeypatch.chdir(pets)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("dogs/s.png")
        assert "dogs/s.png: is neither a file nor a folder" in refusal(pets)


@pytest.mark.parametrize("name", ["cats", "cats/ward2"])
def test_folders_that_may_not_be_read_are_refused(pets, monkeypatch, name):
    grey(pets / "cats" / "ward2", 30)
    scandir = os.scandir  # as root nothing is forbidden

    def denied(path):
        if Path(path) == pets / name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert f"{pets / name}: cannot be listed (Permission denied)" in refusal(pets)


def cannot_open(name: str, code: int, monkeypatch) -> None:
    """From now on the system refuses to open pictures of this name."""
    opened = Image.open

    def refuse(path, *arguments, **options):
        if Path(path).name == name:
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Image, "open", refuse)


def test_files_that_may_not_be_read_are_not_corrupt(pets, monkeypatch):
    cannot_open("1.png", errno.EACCES, monkeypatch)
    assert "1.png: may not be read" in refusal(pets) and "1.png: may not be read" in refusal(pets, skip_corrupt=True)


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EMFILE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ENXIO])
def test_an_error_of_the_system_is_no_corrupt_picture(pets, monkeypatch, code):
    """As of a network disk that does not answer: the pictures are good, and --skip-corrupt leaves none of them out."""
    cannot_open("1.png", code, monkeypatch)
    assert f"1.png: could not be read ({os.strerror(code)}); mend that" in refusal(pets, skip_corrupt=True)


def test_a_place_before_the_start_of_a_file_is_of_a_corrupt_picture(pets, monkeypatch):
    cannot_open("1.png", errno.EINVAL, monkeypatch)
    assert len(values(load(pets, skip_corrupt=True))["cats"]) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_the_memory_is_not_enough_for_is_not_corrupt(pets, monkeypatch, workers):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(folders, "decode", fail)
    said = refusal(pets, skip_corrupt=True, workers=workers)
    assert "png: this machine's memory is not enough for it; use fewer --workers" in said


TEXT = [
    "chest\u00a0xray",
    "肺\u3000野",
    "می\u200cخواهم",  # noqa: RUF001 (Persian)
    "👩\u200d⚕️",
    "a\u00adb",
    "Kätzchen",
    "x" * 80,
    "a'b\"c,d;e",
    "שלום\u200f",
]
NO_TEXT = [
    "a\nb",
    "a\tb",
    "a\x1b[2J",
    "a\x7f",
    "a\x9b",
    "a\u2028b",
    "a\u202eb",
    "a\u2066b",
    os.fsdecode(b"K\xe4tzchen"),
]


@pytest.mark.parametrize("name", TEXT)
def test_names_of_classes_in_every_script_are_kept(pets, name):
    (pets / "cats").rename(pets / name)
    assert class_names.is_text(name) and set(load(pets).classes) == {name, "dogs"}


@pytest.mark.parametrize("name", NO_TEXT)
def test_names_of_classes_that_are_no_text_are_refused_before_work(pets, monkeypatch, name):
    (pets / "cats").rename(pets / name)
    monkeypatch.setattr(folder_files._Search, "_add_class", lambda *_: pytest.fail("began"))
    said = refusal(pets)
    assert class_names.is_text(said) and "rename the folder" in said
    assert f"{pets}/{class_names.shown(name)}: a class whose name" in said


def test_names_are_shown_as_escapes():
    assert class_names.shown(os.fsdecode(b"K\xe4tz")) == r"K\xe4tz" and class_names.shown("a\nb") == r"a\nb"


ALIKE = [
    ("Cats", "cats"),
    ("STRASSE", "straße"),
    ("e\u0301", "\u00e9"),
    ("a b", "a\u00a0b"),
    ("cat", "cat "),
    ("A", "\uff21"),
]


@pytest.mark.parametrize("pair", ALIKE)
def test_classes_of_one_name_but_for_case_blanks_or_accents_are_refused(tmp_path, pair):
    for name in pair:
        grey(tmp_path / name, 10, 2)
    assert "are one name but for case, blanks or accents" in refusal(tmp_path)


COPIES = "{} - Copy", "{} - Copy (2)", "{} copy", "{} copy 2", "{} (copy)", "{} (2)", "Copy of {}", "{} — копия"


@pytest.mark.parametrize("name", COPIES)
def test_a_class_that_is_called_as_systems_call_a_copy_of_another_is_refused(tmp_path, name):
    grey(tmp_path / "dark", 10, 2)
    grey(tmp_path / name.format("red"), 20, 2)
    assert datasets.load(f"folder:{tmp_path}").classes == sorted(["dark", name.format("red")])  # of no other
    grey(tmp_path / "red", 20, 2)
    assert f"{name.format('red')} is called like a copy of red; move it away" in refusal(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_names_of_files_may_be_anything(pets, capsys, workers):
    for name in (b"kaputt\xe9.png", b"new\nline.png", b"UPPER.PNG", b"a b\xc2\xa0c.png"):
        with open(os.path.join(os.fsencode(pets / "cats"), name), "wb") as file:
            file.write((pets / "cats" / "0.png").read_bytes())
    assert values(load(pets, workers=workers))["cats"] == [10] * 7
    for path in (pets / "cats").iterdir():
        if path.stem.isdecimal() or path.name == "UPPER.PNG":
            continue
        path.write_bytes(b"broken")
    assert values(load(pets, workers=workers, skip_corrupt=True))["cats"] == [10] * 4
    said = capsys.readouterr().out
    said.encode()  # a terminal can show it
    assert len(said.splitlines()) == 3 and "kaputt?.png" in said


@pytest.mark.parametrize(
    "name, hint",
    [
        ("a.heic", "JPEG or PNG"),
        ("a.NEF", "develop"),
        ("a.pdf", "draw it"),
        ("a.npz", "npz:FILE"),
        ("a.nii.gz", "slices"),
        ("a.mp4", "frames"),
        ("a.zip", "unpack"),
        ("IM0001", "ending"),
        ("notes.txt", "convert it, to PNG"),
    ],
)
def test_what_is_refused_says_how_to_convert(pets, name, hint):
    (pets / "cats" / name).write_bytes(b"x")
    assert f"{name}: not an image in a class folder; " in refusal(pets) and hint in refusal(pets)


def test_the_order_of_a_folder_never_changes(tmp_path):
    for name in ("b", "a"):
        grey(tmp_path / name, 10, 2)
        grey(tmp_path / name / "deep", 10)
    files = folder_files.find(tmp_path)
    assert [files.paths[number] for number in range(len(files.paths))] == [
        *("a/0.png", "a/1.png", "a/deep/0.png", "b/0.png", "b/1.png", "b/deep/0.png")
    ]
    assert list(files.labels) == [0, 0, 0, 1, 1, 1] and np.array_equal(files.sizes, [6])


def test_a_folder_without_a_path_is_refused():
    with pytest.raises(InputError, match="--dataset folder: names no folder"):
        datasets.load("folder:")


def test_a_picture_linked_from_both_parts_is_refused(tmp_path):
    grey(tmp_path / "elsewhere", 7)
    (picture,) = (tmp_path / "elsewhere").iterdir()
    for part in ("train", "test"):
        grey(tmp_path / "set" / part / "cats", 1)
        grey(tmp_path / "set" / part / "dogs", 2)
    (tmp_path / "set/train/cats/linked.png").symlink_to(picture)
    assert 7 in values(load(tmp_path / "set"))["cats"]
    (tmp_path / "set/test/cats/linked.png").symlink_to(picture)
    found = refusal(tmp_path / "set")
    assert f"set/test/cats/linked.png: is the same file as {tmp_path}/set/train/cats/linked.png, by a link" in found
