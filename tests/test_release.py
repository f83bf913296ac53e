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
from maskbench.leakage.controls import CONTROLS
from maskbench.leakage.figures import Pictures
from maskbench.leakage.settings import Release
from maskbench.leakage.table import COLUMNS
from maskbench.masking import Autoencoder
from maskbench.models import Decoder, Encoder
from maskbench.storage import pt, tables

# images, threat, attack, pairs, main figure, and what it is chosen by; pages are about the last images
ATTACKS = [
    ("cifar10", "masks-only", "unpaired", 0, 0.9, 0.9),
    *(("cifar100", "masks-only", name, 0, 0.1 + 0.05 * n, 0) for n, name in enumerate(plan.ANCHORS)),
    ("cifar100", "masks-only", "unpaired", 0, 0.12, 0.12),
    ("cifar100", "masks-only", "re-identification", 0, 0.61, 0.6),
    ("cifar100", "masks-only", "linkage", 0, 0.33, 0.3),
    ("cifar100", "masks-only", CONTROLS[scores.REIDENTIFICATION].name, 0, 0.07, 0.07),
    ("cifar100", "masks-only", CONTROLS[scores.ATTRIBUTE].name, 0, 0.05, 0.05),
    ("cifar100", "known-pairs", "ridge", 1000, 0.22, 0.2),
    ("cifar100", "known-pairs", "ridge", 3000, 0.24, 0.3),
    ("cifar100", "known-pairs", "re-identification", 1000, 0.9, 0.9),
    ("cifar100", "known-pairs", "linkage", 1000, 0.7, 0.7),
    ("cifar100", "known-pairs", "attribute", 1000, 0.2, 0.2),
    ("cifar100", "two-releases", "two-releases", 0, 0.99, 1.0),
    ("cifar100", "stolen-encoder", "scratch-decoder", 40000, 0.26, 0.26),
    ("cifar10", "stolen-encoder", "membership", 0, 0.57, 0.5),
]
KINDS = {attack.name: attack.kind for attack in plan.ATTACKS}
KINDS |= {control.name: kind for kind, control in CONTROLS.items()}

GUESSING = "guessing 0.050; the nearest to the mean image of the label 0.070 (0.060 to 0.080)"


def write_table(folder, masks=("aae",), without: str = "") -> None:
    """An ``audit.csv`` whose intervals are 0.01 to both sides."""
    rows = []
    for mask in masks:
        for images, threat, attack, pairs, value, choice in ATTACKS:
            kind = KINDS.get(attack, scores.RECONSTRUCTION)
            for measure in kind.measures if not without or not attack.startswith(without) else ():
                mean = choice if measure == "choice" else 0.5 if measure == "ssim_best1" else value
                rows.append((mask, images, threat, attack, pairs, measure, mean, mean - 0.01, mean + 0.01))
    tables.write_csv(folder / "audit.csv", COLUMNS, rows)


@pytest.fixture
def folder(tmp_path):
    write_table(tmp_path)
    return tmp_path


