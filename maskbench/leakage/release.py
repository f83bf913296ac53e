"""The release report: one page for the person who signs, made from ``audit.csv`` and from what the owner said before.

Its three criteria are those of the Article 29 Working Party, "Opinion 05/2014 on anonymisation techniques" (WP216):
singling out, linkability and inference.
"""

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from maskbench.data import masked_set
from maskbench.data.masked_set import KEYED, MaskedSet
from maskbench.errors import InputError
from maskbench.leakage import bounds, plan, scores
from maskbench.leakage.settings import Release
from maskbench.leakage.table import Table
from maskbench.masking import Autoencoder
from maskbench.storage import atomic
from maskbench.storage.tables import read

NAME = "release.html"
ENLARGED = 3  # pixels of the page a side of a pixel
VERDICTS = {None: "no threshold given", True: "pass", False: "fail"}


@dataclass(frozen=True, eq=False)
class Pictures:
    """What an attack made of some images.

    Attributes:
        examples: uint8 ``[E, 3, S, S]``, of the first judged images.
        worst: int64 ``[W]``, which judged images it rebuilds best, the best first.
        worst_examples: uint8 ``[W, 3, S, S]``, what it made of them.
    """

    examples: Tensor
    worst: Tensor
    worst_examples: Tensor


@dataclass(frozen=True)
class Leaving:
    """What leaves the house.

    Attributes:
        mask: its name in ``audit.csv``.
        facts: name and text of each.
        noise: whether the bound of noise is among them.
    """

    mask: str
    facts: list[tuple[str, str]]
    noise: bool = False


def leaving(terms: Release, owner: Autoencoder) -> Leaving:
    """What the owner is to hand out, by the file itself.

    Raises:
        InputError: no masked file, or another encoder's.
    """
    recipient = ("recipient", terms.recipient or "not named (--recipient)")
    if terms.masked is None:
        facts = [("masks", "no file was named (--release): this page is about masks of the encoder in general")]
        return Leaving("aae", [*facts, recipient, ("encoder", owner.fingerprint)])
    data = masked_set.load(terms.masked)
    if data.base_method != "aae" or data.encoder != owner.fingerprint:
        raise InputError(
            f"--release {terms.masked}: not masked by the audited encoder; name its instances with --models"
        )
    facts = _facts(data)
    if terms.masked.is_file():
        facts.append(("sha256 of the file", atomic.digest(terms.masked)))
    return Leaving(data.method, [("file", str(terms.masked)), recipient, *facts], data.kept is not None)


def _facts(data: MaskedSet) -> list[tuple[str, str]]:
    images, views = len(data.source.unique()), int(data.view.max()) + 1
    size, numbers = data.gaussian.shape[1], data.width
    bits = f"{32 * numbers:,} bits as a file holds them; what of them tells of the image has no bound"
    noise = []
    if data.kept is not None:
        bits = f"at most {bounds.mask_bits(data.kept, size):,.1f} bits of the image on average (proven)"
        noise = [("noise", f"{data.kept:g} of each code is kept"), ("bound", bounds.stated(data.kept, size, views))]
    return [
        ("images", f"{images:,} of {data.dataset}, in up to {views} views: {len(data.labels):,} masks"),
        ("a mask", f"{numbers} numbers, {bits}"),
        *noise,
        ("labels", f"one of {len(data.classes)} an image, as they are: {', '.join(data.classes[:8])}"[:200]),
        ("key", "turned by a secret key" if data.method.endswith(KEYED) else "none"),
        ("encoder", data.encoder),
    ]


@dataclass(frozen=True)
class Line:
    """One figure that the owner's threshold judges.

    Attributes:
        criterion: of WP216.
        question: what the attacker finds out.
        attacker: what he has.
        attack: the one that does best, chosen on other images.
        figures: mean, and both ends of its 95% interval.
        control: what can be had without masks.
        most: that is accepted; None where nothing was said.
    """

    criterion: str
    question: str
    attacker: str
    attack: str
    figures: tuple[float, float, float]
    control: str
    most: float | None

    @property
    def holds(self) -> bool | None:
        """Whether the upper end of the interval is accepted."""
        return None if self.most is None else self.figures[2] <= self.most


