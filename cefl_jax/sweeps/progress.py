"""What a person sees of a sweep while it lasts."""

import collections
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cefl_jax.runtime.console import Display, format_clock, format_readings
from cefl_jax.runtime.units import format_number
from cefl_jax.runtime.workdir import ENDED, read_status
from cefl_jax.safe_read import one_line
from cefl_jax.sweeps.definition import SweepRun

SAY_EVERY_S = 60.0  # without a terminal
EVERY_S = 2.0  # how often the folders are asked how far their runs are
SHOWN = 5  # failed runs, on a terminal


class SweepDisplay(Display):
    """Progress over the runs of a sweep, of all its workers, as their folders tell.

    Args:
      runs: SweepRun of each.
      folder: of the sweep.
      title: one line, shown as it is.
      console: rich console to draw on; standard output when None.
    """

    def __init__(
        self,
        runs: Sequence[SweepRun],
        folder: Path,
        title: str,
        console: Console | None = None,
    ):
        super().__init__(sum(run.spec.train.rounds for run in runs), title, console)
        self.runs, self.folder = runs, folder
        self.failed: dict[str, str] = {}  # title: error
        self._rounds: dict[str, tuple[str, int]] = {}  # id: state and rounds
        self._said: dict[str, int] = {}
        self._said_at = time.monotonic()
        self._read_at = -math.inf
        self._read()
        self._done_before = self._done()

    def progress(self, run: SweepRun, record: Mapping[str, float | None]) -> None:
        """Notes an evaluation of a run; without a terminal it is said now and then."""
        self._rounds[run.id] = "running", int(record["round"] or 0)
        self._note = f"{run.title}: round {record['round']}  {'  '.join(format_readings(record))}"
        if self._live is None and time.monotonic() - self._said_at > SAY_EVERY_S:
            self._say(self._note)

    def ended(self, run: SweepRun, error: object = None) -> None:
        """Says that a run is finished, or has failed with an error."""
        state = "finished" if error is None else "failed"
        self._rounds[run.id] = state, run.spec.train.rounds
        if error is not None:
            self.failed[run.title] = one_line(str(error))
            self.warn(f"failed: {run.title}: {one_line(str(error))}")
        else:
            self._say(f"finished {run.title}")

    def _say(self, text):
        """Says how far the runs are, and something besides."""
        self._said_at = time.monotonic()
        self._refresh("  ".join([*self._counts(), *self._clocks()[-1:], text]))

    def refresh(self) -> None:
        """Says how far the runs are, where that has changed."""
        now = self.counts()
        if self._live is None and now != self._said:
            self._said = now
            self._print("  ".join(self._counts()))

    def counts(self) -> dict[str, int]:
        """Returns how many runs are finished, running, failed, waiting."""
        self._read()
        states = collections.Counter(state for state, _ in list(self._rounds.values()))
        states["waiting"] += len(self.runs) - len(self._rounds)
        return {name: states[name] for name in ("finished", "running", "failed", "waiting")}

    def _read(self):
        """Asks the folders of runs that had not ended when they were asked last."""
        now = time.monotonic()
        if now - self._read_at < EVERY_S:
            return
        self._read_at = now
        for run in self.runs:
            if self._rounds.get(run.id, ("",))[0] not in ENDED:
                state, rounds, _ = read_status(self.folder / run.id)
                if state is not None:
                    state = "waiting" if state == "preempted" else state
                    self._rounds[run.id] = state, rounds

    def _done(self):
        """Rounds done, a failed run's as many as it was to have."""
        return sum(
            run.spec.train.rounds if state == "failed" else rounds
            for run in self.runs
            for state, rounds in [self._rounds.get(run.id, ("", 0))]
        )

    def _counts(self):
        counts = self.counts()
        counts["done"] = counts.pop("finished")
        return [f"{name} {counts[name]}" for name in ("done", "running", "failed", "waiting")]

    def _clocks(self):
        elapsed_s, done = time.monotonic() - self._started, self._done()
        elapsed = f"elapsed {format_clock(elapsed_s)}"
        speed = (done - self._done_before) / max(elapsed_s, 1e-9)
        if speed <= 0:
            return [elapsed]
        left = format_clock(max(self._num_rounds - done, 0) / speed)
        return [f"{format_number(speed)} rounds/s", elapsed, f"remaining {left}"]

    def _picture(self):
        bar = ProgressBar(total=self._num_rounds, completed=self._done())
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_row("  ".join(self._counts()), bar)
        lines = [
            Text("  ".join(self._clocks())),
            Text(self._note, style="cyan"),
            *(Text(f"failed: {run}: {e}", style="red") for run, e in [*self.failed.items()]),
        ]
        return Group(Text(self._title, style="bold"), row, *lines[: 2 + SHOWN])


class RunDisplay:
    """The display of one run of a sweep.

    Args:
      of: SweepDisplay.
      run: SweepRun.
    """

    def __init__(self, of, run):
        self._of, self._run = of, run

    def note(self, text: str) -> None:
        """Says what is going on."""
        self._of.note(f"{self._run.title}: {text}")

    def warn(self, text: str) -> None:
        """Says what will probably not go as meant."""
        self._of.warn(f"{self._run.title}: {text}")

    def update(self, record: Mapping[str, float | None]) -> None:
        """Shows an evaluation."""
        self._of.progress(self._run, record)
