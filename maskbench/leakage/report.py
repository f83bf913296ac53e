"""What ``crosspair.py --audit`` measured, as a page with pictures and a verdict that is made from the figures alone."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from maskbench.classification.scores import NAMES, standard_error
from maskbench.data.image_set import to_float
from maskbench.data.masked_set import KEYED, NOISY, parts_of
from maskbench.leakage import figures, plan, scores
from maskbench.leakage.attacks import decoders
from maskbench.leakage.bounds import naming_bound
from maskbench.leakage.controls import CONTROLS
from maskbench.leakage.plan import ANCHORS
from maskbench.leakage.table import CHOOSERS, WITHOUT_ENCODER, Table, with_interval
from maskbench.leakage.threats import THREATS
from maskbench.leakage.world import Images
from maskbench.storage import atomic
from maskbench.storage.tables import Row, markdown, read

ORACLE = ("oracle",)
NAMED = ("named_without_pairs", "named_with_pairs")  # columns of frontier.csv
EQUAL = 0.02  # difference of SSIM, or of a share of images, that is called none
PICTURES = {
    "audit-attacks.png": "Reconstructions by attack and pairs",
    "audit-worst.png": "The images that each attacker rebuilds best, what he makes of them, and what their label shows",
    "audit-leakage.png": "SSIM and re-identification against known pairs",
    "audit-frontier.png": "Accuracy against leakage",
}


def write(
    folder: Path,
    images: Images,
    attacked: Mapping[tuple[str, str, str, int], figures.Pictures],
    gaussian_dim: int,
) -> str:
    """Write ``audit.md`` and its pictures from ``audit.csv`` and ``frontier.csv`` in a folder; returns the verdict.

    Args:
        images: that the attacks were judged on.
        attacked: what became of some of them, by mask, threat, attack and pairs.
        gaussian_dim: length of the Gaussian part of the audited masks.
    """
    table = Table(read(folder / "audit.csv"))
    path = folder / "frontier.csv"
    frontier = read(path) if path.exists() else []
    pictures = folder / "figures"
    atomic.make_folder(pictures)
    originals = images.judged[table.sets[0]]
    examples = {key[1:]: made.examples for key, made in attacked.items() if key[0] == "aae"}
    figures.attack_grid(originals, examples, plan.pictured(), ANCHORS, table.all_pairs, pictures / "audit-attacks.png")
    figures.worst(best_rebuilt(table, images, attacked), pictures / "audit-worst.png")
    curves = {mask: [table.best(mask, k) for k in table.pairs] for mask in table.masks}
    found = {mask: [table.best_reid(mask, k) for k in table.pairs] for mask in table.masks}
    anchors = {name: table.anchor(name) for name in ANCHORS}
    figures.leakage(table.pairs, curves, found, anchors, pictures / "audit-leakage.png")
    (pictures / "audit-frontier.png").unlink(missing_ok=True)  # an earlier run's would not belong to this page
    if frontier:
        figures.frontier(frontier, pictures / "audit-frontier.png")
    drawn = [name for name in PICTURES if (pictures / name).exists()]
    candidates = len(originals)
    said = verdict(table, frontier, candidates)
    atomic.write_text(folder / "audit.md", page(table, frontier, candidates, gaussian_dim, said, drawn))
    return said


def best_rebuilt(
    table: Table, images: Images, attacked: Mapping[tuple[str, str, str, int], figures.Pictures]
) -> list[tuple[str, Tensor]]:
    """Images of the last set that each attacker rebuilds best from the autoencoder's masks: strips of a picture."""
    name = table.sets[-1]
    attackers = {"masks alone": (0, WITHOUT_ENCODER), f"{table.many:,} known pairs": (table.many, WITHOUT_ENCODER)}
    attackers["the encoder"] = (table.most_with_encoder("aae"), ("stolen-encoder",))
    strips = []
    for attacker, (pairs, threats) in attackers.items():
        row, made = table.best_made(attacked, "aae", pairs, name, threats=threats)
        strips.append((f"images,\n{attacker}", to_float(images.judged[name][made.worst])))
        strips.append((row["attack"].replace("-", " "), to_float(made.worst_examples)))
        strips.append(("what their label shows", images.label_means[name][made.worst]))
    return strips


