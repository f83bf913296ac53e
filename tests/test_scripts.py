"""The four scripts, run whole as a user runs them, and everything a user can get wrong."""

import csv
import math
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_TRAINING, TRAINING, Forked
from PIL import Image
from sklearn.datasets import load_sample_images

from maskbench import system
from maskbench.data import datasets
from maskbench.data.image_set import to_float
from maskbench.data.views import random_views
from maskbench.models import PRESETS, Encoder, checkpoints
from train_aae import disagreement

PNG = b"\x89PNG"
PAPER_TABLE = {"train": "0.003543", "validation": "0.003550", "patterns": "0.001811"}


def rows(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_training_leaves_everything(workplace):
    for instance in ("0", "1"):
        folder = workplace / "runs" / "aae" / instance
        metrics = rows(folder / "metrics.csv")
        assert list(metrics[0]) == [
            "epoch",
            "reconstruction_loss",
            "discriminator_loss",
            "gaussian_discriminator_loss",
            "categorical_discriminator_loss",
            "generator_loss",
            "validation_mse",
            "images_per_second",
        ]
        assert [row["epoch"] for row in metrics] == ["1", "2"]
        assert 0.1 > float(metrics[0]["validation_mse"]) > float(metrics[1]["validation_mse"])
        for picture in ("losses.png", "reconstructions.png"):
            assert (folder / picture).read_bytes().startswith(PNG)
        for name, mode in (("encoder.pt", 0o644), ("decoder.pt", 0o600), ("checkpoint.pt", 0o600)):
            assert stat.S_IMODE((folder / name).stat().st_mode) & 0o777 & ~0o022 == mode
            torch.load(folder / name, weights_only=True)
        assert list((folder / "tensorboard").glob("events*"))
        assert not list(folder.glob(".*"))  # no temporary file stays behind


def test_encoder_and_decoder_have_one_contrast(workplace):
    both = [torch.load(workplace / "runs" / "aae" / "0" / f"{name}.pt", weights_only=True)["state_dict"]
            for name in ("encoder", "decoder")]  # fmt: skip
    for name in ("contrast.log_power", "contrast.log_scale"):
        assert both[0][name] != 0 and torch.equal(both[0][name], both[1][name])


@pytest.mark.usefixtures("undrawn")
def test_losses_move_as_in_the_paper_and_without_its_weight_the_prior_is_lost(run_here, tmp_path):
    """Figs 5 to 7: rebuilding and generating losses fall, the discriminators' loss rises towards undecided, 4 ln 2."""
    told, powers = {}, {}
    for weight in (1, 0):
        flags = ("--preset", "paper", "--dataset", "photos", "--limit", 500, "--image-size", 16)
        flags += ("--prior-weight", weight)
        run_here("train_aae.py", *flags, "--epochs", 2 + weight, "--output-dir", f"{weight}")
        table = rows(tmp_path / f"{weight}" / "0" / "metrics.csv")
        told[weight] = {name: [float(row[name]) for row in table] for name in table[0]}
        encoder, _ = checkpoints.load_encoder(tmp_path / f"{weight}" / "0" / "encoder.pt")
        powers[weight] = encoder.contrast.log_power.item()
    loss = told[1]
    for name in ("reconstruction_loss", "validation_mse", "generator_loss"):
        assert loss[name][0] > loss[name][-1], (name, loss[name])
    assert loss["discriminator_loss"][0] < loss["discriminator_loss"][-1] < 4 * math.log(2) + 0.1
    parts = zip(loss["gaussian_discriminator_loss"], loss["categorical_discriminator_loss"], strict=True)
    assert [sum(both) for both in parts] == pytest.approx(loss["discriminator_loss"])
    assert told[0]["discriminator_loss"][-1] < 0.8 * loss["discriminator_loss"][-1]
    assert powers[0] == 0 != powers[1]  # the adversary's to learn
    run_here("mask_dataset.py", "--dataset", "digits", "--encoder", "1/0/encoder.pt")
    categorical = torch.load(tmp_path / "masked" / "digits.pt", weights_only=True)["categorical"]
    assert ((categorical == 0) | (categorical == 1)).all() and (categorical.sum(1) == 1).all()


@pytest.mark.usefixtures("undrawn")
def test_one_epoch_of_preset_invariant_raises_the_agreement(run_here, tmp_path):
    """By photographs and views that no training showed. The losses go on to fall; the decoder learns beside it."""
    small = ("--limit", 512, "--batch-size", 32, "--image-size", 16)
    run_here("train_aae.py", "--preset", "invariant", "--dataset", "photos", *small, "--epochs", 1)
    trained, _, _ = checkpoints.load_in_training(tmp_path / "runs" / "aae" / "0" / "checkpoint.pt")
    torch.manual_seed(0)
    untrained = Encoder(preset="invariant", image_size=16)
    photos = datasets.load("photos", image_size=16)
    images = to_float(datasets.select(photos.images, datasets.autoencoder_split(photos, 2000)[1]))
    views = random_views(images, torch.arange(len(images)), 1, 1)
    with torch.no_grad():
        before, after = (disagreement(x.heads(images), x.heads_of_views(views)) for x in (untrained, trained.train()))
    assert after < 0.85 * before
    run_here("train_aae.py", "--preset", "invariant", "--dataset", "photos", *small, "--epochs", 2, "--resume")
    table = rows(tmp_path / "runs" / "aae" / "0" / "metrics.csv")
    loss = {name: [float(row[name]) for row in table] for name in table[0]}
    for name in ("agreement_loss", "reconstruction_loss"):
        assert loss[name][0] > loss[name][-1], (name, loss[name])
    run_here("mask_dataset.py", "--dataset", "digits", "--limit", 200)
    masked = torch.load(tmp_path / "masked" / "digits.pt", weights_only=True)
    assert masked["gaussian"].shape[1] == PRESETS["invariant"]["gaussian_dim"]
    assert ((masked["categorical"] == 0) | (masked["categorical"] == 1)).all()


@pytest.mark.usefixtures("undrawn")
def test_instances_differ_and_repeat(run_here, workplace, tmp_path):
    def weights(folder: Path, instance: int) -> dict[str, torch.Tensor]:
        return torch.load(folder / "runs" / "aae" / str(instance) / "encoder.pt", weights_only=True)["state_dict"]

    run_here("train_aae.py", *TRAINING, "--epochs", 2, "--seed", 1)
    first, second, alone = weights(workplace, 0), weights(workplace, 1), weights(tmp_path, 0)
    assert not torch.equal(first["gaussian.weight"], second["gaussian.weight"])
    for name in second:  # instance 1 of --seed 0 is instance 0 of --seed 1
        assert torch.equal(second[name], alone[name]), name


@pytest.mark.usefixtures("undrawn")
def test_a_finished_training_is_prolonged(run_here, refused, tmp_path):
    def checkpoint() -> dict:
        return torch.load(tmp_path / "runs" / "aae" / "0" / "checkpoint.pt", weights_only=True)

    arguments = SMALL_TRAINING
    run_here("train_aae.py", *arguments, "--epochs", 1)
    refused("train_aae.py", *arguments, "--epochs", 2, naming="--resume")
    refused("train_aae.py", *arguments, "--lr", 0.1, "--resume", naming="--lr")
    (tmp_path / "runs" / "aae" / "0" / "encoder.pt").unlink()  # as if stopped between two files
    run_here("train_aae.py", *arguments, "--epochs", 1, "--resume")
    assert (tmp_path / "runs" / "aae" / "0" / "encoder.pt").exists()
    first = checkpoint()
    run_here("train_aae.py", *arguments, "--epochs", 2, "--resume")
    (tmp_path / "spare").mkdir()
    (tmp_path / "runs" / "aae" / "0" / "checkpoint.pt").rename(tmp_path / "spare" / "checkpoint.pt")
    refused("train_aae.py", *arguments, "--resume", naming="decoder.pt")  # the key would be lost
    (tmp_path / "spare" / "checkpoint.pt").rename(tmp_path / "runs" / "aae" / "0" / "checkpoint.pt")
    second = checkpoint()
    assert second["history"][:1] == first["history"] and len(second["history"]) == 2
    assert [of["states"]["prior"]["rng_state"].tolist() for of in (first, second)] == [[0, 32], [0, 64]]


def test_masked_file_holds_latents_and_no_pixels(workplace):
    content = torch.load(workplace / "masked" / "digits.pt", weights_only=True)
    assert content["gaussian"].shape == (1_797, 384) and content["categorical"].shape == (1_797, 20)
    assert set(content) == {
        "format",
        "version",
        "method",
        "encoder",
        "dataset",
        "classes",
        "gaussian",
        "categorical",
        "labels",
        "split",
        "source",
        "view",
    }
    size = (workplace / "masked" / "digits.pt").stat().st_size
    assert size < 1_797 * (404 * 4 + 8 + 8 + 1 + 1) + 20_000  # nothing but the declared fields
    torch.testing.assert_close(content["categorical"].sum(1), torch.ones(1_797))
    assert content["source"].tolist() == list(range(1_797)) and int(content["split"].sum()) == 360


def test_augmented_views(run_here, workplace, tmp_path):
    encoder = workplace / "runs" / "aae" / "0" / "encoder.pt"
    arguments = ("--dataset", "digits", "--encoder", encoder, "--limit", 40, "--output", "a.pt", "--augment")
    run_here("mask_dataset.py", *arguments, "flip", "shift", "--copies", 3)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.bincount(content["view"]).tolist() == [50, 40, 40, 40]
    assert (content["split"][content["view"] > 0] == 0).all()
    copies = content["view"] == 1
    assert torch.equal(content["labels"][copies], content["labels"][:40])
    assert not torch.equal(content["gaussian"][copies], content["gaussian"][:40])


@pytest.mark.parametrize(
    ("method", "width"), [("identity", 3072), ("pca", 404), ("random-projection", 404), ("untrained", 384)]
)
def test_baselines(run_here, tmp_path, method, width):
    side = 16 if method == "pca" else 32  # the covariance of 3,072 pixels would take it eight seconds
    arguments = ("--dataset", "digits", "--method", method, "--fit-on", "photos", "--image-size", side)
    run_here("mask_dataset.py", *arguments)
    content = torch.load(tmp_path / "masked" / f"digits-{method}.pt", weights_only=True)
    assert content["method"] == method
    assert content["gaussian"].shape == (1_797, width)
    assert content["categorical"].shape == (1_797, 20 if method == "untrained" else 0)
    if method == "identity":
        assert torch.equal(content["gaussian"], to_float(datasets.load("digits").images).flatten(1))


def test_classify_leaves_everything(workplace):
    folder = workplace / "runs" / "classify"
    table = rows(folder / "digits.csv")
    assert list(table[0]) == ["method", "classes", "metric", "mean", "std", "draws"]
    assert [(row["method"], row["metric"]) for row in table] == [
        (method, metric) for method in ("mlp", "forest", "adaboost") for metric in ("accuracy", "precision", "recall")
    ]
    runs = rows(folder / "digits-runs.csv")
    assert len(runs) == 6
    for row in table:
        values = [float(run[row["metric"]]) for run in runs if run["method"] == row["method"]]
        assert float(row["mean"]) == pytest.approx(np.mean(values)) and float(row["std"]) == pytest.approx(
            np.std(values)
        )
        assert float(row["mean"]) > 0.6  # three digits: chance is 0.33
    draws = {(run["repeat"], run["class_names"]) for run in runs}
    assert len(draws) == 2  # every method saw the same classes
    assert "masked/digits.pt" in (workplace / "classify.txt").read_text()
    for picture in ("digits.png", "digits-curves.png"):
        assert (folder / picture).read_bytes().startswith(PNG)


def test_more_repeats_begin_with_the_same_draws(run_here, workplace, tmp_path):
    arguments = ("--masked", workplace / "masked" / "digits.pt", "--methods", "forest", "--output-dir", ".")
    run_here("classify.py", *arguments, "--classes", 2, 3, "--repeats", 3, "--estimators", 20)
    few = rows(workplace / "runs" / "classify" / "digits-runs.csv")
    many = [run for run in rows(tmp_path / "digits-runs.csv") if run["classes"] == "3"]
    columns = ("class_names", "accuracy", "precision", "recall")
    first = [[run[c] for c in columns] for run in few if run["method"] == "forest"]
    assert first == [[run[c] for c in columns] for run in many[:2]]
    run_here("classify.py", *arguments, "--classes", "all", "--repeats", 1)
    assert rows(tmp_path / "digits-runs.csv")[0]["class_names"] == "0 1 2 3 4 5 6 7 8 9"


def test_crosspair_leaves_everything(workplace):
    folder = workplace / "runs" / "crosspair"
    table = {(row["images"], row["pair"]): row for row in rows(folder / "crosspair.csv")}
    assert list(table) == [(i, p) for i in ("patterns", "train", "validation") for p in ("matched", "unmatched")]
    pairs = rows(folder / "pairs.csv")
    for images in PAPER_TABLE:
        for pair in ("matched", "unmatched"):
            chosen = [
                row
                for row in pairs
                if row["images"] == images and (row["encoder"] == row["decoder"]) == (pair == "matched")
            ]
            means, deviations = ([float(row[column]) for row in chosen] for column in ("mean", "std"))
            row = table[images, pair]
            assert float(row["mean"]) == pytest.approx(np.mean(means))
            # the deviation of all values together: within the pairs and between them
            assert float(row["std"]) == pytest.approx(np.sqrt(np.mean(np.square(deviations)) + np.var(means)))
        assert float(table[images, "unmatched"]["mean"]) > float(table[images, "matched"]["mean"])
        assert PAPER_TABLE[images] in (workplace / "crosspair.txt").read_text()
    grids = sorted(path.name for path in folder.glob("grid-*.png"))
    assert len(grids) == 6 and all((folder / name).read_bytes().startswith(PNG) for name in grids)


def test_a_folder_goes_all_the_way(run_here, tmp_path):
    random = np.random.default_rng(0)
    for label, colour in enumerate(("dark", "light")):
        (tmp_path / "pictures" / colour).mkdir(parents=True)
        for number in range(30):
            pixels = random.integers(100 * label, 100 * label + 100, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / colour / f"{number}.png")
    sizes = ("--image-size", 16, "--preset", "paper", "--gaussian-dim", 24)
    run_here("train_aae.py", "--dataset", "folder:pictures", "--epochs", 1, *sizes)
    run_here("mask_dataset.py", "--dataset", "folder:pictures")
    content = torch.load(tmp_path / "masked" / "pictures.pt", weights_only=True)
    assert content["dataset"] == "folder" and str(tmp_path) not in str(content)
    run_here("classify.py", "--classes", "all", "--repeats", 1, "--epochs", 5)
    assert all(float(row["mean"]) > 0.8 for row in rows(tmp_path / "runs" / "classify" / "pictures.csv"))


def photographs(folder: Path, count: int) -> None:
    """JPEG files of two kinds, cut from scikit-learn's photographs, upright and on their side."""
    random = np.random.default_rng(0)
    for name, photograph in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            top, left = random.integers(0, 200), random.integers(0, 400)
            picture = Image.fromarray(photograph[top : top + 220, left : left + 230])
            exif = Image.Exif()
            if number % 3 == 0:
                picture, exif[0x0112] = picture.transpose(Image.Transpose.ROTATE_90), 6
            picture.save(folder / name / f"{number}.jpg", exif=exif)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("preset", ["paper", "invariant"])
def test_photographs_of_96_pixels_go_all_the_way(run_here, tmp_path, preset):
    photographs(tmp_path / "photographs", 80)
    sizes = ("--image-size", 96, "--preset", preset, "--gaussian-dim", 32, "--workers", 1)
    epochs = 5 if preset == "paper" else 1
    run_here("train_aae.py", "--dataset", "folder:photographs", *sizes, "--epochs", epochs, "--batch-size", 8)
    mse = [float(row["validation_mse"]) for row in rows(tmp_path / "runs" / "aae" / "0" / "metrics.csv")]
    assert preset == "invariant" or (mse[-1] < 0.09 and mse[-1] < 0.8 * mse[0]), mse
    run_here("mask_dataset.py", "--dataset", "folder:photographs")
    run_here("classify.py", "--classes", "all", "--repeats", 1, "--epochs", 20, "--methods", "mlp")
    table = rows(tmp_path / "runs" / "classify" / "photographs.csv")
    assert all(float(row["mean"]) > 0.8 for row in table), table


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("side", [16, 64])
def test_the_default_trains_on_grey_images_of_other_sizes(run_here, tmp_path, side):
    flags = ("--image-size", side, "--gaussian-dim", 32, "--batch-size", 32, "--epochs", 2, "--limit", 256)
    run_here("train_aae.py", "--dataset", "digits", *flags)
    agreement = [float(row["agreement_loss"]) for row in rows(tmp_path / "runs" / "aae" / "0" / "metrics.csv")]
    assert agreement[1] < agreement[0]  # nan is not


def test_training_on_a_folder_larger_than_memory(run_here, monkeypatch, tmp_path, capsys):
    photographs(tmp_path / "photographs", 20)
    arguments = ("--dataset", "folder:photographs", "--image-size", 16, "--preset", "paper", "--batch-size", 8)
    states = {}
    for name, memory in (("whole", 2**30), ("streamed", 20_000)):
        monkeypatch.setattr(system, "memory", lambda memory=memory: memory)
        run_here("train_aae.py", *arguments, "--epochs", 2, "--output-dir", name)
        states[name] = torch.load(tmp_path / name / "0" / "encoder.pt", weights_only=True)["state_dict"]
        run_here("mask_dataset.py", "--dataset", "folder:photographs", "--encoder", f"{name}/0/encoder.pt")
        (tmp_path / "masked" / "photographs.pt").rename(tmp_path / f"{name}.pt")
    assert all(torch.equal(value, states["streamed"][key]) for key, value in states["whole"].items())
    assert (tmp_path / "whole.pt").read_bytes() == (tmp_path / "streamed.pt").read_bytes()
    assert len({bool(path.stat().st_size) for path in tmp_path.glob("*/0/reconstructions.png")}) == 1
    # what begins on a machine with little memory goes on where there is more
    capsys.readouterr()
    monkeypatch.setattr(system, "memory", lambda: 2**30)
    run_here("train_aae.py", *arguments, "--epochs", 3, "--output-dir", "streamed", "--resume")
    assert "that these are the same images is not checked" in capsys.readouterr().out


@pytest.fixture
def refused(run_here, tmp_path, capsys):
    """Runs a script that must end with status 2 and one line naming what is wrong, and write nothing."""

    def check(script: str, *arguments: object, naming: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            run_here(script, *arguments)
        errors = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2 and len([line for line in errors if "error" in line]) == 1, errors
        assert errors[-1].startswith(f"{script}: error: ") and naming in errors[-1], errors
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.mark.parametrize(
    ("script", "arguments", "naming"),
    [
        ("train_aae.py", ["--epochs", 0], "--epochs"),
        ("train_aae.py", ["--epochs", "many"], "--epochs"),
        ("train_aae.py", ["--lr", -1], "--lr"),
        ("train_aae.py", ["--dataset", "imagenet"], "imagenet"),
        ("train_aae.py", ["--dataset", "folder:nowhere"], "nowhere"),
        ("train_aae.py", ["--image-size", 30], "--image-size"),
        ("train_aae.py", ["--image-size", 512, "--dataset", "photos"], "--image-size"),
        ("train_aae.py", ["--dataset", "digits", "--limit", 8], "too few"),
        ("train_aae.py", ["--bath-size", 8], "--bath-size"),
        ("train_aae.py", ["--seed", 10**20], "--seed"),
        ("train_aae.py", ["--gaussian-dim", 10**8], "--gaussian-dim"),
        ("mask_dataset.py", ["--encoder", "missing.pt"], "missing.pt: no such file"),
        ("mask_dataset.py", ["--encoder", "hello.pt"], "hello.pt: damaged"),
        ("mask_dataset.py", ["--dataset", "imagenet", "--method", "identity"], "imagenet"),
        ("mask_dataset.py", ["--method", "pca", "--fit-on", "nothing"], "--fit-on nothing"),
        ("mask_dataset.py", ["--method", "identity", "--dataset", "digits", "--output", "."], "--output"),
        ("classify.py", [], "masked/"),
        ("classify.py", ["--masked", "missing.pt"], "missing.pt"),
        ("classify.py", ["--masked", "hello.pt"], "hello.pt"),
        ("classify.py", ["--methods", "svm"], "svm"),
        ("classify.py", ["--repeats", 0], "--repeats"),
        ("crosspair.py", ["--instances", 1], "--instances"),
        ("crosspair.py", ["--audit", "--batch-size", 9], "--batch-size: the audit chooses"),
        ("crosspair.py", [], "two or more"),
    ],
)
def test_bad_input(refused, tmp_path, script, arguments, naming):
    (tmp_path / "hello.pt").write_bytes(b"hello")
    refused(script, *arguments, naming=naming)


def test_bad_input_beside_good_files(refused, workplace, tmp_path):
    masked = workplace / "masked" / "digits.pt"
    encoder = workplace / "runs" / "aae" / "0" / "encoder.pt"
    whole = masked.read_bytes()
    (tmp_path / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "one" / "0").mkdir(parents=True)
    for name in ("encoder.pt", "decoder.pt"):
        (tmp_path / "one" / "0" / name).write_bytes((workplace / "runs" / "aae" / "0" / name).read_bytes())
    refused("classify.py", "--masked", masked, "--classes", 11, naming="--classes 11")
    refused("classify.py", "--masked", "truncated.pt", naming="truncated.pt")
    refused("classify.py", "--masked", encoder, naming="maskbench.encoder")
    refused("mask_dataset.py", "--encoder", masked, naming="maskbench.masked")
    refused("mask_dataset.py", "--encoder", encoder, "--gaussian-dim", 7, naming="--gaussian-dim")
    refused("crosspair.py", "--models", "one", naming="one holds 1")
    content = torch.load(masked, weights_only=True)
    torch.save(content | {"gaussian": content["gaussian"][:-1].clone()}, tmp_path / "narrow.pt")
    refused("classify.py", "--masked", "narrow.pt", naming="gaussian")
    (tmp_path / "one" / "1").mkdir()
    for name, instance in (("encoder.pt", "0"), ("decoder.pt", "1")):
        (tmp_path / "one" / "1" / name).write_bytes((workplace / "runs" / "aae" / instance / name).read_bytes())
    refused("crosspair.py", "--models", "one", naming="another encoder")


def test_no_network(complaint, monkeypatch, tmp_path):
    # a proxy that refuses: the same on a machine with a network and without
    for name, value in (("http_proxy", "http://127.0.0.1:9"), ("https_proxy", "http://127.0.0.1:9"), ("no_proxy", "")):
        monkeypatch.setenv(name, value)
    assert "--data-dir data" in complaint("train_aae.py", "--epochs", 1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_asked_for_and_absent(refused):
    refused("train_aae.py", "--device", "cuda", naming="--device cuda")


def test_output_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    arguments = ("--dataset", "photos", "--limit", 64, "--epochs", 1, "--output-dir", "taken")
    refused("train_aae.py", *arguments, naming="taken")


@pytest.mark.parametrize("script", ["train_aae.py", "mask_dataset.py", "classify.py", "crosspair.py"])
def test_help(run_here, capsys, script):
    with pytest.raises(SystemExit) as stop:
        run_here(script, "--help")
    text = capsys.readouterr().out
    assert not stop.value.code and f"python {script}" in text and "default:" in text and "None" not in text


def test_help_and_an_error_in_a_process_of_its_own(tmp_path):  # of one script: all four take the same way out
    assert "python train_aae.py" in Forked("train_aae.py", "--help", cwd=tmp_path).finish().stdout
    mistake = Forked("train_aae.py", "--device", "tpu", cwd=tmp_path).finish()
    assert mistake.returncode == 2 and mistake.stderr.count("\n") == 1 and "--device" in mistake.stderr
