"""Images of one's own through the scripts: flags, one line for what is wrong, nothing half-written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskbench.errors import InputError
from maskbench.models import checkpoints
from maskbench.storage import pt
from maskbench.training.resume import find_checkpoint
from maskbench.training.settings import Settings

IDENTITY = ("--method", "identity", "--image-size", 8, "--workers", 0)


def deep(folder: Path, count: int = 5) -> None:
    """Two classes of 16-bit pictures, of which 12 bits are used."""
    for label in range(2):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(count):
            values = np.full((8, 8), 2000 * label + number, np.uint16)
            Image.fromarray(values).save(folder / f"class{label}" / f"{number}.png")


def test_levels_page_and_ground_reach_the_masks(run_here, tmp_path):
    deep(tmp_path / "mine")
    run_here("mask_dataset.py", "--dataset", "folder:mine", *IDENTITY, "--levels", -96, "4e3")
    data = torch.load(tmp_path / "masked" / "mine-identity.pt", weights_only=True)
    found = {round(value * 255) for value in data["gaussian"][:, 0].tolist()}
    wanted = (np.add.outer([0, 2000], np.arange(5)) + 96) / 4096 * 255
    assert found == set(np.rint(wanted).astype(int).flatten().tolist())
    assert data["dataset"] == "folder --levels -96 4000" and str(tmp_path) not in str(data)
    for label in range(2):
        picture = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
        picture.save(tmp_path / "mine" / f"class{label}" / "p.tif", save_all=True, append_images=[picture])
    flags = ("--levels", 0, 4095, "--page", 1, "--ground", "grey")
    run_here("mask_dataset.py", "--dataset", "folder:mine", *IDENTITY, *flags)
    data = torch.load(tmp_path / "masked" / "mine-identity.pt", weights_only=True)
    grey = torch.full((192,), 128 / 255)
    assert int((data["gaussian"] - grey).abs().amax(1).lt(1e-6).sum()) == 2
    assert data["dataset"] == "folder --levels 0 4095 --page 1 --ground grey"


def test_an_npz_file_goes_all_the_way(run_here, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 12, 12), dtype=np.uint8)
    images[1::2] //= 4
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(60) % 2)
    sizes = ("--image-size", 16, "--preset", "paper", "--gaussian-dim", 24, "--batch-size", 16)
    run_here("train_aae.py", "--dataset", "npz:mine.npz", "--epochs", 1, *sizes)
    run_here("mask_dataset.py", "--dataset", "npz:mine.npz")
    data = torch.load(tmp_path / "masked" / "mine.pt", weights_only=True)
    assert data["dataset"] == "npz" and data["classes"] == ["0", "1"] and len(data["labels"]) == 60


def test_mistakes_end_in_one_line_and_leave_nothing(complaint, tmp_path):
    deep(tmp_path / "mine")
    np.savez(tmp_path / "x.npz", images=np.zeros((9, 8, 8)) + 7, labels=np.arange(9))
    (tmp_path / "named" / "a\x07b").mkdir(parents=True)
    for flags, reason in (
        (("--dataset", "folder:mine"), "more than 8 bits a channel, here from "),
        (("--dataset", "folder:mine", "--skip-corrupt"), "more than 8 bits"),
        (("--dataset", "folder:mine", "--levels", 5, 3), "--levels 5 3: the first value must be below the second"),
        (("--dataset", "folder:mine", "--levels", 5), "--levels: expected 2 arguments"),
        (("--dataset", "folder:mine", "--levels", 0, "nan"), "--levels: nan is not a finite number"),
        (("--dataset", "folder:mine", "--page", 0), "--page: 0 is not within"),
        (("--dataset", "folder:mine", "--levels", 0, 1, "--page", 2), "has 1 page(s), and no page 2"),
        (("--dataset", "npz:x.npz"), "x.npz: images: is float64 with values from 7 to 7"),
        (("--dataset", "npz:gone.npz"), "--dataset npz:gone.npz: gone.npz is not a file"),
        (("--dataset", "folder:named"), r"named/a\x07b: a class whose name"),
        (("--dataset", "npy:x"), "unknown; choose from cifar10"),
    ):
        said = complaint("mask_dataset.py", *flags, *IDENTITY)
        assert reason in said, said
        assert not list(tmp_path.glob("masked/*"))


@pytest.mark.parametrize("flags", [("--levels", 0, 9), ("--page", 1), ("--ground", "black")])
def test_a_training_that_read_otherwise_is_refused_by_name(complaint, workplace, flags):
    models = ("--output-dir", workplace / "runs" / "aae", "--resume", "--instances", 2)
    training = ("--dataset", "photos", "--limit", 256, "--preset", "paper", "--epochs", 2)
    said = complaint("train_aae.py", *training, *models, *flags)
    values = " ".join(str(float(flag)) if flags[0] == "--levels" else str(flag) for flag in flags[1:])
    before = "white" if flags[0] == "--ground" else "None"
    assert f"checkpoint.pt was made with {flags[0]} {before}, not {values}; resume with the same" in said


def test_a_checkpoint_that_is_older_than_a_flag_had_its_default(workplace, tmp_path):
    content = checkpoints.load_checkpoint(workplace / "runs" / "aae" / "0" / "checkpoint.pt")
    for name in ("levels", "page", "ground"):
        del content["settings"][name]
    checkpoints.save_checkpoint(content, tmp_path / "checkpoint.pt")
    settings = Settings(**content["settings"])
    assert find_checkpoint(tmp_path, settings, resume=True)
    with pytest.raises(InputError, match=r"--levels None, not 0.0 1.0"):
        find_checkpoint(tmp_path, Settings(**content["settings"], levels=[0.0, 1.0]), resume=True)
    assert pt.shown([0.0, 4095.0]) == "0.0 4095.0" and pt.shown([[0.0]]) == "a list"