def written(folder, terms: Release, released: release.Released | None = None, before: bool = True) -> str:
    pixels = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 3, 4, 4).contiguous()
    of_best = Pictures(pixels[:6], torch.arange(9, -1, -1), pixels[10:])
    released = released or release.Released(release.NAME, "aae", [("recipient", "<Lab & B>")])
    keys = [("known-pairs", "ridge", 1000), ("known-pairs", "ridge", 3000), ("masks-only", "unpaired", 0)]
    pictures = {(released.mask, *key): of_best for key in keys}
    release.write(folder, terms, before, released, pictures, pixels, torch.full((20, 3, 4, 4), 0.5))
    return (folder / released.page).read_text()


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
    assert [row[4].split(";")[0] for row in rows] == [
        *("0.120 (0.110 to 0.130)", "0.220 (0.210 to 0.230)"),
        *("0.610 (0.600 to 0.620)", "0.900 (0.890 to 0.910)"),
        *("0.330 (0.320 to 0.340)", "0.700 (0.690 to 0.710)"),
        "0.200 (0.190 to 0.210)",
    ]
    assert rows[0][4].endswith("of the best 1% of images 0.500 or more; of cifar10 0.900")  # as pictures of both sets
    assert all(row[-1] == "no threshold given" for row in rows) and "decides nothing" in page.text
    assert release.BEFORE not in page.text
    assert [row[3] for row in rows][:2] == ["unpaired", "ridge"]
    assert rows[1][2] == "1,000 known pairs, and as many of cifar10"
    best = ", of the best 1% 0.500 or more"
    assert rows[0][5].endswith(f"{best}; label mean image 0.150 (0.140 to 0.160){best}")
    assert rows[0][6] == f"nearest public image 0.200 (0.190 to 0.210){best}"  # nobody knows which it is
    assert "superclass" in rows[-1][1] and rows[-1][5] == "the most frequent label 0.050 (0.040 to 0.060)"
    assert (
        rows[2][5:7] == [GUESSING, "not measured (--masks identity)"]
        and "measured on 20 images of cifar100" in page.text
    )

    write_table(folder, masks=("aae", "identity"), without="attribute")
    rows = [row for row in Reader(written(folder, Release())).rows if row]
    assert rows[2][6] == "from raw pixels 0.610 (0.600 to 0.620)" and rows[-1][6] == "not measured"
    write_table(folder)

    thresholds = Release(most_ssim=0.25, most_named=0.615, most_linked=0.345, most_inferred=0.215)
    page = Reader(written(folder, thresholds))
    verdicts = [row[-1].split(" (")[0] for row in page.rows if row]
    # the upper end of the interval counts: 0.62 is more than 0.615, where 0.61 is not
    assert verdicts == ["pass", "pass", "fail", "fail", "pass", "fail", "pass"]
    assert "4 of 7 lines pass; 0 have no threshold" in page.text
    assert release.BEFORE in page.text and release.AFTER in Reader(written(folder, thresholds, before=False)).text
    wider = dataclasses.replace(thresholds, most_ssim=0.125)
    assert [row[-1][:4] for row in Reader(written(folder, wider)).rows if row][:2] == ["fail", "fail"]
    most = Reader(written(folder, Release(pairs=0, most_ssim=0.135)))
    own = [f"masks alone; also {what}, and an encoder of the same kind" for what in ("these images", "the copies")]
    assert [row[2] for row in most.rows if row] == ["masks alone", *own, "0 masks that come with it"]
    for pairs in (1001, 3000, 9999):  # never fewer than the owner says, as far as more were tried
        said = [row[2] for row in Reader(written(folder, Release(pairs=pairs))).rows if row]
        fewer = " (9,999 may be known: so many were not tried)" if pairs == 9999 else ""
        assert said[1] == f"3,000 known pairs, and as many of cifar10{fewer}"


def test_an_answer_that_needs_no_mask_competes_with_the_attacks(folder, monkeypatch):
    monkeypatch.setitem(globals(), "ATTACKS", [(*row[:5], row[4]) for row in ATTACKS])  # chosen by what is reported
    write_table(folder)
    alone, known = [row for row in Reader(written(folder, Release(most_ssim=0.14))).rows if row][:2]
    # neither the nearest public image nor the owner's decoder is an attacker's to use
    assert alone[3] == "label-mean-image (needs no mask)" and alone[4].startswith("0.150") and alone[-1][:4] == "fail"
    assert known[3] == "ridge" and known[4].startswith("0.220")


def test_who_may_choose_images_may_ask_for_photographs(folder, monkeypatch):
    asked = ("cifar100", "oracle", "ridge", 1000, 0.1, 0.1)
    monkeypatch.setitem(globals(), "ATTACKS", [*ATTACKS, asked])
    write_table(folder)
    assert "With up to 1,000 of them (of each set): SSIM 0.220, named 0.900" in Reader(written(folder, Release())).text


def test_what_is_linked_in_another_set_stands_beside(folder, monkeypatch):
    """An attack without pairs succeeds on one set and not on another: a page about one says both."""
    elsewhere = ("cifar10", "masks-only", "linkage", 0, 0.55, 0.5)
    monkeypatch.setitem(globals(), "ATTACKS", [*ATTACKS, elsewhere])
    write_table(folder)
    rows = [row for row in Reader(written(folder, Release())).rows if row]
    assert rows[4][4] == "0.330 (0.320 to 0.340); of cifar10 0.550"
    assert "cifar10" not in rows[2][4]  # not measured there


def test_more_candidates_than_masks_are_spoken_of(folder, monkeypatch):
    write_table(folder)
    assert "More candidates than masks were not tried." in Reader(written(folder, Release())).text
    among_all = ("cifar10", "masks-only", "linkage-among-all", 0, 0.55, 0.5)
    monkeypatch.setitem(globals(), "ATTACKS", [*ATTACKS, among_all])
    write_table(folder)
    text = Reader(written(folder, Release())).text
    assert "With other photographs of all validation images of cifar10, 0.550 (0.540 to 0.560) of the masks" in text


