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
from maskbench.leakage import bounds, scores
from maskbench.leakage.figures import Pictures
from maskbench.leakage.settings import Release
from maskbench.leakage.table import CHOOSERS, WITHOUT_ENCODER, Table, with_interval
from maskbench.masking import Autoencoder
from maskbench.storage import atomic
from maskbench.storage.tables import Row, read

NAME = "release.html"  # of further files release-NAME.html
WITHOUT_MASK = ("mean-image", "label-mean-image")  # what whoever gets masks with labels can answer without looking
NEEDED = {  # beside what an attacker has, to name whose masks these are
    scores.REIDENTIFICATION: "; also these images, and an encoder of the same kind",
    scores.LINKAGE: "; also the copies, and an encoder of the same kind",
}
ENLARGED = 3  # pixels of the page a side of a pixel
CLASSES = 8  # named on the page, at most
BEFORE = "The thresholds were given before the first attack ran, as far as the folder of the audit knows."
AFTER = "The thresholds were given or changed after attacks had run: the figures may have been known."
VERDICTS = {None: "no threshold given", True: "pass", False: "fail"}


@dataclass(frozen=True)
class Released:
    """What leaves the house, by one page.

    Attributes:
        page: the page's file name.
        mask: its name in ``audit.csv``.
        facts: name and text of each.
        data: the masked set; None where no file was named.
    """

    page: str
    mask: str
    facts: list[tuple[str, str]]
    data: MaskedSet | None = None

    @property
    def views(self) -> int:
        """How many masks of an image leave, at most: its own, and those of its copies."""
        return 1 if self.data is None else self.data.views


def all_released(terms: Release, owner: Autoencoder) -> list[Released]:
    """What the owner is to hand out, by the files themselves; where he names none, masks in general.

    Raises:
        InputError: no masked file, another encoder's, a baseline's, or two of one name.
    """
    recipient = ("recipient", terms.recipient or "not named (--recipient)")
    if not terms.masked:
        facts = [("masks", "no file was named (--release): this page is about masks of the encoder in general")]
        return [Released(NAME, "aae", [*facts, recipient, ("encoder", owner.fingerprint)])]
    pages = [NAME, *(f"release-{path.stem}.html" for path in terms.masked[1:])]
    for path, page in zip(terms.masked, pages, strict=True):
        if pages.count(page) > 1:
            raise InputError(f"--release {path}: two files of this name would have one page; rename one")
    return [released_data(path, page, recipient, owner) for path, page in zip(terms.masked, pages, strict=True)]


def released_data(path: Path, page: str, recipient: tuple[str, str], owner: Autoencoder) -> Released:
    """What a masked file hands out."""
    data = masked_set.load(path)
    if data.base_method != "aae":
        raise InputError(f"--release {path}: masks of {data.base_method}; the report is for an autoencoder's")
    if data.encoder != owner.fingerprint:
        raise InputError(f"--release {path}: not masked by the audited encoder; name its instances with --models")
    images, views, size = len(data.source.unique()), data.views, data.gaussian.shape[1]
    names = ", ".join(data.classes[:CLASSES])
    more = f" and {len(data.classes) - CLASSES} more" if len(data.classes) > CLASSES else ""
    of_views = f", in up to {views} views" if views > 1 else ""
    of_image = f"; up to {views * 32 * data.width:,} bits an image" if views > 1 else ""
    noise = [] if data.kept is None else bounds.facts(data.kept, size, views)
    facts = [
        ("file", str(path)),
        ("sha256", masked_set.digest(path)),
        recipient,
        ("images", f"{images:,} of {data.dataset}{of_views}: {len(data.labels):,} masks"),
        ("a mask", f"{data.width} numbers, {32 * data.width:,} bits as the file holds them{of_image}"),
        *(noise or [("noise", "none: what a mask tells of its image has no bound")]),
        ("labels", f"one of {len(data.classes)} an image, as they are: {names}{more}"),
        ("key", "turned by a secret key" if data.method.endswith(KEYED) else "none"),
        ("encoder", data.encoder),
    ]
    return Released(page, data.method, facts, data)


