"""Hostile files: whatever is done to one, it is refused in one line or loads as what it says; nothing else happens.

Every file kind is damaged (flipped bits, cut-off ends, overwritten, moved and foreign pieces) and rebuilt with right
checksums (swapped and senseless fields, tensors that claim too much, zip tricks, pickles that call out). The memory
is limited while this runs, and a load that hangs ends it with a traceback.

    MASKBENCH_FUZZ=1000000 python -m pytest tests/test_fuzz.py -s    # longer, by hand; usually 1,500, in CI 10,000
"""

import collections
import copy
import faulthandler
import io
import os
import pickle
import resource
import struct
import time
import warnings
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from maskbench.data import folders, masked_set
from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError
from maskbench.models import Decoder, Encoder, checkpoints
from maskbench.storage import ledger, pt

MUTATIONS = int(os.environ.get("MASKBENCH_FUZZ", 1_500))
SIZES = dict(image_size=8, width=2, gaussian_dim=3, categories=2)
RUN, LIKE = {"method": "mlp"}, {"scores": [0.0] * 3, "curve": torch.empty(2, 4, dtype=torch.float64)}
ENDINGS = ("png", "jpg", "bmp", "tiff", "webp", "ppm", "gif", "jp2", "avif", "tga")


def parts_of_a_training() -> dict:
    layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(layers.parameters(), fused=True)
    layers(torch.rand(4, 2)).pow(2).sum().backward()
    optimizer.step()
    return {"layers": layers, "optimizer": optimizer}


def load_checkpoint(path):
    content = checkpoints.load_checkpoint(path)
    read = copy.deepcopy({name: content[name] for name in ("settings", "history", "losses", "states", "pair")})
    parts = parts_of_a_training()
    checkpoints.restore(parts, content["states"], path)
    checkpoints.restore({"layers": parts["layers"]}, content["pair"], path)
    parts["optimizer"].step()  # would read past the end of states that are too short
    return read


def load_in_training(path):
    encoder, decoder, fingerprint = checkpoints.load_in_training(path)
    return [encoder.state_dict(), decoder.state_dict(), fingerprint]


def load_ledger(path):
    runs = ledger.Ledger(path)
    return [runs.get(RUN, LIKE), len(runs)]


def load_masked(path):
    data = masked_set.load(path)
    assert len(data.gaussian) == len(data.labels) == len(data.source) == len(data.view) == len(data.split) > 0
    assert data.features(torch.arange(len(data.labels))).isfinite().all()
    assert data.labels.min() >= 0 and data.labels.max() < len(data.classes) and data.split.max() <= 1
    return vars(data)


def load_encoder(path):
    encoder, fingerprint = checkpoints.load_encoder(path)
    side = encoder.config["image_size"]
    assert encoder(torch.zeros(1, 3, side, side))[0].shape == (1, encoder.config["gaussian_dim"])
    return [encoder.state_dict(), encoder.config, fingerprint]


def load_decoder(path):
    decoder, belongs_to = checkpoints.load_decoder(path)
    decoder(torch.zeros(1, decoder.config["gaussian_dim"] + decoder.config["categories"]))
    return [decoder.state_dict(), decoder.config, belongs_to]


