"""Masked sets in several files: the same as in one, made by one process or several, and read as one."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import pictures, run_ranks
from PIL import Image

from maskbench.data import masked_set
from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError
from maskbench.masking.shards import Shard

COLUMNS = ("labels", "split", "source", "view")
AUGMENT = ("--augment", "shift", "--copies", 2, "--seed", 3, "--limit", 600)


def assert_same(found: MaskedSet, wanted: MaskedSet, tolerance: float = 1e-5) -> None:
    """Batches differ, and with them the rounding."""
    for name in ("method", "encoder", "dataset", "classes", "width"):
        assert getattr(found, name) == getattr(wanted, name)
    for name in COLUMNS:
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
    every = torch.arange(len(wanted.labels))
    torch.testing.assert_close(found.features(every), wanted.features(every), rtol=tolerance, atol=tolerance)
    some = torch.tensor([1700, 3, 3, 900])
    assert torch.equal(found.features(some), found.features(every)[some])


@pytest.fixture
def mask(run_here, workplace, capsys):
    """Runs mask_dataset.py on the digits; gives what it printed."""

    def run_mask(*arguments: object) -> str:
        capsys.readouterr()
        encoder = workplace / "runs" / "aae" / "0" / "encoder.pt"
        run_here("mask_dataset.py", "--dataset", "digits", "--encoder", encoder, *arguments)
        return capsys.readouterr().out

    return run_mask


def test_shards_are_the_set_and_finished_ones_are_kept(mask, workplace, tmp_path):
    mask(*AUGMENT, "--output", "masked/one.pt")
    whole = masked_set.load(tmp_path / "masked" / "one.pt")
    assert "0 of 3 were finished" in mask(*AUGMENT, "--shards", 3)
    paths = masked_set.shard_paths(tmp_path / "masked" / "digits.pt", 3)
    assert sorted((tmp_path / "masked").iterdir()) == sorted([*paths, tmp_path / "masked" / "one.pt"])
    for path in paths:
        shard = masked_set.load_file(path)  # complete in itself: images of both parts, with all their copies
        assert abs(len(shard.labels) - len(whole.labels) / 3) <= 4
        assert {split.item() for split in shard.split.unique()} == {0, 1}
        assert set(shard.labels.tolist()) == set(range(10)) and set(shard.view.tolist()) == {0, 1, 2}
    for name in ("digits.pt", paths[1].name):
        assert_same(masked_set.load(tmp_path / "masked" / name), whole)

    stamps = [path.stat().st_mtime_ns for path in paths]
    assert "3 of 3 were finished" in mask(*AUGMENT, "--shards", 3)
    assert [path.stat().st_mtime_ns for path in paths] == stamps
    paths[0].unlink()  # as if stopped before it
    paths[2].write_bytes(paths[2].read_bytes()[:5000])
    assert "1 of 3 were finished" in mask(*AUGMENT, "--shards", 3)
    assert_same(masked_set.load(paths[0]), whole)

    # another encoder, other copies of the same images, a key: nothing is kept
    other = workplace / "runs" / "aae" / "1" / "encoder.pt"
    assert "0 of 3 were finished" in mask(*AUGMENT, "--shards", 3, "--encoder", other)
    assert "0 of 3 were finished" in mask(*AUGMENT, "--shards", 3)
    assert "0 of 3 were finished" in mask(*AUGMENT, "--seed", 4, "--shards", 3)
    assert "0 of 3 were finished" in mask("--shards", 3)


def test_a_stopped_run_leaves_no_shard_of_an_earlier_one(mask, tmp_path, monkeypatch):
    mask("--shards", 3)

    class Stop(Exception):
        pass

    def stopped(shard: Shard, *arguments: object) -> MaskedSet:
        if shard.number == 1:
            raise Stop
        return whole(shard, *arguments)

    whole = Shard.mask
    monkeypatch.setattr(Shard, "mask", stopped)
    with pytest.raises(Stop):
        mask("--shards", 3, "--limit", 300)
    with pytest.raises(InputError, match="of 3 shards 2 are missing"):
        masked_set.load(tmp_path / "masked" / "digits.pt")


def test_a_set_in_shards_is_saved_as_one(mask, tmp_path):
    mask("--shards", 2)
    data = masked_set.load(tmp_path / "masked" / "digits.pt")
    masked_set.save(data, tmp_path / "one.pt")
    assert_same(masked_set.load(tmp_path / "one.pt"), data, tolerance=0)


def test_processes_share_the_shards(mask, workplace, tmp_path):
    encoder = workplace / "runs" / "aae" / "0" / "encoder.pt"
    arguments = ("mask_dataset.py", "--dataset", "digits", "--encoder", encoder)
    printed = run_ranks(2, *arguments, cwd=tmp_path)  # one shard a process
    assert "1 more shards by 2 processes" in printed
    assert_same(masked_set.load(tmp_path / "masked" / "digits.pt"), masked_set.load(workplace / "masked" / "digits.pt"))
    for path in masked_set.shard_paths(tmp_path / "masked" / "digits.pt", 2):
        path.unlink()
    # more shards than processes, and one of them finished by one process
    args = ("--shards", 3, "--output", "masked/three.pt")
    mask(*args)
    first, *others = masked_set.shard_paths(tmp_path / "masked" / "three.pt", 3)
    stamp = first.stat().st_mtime_ns
    others[0].unlink()
    others[1].unlink()
    assert "1 of 3 were finished" in run_ranks(2, *arguments, *args, cwd=tmp_path)
    assert sorted((tmp_path / "masked").iterdir()) == [first, *others] and first.stat().st_mtime_ns == stamp
    assert_same(masked_set.load(first), masked_set.load(workplace / "masked" / "digits.pt"))
    stamps = [path.stat().st_mtime_ns for path in others]
    assert "3 of 3 were finished" in mask(*args)
    assert [path.stat().st_mtime_ns for path in others] == stamps


def test_sets_that_are_not_whole_are_refused(mask, tmp_path):
    mask("--shards", 2)
    paths = masked_set.shard_paths(tmp_path / "masked" / "digits.pt", 2)
    whole = paths[0].read_bytes()
    paths[0].unlink()
    with pytest.raises(InputError, match=r"of 2 shards 1 are missing, such as digits-00000-of-00002\.pt"):
        masked_set.load(paths[1])
    paths[0].write_bytes(paths[1].read_bytes())
    with pytest.raises(InputError, match="an image is in two shards"):
        masked_set.load(paths[1])
    paths[0].write_bytes(whole)
    data = masked_set.load(paths[1])
    paths[0].write_bytes(whole)
    with pytest.raises(InputError, match=f"{re.escape(str(paths[0]))}: was changed"):
        data.features(torch.arange(10))
    mask("--shards", 3)
    with pytest.raises(InputError, match="shards of 00002 and of 00003"):
        masked_set.load(tmp_path / "masked" / "digits.pt")
    mask("--shards", 2, "--method", "identity")
    (tmp_path / "masked" / "digits-identity-00000-of-00002.pt").rename(paths[0])
    with pytest.raises(InputError, match="is not of one set"):
        masked_set.load(paths[0])
    with pytest.raises(InputError, match="no such file"):
        masked_set.load(Path(tmp_path / "masked" / "none.pt"))


def test_a_file_that_would_be_read_instead_of_the_shards(mask, tmp_path):
    mask("--shards", 2)
    mask()
    with pytest.raises(SystemExit, match="2"):
        mask("--shards", 2)


def test_names_of_sets():
    path = Path("masked/mine.pt")
    assert masked_set.shard_paths(path, 1) == [path]
    assert masked_set.shard_paths(path, 8)[3] == Path("masked/mine-00003-of-00008.pt")
    assert {masked_set.set_name(name) for name in (path, *masked_set.shard_paths(path, 8))} == {"mine"}
    alone = Path("masked/train-00000-of-00001.pt")  # others call their whole sets so
    assert masked_set.files_of(alone) == [alone] and masked_set.set_name(alone) == alone.stem


def test_an_output_called_like_a_shard_is_refused(complaint):
    arguments = ("mask_dataset.py", "--dataset", "digits", "--method", "identity", "--output", "mine-00000-of-00004.pt")
    assert "is called like a shard of another set" in complaint(*arguments)


def test_masks_of_other_classes_are_not_replaced_unasked(run_here, complaint, tmp_path):
    for clinic, classes in (("a", ("ill", "well")), ("b", ("cats", "dogs"))):
        pictures(tmp_path / clinic / "images", 5, 2)
        for number, name in enumerate(classes):
            (tmp_path / clinic / "images" / f"class{number}").rename(tmp_path / clinic / "images" / name)
    flags = ("--method", "identity", "--image-size", 8, "--workers", 0)
    for _ in range(2):
        run_here("mask_dataset.py", "--dataset", "folder:a/images", *flags)
    said = complaint("mask_dataset.py", "--dataset", "folder:b/images", *flags)
    assert "masked/images-identity.pt: holds masks of other classes (ill, well)" in said


def test_shards_that_were_read_otherwise_are_made_again(run_here, tmp_path, capsys):
    values = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)
    for label in range(2):
        (tmp_path / "mine" / f"class{label}").mkdir(parents=True)
        for number in range(5):
            Image.fromarray(values).save(tmp_path / "mine" / f"class{label}" / f"{number}.png")

    def mask(*flags: object) -> str:
        capsys.readouterr()
        arguments = ("--dataset", "folder:mine", "--method", "identity", "--image-size", 8, "--workers", 0)
        run_here("mask_dataset.py", *arguments, "--shards", 2, *flags)
        return capsys.readouterr().out

    assert "0 of 2 were finished" in mask("--levels", 0, 4095)
    before = masked_set.load(tmp_path / "masked" / "mine-identity.pt").gaussian[torch.arange(10)]
    assert "2 of 2 were finished" in mask("--levels", 0, 4095)
    # so little changes no mask much, and is another set all the same
    assert "0 of 2 were finished" in mask("--levels", 0, 4096)
    data = masked_set.load(tmp_path / "masked" / "mine-identity.pt")
    assert data.dataset == "folder --levels 0 4096"
    assert (data.gaussian[torch.arange(10)] - before).abs().max() < 0.01
    assert "0 of 2 were finished" in mask("--levels", 0, 4096, "--ground", "grey")
    flags = ("--levels", 0, 4096, "--ground", "grey")
    assert "2 of 2 were finished" in mask(*flags)
    picture = tmp_path / "mine" / "class1" / "3.png"
    os.utime(picture, (time.time() + 1, time.time() + 1))  # as if something in it had been blacked out since
    assert "1 of 2 were finished" in mask(*flags)