def verdict(table: Table, frontier: list[Row], candidates: int) -> str:
    """Plain words that follow from the figures by fixed rules, and say no more than they do: a list in Markdown.

    Args:
        candidates: among how many images the right one was to be found.
    """
    nothing, label, look_alike, everything = (table.anchor(name) for name in ANCHORS)

    def recovered(ssim: float) -> str:
        share = (ssim - nothing) / max(everything - nothing, 1e-9)
        words = "nothing beyond the mean image"
        as_much, more = (f"{amount} the matching decoder shows" for amount in ("as much as", "more than"))
        for least, text in ((0.1, "a little"), (0.5, "most"), (0.95, as_much), (1.05, more)):
            if share >= least:
                words = text
        if words in ("a little", "most"):
            words += " of what the matching decoder shows"
        return f"{words} (SSIM {ssim:.2f})"

    many, counts = table.many, sorted({table.few, table.many})  # few images leave one number of pairs
    said = [
        f"Pictures: the mean image, which needs no mask, has SSIM {nothing:.2f}, that of the true label {label:.2f}, "
        f"the public image most like the true one {look_alike:.2f}, and the owner's own decoder {everything:.2f}. "
        f"From the masks of the autoencoder, somebody with masks alone recovers {recovered(table.best('aae', 0))}; "
        + "".join(f"with {count:,} known pairs {recovered(table.best('aae', count))}; " for count in counts)
        + f"with the encoder {recovered(table.with_encoder('aae'))}."
    ]
    if "oracle" in table.threats:
        said.append(
            "Who may have images of their choice masked, mixtures or photographs, recovers "
            + ", ".join(f"{recovered(table.best('aae', count, CHOOSERS))} with {count:,}" for count in counts)
            + "."
        )
    said.append(
        f"Links: somebody who has {candidates:,} candidate images and trains an encoder of the same kind names the one "
        f"behind a mask at the first guess for {table.best_reid('aae', 0):.1%} of the masks without a pair, for "
        f"{table.best_reid('aae', table.fewest):.1%} with {table.fewest} known pairs, for "
        f"{table.best_reid('aae', many):.1%} with {many:,}, and for "
        f"{table.best_reid('aae', 0, ('stolen-encoder',)):.1%} with the encoder itself."
    )
    linked = [
        (text, float(rows["linked_at_1"]["mean"]))
        for text, threat, pairs in (
            ("without a pair", "masks-only", 0),
            (f"with {many:,} known pairs", "known-pairs", many),
            ("with the encoder itself", "stolen-encoder", 0),
        )
        if (rows := table.chosen(scores.LINKAGE, "aae", pairs, (threat,)))
    ]
    if linked:
        said.append(
            "Who has another photograph of each, cropped a little, brighter or darker and saved as JPEG, names the one "
            "of a mask for " + ", ".join(f"{share:.1%} {text}" for text, share in linked) + "."
        )
    joined = [
        (text, float(rows["joined_at_1"]["mean"]))
        for text, mask in (("another encoder", "aae"), ("another key", "aae" + KEYED))
        if (rows := table.chosen(scores.RELEASES, mask, 0, ("two-releases",)))
    ]
    if joined:
        said.append(
            "Who has the same images masked twice, and neither images nor encoder, joins the two masks of an image for "
            + ", ".join(f"{share:.1%} where the other time it was {text}" for text, share in joined)
            + "."
        )
    if "aae" + KEYED in table.masks:
        said.append(key_verdict(table, frontier, recovered))
    said += [noise_verdict(table, mask, recovered) for mask in table.masks if NOISY in mask]
    for member in table.of_kind(scores.MEMBERSHIP, "aae", "stolen-encoder", table.sets[0], 0):
        low, mean, high = (float(member[name]) for name in ("low", "mean", "high"))
        told = "is not shown to be told" if low <= 0.5 else "is told"
        said.append(
            f"Whether an image trained the autoencoder {told} from the encoder and decoder (accuracy {mean:.2f}, "
            f"interval {low:.2f} to {high:.2f}, chance 0.50)."
        )
    most = max(table.pairs)
    hidden, raw = (
        table.of_kind(scores.ATTRIBUTE, mask, "known-pairs", table.sets[-1], most) for mask in ("aae", "identity")
    )
    if hidden and raw:
        of_masks, of_pixels = (max(float(row["mean"]) for row in rows) for rows in (hidden, raw))
        said.append(
            f"A label that was withheld, the superclass of CIFAR-100, is learned from {most:,} masks with an accuracy "
            f"of {of_masks:.2f}; from as many images {of_pixels:.2f}, by chance 0.05."
        )
    limits = "What follows is what the attacks tried here find; that they fail proves nothing about others. "
    return "\n".join([limits + "Pictures and links are two things.\n", *(f"- {point}" for point in said)])


