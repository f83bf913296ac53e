"""What a file is and whom it may be given to; what must not be handed out, or believed."""

import os
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, Forked
from PIL import Image

from maskbench import inspect
from maskbench.data import datasets, masked_set
from maskbench.errors import InputError
from maskbench.masking import key
from maskbench.models import checkpoints
from maskbench.runtime import command_line
from maskbench.storage import pt


def test_every_file_says_what_it_is(workplace):
    folder = workplace / "runs" / "aae" / "0"
    fingerprint = pt.load(workplace / "masked" / "digits.pt", masked_set.FORMAT)["encoder"]
    for path, is_a, give_to, prints in (
        (workplace / "masked" / "digits.pt", "masked set", "whom you trust", fingerprint),
        (folder / "encoder.pt", "encoder", "who masks images; not", fingerprint),
        (folder / "decoder.pt", "decoder, the private key", "nobody", fingerprint),
        (folder / "checkpoint.pt", "checkpoint", "nobody", None),
        (workplace / "runs" / "classify" / "digits-runs.pt", "finished runs", "nobody", None),
    ):
        lines, found = inspect.describe(path)
        lines = dict(lines)
        assert lines["is a"].startswith(is_a) and lines["give it to"].startswith(give_to) and found == prints, path
    assert dict(inspect.describe(workplace / "masked" / "digits.pt")[0])["holds"] == "1,797 vectors of 384 + 20 numbers"


def test_a_key_is_nobodys(tmp_path):
    key.create(tmp_path / "owner.key")
    lines, fingerprint = inspect.describe(tmp_path / "owner.key")
    assert dict(lines)["is a"].startswith("secret key") and dict(lines)["give it to"].startswith("nobody")
    assert fingerprint is None and (tmp_path / "owner.key").read_text().strip() not in str(lines)


def test_pairs_that_do_not_match_are_told_first(workplace, capsys, monkeypatch):
    models = workplace / "runs" / "aae"
    mask = workplace / "masked" / "digits.pt"
    for instance, line in (("0", "these belong together"), ("1", "NOT one family: the fingerprints differ")):
        monkeypatch.setattr("sys.argv", ["inspect", str(mask), str(models / instance / "decoder.pt")])
        inspect.main()
        assert capsys.readouterr().out.splitlines()[0] == line


