"""Tables as text hold the numbers of the table, and no text in them is taken for markup."""

import csv
import io
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax.reports import formats
from cefl_jax.reports.formats import PERCENT, Column, Estimate, Table, Unit

NAN = math.nan
SECONDS = Column("time_s", "time", Unit("min", 60.0))
TABLE = Table(
    "summary",
    (Column("final", "accuracy", PERCENT), Column("reached", "reached"), SECONDS),
    ["cefl", "fedavg"],
    [
        [Estimate(0.85123, 0.0123, 3, 3), "2 of 3 seeds", Estimate(1200.0, 60.0, 2, 3)],
        [Estimate(0.7, NAN, 1, 1), "0 of 1 seed", None],
    ],
    ["A note.", "Another."],
)
NASTY = r"a|b & 100% #1 $x$ _y_ {z} ~^ \end <script> `code` *bold* [link](x) ±"
NASTY_TABLE = TABLE._replace(labels=[NASTY, "fedavg"], notes=[NASTY])


def test_to_markdown_of_a_table():
    assert formats.to_markdown(TABLE) == (
        "|  | accuracy (%) | reached | time (min) |\n"
        "|---|---:|---:|---:|\n"
        "| cefl | 85.12 ± 1.23 | 2 of 3 seeds | 20.0 ± 1.0 (2 of 3) |\n"
        "| fedavg | 70.00 | 0 of 1 seed | \N{EN DASH} |\n"
        "\n"
        "A note.\nAnother.\n"
    )


def test_to_latex_of_a_table():
    assert formats.to_latex(TABLE) == "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            r"\caption{A note. Another.}",
            r"\begin{tabular}{lrrr}",
            r"\toprule",
            r" & accuracy (\%) & reached & time (min) \\",
            r"\midrule",
            r"cefl & 85.12 $\pm$ 1.23 & 2 of 3 seeds & 20.0 $\pm$ 1.0 (2 of 3) \\",
            r"fedavg & 70.00 & 0 of 1 seed & -- \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


ESTIMATES = st.none() | st.builds(
    Estimate,
    st.floats(-1e12, 1e12),
    st.just(NAN) | st.floats(0, 1e9),
    st.integers(1, 3),
    st.just(3),
)


@given(st.lists(st.tuples(st.text(min_size=1), ESTIMATES), min_size=1, max_size=5))
def test_to_csv_has_every_number_in_basic_units_and_unrounded(rows):
    table = Table("t", (SECONDS,), [label for label, _ in rows], [[cell] for _, cell in rows], [])
    found = list(csv.DictReader(io.StringIO(formats.to_csv(table), newline="")))
    assert [row["label"] for row in found] == [" ".join(label.split()) for label, _ in rows]
    if not any(cell for _, cell in rows):
        return
    for row, (_, cell) in zip(found, rows, strict=True):
        numbers = [row["time_s_mean"], row["time_s_half_interval"], row["time_s_seeds"]]
        if cell is None:
            assert numbers == ["", "", "0"]
        else:
            assert float(numbers[0]) == cell.mean
            assert float(numbers[1] or "nan") == pytest.approx(cell.half, nan_ok=True, rel=0)
            assert int(numbers[2]) == cell.count


def test_to_markdown_has_no_markup_but_its_own():
    lines = formats.to_markdown(NASTY_TABLE).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]} == {5}
    assert "<script>" not in lines[2]
    assert not re.search(r"(?<!\\)[`*\[\]]", lines[2])


def test_to_latex_has_no_commands_but_its_own():
    row = formats.to_latex(NASTY_TABLE).splitlines()[8].removesuffix(r" \\")
    plain = re.sub(r"\\text\w+\{\}|\$\\pm\$|\\[&%$#_{}]", "", row)
    assert plain.count("&") == 3
    assert not re.search(r"[%$#_{}~^\\<>]", plain)


@pytest.mark.parametrize(
    ("means", "half", "shown"),
    [
        ([18.84], NAN, ["18.8"]),
        ([0.0123456], NAN, ["0.0123"]),
        ([123456.0], NAN, ["123,456"]),
        ([0.0], NAN, ["0"]),
        ([12.0], NAN, ["12"]),
        ([1e-12], NAN, ["0.000000"]),
        ([999.6, 2.5, 18.0], NAN, ["999.6", "2.5", "18.0"]),
        ([0.5, 33.3333, 700.0], 0.001, ["0.5 ± 0.0", "33.3 ± 0.0", "700.0 ± 0.0"]),
    ],
)
def test_show_has_three_digits_of_the_middle_of_a_column(means, half, shown):
    cells = [[Estimate(mean, half, 1, 1)] for mean in means]
    table = Table("t", (Column("x", "x"),), ["a"] * len(means), cells, [])
    assert [row[1] for row in formats.show(table).rows] == shown


def test_show_keeps_to_the_decimals_of_a_column():
    column = Column("x", "x", most_decimals=1)
    table = Table("t", (column,), ["a"], [[Estimate(5.5, 1.24, 2, 2)]], [])
    assert formats.show(table).rows[0][1] == "5.5 ± 1.2"
