"""Files: whole or not there, checked on the way in, private where they must be."""

import dataclasses
import os
import stat

import pytest
import torch

import maskbench
from maskbench.data import masked_set
from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError
from maskbench.models import Decoder, Encoder, checkpoints
from maskbench.storage import atomic, pt, tables

SIZES = dict(image_size=8, width=2, gaussian_dim=3, categories=2)


def make_set(rows: int = 20, **changes) -> MaskedSet:
    values = dict(
        method="aae",
        encoder="0" * 64,
        dataset="digits",
        classes=["a", "b"],
        gaussian=torch.randn(rows, 3),
        categorical=torch.eye(2)[torch.arange(rows) % 2],
        labels=torch.arange(rows) % 2,
        split=(torch.arange(rows) >= rows * 3 // 4).to(torch.uint8),
        source=torch.arange(rows),
        view=torch.zeros(rows, dtype=torch.uint8),
    )
    return MaskedSet(**(values | changes))


def test_a_file_of_probabilities_instead_of_categories_goes_on_loading(tmp_path):
    """Masks of earlier versions held the softmax of the categories' logits."""
    soft = torch.tensor([[0.3, 0.7]]).repeat(20, 1)
    masked_set.save(make_set(categorical=soft), tmp_path / "set.pt")
    assert torch.equal(masked_set.load(tmp_path / "set.pt").categorical, soft)


def test_masked_set_round_trip(tmp_path):
    written = make_set()
    masked_set.save(written, tmp_path / "set.pt")
    read = masked_set.load(tmp_path / "set.pt")
    for field in dataclasses.fields(MaskedSet):
        a, b = getattr(written, field.name), getattr(read, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    assert content["format"] == "maskbench.masked" and content["version"] == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (dict(labels=torch.full((20,), 2)), "labels"),
        (dict(labels=torch.zeros(19, dtype=torch.int64)), "19 rows"),
        (dict(gaussian=torch.full((20, 3), torch.nan)), "finite"),
        (dict(gaussian=torch.zeros(20, 3, dtype=torch.float64)), "gaussian"),
        (dict(gaussian=torch.zeros(20, 0), categorical=torch.zeros(20, 0)), "no numbers"),
        (dict(classes="ab"), "classes"),
        (dict(view=torch.zeros(20)), "view"),
        (dict(gaussian=torch.zeros(20, 3).to_sparse()), "gaussian|sparse_tensor"),
        (dict(split=torch.full((20,), 2, dtype=torch.uint8)), "split"),
        (dict(source=torch.tensor([*range(18), 16, 17])), "two rows of one source and view.*count on: second"),
        (dict(source=torch.arange(20) % 10, labels=torch.arange(20) // 10), "differ in split or label.*count on"),
        (dict(classes=("a", "b")), r"list\(classes\) makes it one"),
        (dict(method="A b"), "method"),
        (dict(method="aae+key+key"), "method"),
        (dict(method=3), "method"),
    ],
)
def test_masked_set_refuses(tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        masked_set.save(make_set(**changes), tmp_path / "set.pt")
    assert not (tmp_path / "set.pt").exists()
    content = {"format": masked_set.FORMAT, "version": 1, **vars(make_set(**changes))}
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises(InputError, match=complaint):
        masked_set.load(tmp_path / "set.pt")


class Payload:
    """A pickle that calls out when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_load_refuses_what_is_not_ours(tmp_path):
    path = tmp_path / "file.pt"
    with pytest.raises(InputError, match="no such file"):
        pt.load(path, masked_set.FORMAT)
    with pytest.raises(InputError, match="folder"):
        pt.load(tmp_path, masked_set.FORMAT)
    masked_set.save(make_set(), path)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"file\.pt: damaged"):
            pt.load(path, masked_set.FORMAT)
    for content in ([1, 2], {"format": 3}):
        torch.save(content, path)
        with pytest.raises(InputError, match="not a maskbench file"):
            pt.load(path, masked_set.FORMAT)
    torch.save({"format": "maskbench.encoder", "version": 1}, path)
    with pytest.raises(InputError, match=r"holds maskbench\.encoder, expected maskbench\.masked$"):
        pt.load(path, masked_set.FORMAT)
    for private in ("maskbench.decoder", "maskbench.checkpoint"):
        torch.save({"format": private, "version": 1}, path)
        with pytest.raises(InputError, match=rf"holds {private}, expected maskbench\.masked; it is private"):
            pt.load(path, masked_set.FORMAT)
    for version, advice in ((2, "version 2.*update maskbench"), (0, "version 0.*make it again"), ("x", "version x")):
        torch.save({"format": masked_set.FORMAT, "version": version}, path)
        with pytest.raises(InputError, match=advice):
            pt.load(path, masked_set.FORMAT)
    torch.save({"format": masked_set.FORMAT, "version": 1, "method": Payload(tmp_path / "called")}, path)
    with pytest.raises(InputError, match="damaged"):
        pt.load(path, masked_set.FORMAT)
    assert not (tmp_path / "called").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    atomic.write_text(path, "old")
    with pytest.raises(RuntimeError), atomic.writing(path) as file:
        file.write(b"half of the new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_names_files_that_are_no_utf_8(tmp_path):
    tables.write_csv(tmp_path / "a.csv", ["masked"], [[os.fsdecode(b"caf\xe9, old")], ["café"]])
    assert (tmp_path / "a.csv").read_bytes() == b'masked\n"caf\\udce9, old"\ncaf\xc3\xa9\n'
    assert tables.read(tmp_path / "a.csv") == [{"masked": r"caf\udce9, old"}, {"masked": "café"}]


def test_encoder_and_decoder_round_trip(tmp_path):
    torch.manual_seed(0)
    encoder, decoder = Encoder(**SIZES).eval(), Decoder(**SIZES).eval()
    fingerprint = checkpoints.save_encoder(encoder, tmp_path / "encoder.pt")
    checkpoints.save_decoder(decoder, fingerprint, tmp_path / "decoder.pt")
    same_encoder, same_fingerprint = checkpoints.load_encoder(tmp_path / "encoder.pt")
    same_decoder, belongs_to = checkpoints.load_decoder(tmp_path / "decoder.pt")
    assert fingerprint == same_fingerprint == belongs_to and len(fingerprint) == 64
    images = torch.rand(4, 3, 8, 8)
    latent = torch.cat(encoder(images), 1)
    assert torch.equal(torch.cat(same_encoder(images), 1), latent)
    assert torch.equal(same_decoder(latent), decoder(latent))
    assert stat.S_IMODE((tmp_path / "decoder.pt").stat().st_mode) == 0o600

    content = torch.load(tmp_path / "encoder.pt", weights_only=True)
    torch.save(content | {"config": SIZES | {"width": 3}}, tmp_path / "encoder.pt")
    with pytest.raises(InputError, match="do not fit"):
        checkpoints.load_encoder(tmp_path / "encoder.pt")


def test_fingerprint_depends_on_every_byte():
    tensors = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
    first = pt.fingerprint(tensors)
    assert first == pt.fingerprint(dict(reversed(tensors.items())))
    for change in ({"a": torch.tensor([0.0, 0.0, 1e-38])}, {"b": torch.ones(4)}, {"a": torch.zeros(3).double()}):
        assert pt.fingerprint(tensors | change) != first


def test_vectors_and_labels_by_number():
    data = make_set(rows=10)
    train = maskbench.MaskedDataset(data, "train")
    for number in (0, len(train) - 1, -1, -len(train)):
        vector, label = train[number]
        row = data.rows("train")[number]
        assert torch.equal(vector[: data.gaussian.shape[1]], data.gaussian[row]) and label == data.labels[row]
    for number in (len(train), -len(train) - 1):
        with pytest.raises(IndexError):
            train[number]


def test_validation_rows():
    small = make_set(rows=20)  # 15 training images: the first three
    assert small.validation_rows().nonzero().flatten().tolist() == [0, 1, 2]
    rows = 70_000
    full = make_set(rows, dataset="mnist", split=(torch.arange(rows) >= 60_000).to(torch.uint8))
    assert full.validation_rows().nonzero().flatten().tolist() == list(range(10_000))
    copies = make_set(
        rows=6,
        source=torch.tensor([0, 1, 2, 3, 4, 0]),
        split=torch.zeros(6, dtype=torch.uint8),
        view=torch.tensor([0, 0, 0, 0, 0, 1], dtype=torch.uint8),
    )
    assert copies.validation_rows().nonzero().flatten().tolist() == [0, 5]