def test_what_was_not_measured_passes_no_threshold(folder):
    write_table(folder, without="attribute")
    page = Reader(written(folder, Release(most_inferred=0.9)))
    last = [row for row in page.rows if row][-1]
    assert "superclass" not in last[1] and last[5] == "not measured"
    assert (
        last[4] == "not measured" and last[-1] == "fail (at most 0.9)" and "0 of 1 lines pass; 6 have no" in page.text
    )


def test_what_the_page_supposes_is_measured(folder):
    text = Reader(written(folder, Release())).text
    # with the encoder; what was not attacked is left out
    assert (
        "With it: SSIM 0.260; whether an image trained it is told in 0.570 (0.560 to 0.580) of cases, by chance 0.500."
        in text
    )
    assert "With them: SSIM 0.260." in text  # the decoder, 0.250, or one that is trained with the encoder
    assert "by another encoder: joined 0.990" in text
    assert "No more than 1,000 images (of each set) behind masks are known.With 3,000 (of each set): SSIM 0.240" in text
    assert "With up to 0 of them (of each set): not measured." in text
    text = Reader(written(folder, Release(pairs=3000))).text
    assert "No more than 3,000 images (of each set) behind masks are known.More were not tried." in text


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
        labels=torch.tensor([0, 0, 1, 1, *[0] * 7, 1]),
        split=split,
        source=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]),
        view=torch.tensor([0, 1] * 4 + [0] * 4, dtype=torch.uint8),
    )


def test_what_leaves_is_what_the_file_holds(owner, tmp_path):
    masked_set.save(masks("aae+key", owner.fingerprint), tmp_path / "a.pt")
    [released] = release.all_released(Release(masked=(tmp_path / "a.pt",), recipient="Lab B"), owner)
    facts = dict(released.facts)
    assert released.mask == "aae+key" and facts["recipient"] == "Lab B"
    assert facts["images"] == "8 of digits, in up to 2 views: 12 masks"
    assert facts["a mask"].endswith("640 bits as the file holds them; up to 1,280 bits an image")
    assert facts["labels"].endswith("naught, one")
    assert facts["encoder"] == owner.fingerprint and facts["sha256"] == masked_set.digest(tmp_path / "a.pt")
    write_table(tmp_path, masks=("aae", "aae+key"))
    text = Reader(written(tmp_path, Release(), released)).text
    assert GUESSING.replace(";", ", with the label 0.100;") in text and "by another key: joined 0.990" in text
    assert "told in 0.570 (0.560 to 0.580) of cases" in text  # of the encoder, whatever the key
    assert "Each figure is of one mask of an image." in text and "not on digits" in text

    masked_set.save(masks("aae+noise0.5", owner.fingerprint, width=0), tmp_path / "b.pt")
    first, released = release.all_released(Release(masked=(tmp_path / "a.pt", tmp_path / "b.pt")), owner)
    assert (first.page, first.facts[1:2]) == (release.NAME, [("sha256", masked_set.digest(tmp_path / "a.pt"))])
    facts = dict(released.facts)
    assert (
        released.mask == "aae+noise0.5"
        and released.page == "release-b.html"
        and facts["bound"].startswith(bounds.stated(0.5, 16, 2))
    )
    assert "at most 3.3 bits" in facts["noise"] and "2 views together 6.6" in facts["noise"]
    write_table(tmp_path, masks=("aae", "aae+noise0.5"))
    page = Reader(written(tmp_path, Release(), released))
    bound = bounds.naming_bound(0.5, 16, 1, 20)
    both = bounds.naming_bound(0.5, 16, 2, 5)  # the smaller of two labels leaves a quarter of the candidates
    said = f"; by this mask alone, with the encoder, at most {bound:.3f} (proven), by 2 views and about 5 candidates "
    rows = [row for row in page.rows if row]
    for row in (rows[2], rows[4]):  # who has another photograph of the image knows no more than who has the image
        assert f"{said}of its label {both:.3f}; for who has the masks of others, too, nothing is proven" in row[4]
    again = bounds.naming_bound(0.5, 16, 4, 20)
    assert f"by other noise: joined 0.990; by 4 views at most {again:.3f} are named (proven)." in page.text
    assert "The secret of the noise stays secret." in page.text

    for method, encoder, message in (
        ("aae", "0" * 64, "not masked by the audited encoder"),
        ("pca", owner.fingerprint, "masks of pca; the report is for an autoencoder's"),
    ):
        masked_set.save(masks(method, encoder), tmp_path / "c.pt")
        with pytest.raises(InputError, match=message):
            release.all_released(Release(masked=(tmp_path / "c.pt",)), owner)
    (tmp_path / "d").mkdir()
    both = tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "d" / "b.pt"
    with pytest.raises(InputError, match=r"b\.pt: two files of this name"):
        release.all_released(Release(masked=both), owner)
