"""A person sees one plain line an evaluation, or a live display on a terminal."""

import contextlib
import io
import math
import re
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cefl_jax.runtime import console, units
from cefl_jax.runtime.console import Display, print_summary
from cefl_jax.runtime.summary import summarize
from tests.runtime.examples import make_record, make_records, without

TITLE = "cefl [alpha=0.1] on fashion_mnist"
FACTS = {"wall_s": 125.0, "compile_s": 5.0, "device_kind": "cpu", "device_count": 1}


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 3, "0"),
        (2.302585, 4, "2.303"),
        (0.00004, 3, "4e-05"),
        (999.4, 3, "999"),
        (999.5, 3, "1,000"),
        (9999.6, 4, "10,000"),
        (-12345.6, 3, "-12,346"),
        (999_999.4, 3, "999,999"),
        (999_999.5, 3, "1e+06"),
        (7.234567e28, 4, "7.235e+28"),
        (math.nan, 3, "nan"),
        (-math.inf, 4, "-inf"),
    ],
)
def test_format_number_has_significant_digits_and_an_exponent_where_large(value, digits, text):
    assert units.format_number(value, digits) == text


TIME, BYTES, ENERGY = FORMS = [units.format_time, units.format_bytes, units.format_energy]


def test_format_has_the_unit_that_a_person_would_choose():
    seconds = {0.0: "0 s", 119.0: "119 s", 120.0: "2 min", 200000.0: "2.31 days"}
    assert {value: TIME(value) for value in seconds} == seconds
    assert [BYTES(0), BYTES(12_500_000)] == ["0 B", "12.5 MB"]
    assert [ENERGY(0.0616), ENERGY(1250.0)] == ["61.6 mJ", "1.25 kJ"]


@given(st.floats(1e-3, 1e38), st.sampled_from(FORMS))
def test_format_gives_the_value_back_to_three_digits_in_few_characters(value, form):
    number, unit = re.fullmatch(r"([\d,.]+(?:e\+\d+)?) (\w+)", form(value)).groups()
    assert len(number) <= len("1.23e+38")
    sizes = dict(units.TIME_UNITS + units.BYTE_UNITS + units.ENERGY_UNITS)
    assert float(number.replace(",", "")) * sizes[unit] == pytest.approx(value, rel=0.0051)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock.now)
    return clock


def terminal():
    kind = {"force_terminal": True, "color_system": "truecolor", "width": 100, "height": 25}
    return Console(**kind, file=io.StringIO(), _environ={"TERM": "xterm-256color"})


def last_frame(console):
    """Text after the last time that the display was erased, without its escape codes."""
    frame = console.file.getvalue().rsplit("\x1b[2K", 1)[-1]
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame)


class Pipe(io.StringIO):
    """Standard output, of which another process sees what was flushed."""

    seen = ""

    def flush(self):
        self.seen = self.getvalue()


def test_display_without_a_terminal_is_one_plain_line_an_evaluation(monkeypatch, clock):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", pipe := Pipe())
    with Display(200, TITLE) as display:
        display.note("compiling ...")
        display.warn("few meet the deadline")
        clock.now += 61.0
        display.update(make_record(50, **{"test/accuracy": 0.8287}))
        display.update(without(make_record(100), "test/cloud", "sim/", "wall/"))
        lines = pipe.seen.splitlines()  # before the next rounds
    assert lines == [
        TITLE,
        "compiling ...",
        "warning: few meet the deadline",
        "round  50/200  test accuracy 82.9%  cloud accuracy 81.8%  train loss 0.03922  "
        "simulated 50 min  125 rounds/s  elapsed 0:01:01  remaining 0:00:01",
        "round 100/200  test accuracy 76.2%  train loss 0.0198  elapsed 0:01:01",
    ]