def key_verdict(table: Table, frontier: list[Row], recovered) -> str:
    keyed = "aae" + KEYED
    said = f"A secret key leaves somebody with masks alone {recovered(table.best(keyed, 0))}"
    helps = [k for k in table.pairs if table.best(keyed, k) < table.best("aae", k) - EQUAL]
    useless = [k for k in table.pairs if k > max(helps, default=-1)]
    if not helps:
        said += "; it makes no difference to any number of known pairs."
    elif useless:
        said += f"; from {useless[0]:,} known pairs on it no longer helps."
    else:
        said += f"; it still helps at {max(table.pairs):,} known pairs."
    plain = table.with_encoder("aae")
    stolen = [k for k in table.pairs if table.best(keyed, k, ("stolen-encoder",)) >= plain - EQUAL]
    if "oracle" in table.threats:
        said += " Against an oracle "
        worse = [k for k in table.pairs[1:] if table.best(keyed, k, ORACLE) < table.best("aae", k, ORACLE) - EQUAL]
        said += "it makes no difference." if not worse else f"it helps up to {max(worse):,} images."
    said += f" With the encoder but neither key nor pairs, one recovers {recovered(table.with_encoder(keyed))}"
    if stolen:
        said += (
            f", and from {stolen[0]:,} known pairs on the key no longer helps"
            if stolen[0]
            else ": the key does not help"
        )
    said += ". "
    said += (
        "Who has the candidates and keyed masks of all of them answers rightly at the first guess which is behind "
        f"which for {table.best_reid(keyed, 0):.1%} without the encoder and a known pair, for "
        f"{table.best_reid(keyed, table.fewest):.1%} with {table.fewest} known pairs, and for "
        f"{table.best_reid(keyed, 0, ('stolen-encoder',)):.1%} with the encoder; right answers are known pairs."
    )
    if costs := key_costs(frontier):
        said += " Accuracies without and with the key are " + ", ".join(
            f"{before:.3f} and {after:.3f} ({NAMES[name]})" for name, before, after in costs
        )
        draws = int(frontier[0]["draws"])
        error = max(standard_error(float(row["std"]), draws) for row in frontier)
        said += f", means of {draws} draws of three classes with standard errors of up to {error:.3f}."
    return said


def noise_verdict(table: Table, mask: str, recovered) -> str:
    said = f"From {mask}, somebody with {table.many:,} known pairs recovers {recovered(table.best(mask, table.many))}; "
    said += f"with the encoder {recovered(table.with_encoder(mask))}. "
    named = []
    for pairs, text in ((0, "without a pair"), (table.many, f"with {table.many:,}")):
        rows = ((images, table.chosen(scores.REIDENTIFICATION, mask, pairs, images=images)) for images in table.sets)
        shares = ", ".join(f"{float(row['reid_at_1']['mean']):.1%} of {images}" for images, row in rows if row)
        named.append(f"{shares} {text}")
    return f"{said}Of the candidates are named: {'; '.join(named)}."


def key_costs(frontier: list[Row]) -> list[tuple[str, float, float]]:
    """Classifier, its accuracy without and with the key."""
    plain, keyed = (
        {row["method"]: float(row["accuracy"]) for row in reversed(frontier) if row["mask"] == mask}
        for mask in ("aae", "aae" + KEYED)
    )
    return [(name, plain[name], keyed[name]) for name in NAMES if name in plain and name in keyed]