@dataclass(frozen=True)
class Line:
    """One figure that the owner's threshold judges.

    Attributes:
        criterion: of WP216.
        question: what the attacker finds out.
        attacker: what he has.
        row: of the attack that does best, chosen on other images; None where none was tried.
        beside: more about the figure, or nothing.
        control: what can be had without masks.
        scale: what no attacker of this line can have: from raw pixels, or by somebody who knows the image.
        most: that is accepted; None where nothing was said.
    """

    criterion: str
    question: str
    attacker: str
    row: Row | None
    beside: str
    control: str
    scale: str
    most: float | None

    @property
    def holds(self) -> bool | None:
        """Whether the upper end of the interval is accepted; what was not measured is not."""
        if self.most is None:
            return None
        return self.row is not None and float(self.row["high"]) <= self.most

    @property
    def attack(self) -> str:
        """The name of the attack that does best."""
        name = "" if self.row is None else self.row["attack"]
        return f"{name} (needs no mask)" if name in WITHOUT_MASK else name

    @property
    def found(self) -> str:
        """The figures in words."""
        return f"{with_interval(self.row)}{self.beside}" if self.row else "not measured"


def lines(table: Table, terms: Release, released: Released, candidates: int) -> Iterator[Line]:
    """Every figure that is judged, in the order of the page; of the last judged set.

    Args:
        candidates: among how many images the right one was to be found.
    """
    mask, images = released.mask, table.sets[-1]
    known = tried(table, "known-pairs", terms.pairs)
    beside = f", and as many of {table.sets[0]}" if len(table.sets) > 1 else ""
    fewer = f" ({terms.pairs:,} may be known: so many were not tried)" if known < terms.pairs else ""
    attackers = {"masks alone": 0} | ({f"{known:,} known pairs{beside}{fewer}": known} if known else {})

    def of_pixels(kind: scores.Kind, threat: str, count: int) -> str:
        rows = table.chosen(kind, "identity", count, (threat,), images)
        if rows:
            return f"from raw pixels {with_interval(rows[kind.main])}"
        return "not measured" if "identity" in table.masks else "not measured (--masks identity)"

    def of_pictures(names: Sequence[str]) -> str:
        cells = [
            [table.cells[mask, images, "masks-only", name, which, 0] for which in ("ssim", "ssim_best1")]
            for name in names
        ]
        return "; ".join(
            f"{row['attack'].replace('-', ' ')} {with_interval(row)}, of the best 1% {float(best['mean']):.3f} or more"
            for row, best in cells
        )

    def elsewhere(kind: scores.Kind, count: int, without: Sequence[str]) -> str:
        others = [name for name in table.sets if name != images]
        found = {name: table.chosen(kind, mask, count, images=name, others=without) for name in others}
        return "".join(f"; of {name} {float(rows[kind.main]['mean']):.3f}" for name, rows in found.items() if rows)

    def guess(kind: scores.Kind) -> str:
        said = f"guessing {1 / candidates:.3f}"
        if released.data is not None:
            said += f", with the label {min(1.0, len(released.data.classes) / candidates):.3f}"
        if found := table.control(kind, images):
            said += f"; the nearest to the mean image of the label {with_interval(found[kind.main])}"
        return said

    frequent = table.control(scores.ATTRIBUTE, images)
    questions = (
        (
            "singling out",
            "how much of a picture is seen (mean SSIM)",
            scores.RECONSTRUCTION,
            of_pictures(WITHOUT_MASK),
            of_pictures(("nearest-public-image",)),
            terms.most_ssim,
        ),
        (
            "singling out",
            f"which of {candidates:,} images it is",
            scores.REIDENTIFICATION,
            guess(scores.REIDENTIFICATION),
            of_pixels(scores.REIDENTIFICATION, "masks-only", 0),
            terms.most_named,
        ),
        (
            "linkability",
            "which picture it is, from a copy that was cropped, lit differently and saved again",
            scores.LINKAGE,
            guess(scores.LINKAGE),
            of_pixels(scores.LINKAGE, "stolen-encoder", 0),
            terms.most_linked,
        ),
        (
            "inference",
            "a label that was withheld: "
            + (
                "the superclass stands for any that does not follow from those released"
                if frequent
                else "measured on CIFAR-100 alone, which has a second one"
            ),
            scores.ATTRIBUTE,
            f"the most frequent label {with_interval(frequent['accuracy'])}" if frequent else "not measured",
            of_pixels(scores.ATTRIBUTE, "known-pairs", known),
            terms.most_inferred,
        ),
    )
    for criterion, question, kind, control, scale, most in questions:
        tries = {f"{known:,} masks that come with it": known} if kind is scores.ATTRIBUTE else attackers
        for attacker, count in tries.items():
            without = WITHOUT_MASK if kind is scores.RECONSTRUCTION else ()
            rows = table.chosen(kind, mask, count, images=images, others=without)
            beside = _beside(kind, rows, released, candidates) + elsewhere(kind, count, without)
            yield Line(
                criterion, question, attacker + NEEDED.get(kind, ""), rows.get(kind.main), beside, control, scale, most
            )


