"""A person sees one plain line an evaluation, or a live display on a terminal."""

import io
import math
import re
import sys

import pytest
from rich.console import Console

from cefl_jax.runtime.console import Display, print_summary, time
from cefl_jax.runtime.summary import summarize
from tests.runtime.examples import make_record, make_records, without

TITLE = "cefl [alpha=0.1] on fashion_mnist"
FACTS = {"wall_s": 125.0, "compile_s": 5.0, "device_kind": "cpu", "device_count": 1}


class Clock:
    """A clock that only the test moves."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def terminal(width=100):
    return Console(
        force_terminal=True,
        width=width,
        height=25,
        file=io.StringIO(),
        color_system="truecolor",
        _environ={"TERM": "xterm-256color"},
    )


def last_frame(console):
    """Text after the last time that the display was erased, without its escape codes."""
    frame = console.file.getvalue().rsplit("\x1b[2K", 1)[-1]
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame)


def test_without_a_terminal_there_is_one_plain_line_an_evaluation(capsys, monkeypatch, clock):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Display(200, TITLE) as display:
        display.note("compiling ...")
        clock.now += 61.0
        display.update(make_record(50, **{"test/accuracy": 0.8287}))
        display.update(make_record(100))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [TITLE, "compiling ..."]
    assert lines[2] == (
        "round  50/200  test accuracy 82.9%  cloud accuracy 81.8%  train loss 0.03922  "
        "simulated 50 min  125 rounds/s  elapsed 0:01:01  remaining 0:00:01"
    )
    assert len(lines) == 4
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_each_plain_line_is_out_before_the_next_rounds(monkeypatch):
    class Pipe(io.StringIO):
        out = ""

        def flush(self):
            self.out = self.getvalue()

    pipe = Pipe()
    monkeypatch.setattr(sys, "stdout", pipe)
    with Display(20, TITLE) as display:
        display.update(make_record(10))
        assert "round 10/20" in pipe.out


def test_what_a_method_does_not_have_is_not_shown(capsys, clock):
    with Display(20, TITLE) as display:
        display.update(without(make_record(10), "test/cloud", "sim/", "wall/"))
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "round 10/20  test accuracy 53.3%  train loss 0.1818  elapsed 0:00:00"


@pytest.mark.parametrize("value", [math.nan, None])
def test_what_is_not_finite_is_shown_as_nan(capsys, value):
    with Display(20, TITLE) as display:
        display.update(make_record(10, **{"train/loss": value, "wall/round_ms": value}))
    line = capsys.readouterr().out.splitlines()[-1]
    assert "train loss nan" in line
    assert "remaining" not in line


def test_huge_values_are_short(capsys):
    huge = dict.fromkeys(("train/loss", "sim/time_s"), 7.234567e-28)
    with Display(20, TITLE) as display:
        display.update(make_record(10, **{key: 1 / value for key, value in huge.items()}))
        display.update(make_record(20, **huge))
    lines = capsys.readouterr().out.splitlines()[1:]
    assert "train loss 1.382e+27  simulated 1.6e+22 days  125 rounds/s" in lines[0]
    assert "train loss 7.235e-28  simulated 7.23e-28 s  125 rounds/s" in lines[1]


def test_on_a_terminal_the_last_frame_shows_everything_and_no_line_wraps(clock):
    console = terminal()
    with Display(200, TITLE, console) as display:
        clock.now += 61.0
        display.update(make_record(50, **{"test/accuracy": 0.8287, "wall/round_ms": 1000.0}))
        clock.now += 30.0
    text = console.file.getvalue()
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    title, row, readings = last_frame(console).strip().splitlines()
    assert title.strip() == TITLE
    assert re.fullmatch(
        r"round  50/200 +━+╸?╺?━+ +1 rounds/s  elapsed 0:01:31  remaining 0:02:00", row.strip()
    )
    assert readings.strip() == (
        "test accuracy 82.9%  cloud accuracy 81.8%  train loss 0.03922  simulated 50 min"
    )


def test_a_note_stands_until_the_next_evaluation(clock):
    console = terminal()
    with Display(20, TITLE, console) as display:
        display.note("compiling [the round] ...")
        assert "compiling [the round] ..." in last_frame(console)
        display.update(make_record(10))
        assert "compiling" not in last_frame(console)


def test_the_terminal_is_given_back_when_a_run_fails():
    console = terminal()
    with pytest.raises(MemoryError), Display(20, TITLE, console):
        raise MemoryError
    text = console.file.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def summary_text(records, width=100, **options):
    console = Console(width=width, file=io.StringIO())
    print_summary(summarize(records, **FACTS), records, console=console, **options)
    return console.file.getvalue()


def row_of(text, label):
    (line,) = [line for line in text.splitlines() if line.strip().startswith(label)]
    return re.split(r" {2,}", line.strip())


def test_the_summary_tells_accuracy_costs_and_place():
    records = [
        make_record(10, **{"test/accuracy": 0.9}),
        make_record(20),
        make_record(30, **{"test/accuracy": 0.8}),
    ]
    folder = "/results/" + "a_very_long_name_of_a_folder/" * 5
    text = summary_text(records, workdir=folder)
    # make_record(20) has accuracy 0.8 * 20 / 25 = 0.64: the mean is 2.34 / 3.
    assert "Test accuracy after 30 rounds" in text
    assert row_of(text, "deployed: front + edge back half")[1:] == [
        "80.0%",
        "90.0% (round 10)",
        "78.0%",
    ]
    assert row_of(text, "front + cloud model")[1:3] == ["77.1%", "77.1% (round 30)"]
    assert "mean of last 3" in text
    assert row_of(text, "simulated time") == ["simulated time", "30 min"]
    assert row_of(text, "simulated energy") == ["simulated energy", "9 kJ"]
    assert row_of(text, "sent by clients") == ["sent by clients", "90 MB"]
    assert row_of(text, "received by clients") == ["received by clients", "60 MB"]
    assert row_of(text, "between edge and cloud") == ["between edge and cloud", "2.7 MB"]
    assert row_of(text, "time on this computer")[1] == "2.08 min"
    assert row_of(text, "of it compilation")[1] == "5 s"
    assert row_of(text, "rounds per second")[1] == "125"
    assert f"files in {folder}\n" in text


def test_the_summary_leaves_out_what_a_run_did_not_have():
    records = [without(make_record(10), "test/cloud", "sim/energy", "comm/edge", "wall/")]
    text = summary_text(records)
    assert row_of(text, "deployed model") == ["deployed model", "53.3%", "53.3% (round 10)"]
    assert "simulated time" in text
    for absent in ("cloud", "energy", "rounds per second", "mean of", "files"):
        assert absent not in text


def test_the_summary_survives_values_that_are_not_finite():
    diverged = make_record(20, **{"test/accuracy": None, "sim/time_s": math.nan})
    records = [make_record(10), diverged]
    text = summary_text(records)
    assert row_of(text, "deployed")[1:] == ["nan", "53.3% (round 10)", "nan"]
    assert row_of(text, "simulated time")[1] == "nan"


def test_the_summary_fits_a_narrow_terminal():
    assert max(map(len, summary_text(make_records(12), width=80).splitlines())) <= 80
    assert "deployed: front + edge back half" in summary_text(make_records(12), width=80)


def test_the_summary_of_a_run_without_an_evaluation_has_its_times():
    text = summary_text([])
    assert "Test accuracy" not in text
    assert row_of(text, "of it compilation")[1] == "5 s"
