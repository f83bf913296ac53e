"""The report for the person who signs a release: what it says of given figures."""

import base64
import dataclasses
import html.parser
import io

import numpy as np
import pytest
import torch
from PIL import Image

from maskbench.data import masked_set
from maskbench.data.masked_set import MaskedSet
from maskbench.errors import InputError
from maskbench.leakage import bounds, plan, release, scores
from maskbench.leakage.settings import Release
from maskbench.leakage.table import COLUMNS, Table
from maskbench.masking import Autoencoder
from maskbench.models import Decoder, Encoder
from maskbench.storage import atomic, pt, tables

# mask, images, threat, attack, pairs, main figure, and what it is chosen by
ATTACKS = [
    *(("aae", "cifar10", "masks-only", name, 0, 0.1 + 0.05 * n, 0) for n, name in enumerate(plan.ANCHORS)),
    ("aae", "cifar10", "masks-only", "unpaired", 0, 0.12, 0.12),
    ("aae", "cifar10", "masks-only", "re-identification", 0, 0.61, 0.6),
    ("aae", "cifar10", "masks-only", "linkage", 0, 0.33, 0.3),
    ("aae", "cifar10", "known-pairs", "ridge", 1000, 0.22, 0.2),
    ("aae", "cifar10", "known-pairs", "ridge", 3000, 0.24, 0.3),
    ("aae", "cifar10", "known-pairs", "re-identification", 1000, 0.9, 0.9),
    ("aae", "cifar10", "known-pairs", "linkage", 1000, 0.7, 0.7),
    ("aae", "cifar100", "known-pairs", "attribute", 1000, 0.2, 0.2),
    ("aae", "cifar10", "two-releases", "two-releases", 0, 0.99, 1.0),
    ("aae", "cifar10", "stolen-encoder", "scratch-decoder", 40000, 0.26, 0.26),
    ("aae", "cifar10", "stolen-encoder", "membership", 0, 0.57, 0.5),
]
KINDS = {attack.name: attack.kind for attack in plan.ATTACKS}


@pytest.fixture
def folder(tmp_path):
    """One with an ``audit.csv``: intervals are 0.01 to both sides."""
    rows = []
    for mask, images, threat, attack, pairs, value, choice in ATTACKS:
        kind = KINDS.get(attack, scores.RECONSTRUCTION)
        for measure in kind.measures:
            mean = choice if measure == "choice" else value
            rows.append((mask, images, threat, attack, pairs, measure, mean, mean - 0.01, mean + 0.01))
    tables.write_csv(tmp_path / "audit.csv", COLUMNS, rows)
    return tmp_path


def written(folder, terms: Release, left: release.Leaving | None = None) -> str:
    pixels = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 3, 4, 4).contiguous()
    of_best = release.Pictures(pixels[:6], torch.arange(9, -1, -1), pixels[10:])
    pictures = {("aae", *key): of_best for key in [("known-pairs", "ridge", 1000), ("masks-only", "unpaired", 0)]}
    left = left or release.Leaving("aae", [("recipient", "<Lab & B>")])
    release.write(folder, terms, left, pictures, pixels, torch.full((20, 3, 4, 4), 0.5))
    return (folder / release.NAME).read_text()


