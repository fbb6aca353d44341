"""Programs that take turns: what was timed stays, whatever happens in later turns."""

import contextlib
import io

import pytest

from benchmarks import timing
from benchmarks.timing import Contender

READY = '{"prepare_s": 1.0, "first_round_s": 2.0}\n'


class Process:
    """A contender's process, as far as it is looked at here."""

    def __init__(self, words):
        self.stdout = io.StringIO(words)


@pytest.mark.parametrize(
    ("answers", "timed", "left_out"),
    [
        ([[9.0, 4.0], [9.0, 5.0, 6.0]], [4.0, 5.0, 6.0], []),
        ([[9.0, 4.0], None], [4.0], ["ours"]),
        ([None], [], ["ours"]),
    ],
)
def test_a_contender_that_ends_keeps_the_rounds_of_its_earlier_turns(
    monkeypatch, answers, timed, left_out
):
    @contextlib.contextmanager
    def started(contender):
        yield Process({"ours": READY, "silent": ""}[contender.name]), None

    left = iter(answers)
    monkeypatch.setattr(timing, "_started_apart", started)
    monkeypatch.setattr(timing, "_ask", lambda *_: next(left))
    monkeypatch.setattr(timing, "_end", lambda process: None)
    monkeypatch.setattr(timing, "_last_words", lambda started: "ended")
    monkeypatch.setattr(timing, "PAUSE_S", 0.0)
    contenders = [Contender(name, ()) for name in ("ours", "silent")]
    timings, why = timing.compete(contenders, 2, 5, 60.0, float("inf"))
    assert [one.rounds_ms for one in timings] == ([timed] if timed else [])
    assert why == dict.fromkeys([*left_out, "silent"], "ended")
