"""Tables as data, and as text: Markdown, LaTeX (booktabs) and CSV."""

import csv
import io
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

DASH = "\N{EN DASH}"
DIGITS = 3
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    DASH: "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


class Unit(NamedTuple):
    """What the numbers of a column or an axis are divided by."""

    name: str = ""
    size: float = 1.0


PERCENT = Unit("%", 0.01)


class Estimate(NamedTuple):
    """A mean over seeds, in basic units (s, J, B, shares of one)."""

    mean: float
    half: float  # half of the 95% interval; nan for a single seed
    count: int  # type: ignore[assignment]  # for tuple.count; seeds that have the value
    seeds: int  # seeds of the group


class Column(NamedTuple):
    """One column; its cells are Estimate, text, or None for what a method does not have."""

    key: str  # in files
    title: str
    unit: Unit = Unit()
    most_decimals: int = 6


class Table(NamedTuple):
    """What is known of each group of a section."""

    name: str  # in names of files
    columns: tuple
    labels: list  # of the rows
    rows: list  # lists of cells, one a column
    notes: list  # sentences that belong below


class Shown(NamedTuple):
    """A table as text, for people."""

    heads: list
    rows: list  # lists of text, the label first


def show(table: Table) -> Shown:
    """Returns the Shown of a table: cells in the unit of their column, with equal decimals."""
    heads = ["", *map(_head, table.columns)]
    decimals = [
        _decimals(column, [row[place] for row in table.rows])
        for place, column in enumerate(table.columns)
    ]
    rows = [
        [label, *(_cell(*each) for each in zip(row, table.columns, decimals, strict=True))]
        for label, row in zip(table.labels, table.rows, strict=True)
    ]
    return Shown(heads, rows)


def to_markdown(table: Table) -> str:
    """Returns the table in GitHub's Markdown, notes below."""
    shown = show(table)
    lines = [_markdown_line(shown.heads), "|---" + "|---:" * len(table.columns) + "|"]
    lines += [_markdown_line(row) for row in shown.rows]
    return "\n".join([*lines, "", *map(_markdown, table.notes)]) + "\n"


def to_latex(table: Table) -> str:
    """Returns the table for LaTeX with the package booktabs, notes in its caption."""
    shown = show(table)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(' '.join(table.notes))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        _latex_line(shown.heads),
        r"\midrule",
        *map(_latex_line, shown.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Returns the table for programs: basic units (s, J, B, shares of one), nothing rounded.

    An estimate has columns for its mean, for half of the 95% interval, and for the number of seeds
    that have the value.
    """
    heads, columns = ["label"], [tuple(" ".join(label.split()) for label in table.labels)]
    for place, column in enumerate(table.columns):
        cells = tuple(row[place] for row in table.rows)
        if any(isinstance(cell, Estimate) for cell in cells):
            heads += [f"{column.key}_{part}" for part in ("mean", "half_interval", "seeds")]
            numbers = [cell[:3] if cell else (math.nan, math.nan, 0) for cell in cells]
            columns += zip(*numbers, strict=True)
        else:
            heads.append(column.key)
            columns.append(cells)
    return csv_text([heads, *zip(*columns, strict=True)])


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Returns rows as CSV; a number that is not finite is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        ["" if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row]
        for row in rows
    )
    return text.getvalue()


WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
"""By the ending of a file."""


def _head(column):
    return f"{column.title} ({column.unit.name})" if column.unit.name else column.title


def _decimals(column, cells):
    """Decimals that show the middle one of a column's means with `DIGITS` digits."""
    known = [cell for cell in cells if isinstance(cell, Estimate) and cell.mean / column.unit.size]
    sizes = sorted(abs(cell.mean) / column.unit.size for cell in known)
    are_whole = all(size == round(size) for size in sizes)
    if are_whole and not any(math.isfinite(cell.half) for cell in known):
        return 0
    digits = DIGITS + (column.unit.name == "%")
    middle = sizes[(len(sizes) - 1) // 2]
    return min(max(digits - 1 - math.floor(math.log10(middle)), 0), column.most_decimals)


def _cell(cell, column, decimals):
    if cell is None:
        return DASH
    if not isinstance(cell, Estimate):
        return cell
    shown = f"{cell.mean / column.unit.size:,.{decimals}f}"
    if math.isfinite(cell.half):
        shown += f" ± {cell.half / column.unit.size:,.{decimals}f}"
    return shown if cell.count == cell.seeds else f"{shown} ({cell.count} of {cell.seeds})"


def _markdown_line(cells):
    return "| " + " | ".join(map(_markdown, cells)) + " |"


def _markdown(text):
    plain = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()))
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def _latex_line(cells):
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(text):
    return "".join(LATEX.get(mark, mark) for mark in " ".join(text.split()))