def page(table: Table, frontier: list[Row], candidates: int, gaussian_dim: int, said: str, pictures: list[str]) -> str:
    """``audit.md``; what of ``PICTURES`` could be drawn is in it."""
    lines = [
        "# What a mask leaks\n",
        f"Made by `python crosspair.py --audit`. {said}\n",
        "The words of this verdict follow a rule: of the way from the mean image's SSIM to the matched decoder's, \"a "
        'little" is a tenth, "most" is half, "as much" is 95%, and "more" is 105%. With k known pairs the attacker has '
        f'k of each set that is judged. A key "no longer helps" where the best attack comes within {EQUAL} of SSIM of '
        "the best without it. The best attack of several is chosen on every fourth image (measure `choice`); all other "
        "figures are of the other images.\n",
        *(f"![{PICTURES[name]}](figures/{name})\n" for name in pictures),
        "## Pictures\n",
        f"SSIM of the best attack with so many pairs or fewer on {table.sets[0]}, between answers that need no attack: "
        "the mean of public images, their mean of the true label, of public images the one most like the true image, "
        "and the owner's own decoder.\n",
        picture_table(table),
        "The same by a learned distance, of which less is nearer (`perceptual`): of all attacks the nearest, judged on "
        "the images that it is chosen on.\n",
        picture_table(table, "perceptual"),
        "## Links\n",
        f"Share of masks whose image is named among {candidates:,} candidates at the first guess, by somebody with an "
        "encoder of the same kind: of another seed, trained on public images.\n",
        link_table(table, frontier, candidates, gaussian_dim),
    ]
    threats = [(name, threat.text) for name, threat in THREATS.items()]
    lines += ["## Threat models\n", markdown(["threat", "the attacker has"], threats)]
    lines.append(
        "Under `oracle`, up to 1,000 queries are mixtures of principal components, and the way back is a Wiener "
        "filter after a ridge regression of the answers on the queries; more are photographs, with ridge regression "
        "from masks to images. Re-identification by transport supposes that each of the candidates is behind a mask.\n"
    )
    for images in table.sets:
        lines += [f"## SSIM of reconstructions: {images}\n", reconstruction_table(table, images)]
        for kind in (scores.REIDENTIFICATION, scores.LINKAGE, scores.CROWD, scores.RELEASES):
            if any(key[1] == images and key[3] in plan.named(kind) for key in table.cells):
                lines += [
                    f"## {kind.name.capitalize()} at the first guess: {images}\n",
                    guess_table(table, images, kind),
                ]
    for kind, chance in ((scores.ATTRIBUTE, "1 of 20 superclasses, 0.05"), (scores.MEMBERSHIP, "0.5")):
        names = plan.named(kind)
        rows = [row for key, row in table.cells.items() if key[3] in names and key[4] == kind.main]
        if rows:
            lines += [f"## {kind.name.capitalize()}\n", f"Accuracy; chance is {chance}.\n"]
            cells = [[row["mask"], row["threat"], row["pairs"], with_interval(row)] for row in rows]
            if control := table.control(kind, rows[0]["images"]):
                cells.insert(0, [f"no mask, {CONTROLS[kind].text}", "", "", with_interval(control[kind.main])])
            lines.append(markdown(["mask", "threat", "pairs", "accuracy"], cells))
    if frontier:
        lines += [
            "## Accuracy against leakage\n",
            f"{frontier[0]['draws']} draws of three classes; SSIM is of the best attack with at most 1,000 pairs.\n",
        ]
        cells = [
            (row["mask"], row["gaussian_dim"], NAMES[row["method"]], *shortened(row, "accuracy", "std", "ssim"))
            for row in frontier
        ]
        lines.append(markdown(["mask", "Gaussian part", "classifier", "accuracy", "standard deviation", "SSIM"], cells))
    lines.append(
        "MSE, PSNR, a learned distance (`perceptual`), medians, the best 1% of the images (the 1% or 99% quantile), "
        "ranks, other photographs that are "
        f"told at a false positive rate of {scores.FALSE_POSITIVES} (`linked_at_fpr`), and 95% intervals "
        "over images: [audit.csv](audit.csv). Gradient inversion attacks the first "
        f"{decoders.INVERTED} images of each set; of these, too, a quarter chooses.\n"
    )
    return "\n".join(lines)