def lines(table: Table, terms: Release, mask: str, candidates: int) -> Iterator[Line]:
    """Every figure that is judged, in the order of the page.

    Args:
        mask: that leaves.
        candidates: among how many images the right one was to be found.
    """
    below = ", ".join(f"{name.replace('-', ' ')} {table.anchor(name, mask):.3f}" for name in plan.ANCHORS[:-1])
    guess, labels = f"guessing {1 / candidates:.3f}", "guessing a superclass 0.050"
    if raw := table.chosen(scores.ATTRIBUTE, "identity", terms.pairs, images=table.sets[-1]):
        labels += f", from raw pixels {float(raw['accuracy']['mean']):.3f}"
    questions = (
        ("singling out", "how much of the picture is seen (SSIM)", scores.RECONSTRUCTION, below, terms.most_ssim),
        ("singling out", f"which of {candidates:,} images it is", scores.REIDENTIFICATION, guess, terms.most_named),
        ("linkability", "which other photograph shows the same", scores.LINKAGE, guess, terms.most_linked),
        ("inference", "a label that was withheld", scores.ATTRIBUTE, labels, terms.most_inferred),
    )
    known = max((count for count in table.pairs if count <= terms.pairs), default=0)
    attackers = {"masks alone": 0} | ({f"{known:,} known pairs": known} if known else {})
    for criterion, question, kind, control, most in questions:
        for attacker, count in attackers.items():
            rows = table.chosen(kind, mask, count, images=table.sets[-1 if kind.of == "last" else 0])
            if rows:
                yield Line(criterion, question, attacker, *_figures(rows[kind.main]), control, most)


def _figures(row: Mapping[str, str]) -> tuple[str, tuple[float, float, float]]:
    return row["attack"], tuple(float(row[name]) for name in ("mean", "low", "high"))


def assumptions(table: Table, terms: Release, left: Leaving) -> Iterator[tuple[str, str]]:
    """What the page supposes, and what is found where it does not hold."""

    def found(threat: str, count: int, *kinds: scores.Kind) -> str:
        words = {"ssim": "SSIM", "reid_at_1": "named", "linked_at_1": "linked", "joined_at_1": "joined"}
        words |= {"accuracy": "membership told"}
        said = []
        for kind in kinds:
            if rows := table.chosen(kind, left.mask, count, (threat,)):
                said.append(f"{words[kind.main]} {float(rows[kind.main]['mean']):.3f}")
        return ", ".join(said) or "not measured"

    most = table.all_pairs[-1]
    kinds = scores.RECONSTRUCTION, scores.REIDENTIFICATION, scores.LINKAGE, scores.MEMBERSHIP
    stolen = found("stolen-encoder", 0 if KEYED in left.mask else most, *kinds)
    yield "The encoder stays inside.", f"With it: {stolen}."
    matched = table.anchor("matched-decoder", left.mask)
    yield "The decoder and the checkpoints stay inside.", f"With them: SSIM {matched:.3f}."
    if KEYED in left.mask:
        yield "The key stays secret.", "With it and the encoder, the masks are masks without a key."
    if left.noise:
        yield "The secret of the noise stays secret.", "With it, the noise is taken away, and its bound proves nothing."
    asked = found("oracle", terms.pairs, scores.RECONSTRUCTION, scores.REIDENTIFICATION)
    yield "Nobody has images of their choice masked.", f"With up to {terms.pairs:,} of them: {asked}."
    twice = found("two-releases", 0, scores.RELEASES)
    yield "The images are released once.", f"With a second release, by another key or encoder: {twice}."
    yield (
        f"No more than {terms.pairs:,} images behind masks are known (--known-pairs).",
        f"With {table.pairs[-1]:,}: {found('known-pairs', table.pairs[-1], *kinds[:3])}.",
    )
    yield "No attack is better than those tried.", "That they fail proves nothing about others."


def write(
    folder: Path,
    terms: Release,
    left: Leaving,
    pictures: Mapping[tuple[str, str, str, int], Pictures],
    originals: Tensor,
    label_means: Tensor,
) -> None:
    """Write the report beside ``audit.csv``, whole or not at all.

    Args:
        pictures: of every attack, by mask, threat, attack and pairs.
        originals: judged images of the first set, uint8 ``[N, 3, S, S]``.
        label_means: of each the mean image of its label, float32 ``[N, 3, S, S]``.
    """
    table = Table(read(folder / "audit.csv"))
    judged = list(lines(table, terms, left.mask, len(originals)))
    seen = table.chosen(scores.RECONSTRUCTION, left.mask, terms.pairs)["ssim"]
    of_best = pictures[left.mask, seen["threat"], seen["attack"], int(seen["pairs"])]
    rows = {
        "the images": originals[of_best.worst],
        f"what the attack makes of them ({seen['attack']}, {int(seen['pairs']):,} pairs)": (of_best.worst_examples),
        "what their label alone shows": label_means[of_best.worst].mul(255).round().to(torch.uint8),
    }
    facts = list(assumptions(table, terms, left))
    atomic.write_text(folder / NAME, page(left, judged, rows, facts, table, len(originals)))


