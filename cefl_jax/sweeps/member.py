"""One run that a worker makes, alone or beside others: its folder and its files."""

from pathlib import Path
from typing import Any

from cefl_jax import experiment
from cefl_jax.build import Setup
from cefl_jax.rounds import Leaves, Rounds
from cefl_jax.runtime.checkpoint import Checkpoint
from cefl_jax.runtime.workdir import ENDED, DamagedRun, FolderInUse, Workdir, read_status
from cefl_jax.sweeps.definition import SweepRun
from cefl_jax.sweeps.progress import RunDisplay, SweepDisplay


class Member:
    """A run whose folder this process has.

    Args:
      run: SweepRun.
      setup: Setup.
      workdir: open.
      past: Checkpoint from which it continues, or None.
      display: RunDisplay.
    """

    def __init__(
        self,
        run: SweepRun,
        setup: Setup,
        workdir: Workdir,
        past: Checkpoint | None,
        display: RunDisplay,
    ):
        self.run, self.setup, self.workdir, self.past = run, setup, workdir, past
        self.rounds = Rounds(setup, workdir, display, past)
        self._display = display

    def start(self) -> None:
        """Writes what is known before the first round."""
        experiment.write_start(self.setup, self.workdir, self.rounds.done)

    def record(self, chunk: Any, leaves: Leaves, seconds: float, leaving: bool) -> None:
        """Writes down a chunk of rounds, and saves when it is time or all are leaving.

        Args:
          chunk, leaves, seconds: as of `Rounds.record`.
          leaving: whether a signal has asked for it.
        """
        self.rounds.record(chunk, leaves, seconds)
        if not self.rounds.over and (leaving or self.rounds.is_save_due()):
            self.rounds.save(leaves)

    def finish(self, leaves: Leaves, pictures: bool) -> None:
        """Writes what the run ends with, and gives its folder back."""
        self.rounds.finish(leaves)
        if pictures:
            title = experiment.title_of(self.setup.spec)
            try:
                experiment.draw_start(self.setup, self.workdir.path, title)
                experiment.draw_end(self.rounds.records, self.workdir.path, title)
            except Exception as error:  # a picture that fails makes no failed run
                self._display.warn(f"no pictures: {type(error).__name__}: {error}")
        self.workdir.set_status("finished", self.rounds.done)
        self.workdir.close()

    def end(self, error: Exception) -> None:
        """Notes what ended the run before its time, and gives its folder back."""
        self.workdir.end(error)


def claim(place: Path, run: SweepRun, setup: Setup, display: SweepDisplay) -> Member | None:
    """Takes the folder of a run.

    A run that is damaged beyond use starts anew.

    Args:
      place: its folder.
      run: SweepRun.
      setup: Setup.
      display: SweepDisplay.
    Returns:
      Member; None where another process has it, or has ended it meanwhile.
    Raises:
      ValueError, OSError: the folder holds another run, or cannot be used.
    """
    shown = RunDisplay(display, run)
    try:
        try:
            workdir, past = experiment.claim(setup, place, warn=shown.warn)
        except DamagedRun as error:
            shown.warn(f"starts anew: {error}")
            workdir, past = experiment.claim(setup, place, overwrite=True, warn=shown.warn)
    except FolderInUse:
        return None
    rounds = past.round if past else 0
    if rounds == setup.spec.train.rounds:  # ended between its last checkpoint and its status
        workdir.set_status("finished", rounds)
    if read_status(place)[0] in ENDED:
        workdir.close()
        return None
    return Member(run, setup, workdir, past, shown)