LOADERS = {
    "masked": load_masked,
    "encoder": load_encoder,
    "decoder": load_decoder,
    "invariant encoder": load_encoder,
    "checkpoint": load_checkpoint,
    "checkpoint of an epoch's end": load_in_training,
    "ledger": load_ledger,
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    """One small file of every kind, as the scripts write them."""
    folder = tmp_path_factory.mktemp("originals")
    torch.manual_seed(0)
    rows = 12
    data = MaskedSet(
        method="aae",
        encoder="0" * 64,
        dataset="digits",
        classes=["a", "b", "c"],
        gaussian=torch.randn(rows, 3),
        categorical=torch.rand(rows, 2),
        labels=torch.arange(rows) % 3,
        split=(torch.arange(rows) >= 9).to(torch.uint8),
        source=torch.arange(rows),
        view=torch.zeros(rows, dtype=torch.uint8),
    )
    masked_set.save(data, folder / "masked")
    fingerprint = checkpoints.save_encoder(Encoder(**SIZES), folder / "encoder")
    checkpoints.save_decoder(Decoder(**SIZES), fingerprint, folder / "decoder")
    checkpoints.save_encoder(Encoder("invariant", **SIZES), folder / "invariant encoder")
    checkpoint = {
        "settings": {"dataset": "photos", "limit": None, "lr": 1e-3, "seed": 0},
        "environment": {"torch": "2"},
        "images": fingerprint,
        "threads": 1,
        "history": [[1, 0.5, 2.0, 1.0, 1.0, 1.0, 0.5, 100.0], [2, 0.4, 2.0, 1.0, 1.0, 1.0, 0.4, 100.0]],
        "losses": torch.rand(3, 4),
        "seconds": 0.5,
        "states": {name: part.state_dict() for name, part in parts_of_a_training().items()},
        "pair": {"layers": parts_of_a_training()["layers"].state_dict()},
    }
    checkpoints.save_checkpoint(checkpoint, folder / "checkpoint")
    sizes = {"preset": "paper", "image_size": 8, "gaussian_dim": 3, "categories": 2}
    networks = {"encoder": Encoder(**sizes).state_dict(), "decoder": Decoder(**sizes).state_dict()}
    checkpoint |= {"settings": sizes, "losses": torch.empty(0, 4), "states": networks, "pair": networks}
    checkpoints.save_checkpoint(checkpoint, folder / "checkpoint of an epoch's end")
    ledger.Ledger(folder / "ledger", "code").add(RUN, {"scores": [0.5, 0.6, 0.7], "curve": torch.rand(2, 4).double()})
    return {kind: (folder / kind).read_bytes() for kind in LOADERS}


class CallsOut:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Fuzzer:
    """Makes mutation number i of a file, the same one each time."""

    contents: ClassVar[dict[bytes, dict]] = {}  # of the originals

    def __init__(self, number: int, originals: dict[str, bytes], marker: str):
        self.random = np.random.default_rng([7, number])
        self.originals, self.marker = originals, marker

    def below(self, limit: int) -> int:
        return int(self.random.integers(limit))

    def one_of(self, values):
        return values[self.below(len(values))]

    # bytes of the whole file

    def flip_bits(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(1 + self.below(8)):
            changed[self.below(len(data))] ^= 1 << self.below(8)
        return bytes(changed)

    def cut(self, data: bytes) -> bytes:
        return self.one_of((data[: self.below(len(data))], data[self.below(len(data)) :]))

    def overwrite(self, data: bytes) -> bytes:
        at, length = self.below(len(data)), 1 + self.below(64)
        piece = self.one_of((bytes(length), b"\xff" * length, self.random.bytes(length)))
        return data[:at] + piece + data[at + self.one_of((0, length)) :]

    def move(self, data: bytes) -> bytes:
        a, b = sorted((self.below(len(data)), self.below(len(data))))
        return self.one_of((data[:a] + data[b:], data[:b] + data[a:], data[a:] + data[:a], data + data))

    def splice(self, data: bytes) -> bytes:
        other = self.originals[self.one_of(list(self.originals))]
        return data[: 1 + self.below(len(data) - 1)] + other[1 + self.below(len(other) - 1) :]

    def oversize(self, data: bytes) -> bytes:
        """A length somewhere in the zip's directory becomes absurd."""
        at = data.rfind(b"PK\1\2", 0, 1 + self.below(len(data)))
        at = max(at, data.find(b"PK\1\2")) + 4 + 2 * self.below(21)
        value = self.one_of((0, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 20))
        return data[:at] + struct.pack("<L", value) + data[at + 4 :]

    # records of the archive, with right checksums

    def rebuild(self, data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = [[info.filename, archive.read(info), zipfile.ZIP_STORED] for info in archive.infolist()]
        a, b = self.below(len(records)), self.below(len(records))
        trick = self.below(10)
        if trick == 0:
            records[a][1], records[b][1] = records[b][1], records[a][1]
        elif trick == 1:
            records[a][2] = zipfile.ZIP_DEFLATED
        elif trick == 2:
            records.append(list(records[a]))
        elif trick == 3:
            del records[a]
        elif trick == 4:
            records[a][0] = self.one_of(("../../x", "/etc/x", "archive/DATA.PKL", "archive/data/\0", records[b][0]))
        elif trick == 5:
            records.append(["archive/" + self.one_of(("data/99", "code/x.py", "notes")), b"hidden", 0])
        elif trick == 6:
            records[a][1] += self.random.bytes(1 + self.below(100))
        elif trick == 7:
            records[a][1] = records[a][1][: self.below(len(records[a][1]) + 1)]
        elif trick == 8:
            records[a][1:] = bytes(2 * 2**20), zipfile.ZIP_DEFLATED  # two kilobytes that unpack to two megabytes
        else:
            records[0][1] = self.mutate_pickle(records[0][1])
        built = io.BytesIO()
        with zipfile.ZipFile(built, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that occur twice
            for name, content, compression in records:
                archive.writestr(name, content, compression)
                archive.filelist[-1].external_attr = 0  # as torch writes them
            archive.comment = self.one_of((b"",) * 9 + (b"comment",))
        return self.one_of((b"",) * 9 + (b"prefix",)) + built.getvalue()

    def mutate_pickle(self, pickled: bytes) -> bytes:
        at = self.below(len(pickled))
        evil = (
            pickle.dumps(CallsOut(open, self.marker, "w"), 2)[2:-1],
            pickle.dumps(CallsOut(eval, f"open({self.marker!r}, 'w')"), 2)[2:-1],
            pickle.dumps(CallsOut(os.system, f"touch {self.marker}"), 2)[2:-1],
            pickle.dumps(CallsOut(bytearray, 2**40), 2)[2:-1],
            pickle.dumps(CallsOut(torch.zeros, 2**40), 2)[2:-1],
            b"(S'touch " + self.marker.encode() + b"'\nios\nsystem\n",
            b"r\xff\xff\xff\x7f",  # memo number two billion
            b"X\xff\xff\xff\x7f",  # text of two billion bytes
            b"\x8a\xff" + b"\x7f" * 255,  # a number of 255 bytes
            b"(" * 20_000,
            b")" + b"\x85" * 20_000,  # tuples in tuples
            b"]" * 20_000,
            b")q\xfe" + b"h\xfeh\xfe\x86q\xfe" * 60 + b"K\1s",  # a key that takes 2^60 steps to hash
            b"}q\xfdh\xfdh\xfds",  # a dictionary in itself
            b"(K\1K\2d",
        )
        if self.below(2):
            return pickled[:at] + self.one_of(evil) + pickled[at + self.below(2) * self.below(8) :]
        return self.one_of((self.flip_bits, self.overwrite, self.move))(pickled)

    # what the file says, written as torch writes it

    def replace_field(self, data: bytes) -> bytes:
        if data not in self.contents:
            self.contents[data] = torch.load(io.BytesIO(data), weights_only=True)
        content = copy.deepcopy(self.contents[data])
        holder, key = content, self.one_of(list(content))
        while isinstance(holder[key], (dict, list)) and len(holder[key]) and self.below(4):
            holder = holder[key]
            key = self.one_of(list(holder)) if isinstance(holder, dict) else self.below(len(holder))
        action = self.below(6)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, dict):
            holder[self.one_of(("extra", "pixels", 5, None, (1, 2)))] = self.nasty(holder[key])
        elif action == 2:
            other = self.one_of(list(holder)) if isinstance(holder, dict) else self.below(len(holder))
            holder[key], holder[other] = holder[other], holder[key]
        else:
            holder[key] = self.nasty(holder[key])
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def nasty(self, value):
        tensor = value if isinstance(value, torch.Tensor) else torch.arange(4.0)
        return self.one_of(
            (
                lambda: self.one_of((None, True, -1, 0, 1, 2, 2**31, 2**62, -(2**70), 1e308, float("nan"), -0.5)),
                lambda: self.one_of(("", "x" * 5000, "\x1b[2J", "../../x", "maskbench.decoder", b"bytes", {1, 2})),
                lambda: self.one_of(([], {}, (), [[[]]], {"a": {"b": {}}}, [1.0] * 6, ("a",))),
                lambda: tensor.reshape(-1)[:0],
                lambda: tensor.reshape(-1)[:1].expand(10**9, 10**3),
                lambda: tensor[1:] if tensor.dim() else tensor.expand(2),
                lambda: tensor.T if tensor.dim() == 2 else tensor.reshape(-1)[::2],
                lambda: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else -tensor - 1,
                lambda: torch.full_like(tensor, float("inf")) if tensor.is_floating_point() else tensor + 100,
                lambda: -tensor,
                lambda: tensor.double(),
                lambda: tensor.to(torch.complex64),
                lambda: tensor.to(torch.bool),
                lambda: tensor.float().to_sparse(),
                lambda: tensor.to("meta"),
                lambda: torch.nn.Parameter(tensor.float()),
                lambda: tensor.float().requires_grad_(),
                lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
                lambda: tensor[None],
                lambda: torch.zeros(2**14),
                lambda: CallsOut(open, self.marker, "w"),
            )
        )()

    def file(self, data: bytes) -> tuple[str, bytes]:
        how = self.one_of(
            ("flip_bits", "cut", "overwrite", "move", "splice", "oversize") + ("rebuild", "replace_field") * 3
        )
        return how, getattr(self, how)(data)

    def picture(self, data: bytes) -> tuple[str, bytes]:
        how = self.one_of(("flip_bits", "cut", "overwrite", "move", "splice"))
        return how, getattr(self, how)(data)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture
def limited_memory():
    """Half a gigabyte more than is in use."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.filterwarnings("ignore")  # of torch's, about tensors that only a hostile file holds
def test_hostile_files(originals, tmp_path, limited_memory):
    right = {}
    path, marker = tmp_path / "file.pt", tmp_path / "called"
    for kind, load in LOADERS.items():
        path.write_bytes(originals[kind])
        right[kind] = copy.deepcopy(load(path))
    counts, slowest = collections.Counter(), 0.0
    kinds = list(LOADERS)
    for number in range(MUTATIONS - MUTATIONS // 5):
        kind = kinds[number % len(kinds)]
        how, mutated = Fuzzer(number, originals, str(marker)).file(originals[kind])
        path.unlink()  # a new file: to cut off an old one may wait for the disk
        path.write_bytes(mutated)
        if number % 100 == 0:
            faulthandler.dump_traceback_later(60, exit=True)
        start, begun = time.thread_time(), time.perf_counter()  # a full disk may well let it wait
        try:
            loaded = LOADERS[kind](path)
        except InputError as error:
            assert str(path) in str(error) and "memory" not in str(error), (number, how, str(error))
            outcome = "refused"
        else:
            # a change of bytes that loads changed nothing; a change of meaning that loads was checked by the loader
            assert how in ("rebuild", "replace_field") or same(loaded, right[kind]), (number, kind, how)
            outcome = "loaded"
        slowest = max(slowest, time.thread_time() - start)
        assert time.perf_counter() - begun < 30, (number, kind, how)
        assert not marker.exists(), (number, kind, how)
        counts[kind, outcome] += 1
        counts[how, outcome] += 1
    print(f"\n{sum(counts.values()) // 2} files, the slowest took {slowest:.2f} s of CPU: {dict(counts)}")
    assert slowest < 5
    for kind in kinds:  # it does look into the files, and some changes are harmless
        assert counts[kind, "refused"] > counts[kind, "loaded"] > 0, counts


def test_hostile_pictures(tmp_path, limited_memory):
    (tmp_path / "class").mkdir()
    gradient = np.add.outer(np.arange(24), np.arange(24)).astype(np.uint8)[..., None] * np.array([5, 4, 3], np.uint8)
    originals = {}
    for ending in ENDINGS:
        path = tmp_path / "class" / f"picture.{ending}"
        Image.fromarray(gradient).save(path)
        originals[ending] = path.read_bytes()
        path.unlink()
    counts = collections.Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(MUTATIONS // 5):
            ending = ENDINGS[number % len(ENDINGS)]
            how, mutated = Fuzzer(number, originals, "").picture(originals[ending])
            (tmp_path / "class" / f"picture.{ending}").write_bytes(mutated)
            if number % 100 == 0:
                faulthandler.dump_traceback_later(60, exit=True)
            item = folders._decode(tmp_path / "class" / f"picture.{ending}", 8)
            if isinstance(item, InputError):
                assert f"picture.{ending}: " in str(item), (number, how)
            else:
                assert item.shape == (3, 8, 8) and item.dtype == np.uint8, (number, how)
            counts[ending, "refused" if isinstance(item, InputError) else "loaded"] += 1
    print(f"\n{sum(counts.values())} pictures: {dict(counts)}")
    assert all(counts[ending, "refused"] > 0 for ending in ENDINGS), counts


def test_what_torch_would_not_mind(originals, tmp_path):
    """Each refusal that maskbench.storage.pt_contents adds to torch.load, by itself."""
    path = tmp_path / "file.pt"

    def refused(reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            pt.read(path)

    base = {"format": "maskbench.masked", "version": 1}
    for tensor, reason in (
        (torch.zeros(1).expand(10**9, 10**3), "fewer numbers"),  # four bytes that claim four terabytes
        (torch.arange(10.0)[:3], "slice of a tensor"),  # seven numbers nobody sees
        (torch.zeros(3, 4).T, "turned or wants gradients"),
        (torch.zeros(3).requires_grad_(), "turned or wants gradients"),
    ):
        torch.save(base | {"a": tensor}, path)
        torch.load(path, weights_only=True)
        refused(reason)
    torch.save(base | {(1, (2, 3)): 1}, path)
    torch.load(path, weights_only=True)
    refused("unusable keys")

    with zipfile.ZipFile(io.BytesIO(originals["masked"])) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
            archive.filelist[-1].external_attr = 0
    refused("compressed")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**records, "masked/data/99": b"a picture"}.items():
            archive.writestr(name.replace("masked/", "archive/"), content)
            archive.filelist[-1].external_attr = 0
    refused("holds data that nothing in it names")
    flipped = bytearray(originals["masked"])
    flipped[flipped.find(next(value for name, value in records.items() if name.endswith("data/0")))] ^= 1
    path.write_bytes(flipped)
    torch.load(path, weights_only=True)  # another number, and not a word
    refused("CRC")
    attributes = bytearray(originals["masked"])
    attributes[attributes.rfind(b"PK\1\2", 0, attributes.rfind(b"data/0")) + 38] |= 0x10
    path.write_bytes(attributes)
    torch.load(path, weights_only=True)  # memory that was never written
    refused("not a plain file")