def page(
    left: Leaving,
    judged: Sequence[Line],
    pictures: Mapping[str, Tensor],
    supposed: Sequence[tuple[str, str]],
    table: Table,
    candidates: int,
) -> str:
    """The report as HTML: no script, no style or font from elsewhere."""
    failed, said = [line for line in judged if line.holds is False], [line for line in judged if line.holds is not None]
    verdict = "no threshold was given: this page measures, and decides nothing"
    if said:
        verdict = f"{len(said) - len(failed)} of {len(said)} lines pass the thresholds that were given before"
    state = "fail" if failed else "pass" if said else "none"
    head = ("criterion", "the attacker finds out", "and has", "best attack", "found (95% interval)", "without masks")
    cells = [
        (
            line.criterion,
            line.question,
            line.attacker,
            line.attack,
            "{:.3f} ({:.3f} to {:.3f})".format(*line.figures),
            line.control,
            VERDICTS[line.holds] + ("" if line.most is None else f" (at most {line.most:g})"),
        )
        for line in judged
    ]
    strips = "".join(
        f"<figure><img alt={_attribute(text)} src='{_strip(images)}'>"
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
        for text, images in pictures.items()
    )
    count = len(next(iter(pictures.values())))
    body = [
        "<h1>Release of masked images: report</h1>",
        f"<p class='verdict {state}'>{html.escape(verdict[0].upper() + verdict[1:])}.</p>",
        "<h2>What leaves</h2>",
        _definitions(left.facts),
        "<h2>Singling out, linkability, inference</h2>",
        "<p>The criteria of the Article 29 Working Party (WP216). Each attack was chosen on a quarter of the images "
        "and judged on the others. A line passes where the upper end of its interval is accepted.</p>",
        _rows((*head, "verdict"), cells, [VERDICTS[line.holds].split()[0] for line in judged]),
        "<h2>The images that an attack rebuilds best</h2>",
        f"<p>The worst {count} of {candidates:,} images of {html.escape(table.sets[0])}, for an attacker who has what "
        "the table above allows.</p>",
        strips,
        "<h2>What this page supposes</h2>",
        _definitions(supposed),
    ]
    head = f"<head><meta charset='utf-8'>{_HEAD}</head>"
    return f"<!doctype html>\n<html lang='en'>{head}<body>{''.join(body)}</body></html>\n"


def _attribute(text: str) -> str:
    return f"'{html.escape(text)}'"


def _definitions(facts: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in facts) + "</dl>"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str]) -> str:
    """A table whose cells carry their column's name: a narrow page shows a row as a card."""
    first = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr class='{kind}'>"
        + "".join(
            f"<td data-name={_attribute(name)}>{html.escape(cell)}</td>" for name, cell in zip(head, row, strict=True)
        )
        + "</tr>"
        for row, kind in zip(rows, classes, strict=True)
    )
    return f"<table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table>"


def _strip(images: Tensor) -> str:
    """uint8 ``[N, 3, S, S]`` side by side, as the address of a PNG that is the picture itself."""
    side_by_side = torch.cat(list(images), 2).permute(1, 2, 0).contiguous().numpy()
    picture, file = Image.fromarray(side_by_side), io.BytesIO()
    picture.resize((picture.width * ENLARGED, picture.height * ENLARGED), Image.Resampling.NEAREST).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


_HEAD = """
<meta name='viewport' content='width=device-width, initial-scale=1'>
<title>Release of masked images: report</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 1rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.verdict { padding: .75rem 1rem; border-left: .4rem solid; font-weight: 600; background: #f3f3f3 }
.verdict.pass { border-color: #1a7f37 } .verdict.fail { border-color: #b3261e } .verdict.none { border-color: #777 }
dl { display: grid; grid-template-columns: minmax(9rem, 18rem) 1fr; gap: .3rem 1rem; margin: 0 }
dt { font-weight: 600 } dd { margin: 0; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; font-size: .87rem }
th, td { text-align: left; vertical-align: top; padding: .4rem .5rem; border-bottom: 1px solid #ccc }
tr.pass td:last-child { color: #1a7f37; font-weight: 600 } tr.fail td:last-child { color: #b3261e; font-weight: 600 }
figure { margin: .5rem 0 } img { max-width: 100%; image-rendering: pixelated } figcaption { font-size: .85rem }
@media (max-width: 45rem) {
  dl { grid-template-columns: 1fr } dd { margin-bottom: .4rem } thead { display: none }
  tr { display: block; border: 1px solid #ccc; margin: 0 0 .75rem; padding: .3rem .5rem }
  td { display: block; border: 0; padding: .1rem 0 }
  td::before { content: attr(data-name) ": "; font-weight: 600 }
}
@media print {
  @page { size: A4; margin: 15mm } body { margin: 0; max-width: none; font-size: 10.5pt } table { font-size: 8.5pt }
  tr, figure, dt, dd { break-inside: avoid } h2 { break-after: avoid }
}
</style>"""
