"""Tables as CSV files and as Markdown."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from maskbench.errors import InputError
from maskbench.storage.atomic import write_text


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a CSV file whole: a line of column names, then the rows."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())


Row = dict[str, str]


def read(path: Path, advice: str = "make it again") -> list[Row]:
    """Rows of a CSV file by column name.

    Args:
        advice: what to do where it is missing or damaged.

    Raises:
        InputError: it is missing or not a table.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {advice}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: damaged ({error}); {advice}") from None
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: damaged (rows of different lengths); {advice}")
    return rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A Markdown table, columns of numbers to the right."""
    rows = [list(map(str, row)) for row in rows]
    numbers = [any(row[column][:1].isdecimal() for row in rows) for column in range(len(columns))]
    rule = ["---:" if right else "---" for right in numbers]
    return "\n".join(map(markdown_line, (columns, rule, *rows))) + "\n"


def markdown_line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