def _beside(kind: scores.Kind, rows: Mapping[str, Row], released: Released, candidates: int) -> str:
    """What is said beside a figure: of pictures the best hundredth, of names and links the bound.

    The bound is for who has the images themselves, so also for who has other photographs of them.
    """
    if kind is scores.RECONSTRUCTION and rows:
        return f"; of the best 1% of images {float(rows['ssim_best1']['mean']):.3f} or more"
    if kind in NEEDED and released.data is not None and released.data.kept is not None:
        data, views = released.data, released.views
        size, counts = data.gaussian.shape[1], data.labels.bincount()
        alike = max(1, int(candidates * counts[counts > 0].min()) // len(data.labels))  # of the smallest class
        one, most = (bounds.naming_bound(data.kept, size, *case) for case in ((1, candidates), (views, alike)))
        more = []
        if views > 1:
            more.append(f"{views} views")
        if len(data.classes) > 1:
            more.append(f"about {alike:,} candidates of its label")
        said = f"; by this mask alone, with the encoder, at most {one:.3f} (proven)"
        said += f", by {' and '.join(more)} {most:.3f}" if more else ""
        return f"{said}; for who has the masks of others, too, nothing is proven"
    return ""


def tried(table: Table, threat: str, most: int) -> int:
    """Of the numbers of pairs or queries that a threat was tried with, the least from ``most`` on, or the largest."""
    counts = {key[5] for key in table.cells if key[2] == threat} if most else set()
    return min((count for count in counts if count >= most), default=max(counts, default=0))


def assumptions(table: Table, terms: Release, released: Released, candidates: int) -> Iterator[tuple[str, str]]:
    """What the page supposes, and what is found where it does not hold.

    Args:
        candidates: as for :func:`lines`.
    """
    mask, data, images = released.mask, released.data, table.sets[-1]
    keyed, noisy = mask.endswith(KEYED), data is not None and data.kept is not None
    words = {"ssim": "SSIM", "reid_at_1": "named", "linked_at_1": "linked", "joined_at_1": "joined"}

    def found(threats: tuple[str, ...], count: int, *kinds: scores.Kind) -> str:
        rows = [(kind, table.chosen(kind, mask, count, threats, images)) for kind in kinds]
        said = [f"{words[kind.main]} {float(of_kind[kind.main]['mean']):.3f}" for kind, of_kind in rows if of_kind]
        return ", ".join(said) or "not measured"

    three = scores.RECONSTRUCTION, scores.REIDENTIFICATION, scores.LINKAGE
    known, asked = (tried(table, threat, terms.pairs) for threat in ("known-pairs", "oracle"))
    stolen = f"With it: {found(('stolen-encoder',), known if keyed else table.all_pairs[-1], *three)}"
    if members := table.chosen(scores.MEMBERSHIP, "aae", 0, ("stolen-encoder",)):
        stolen += (
            f"; whether an image trained it is told in {with_interval(members['accuracy'])} of cases, by chance 0.500"
        )
    yield "The encoder stays inside.", f"{stolen}."
    # who has a checkpoint has the encoder, too, with which a better decoder than the owner's may be trained
    bare = table.chosen(
        scores.RECONSTRUCTION, mask.removesuffix(KEYED), table.all_pairs[-1], ("stolen-encoder",), images
    )
    shown = table.value(mask, "masks-only", "matched-decoder", "ssim", 0, images)
    if bare:
        shown = max(shown, float(bare["ssim"]["mean"]))
    yield "The decoder and the checkpoints stay inside.", f"With them: SSIM {shown:.3f}."
    if keyed:
        yield "The key stays secret.", "With it and the encoder, the masks are masks without a key."
    if noisy:
        yield "The secret of the noise stays secret.", "With it, the noise is taken away, and its bound proves nothing."
    each = " (of each set)" if len(table.sets) > 1 else ""
    queries = found(CHOOSERS, asked, *three[:2]) if asked else "not measured"
    yield "Nobody has images of their choice masked.", f"With up to {asked:,} of them{each}: {queries}."
    again = "another key" if keyed else "other noise" if noisy else "another encoder"
    twice = found(("two-releases",), 0, scores.RELEASES)
    if noisy:
        bound = bounds.naming_bound(data.kept, data.gaussian.shape[1], 2 * released.views, candidates)
        twice += f"; by {2 * released.views} views at most {bound:.3f} are named (proven)"
    yield "The images are released once.", f"With a second release, by {again}: {twice}."
    most = tried(table, "known-pairs", table.all_pairs[-1])
    more = f"With {most:,}{each}: {found(WITHOUT_ENCODER, most, *three)}." if most > known else "More were not tried."
    yield f"No more than {known:,} images{each} behind masks are known.", more
    first = table.sets[0]
    crowd = table.chosen(scores.CROWD, mask, known, images=first)
    among = "More candidates than masks were not tried."
    if crowd:
        share = with_interval(crowd[scores.CROWD.main])
        among = f"With other photographs of all validation images of {first}, {share} of the masks are named."
    yield f"Each of {candidates:,} candidates is behind one of as many masks.", among
    yield "Labels are not used to tell images apart.", "Who uses them has fewer candidates: those of the same label."
    if released.views > 1:
        yield "Each figure is of one mask of an image.", "Who takes its copies together may find more."
    name = "" if data is None else data.dataset.split(" ")[0]
    if data is not None and name != images.removeprefix("private "):
        yield f"The images are like those of {images}.", f"The attacks were judged on these, not on {data.dataset}."
    elif name in ("folder", "npz"):
        yield f"The images are those of the {name} that was judged.", "This page cannot tell one from another."
    yield (
        "The encoder learned from public images.",
        "Shadow encoders, which tell best what trained one, were not tried.",
    )
    yield "No attack is better than those tried.", "That they fail proves nothing about others."


def write(
    folder: Path,
    terms: Release,
    before: bool,
    released: Released,
    pictures: Mapping[tuple[str, str, str, int], Pictures],
    originals: Tensor,
    label_means: Tensor,
) -> None:
    """Write the report on one release beside ``audit.csv``, whole or not at all.

    Args:
        before: whether the terms were given before the first attack ran.
        pictures: of every attack, by mask, threat, attack and pairs.
        originals: judged images of the last set, uint8 ``[N, 3, S, S]``.
        label_means: of each the mean image of its label, float32 ``[N, 3, S, S]``.
    """
    table = Table(read(folder / "audit.csv"))
    judged = list(lines(table, terms, released, len(originals)))
    known = tried(table, "known-pairs", terms.pairs)
    seen, of_best = table.best_made(pictures, released.mask, known, table.sets[-1])
    rows = {
        "the images": originals[of_best.worst],
        f"what the attack makes of them ({seen['attack']}, {int(seen['pairs']):,} pairs)": of_best.worst_examples,
        "what their label alone shows": label_means[of_best.worst].mul(255).round().to(torch.uint8),
    }
    supposed = list(assumptions(table, terms, released, len(originals)))
    atomic.write_text(
        folder / released.page, page(released, judged, before, rows, supposed, table.sets[-1], len(originals))
    )


def page(
    released: Released,
    judged: Sequence[Line],
    before: bool,
    pictures: Mapping[str, Tensor],
    supposed: Sequence[tuple[str, str]],
    images: str,
    candidates: int,
) -> str:
    """The report as HTML: no script, no style or font from elsewhere.

    Args:
        before: whether the thresholds were given before the first attack ran.
        pictures: rows of images by what they are, uint8 ``[W, 3, S, S]`` each.
        supposed: what the page supposes, and what is found where it does not hold.
        images: the set that the attacks were judged on.
    """
    said = [line.holds for line in judged if line.holds is not None]
    verdict = "No threshold was given: this page measures, and decides nothing."
    if said:
        verdict = f"{sum(said)} of {len(said)} lines pass; {len(judged) - len(said)} have no threshold. "
        verdict += BEFORE if before else AFTER
    state = "none" if not said else "pass" if all(said) else "fail"
    columns = ("criterion", "the attacker finds out", "and has", "best attack", "found (95% interval)")
    columns += ("without masks", "for scale")
    cells = [
        (
            line.criterion,
            line.question,
            line.attacker,
            line.attack,
            line.found,
            line.control,
            line.scale,
            VERDICTS[line.holds] + ("" if line.most is None else f" (at most {line.most:g})"),
        )
        for line in judged
    ]
    strips = "".join(
        f"<figure><img alt={_attribute(text)} src='{_strip(row)}'><figcaption>{html.escape(text)}</figcaption></figure>"
        for text, row in pictures.items()
    )
    count, name = len(next(iter(pictures.values()))), html.escape(images)
    body = [
        "<h1>Release of masked images: report</h1>",
        f"<p class='verdict {state}'>{html.escape(verdict)}</p>",
        "<h2>What leaves</h2>",
        _definitions(released.facts),
        "<h2>Singling out, linkability, inference</h2>",
        f"<p>The criteria of the Article 29 Working Party (WP216), measured on {candidates:,} images of {name}. Each "
        "attack was chosen on a quarter of them and judged on the others. A line passes where the upper end of its "
        "interval is accepted, and fails where nothing was measured. The interval is over images, for one training of "
        "the attacker's encoder: another finds more links or fewer. Without masks one can guess, or answer with a "
        "mean image. For scale stands what is found from the pixels themselves, and the public image most like the "
        "true one, which nobody knows who does not know the image.</p>",
        _rows((*columns, "verdict"), cells, [VERDICTS[line.holds].split()[0] for line in judged]),
        "<h2>The images that an attack rebuilds best</h2>",
        f"<p>The worst {count} of {candidates:,}, for an attacker who has what the table above allows. These are true "
        "images: the page is as private as they are.</p>",
        f"<div class='strips'>{strips}</div>",
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
dl { display: grid; grid-template-columns: fit-content(16rem) 1fr; gap: .3rem 1rem; margin: 0 }
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
  tr, .strips, dt, dd { break-inside: avoid } h2 { break-after: avoid }
}
</style>"""