def test_inspect_as_a_command(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    refused = Forked("-m", "maskbench.inspect", tmp_path / "picture.png", cwd=ROOT).finish()
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "picture.png: damaged" in refused.stderr


def test_masking_reads_the_encoder_alone(run_here, workplace, tmp_path, capsys):
    shutil.copy(workplace / "runs" / "aae" / "0" / "encoder.pt", tmp_path / "encoder.pt")
    opened = []
    load = torch.load
    arguments = ("--dataset", "digits", "--limit", 8, "--output", "masked.pt", "--encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda file, **keywords: (opened.append(file.name), load(file, **keywords))[1])
        run_here("mask_dataset.py", *arguments, "encoder.pt")
    assert [os.path.basename(str(name)) for name in opened] == ["encoder.pt"]
    for private in ("decoder.pt", "checkpoint.pt"):
        shutil.copy(workplace / "runs" / "aae" / "0" / private, tmp_path / private)
        for script, flags in (("mask_dataset.py", arguments), ("classify.py", ("--masked",))):
            capsys.readouterr()
            with pytest.raises(SystemExit) as stop:
                run_here(script, *flags, private)
            said = capsys.readouterr().err
            assert stop.value.code == 2 and f"{private}: holds maskbench." in said and "it is private" in said


def test_a_masked_file_holds_nothing_beside_its_fields(tmp_path):
    rows = torch.arange(4)
    secret = torch.arange(1000.0).view(100, 10)

    class Note(str):
        pass

    data = masked_set.MaskedSet(
        method="aae",
        encoder="0" * 64,
        dataset="digits",
        classes=["a", "b"],
        gaussian=secret[:4, :3],  # a view: torch.save alone would take all thousand numbers along
        categorical=torch.zeros(4, 0),
        labels=rows % 2,
        split=torch.zeros(4, dtype=torch.uint8),
        source=rows,
        view=torch.zeros(4, dtype=torch.uint8),
    )
    path = tmp_path / "set.pt"
    masked_set.save(data, path)
    assert torch.equal(masked_set.load(path).gaussian, secret[:4, :3])
    assert np.float32(999).tobytes() not in path.read_bytes()
    tagged = torch.zeros(4, 3)
    tagged.path = "/home/me/patients"
    for changes in (
        dict(gaussian=tagged),
        dict(classes=[Note("a"), "b"]),
        dict(gaussian=torch.nn.Parameter(secret[:4])),
    ):
        with pytest.raises(InputError):
            masked_set.save(masked_set.MaskedSet(**(vars(data) | changes)), tmp_path / "other.pt")
        assert not (tmp_path / "other.pt").exists()
    pt.save(pt.load(path, masked_set.FORMAT) | {"names": ["a.png"]}, path)
    with pytest.raises(InputError, match=r"holds more than a masked set does \(names\)"):
        masked_set.load(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(InputError, match="expected a file"):
        pt.read(tmp_path / "pipe.pt")


def test_text_of_a_file_cannot_steer_the_terminal():
    assert command_line.printable("a\x1b[2J\nb\u202ec\udce9") == "a?[2J b?c?"


@pytest.mark.parametrize("name", ["my  photos", " a\u00a0b ", "肺\u3000野", "می\u200cخواهم", "👩\u200d⚕️"])  # noqa: RUF001
def test_an_error_names_a_path_as_it_is(name, capsys):
    def main() -> None:
        raise InputError(f"{name}/x.png: no such file")

    with pytest.raises(SystemExit):
        command_line._run(main)
    assert capsys.readouterr().err.endswith(f"error: {name}/x.png: no such file\n")


def test_a_claimed_size_is_not_allocated(tmp_path):
    encoder = checkpoints.Encoder(image_size=8, gaussian_dim=3, categories=2, width=2)
    checkpoints.save_encoder(encoder, tmp_path / "encoder.pt")
    content = pt.read(tmp_path / "encoder.pt")
    petabytes = dict(width=2**16, gaussian_dim=2**16, image_size=2**15)
    for sizes in (petabytes, dict(width=2**40), dict(width=-2), dict(width=1e308)):
        pt.save(content | {"config": content["config"] | sizes}, tmp_path / "huge.pt")
        with pytest.raises(InputError, match=r"huge\.pt: its sizes and weights do not fit together"):
            checkpoints.load_encoder(tmp_path / "huge.pt")


def test_an_optimiser_is_checked_against_its_network(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    layer(torch.rand(1, 3)).sum().backward()
    optimizer.step()
    good = optimizer.state_dict()
    parts = {"optimizer": optimizer}
    checkpoints.restore(parts, {"optimizer": good}, tmp_path)
    first = good["state"][0]
    for change in (
        {"exp_avg": torch.zeros(1)},  # a fused step would read past its end
        {"exp_avg": torch.full((2, 3), torch.nan)},
        {"exp_avg_sq": -torch.ones(2, 3)},
        {"step": torch.zeros(2)},
        {"more": torch.zeros(1)},
    ):
        bad = {**good, "state": {**good["state"], 0: {**first, **change}}}
        with pytest.raises(InputError, match="damaged"):
            checkpoints.restore(parts, {"optimizer": bad}, tmp_path)
    bad = {**good, "param_groups": [{**good["param_groups"][0], "betas": (0.5, 0.5)}]}
    with pytest.raises(InputError, match="other settings"):
        checkpoints.restore(parts, {"optimizer": bad}, tmp_path)


class Payload:
    """A pickle that calls out when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_pickles_of_datasets_are_loaded_by_their_checksum_alone(tmp_path, monkeypatch, name):
    import pickle

    from maskbench.data.torchvision_import import torchvision

    kind = getattr(torchvision.datasets, name.upper())
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    for file, _ in [*kind.train_list, *kind.test_list, (kind.meta["filename"], "")]:
        (folder / file).write_bytes(pickle.dumps(Payload(tmp_path / "called")))

    def offline(self):
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", offline)
    with pytest.raises(InputError, match="missing or damaged"):
        datasets.load(name, tmp_path)
    assert not (tmp_path / "called").exists()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_out_of_range_are_refused_by_name(tmp_path):
    (tmp_path / "class").mkdir()
    values = np.full((8, 8), 0.5, np.float32)
    for name, value, reason in (("nan", np.nan, "not finite"), ("large", 1e6, "more than 8 bits")):
        values[3, 3] = value
        path = tmp_path / "class" / f"{name}.tiff"
        Image.fromarray(values).save(path)
        with pytest.raises(InputError, match=rf"{name}\.tiff: .*{reason}"):
            datasets.load(f"folder:{tmp_path}")
        path.unlink()
    Image.new("1", (10_000, 9_000)).save(tmp_path / "class" / "bomb.png")  # 11 kB
    with pytest.raises(InputError, match=r"bomb\.png: 10000 x 9000 pixels are too many"):
        datasets.load(f"folder:{tmp_path}")


def test_a_decoder_of_other_sizes_is_no_pair(tmp_path):
    sizes = dict(image_size=8, width=2, gaussian_dim=3, categories=2)
    fingerprint = checkpoints.save_encoder(checkpoints.Encoder(**sizes), tmp_path / "encoder.pt")
    other = checkpoints.Decoder(**sizes | {"gaussian_dim": 4})
    checkpoints.save_decoder(other, fingerprint, tmp_path / "decoder.pt")
    with pytest.raises(InputError, match=r"decoder\.pt has sizes"):
        checkpoints.load_pair(tmp_path)


@pytest.mark.parametrize("name", ["a\ud800", "a\x1b[2J", "a\nb"])
def test_class_names_that_cannot_be_written_are_refused(workplace, tmp_path, name):
    content = pt.load(workplace / "masked" / "digits.pt", masked_set.FORMAT)
    pt.save(content | {"classes": [name, *content["classes"][1:]]}, tmp_path / "masked.pt")
    with pytest.raises(InputError, match="control characters"):
        masked_set.load(tmp_path / "masked.pt")


def test_sizes_that_do_not_fit_into_memory_are_refused_before_they_take_it(tmp_path):
    with pytest.raises(InputError, match="--image-size 4096: its pixels take"):
        datasets.load("digits", tmp_path, 4096, 0)
