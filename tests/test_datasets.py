"""Every dataset by its contract; the real ones where data/ has them."""

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from maskbench import system
from maskbench.data import bundled_sets, datasets
from maskbench.data.folders import FolderImages
from maskbench.data.image_set import TEST, TRAIN, ImageSet, resize
from maskbench.errors import InputError

REAL = ROOT / "data"


def needs(name: str):
    return pytest.mark.skipif(not (REAL / name).exists(), reason=f"data/{name} is not there")


def write_folder(root: Path, per_class: int = 10) -> None:
    """Two classes of plain pictures, grey and RGB, of several sizes."""
    for label, colour in enumerate(("dark", "light")):
        (root / colour).mkdir(parents=True)
        for number in range(per_class):
            mode, value = (("L", 200 * label), ("RGB", (200 * label, 10, 10)))[number % 2]
            Image.new(mode, (20 + number, 30), value).save(root / colour / f"{number}.png")


def test_photos():
    photos = datasets.load("photos")
    assert photos.images.shape == (22_000, 3, 32, 32) and photos.images.dtype == torch.uint8
    train, validation = datasets.autoencoder_split(photos)
    assert (len(train), len(validation)) == (20_000, 2_000)
    assert torch.equal(datasets.load("photos").images, photos.images)


def test_photos_regions_do_not_meet(monkeypatch):
    columns = np.broadcast_to((np.arange(640) // 4)[:, None], (427, 640, 3)).astype(np.uint8)
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: SimpleNamespace(images=[columns, columns]))
    photos = bundled_sets.photos(32)
    assert photos.images[photos.split == TRAIN].max() == 127  # columns 0 to 511
    assert photos.images[photos.split == TEST].min() == 128


def test_digits():
    digits = datasets.load("digits")
    assert digits.images.shape == (1_797, 3, 32, 32)
    assert (int((digits.split == TRAIN).sum()), int((digits.split == TEST).sum())) == (1_437, 360)
    assert digits.classes == [str(digit) for digit in range(10)]
    assert torch.equal(digits.images[:, 0], digits.images[:, 2])  # grey became RGB
    assert digits.images.max() == 255 and digits.images.min() == 0


def test_autoencoder_split_is_fixed_and_limited():
    digits = datasets.load("digits")
    train, validation = datasets.autoencoder_split(digits)
    assert len(validation) == 1_437 // 5 and not set(train.tolist()) & set(validation.tolist())
    assert (digits.split[torch.cat((train, validation))] == TRAIN).all()
    small_train, small_validation = datasets.autoencoder_split(digits, limit=100)
    assert torch.equal(small_train, train[:100]) and torch.equal(small_validation, validation[:25])


@pytest.mark.parametrize("workers", [0, 2])
def test_folder(tmp_path, workers):
    write_folder(tmp_path / "pictures")
    (tmp_path / "pictures" / "dark" / ".DS_Store").write_bytes(b"what a desktop leaves")
    pictures = datasets.load(f"folder:{tmp_path / 'pictures'}", image_size=16, workers=workers)
    assert pictures.images.shape == (20, 3, 16, 16) and pictures.classes == ["dark", "light"]
    assert int((pictures.split == TEST).sum()) == 4
    assert torch.equal(pictures.labels, (pictures.images[:, 0].float().mean((1, 2)) > 100).long())
    assert set(pictures.labels[:8].tolist()) == {0, 1}  # shuffled: the first fifth is not one class


def test_folder_with_its_own_test_part(tmp_path):
    write_folder(tmp_path / "train", 5)
    write_folder(tmp_path / "test", 3)
    pictures = datasets.load(f"folder:{tmp_path}", image_size=8)
    assert pictures.split.tolist() == [TRAIN] * 10 + [TEST] * 6


@pytest.mark.parametrize("workers", [0, 1])
def test_folder_refuses_what_is_no_image(tmp_path, workers):
    write_folder(tmp_path)
    for name in ("dark/torn.png", "dark/notes.txt", "stray.txt"):
        path = tmp_path / name
        path.write_text("not an image")
        with pytest.raises(InputError, match=name) as refusal:
            datasets.load(f"folder:{tmp_path}", workers=workers)
        assert "Traceback" not in str(refusal.value)
        path.unlink()
    deep = tmp_path / "dark" / "deep.png"
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(deep)
    with pytest.raises(InputError, match="more than 8 bits"):
        datasets.load(f"folder:{tmp_path}", workers=workers)
    deep.unlink()
    with pytest.raises(InputError, match="is not a folder"):
        datasets.load(f"folder:{tmp_path}/missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        datasets.load(f"folder:{tmp_path}")


def test_a_picture_that_is_refused_leaves_no_worker_behind(tmp_path):
    pytest.importorskip("distributed")  # which lets errors come from a worker with the frames that they passed
    write_folder(tmp_path)
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "dark" / "deep.png")
    with pytest.raises(InputError, match="more than 8 bits"):
        datasets.load(f"folder:{tmp_path}", workers=1)
    assert not multiprocessing.active_children()


def test_python_exits_where_a_stream_of_pictures_is_not_read_to_its_end(tmp_path):
    write_folder(tmp_path)
    program = (
        "import sys, torch; from maskbench.data import datasets\n"
        "pictures = datasets.load(f'folder:{sys.argv[1]}', workers=1, stream=True)\n"
        "batches = pictures.images.stream(torch.arange(20).split(1))\n"
        "print(next(batches).shape)"
    )
    command = [sys.executable, "-c", program, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "torch.Size([1, 3, 32, 32])\n" and done.returncode == 0


def test_what_stands_in_a_picture_does_not_depend_on_how_the_camera_was_held(tmp_path):
    pixels = np.zeros((24, 16, 3), np.uint8)
    pixels[:8] = 250  # bright at the top
    upright = Image.fromarray(pixels)
    turned = upright.transpose(Image.Transpose.ROTATE_90)  # as a sensor on its side saw it
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to see it"
    (tmp_path / "class").mkdir()
    for number in range(5):
        upright.save(tmp_path / "class" / f"{number}-upright.png")
        turned.save(tmp_path / "class" / f"{number}-turned.png", exif=exif)
    images = datasets.load(f"folder:{tmp_path}", image_size=16).images
    assert (images == images[0]).all() and images[0, :, :4].min() > 240 and images[0, :, 8:].max() < 10


@pytest.fixture
def little_memory(monkeypatch):
    """Room for 10 images of 16 x 16 and no more."""
    monkeypatch.setattr(system, "memory", lambda: 20 * 3 * 16**2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_larger_than_memory_is_decoded_when_needed(tmp_path, little_memory, workers):
    write_folder(tmp_path / "few", 2)
    assert isinstance(datasets.load(f"folder:{tmp_path / 'few'}", image_size=16).images, torch.Tensor)
    write_folder(tmp_path / "many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "memory", lambda: 2**30)
        whole = datasets.load(f"folder:{tmp_path / 'many'}", image_size=16)
    lazy = datasets.load(f"folder:{tmp_path / 'many'}", image_size=16, workers=workers)
    assert isinstance(whole.images, torch.Tensor) and isinstance(lazy.images, FolderImages)
    assert lazy.images.shape == whole.images.shape and lazy.classes == whole.classes
    assert torch.equal(lazy.labels, whole.labels) and torch.equal(lazy.split, whole.split)
    assert not list(datasets.batches(whole.images, torch.arange(0), 3))
    order = torch.tensor([7, 3, 3, 19, 0, 1, 2])
    for few, many in zip(
        datasets.batches(lazy.images, order, 3), datasets.batches(whole.images, order, 3), strict=True
    ):
        assert torch.equal(few, many)
    part = datasets.select(lazy.images, order)
    assert torch.equal(part[:4], whole.images[order[:4]])
    with pytest.raises(InputError, match="memory"):
        lazy.images[:]


def test_files_of_a_folder_are_told_apart_by_names_and_sizes(tmp_path, little_memory):
    write_folder(tmp_path)

    def fingerprint() -> str:
        return datasets.load(f"folder:{tmp_path}", image_size=16).images.fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    Image.new("RGB", (100, 30), (3, 2, 1)).save(tmp_path / "dark" / "0.png")
    changed = fingerprint()
    (tmp_path / "dark" / "0.png").rename(tmp_path / "dark" / "00.png")
    assert len({before, changed, fingerprint()}) == 3


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_images_are_refused_or_listed_and_skipped(tmp_path, capsys, request, large, workers):
    if large:
        request.getfixturevalue("little_memory")
    write_folder(tmp_path)
    name = f"folder:{tmp_path}"
    whole = datasets.load(name, image_size=16, workers=workers)
    torn = [tmp_path / "dark" / "3.png", tmp_path / "light" / "8.png"]
    for path in torn:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"(3|8)\.png: cannot be read .* --skip-corrupt"):
        for _ in datasets.batches(datasets.load(name, image_size=16, workers=workers).images, torch.arange(20), 5):
            pass
    capsys.readouterr()
    rest = datasets.load(name, image_size=16, workers=workers, skip_corrupt=True)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    assert len(said) == 2 and all(any(str(path) in line for line in said) for path in torn)
    assert "--skip-corrupt" not in "".join(said)
    assert len(rest.images) == len(rest.labels) == len(rest.split) == 18
    # the others keep their order and their part
    kept = [row for row in range(20) if not any(str(path) == path_of(whole, tmp_path, row) for path in torn)]
    assert torch.equal(rest.labels, whole.labels[kept]) and torch.equal(rest.split, whole.split[kept])
    assert rest.images[:3].float().mean((1, 2, 3)).gt(50).tolist() == rest.labels[:3].bool().tolist()
    for path in tmp_path.rglob("*.png"):
        path.write_text("torn")
    with pytest.raises(InputError, match="none of its images"):
        datasets.load(name, image_size=16, skip_corrupt=True)


def path_of(images: ImageSet, root: Path, row: int) -> str:
    """The file that a row of a folder of two classes with ten files each was read from."""
    order = np.random.RandomState(0).permutation(20)
    return str(root / images.classes[order[row] // 10] / f"{order[row] % 10}.png")


def test_folder_of_other_parts_is_refused(tmp_path):
    write_folder(tmp_path / "train", 5)
    with pytest.raises(InputError, match="must be called train and test"):
        datasets.load(f"folder:{tmp_path}")
    write_folder(tmp_path / "val", 3)
    with pytest.raises(InputError, match="train and val"):
        datasets.load(f"folder:{tmp_path}")


def test_resize_keeps_flat_areas_and_averages():
    flat = torch.full((2, 1, 28, 28), 77, dtype=torch.uint8)
    assert (resize(flat, 32) == 77).all()
    checkers = torch.from_numpy(np.indices((64, 64)).sum(0) % 2 * 255).to(torch.uint8)[None, None]
    assert (resize(checkers, 8).float() - 127.5).abs().max() <= 20  # antialiased, not sampled


def test_damaged_files_are_refused(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03")
    with pytest.raises(InputError, match="MNIST are damaged"):
        datasets.load("mnist", tmp_path)


def test_files_that_may_not_be_read_are_not_damaged(tmp_path, monkeypatch):
    def denied(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "data_batch_1")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", denied)
    with pytest.raises(PermissionError):  # which ends in a line that names the file
        datasets.load("cifar10", tmp_path)


@needs("cifar-10-batches-py")
def test_cifar10_split():
    cifar = datasets.load("cifar10", REAL)
    train, validation = datasets.autoencoder_split(cifar)
    assert (len(train), len(validation)) == (40_000, 10_000)
    assert len(torch.cat((train, validation)).unique()) == 50_000
    assert train[:3].tolist() == [20330, 17532, 45819]


@needs("cifar-100-python")
def test_cifar100():
    cifar = datasets.load("cifar100", REAL)
    assert cifar.images.shape == (60_000, 3, 32, 32) and len(cifar.classes) == 100
    assert torch.bincount(cifar.labels).tolist() == [600] * 100


@needs("MNIST")
def test_mnist_is_rgb_32():
    mnist = datasets.load("mnist", REAL)
    assert mnist.images.shape == (70_000, 3, 32, 32) and len(mnist.classes) == 10
    assert int((mnist.split == TEST).sum()) == 10_000