@pytest.mark.parametrize(
    ("loss", "round_ms", "texts"),
    [
        (math.nan, math.nan, ["train loss nan", "simulated 10 min  elapsed"]),
        (None, math.inf, ["train loss nan", "simulated 10 min  elapsed"]),
        (1.3822527e27, 8.0, ["train loss 1.382e+27", "125 rounds/s"]),
    ],
)
def test_display_shows_what_is_not_finite_and_huge_values_in_short(capsys, loss, round_ms, texts):
    with Display(20, TITLE) as display:
        display.update(make_record(10, **{"train/loss": loss, "wall/round_ms": round_ms}))
    line = capsys.readouterr().out.splitlines()[-1]
    assert [text for text in texts if text not in line] == []


def test_display_on_a_terminal_shows_everything_and_no_line_wraps(clock):
    """And gives it back when a run fails."""
    console = terminal()
    with contextlib.suppress(MemoryError), Display(200, TITLE, console) as display:
        display.note("compiling [the round] ...")
        assert "compiling [the round] ..." in last_frame(console)
        display.warn("few meet the deadline")
        clock.now += 61.0
        display.update(make_record(50, **{"test/accuracy": 0.8287, "wall/round_ms": 1000.0}))
        clock.now += 30.0
        raise MemoryError
    text = console.file.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor
    title, row, readings = last_frame(console).strip().splitlines()
    assert title.strip() == TITLE
    assert re.fullmatch(
        r"round  50/200 +━+╸?╺?━+ +1 rounds/s  elapsed 0:01:31  remaining 0:02:00", row.strip()
    )
    assert readings.strip() == (
        "test accuracy 82.9%  cloud accuracy 81.8%  train loss 0.03922  simulated 50 min"
    )
    assert "warning: few meet the deadline" in text


def summary_text(records, width=100, **options):
    console = Console(width=width, file=io.StringIO())
    print_summary(summarize(records, **FACTS), records, console=console, **options)
    return console.file.getvalue()


def row_of(text, label):
    (line,) = [line for line in text.splitlines() if line.strip().startswith(label)]
    return re.split(r" {2,}", line.strip())[1:]


def test_print_summary_has_accuracy_costs_and_place():
    records = [
        make_record(10, **{"test/accuracy": 0.9}),
        make_record(20),  # 0.8 * 20 / 25 = 0.64, so 2.34 / 3; the cloud (0.6 + 0.72 + 0.771) / 3
        make_record(30, **{"test/accuracy": 0.8}),
    ]
    folder = "/results/" + "a_very_long_name_of_a_folder/" * 5
    text = summary_text(records, workdir=folder)
    assert "Test accuracy after 30 rounds" in text
    assert "mean of last 3" in text
    assert f"files in {folder}\n" in text
    for label, cells in {
        "deployed: front + edge back half": ["80.0%", "90.0% (round 10)", "78.0%"],
        "front + cloud model": ["77.1%", "77.1% (round 30)", "69.7%"],
        "simulated time": ["30 min"],
        "simulated energy": ["9 kJ"],
        "sent by clients": ["90 MB"],
        "received by clients": ["60 MB"],
        "between edge and cloud": ["2.7 MB"],
        "time on this computer": ["2.08 min"],
        "of it compilation": ["5 s"],
        "rounds per second": ["125"],
    }.items():
        assert row_of(text, label) == cells


def test_print_summary_leaves_out_what_a_run_did_not_have():
    text = summary_text([without(make_record(10), "test/cloud", "sim/en", "comm/edge", "wall/")])
    assert row_of(text, "deployed model") == ["53.3%", "53.3% (round 10)"]
    for absent in ("cloud", "energy", "rounds per second", "mean of", "files"):
        assert absent not in text
    text = summary_text([])
    assert "Test accuracy" not in text
    assert row_of(text, "of it compilation") == ["5 s"]


def test_print_summary_shows_what_is_not_finite_and_fits_a_narrow_terminal():
    diverged = make_record(20, **{"test/accuracy": None, "sim/time_s": math.nan})
    text = summary_text([make_record(10), diverged])
    assert row_of(text, "deployed") == ["nan", "53.3% (round 10)", "nan"]
    assert row_of(text, "simulated time") == ["nan"]
    narrow = summary_text(make_records(12), width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "deployed: front + edge back half" in narrow
