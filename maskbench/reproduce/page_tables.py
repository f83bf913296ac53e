"""The tables of ``results/`` in Markdown."""

from maskbench.classification.scores import NAMES
from maskbench.models import PRESETS
from maskbench.reproduce.paper import METRICS, PRIOR_GOALS, RATIO_GOALS
from maskbench.reproduce.wording import mean_and_error, title, worse
from maskbench.storage.tables import Row, markdown


def by_cell(table: list[Row]) -> dict[tuple, Row]:
    """The rows of a table of scores by preset, classifier, number of classes and metric."""
    return {(row["preset"], row["method"], row["classes"], row["metric"]): row for row in table}


def below_paper(row: Row) -> bool:
    return float(row["mean"]) < float(row["paper"])


def score_table(table: list[Row], preset: str) -> str:
    """All cells of one preset, each with the paper's beside it."""
    cells = by_cell([row for row in table if row["preset"] == preset])
    rows = []
    for method, classes in dict.fromkeys(key[1:3] for key in cells):
        line = [f"{NAMES[method]}, {classes} classes"]
        for metric in METRICS:
            row = cells[preset, method, classes, metric]
            deviation = f" ({float(row['std']):.3f})" if int(row["draws"]) > 1 else ""
            line += [f"{mean_and_error(row)}{deviation}{worse(below_paper(row))}", f"{float(row['paper']):.3f}"]
        rows.append(line)
    columns = [title(preset), *(name for metric in METRICS for name in (metric, "paper"))]
    return markdown(columns, rows) if rows else ""


def cells_above(table: list[Row]) -> str:
    """How many cells of each preset are above the paper's, as a list."""
    lines = []
    for preset in PRESETS:
        own = [row for row in table if row["preset"] == preset]
        if own:
            above = sum(float(row["mean"]) > float(row["paper"]) for row in own)
            lines.append(f"- preset {preset}: {above} of {len(own)} cells above the paper\n")
    return "".join(lines)


def kept_table(table: list[Row]) -> str:
    """Accuracy of every preset and baseline, and what part of identity's it is."""
    cells = by_cell(table)
    names = list(dict.fromkeys(row["preset"] for row in table))
    rows = []
    for method, classes in dict.fromkeys((row["method"], row["classes"]) for row in table):
        raw = cells.get(("identity", method, classes, "accuracy"))
        line = [f"{NAMES[method]}, {classes} classes"]
        for name in names:
            row = cells.get((name, method, classes, "accuracy"))
            kept = f" ({float(row['mean']) / float(raw['mean']):.0%})" if row and raw else ""
            line.append(f"{mean_and_error(row)}{kept}" if row else "")
        rows.append(line)
    return markdown(["accuracy", *map(title, names)], rows)


def error_table(table: list[Row]) -> str:
    """MSE of matched and unmatched pairs, beside the paper's."""
    cells = {(row["preset"], row["images"], row["pair"]): row for row in table}
    names = list(dict.fromkeys(row["preset"] for row in table))
    rows = []
    for images, pair in dict.fromkeys((row["images"], row["pair"]) for row in table):
        found = [cells.get((name, images, pair)) for name in names]
        paper = next((row for row in found if row and row["paper_mean"]), None)
        ours = []
        for row in found:
            missed = row and paper and pair == "matched" and float(row["mean"]) > float(paper["paper_mean"])
            figure = f"{float(row['mean']):.6f} ({float(row['std']):.6f})" if row else ""
            ours.append(f"{figure}{worse(missed and row['preset'] == 'paper')}")
        theirs = f"{float(paper['paper_mean']):.6f} ({float(paper['paper_std']):.6f})" if paper else ""
        rows.append([f"{images}, {pair}", *ours, theirs])
    return markdown(["MSE (standard deviation)", *map(title, names), "paper"], rows)


def ratio_table(table: list[Row]) -> str:
    """How many times worse an unmatched decoder is; preset invariant is not there to be rebuilt."""
    mean = {(row["preset"], row["images"], row["pair"]): float(row["mean"]) for row in table}
    presets = ["paper"] if ("paper", "train", "unmatched") in mean else []
    rows = []
    for images, goal in RATIO_GOALS.items():
        ratios = [mean[preset, images, "unmatched"] / mean[preset, images, "matched"] for preset in presets]
        rows.append([images, *(f"{ratio:.1f}{worse(ratio < goal)}" for ratio in ratios), f"{goal}"])
    return markdown(["unmatched / matched", *map(title, presets), "target"], rows) if presets else ""


def prior_table(table: list[Row]) -> str:
    """How well the prior holds, beside the goals: from the lowest to the highest of several instances."""
    values = {}
    for row in table:
        values.setdefault((row["preset"], row["measure"]), []).append(float(row["value"]))
    presets = list(dict.fromkeys(row["preset"] for row in table))
    rows = []
    for measure, (low, high) in PRIOR_GOALS.items():
        line = [measure]
        for preset in presets:
            found = sorted(values.get((preset, measure), []))
            missed = found and ((low != "" and found[0] < low) or (high != "" and found[-1] > high))
            line.append(f"{_from_to(found, '{:.3f}')}{worse(missed)}")
        goal = _from_to([bound for bound in (low, high) if bound != ""])
        if low == "" and high != "":
            goal = f"at most {high}"
        elif high == "" and low != "":
            goal = f"at least {low}"
        rows.append([*line, goal])
    return markdown(["measure", *map(title, presets), "goal"], rows)


def _from_to(values: list[float], form: str = "{}") -> str:
    """The first and the last of them, once where they look the same; nothing of none."""
    return " to ".join(dict.fromkeys(form.format(value) for value in [*values[:1], *values[-1:]]))


def plain_table(table: list[Row]) -> str:
    """A table as it is, numbers to four significant digits."""

    def short(text: str) -> str:
        try:
            return text if text.isdecimal() else f"{float(text):.4g}"
        except ValueError:
            return text

    return markdown([name.replace("_", " ") for name in table[0]], [map(short, row.values()) for row in table])