class Reader(html.parser.HTMLParser):
    """Tags, cells of the table by row, addresses, and all text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.rows, self.addresses, self.text = set(), [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1] and self.lasttag == "td":
            self.rows[-1][-1] += data


def test_figures_are_those_of_the_table_and_thresholds_turn_lines(folder):
    page = Reader(written(folder, Release(recipient="Lab B")))
    rows = [row for row in page.rows if row]
    assert [row[4] for row in rows] == [
        *("0.120 (0.110 to 0.130)", "0.220 (0.210 to 0.230)"),
        *("0.610 (0.600 to 0.620)", "0.900 (0.890 to 0.910)"),
        *("0.330 (0.320 to 0.340)", "0.700 (0.690 to 0.710)"),
        "0.200 (0.190 to 0.210)",
    ]
    assert all(row[-1] == "no threshold given" for row in rows) and "decides nothing" in page.text
    assert [row[3] for row in rows][:2] == ["unpaired", "ridge"]
    assert "mean image 0.100, label mean image 0.150, nearest public image 0.200" in rows[0][5]
    assert "guessing 0.050" in rows[2][5]  # of twenty candidates

    thresholds = Release(most_ssim=0.25, most_named=0.615, most_linked=0.34, most_inferred=0.215)
    page = Reader(written(folder, thresholds))
    verdicts = [row[-1].split(" (")[0] for row in page.rows if row]
    # the upper end of the interval counts: 0.62 is more than 0.615, where 0.61 is not
    assert verdicts == ["pass", "pass", "fail", "fail", "pass", "fail", "pass"]
    assert "4 of 7 lines pass" in page.text
    wider = dataclasses.replace(thresholds, most_ssim=0.125)
    assert [row[-1][:4] for row in Reader(written(folder, wider)).rows if row][:2] == ["fail", "fail"]
    most = Reader(written(folder, Release(pairs=0, most_ssim=0.13)))
    assert [row[2] for row in most.rows if row] == ["masks alone"] * 3


def test_what_the_page_supposes_is_measured(folder):
    text = Reader(written(folder, Release())).text
    assert "With it: SSIM 0.260, membership told 0.570." in text  # the encoder; what was not attacked is left out
    assert "With them: SSIM 0.250." in text  # the decoder
    assert "by another key or encoder: joined 0.990" in text
    assert "With 3,000: SSIM 0.240" in text
    assert "With up to 1,000 of them: not measured." in text


def test_the_page_needs_nothing_else(folder):
    page = written(folder, Release())
    reader = Reader(page)
    assert "script" not in reader.tags and "link" not in reader.tags and "http" not in page and "url(" not in page
    assert "&lt;Lab &amp; B&gt;" in page and "<Lab" not in page
    assert len(reader.addresses) == 3
    strips = []
    for address in reader.addresses:
        kind, data = address.split(",")
        assert kind == "data:image/png;base64"
        strips.append(np.array(Image.open(io.BytesIO(base64.b64decode(data)))))
    originals, rebuilt, label = (strip[0, :: 4 * release.ENLARGED, 0].tolist() for strip in strips)
    assert originals == list(range(9, -1, -1)) and rebuilt == list(range(10, 20)) and set(label) == {128}


def test_a_report_is_whole_or_not_there(folder):
    (folder / "audit.csv").unlink()
    with pytest.raises(InputError, match=r"audit\.csv"):
        written(folder, Release())
    assert not (folder / release.NAME).exists()


@pytest.fixture
def owner():
    torch.manual_seed(0)
    sizes = {"image_size": 16, "width": 8, "gaussian_dim": 16, "categories": 4}
    encoder = Encoder(**sizes).eval()
    return Autoencoder(encoder, pt.fingerprint(encoder.state_dict()), Decoder(**sizes).eval())


def masks(method: str, encoder: str, width: int = 4) -> MaskedSet:
    split = torch.tensor([0] * 8 + [1] * 4, dtype=torch.uint8)
    return MaskedSet(
        method=method,
        encoder=encoder,
        dataset="digits",
        classes=["naught", "one"],
        gaussian=torch.randn(12, 16),
        categorical=torch.zeros(12, width),
        labels=torch.tensor([0, 0, 1, 1] * 3),
        split=split,
        source=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]),
        view=torch.tensor([0, 1] * 4 + [0] * 4, dtype=torch.uint8),
    )


def test_what_leaves_is_what_the_file_holds(owner, tmp_path):
    masked_set.save(masks("aae+key", owner.fingerprint), tmp_path / "a.pt")
    left = release.leaving(Release(masked=tmp_path / "a.pt", recipient="Lab B"), owner)
    facts = dict(left.facts)
    assert left.mask == "aae+key" and not left.noise and facts["recipient"] == "Lab B"
    assert facts["images"] == "8 of digits, in up to 2 views: 12 masks"
    assert facts["a mask"].startswith("20 numbers, 640 bits") and facts["labels"].endswith("naught, one")
    assert facts["encoder"] == owner.fingerprint and facts["sha256 of the file"] == atomic.digest(tmp_path / "a.pt")

    masked_set.save(masks("aae+noise0.5", owner.fingerprint, width=0), tmp_path / "b.pt")
    left = release.leaving(Release(masked=tmp_path / "b.pt"), owner)
    facts = dict(left.facts)
    assert left.mask == "aae+noise0.5" and left.noise and facts["bound"] == bounds.stated(0.5, 16, 2)
    assert "at most 3.3 bits" in facts["a mask"]
    table = Table(tables.read(_table(tmp_path)))
    assert any("noise" in said for said, _ in release.assumptions(table, Release(), left))

    for method, encoder in (("aae", "0" * 64), ("pca", owner.fingerprint)):
        masked_set.save(masks(method, encoder), tmp_path / "c.pt")
        with pytest.raises(InputError, match=r"c\.pt: not masked by the audited encoder"):
            release.leaving(Release(masked=tmp_path / "c.pt"), owner)


def _table(folder):
    rows = [("aae+noise0.5", "cifar10", "masks-only", name, 0, "ssim", 0.2, 0.2, 0.2) for name in plan.ANCHORS]
    tables.write_csv(folder / "audit.csv", COLUMNS, rows)
    return folder / "audit.csv"