def shortened(row: Row, *names: str) -> list[str]:
    return [f"{float(row[name]):.3f}" for name in names]


def picture_table(table: Table, measure: str = "ssim") -> str:
    """Masks down, what the attacker has across, between the anchors; by SSIM or by the learned distance."""
    counts = sorted({0, table.many, table.pairs[-1]})
    best = table.best if measure == "ssim" else table.nearest
    rows = []
    for mask in table.masks:
        found = [*(best(mask, k) for k in counts), best(mask, table.most_with_encoder(mask), ("stolen-encoder",))]
        *below, above = (table.anchor(name, mask, measure) for name in ANCHORS)
        values = (*below, *found, above)
        rows.append([mask, *("" if value is None else f"{value:.3f}" for value in values)])
    names = ["masks only", *(f"{k:,} known pairs" for k in counts[1:]), "the encoder, without a key"]
    *below, above = (name.replace("-", " ") for name in ANCHORS)
    return markdown(["mask", *below, *names, above], rows)


def link_table(table: Table, frontier: list[Row], candidates: int, gaussian_dim: int) -> str:
    """Masks down, those of ``--more-models`` at the end where there is a frontier; of masks in noise also the bound."""
    if frontier:
        shares = {(row["mask"], row["gaussian_dim"]): [float(row[name]) for name in NAMED] for row in frontier}
    else:
        sizes = {mask: str(gaussian_dim) if mask.startswith("aae") else "" for mask in table.masks}
        shares = {(mask, size): [table.best_reid(mask, k) for k in (0, table.many)] for mask, size in sizes.items()}
    rows = [[*point, *(f"{share:.3f}" for share in named)] for point, named in shares.items()]
    columns = ["mask", "Gaussian part", "without pairs", f"with {table.many:,} pairs"]
    if any(NOISY in mask for mask, _ in shares):
        columns.append("by one mask alone, with the encoder, at most (proven)")
        for row in rows:
            kept = parts_of(row[0])[1] if NOISY in row[0] else None
            row.append("" if kept is None else f"{naming_bound(kept, int(row[1]), 1, candidates):.3f}")
    return markdown(columns, rows)


def reconstruction_table(table: Table, images: str) -> str:
    """Attacks down, pairs across."""
    rows = []
    for mask, threat, attack in dict.fromkeys(
        (key[0], key[2], key[3]) for key in table.cells if key[1] == images and key[4] == "ssim"
    ):
        values = [table.value(mask, threat, attack, "ssim", k, images) for k in table.all_pairs]
        rows.append([mask, threat, attack, *("" if value is None else f"{value:.3f}" for value in values)])
    return markdown(["mask", "threat", "attack", *(f"{k:,}" for k in table.all_pairs)], rows)


def guess_table(table: Table, images: str, kind: scores.Kind) -> str:
    """Masks and threats down, pairs across; of several attacks the best, with as many pairs or fewer."""
    rows, (at_first, _, *shown), attacks = [], kind.figures, plan.named(kind)

    def cell(figures: dict[str, Row]) -> str:
        beside = zip(shown, (".0f", ".3f"), strict=False)
        more = "; ".join(format(float(figures[name]["mean"]), digits) for name, digits in beside)
        return f"{float(figures[at_first]['mean']):.3f} ({more})"

    if control := table.control(kind, images):
        rows.append([f"no mask, {CONTROLS[kind].text}", "", cell(control), *[""] * (len(table.pairs) - 1)])
    for mask, threat in dict.fromkeys((key[0], key[2]) for key in table.cells if key[3] in attacks):
        cells = []
        for k in table.pairs:
            cells.append("")
            if table.of_kind(kind, mask, threat, images, k):
                cells[-1] = cell(table.chosen(kind, mask, k, (threat,), images))
        rows.append([mask, threat, *cells])
    beside = "the median of guesses needed"
    if len(shown) > 1:
        beside += f"; what is told at a false-positive rate of {scores.FALSE_POSITIVES}"
    columns = [f"mask, in parentheses {beside}", "threat", *(f"{k:,}" for k in table.pairs)]
    return markdown(columns, rows)
