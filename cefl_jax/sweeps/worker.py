"""One worker of a sweep: makes the runs that no other worker makes, side by side where it can.

Workers share nothing but the folder of the sweep. A run belongs to the process that has the lock of
its folder, which the system takes back from a process that dies.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import config_dict

from cefl_jax import build, config, parallel, stack
from cefl_jax.config.resume import keep_choices
from cefl_jax.data import sources
from cefl_jax.runtime.kept import Kept
from cefl_jax.runtime.preemption import Preempted, PreemptionGuard
from cefl_jax.runtime.workdir import ENDED, open_workdir, read_config, read_status
from cefl_jax.sweeps.definition import SweepRun
from cefl_jax.sweeps.member import Member, claim
from cefl_jax.sweeps.progress import SweepDisplay
from cefl_jax.sweeps.width import TooWide, choose_width, is_out_of_memory


class DeviceError(RuntimeError):
    """The devices of a worker have failed: its runs are left for others."""


class Checked(NamedTuple):
    """A run that can be made."""

    run: SweepRun
    setup: build.Setup


class Worker:
    """Makes the runs of a sweep that no other worker makes.

    Args:
      folder: of the sweep; each run is in a folder named by its id.
      display: SweepDisplay.
      watch: PreemptionGuard, entered.
      width: runs side by side, or None: as many as fit on an accelerator, and one on a CPU, where
        one after another is quicker.
      shard: (i, n), which of how many workers this is. It begins with its own part of the runs.
      pictures: whether each run gets its pictures.
      kept: programs of earlier processes, or None.
    """

    def __init__(
        self,
        folder: Path,
        display: SweepDisplay,
        watch: PreemptionGuard,
        width: int | None = None,
        shard: tuple[int, int] = (0, 1),
        pictures: bool = True,
        kept: Kept | None = None,
    ):
        self.folder, self.display, self.watch = folder, display, watch
        self.width, self.shard, self.pictures = width, shard, pictures
        self.side_by_side = jax.devices()[0].platform != "cpu" if width is None else width > 1
        self.compiler = stack.Compiler(kept)
        self._load = functools.lru_cache(1)(sources.load)  # so that runs share their samples

    def work(self, runs: Sequence[SweepRun]) -> None:
        """Makes runs until all have ended or are with others; one that fails fails alone.

        Args:
          runs: of the sweep.
        Raises:
          Preempted: a signal asked to leave; everything is saved.
          TooWide: one line, for a width that was asked for and does not fit.
          DeviceError: one line.
        """
        index, count = self.shard
        first = index * len(runs) // count
        order = [*runs[first:], *runs[:first]]
        if not self.side_by_side:
            for run in order:
                self._make_all(self._check([run]), 1)
            return
        for similar in gather(order, lambda run: stack.program_settings(run.spec)):
            for same in gather(self._check(similar), lambda made: stack.stack_key(made.setup)):
                self._make_stacks(same)
            self.compiler.forget()

    def _make_stacks(self, same: Sequence[Checked]) -> None:
        """Makes the runs of one program, as many side by side as fit."""
        if not same[0].setup.mesh.stacked:
            self._make_all(same, 1)
            return
        setups = stack.join([made.setup for made in same])
        same = [made._replace(setup=setup) for made, setup in zip(same, setups, strict=True)]
        try:
            with self.watch.exit_immediately():
                width = choose_width(
                    setups, self.compiler, self.display, self.width, -(-len(same) // self.shard[1])
                )
        except Exception as error:  # of a person's code, while it is traced and compiled
            if isinstance(error, TooWide) and self.width is not None:
                raise
            for made in same:
                self._fail(made.run, error)
            return
        self._make_all(same, width)

    def _make_all(self, checked: Iterable[Checked], width: int) -> None:
        """Makes runs of one program, so many side by side."""
        left = iter(checked)
        while members := self._take(left, width):
            devices = members[0].setup.mesh.mesh.shape.get(parallel.RUNS, 1)
            if not self._make(members, width, may_halve=width > devices):
                width = max(devices, width // 2 // devices * devices)
                self.display.note(f"out of memory; from here on {width} runs side by side")
                again = [Checked(member.run, member.setup) for member in members]
                left = itertools.chain(again, left)

    def _check(self, runs: Sequence[SweepRun]) -> list[Checked]:
        """Loads and checks the runs that are to be made; what cannot be, its folder says."""
        checked = []
        for run in runs:
            if not self._is_open(run):
                continue
            try:
                checked.append(Checked(run, self._prepare(run)))
            except Exception as error:  # of a setting, of a file, of a person's code
                self._fail(run, error)
        return checked

    def _is_open(self, run):
        """Whether a run is to be made, as far as its folder says."""
        return read_status(self.folder / run.id)[0] not in ENDED

    def _prepare(self, run):
        """The Setup of a run, with what it chose automatically if it has begun."""
        chosen = config_dict.ConfigDict(config.to_dict(run.spec))
        if earlier := read_config(self.folder / run.id):
            keep_choices(chosen, earlier)
            if chosen.run.layout == "flat":  # whose rounding follows the number of devices
                chosen.run.devices = earlier["run"]["devices"]
        if self.side_by_side and chosen.run.layout == "auto":
            chosen.run.layout = "flat"
        spec, mesh = config.to_spec(chosen), None
        fits = len(jax.devices()) % (spec.run.devices or 1) == 0
        if self.side_by_side and spec.run.layout == "flat" and fits:
            mesh = parallel.make_stack_mesh(spec.run.devices or 1)
        return build.prepare(spec, mesh, self._load)

    def _take(self, left: Iterator[Checked], width: int) -> list[Member]:
        """Takes the folders of so many of the runs that are left, or of as many as are free."""
        members: list[Member] = []
        for run, setup in left:
            if self._is_open(run):
                try:
                    member = claim(self.folder / run.id, run, setup, self.display)
                except (ValueError, OSError) as error:
                    self._fail(run, error)
                    continue
                members += [member] if member else []
            if len(members) == width:
                break
        return members

    def _make(self, members: Sequence[Member], width: int, may_halve: bool) -> bool:
        """Makes some runs side by side; returns whether the memory was enough.

        Raises:
          Preempted: a signal asked to leave; the runs are saved.
          DeviceError: the devices have failed.
        """
        live = [member for member in members if self._try(member, member.start)]
        setups = [member.setup for member in members]
        setups = stack.pad(setups, width) if setups[0].mesh.stacked else setups

        def leave():
            for member in live:
                member.end(Preempted(f"{self.watch.asked}, before a round"))

        try:
            with self.watch.exit_immediately(leave):
                made = self.compiler(setups, self.display)
        except Exception as error:  # of the compiler, or of a person's code while it is traced
            if may_halve and is_out_of_memory(error):
                self._leave_open(live, "out of memory")
                return False
            for member in live:
                self._end(member, error)
            return True
        for member in list(live):
            if not self._try(member, stack.check_past, made, setups, member.past):
                live.remove(member)
        pasts = [member.past if member in live else None for member in members]
        pasts += [None] * (len(setups) - len(pasts))
        try:
            self._run(members, live, stack.Stack(setups, made, pasts))
        except jax.errors.JaxRuntimeError as error:
            if may_halve and is_out_of_memory(error):
                self._leave_open(live, "out of memory")
                return False
            self._leave_open(live, f"the device failed: {error}")
            raise DeviceError(f"the devices have failed, no more is made here: {error}") from error
        return True

    def _run(self, members, live, running):
        """Computes, and hands each run what is its own, until all have ended; `live` empties."""
        for member in live:
            member.rounds.compiled(running.compile_s)
        while live:
            seconds, asked = running.advance(), self.watch.asked
            for member in list(live):
                at = members.index(member)
                chunk, leaves = running.chunk(at), functools.partial(running.leaves, at)
                if not self._try(member, member.record, chunk, leaves, seconds, bool(asked)):
                    live.remove(member)
                elif member.rounds.over:
                    live.remove(member)
                    if self._try(member, member.finish, leaves, self.pictures):
                        self.display.ended(member.run)
            if asked:
                ended = Preempted(f"{asked}, after the rounds that were computed")
                self._leave_open(live, str(ended))
                raise ended

    def _try(self, member: Member, action: Callable, *arguments: Any) -> bool:
        """Returns whether something that concerns one run went well; if not, that run ends."""
        try:
            action(*arguments)
        except Exception as error:  # not finite, a full disk, a checkpoint of another version
            self._end(member, error)
            return False
        return True

    def _end(self, member, error):
        member.end(error)
        self.display.ended(member.run, error)

    def _leave_open(self, live, reason):
        """Ends runs that another worker, or this one later, continues."""
        while live:
            live.pop().end(Preempted(reason))

    def _open(self, run):
        return open_workdir(self.folder / run.id, resume=True)

    def _fail(self, run, error):
        """Notes in a run's folder that it cannot be made, unless it has ended meanwhile."""
        with contextlib.suppress(ValueError, OSError), self._open(run) as workdir:
            state, rounds, _ = read_status(workdir.path)
            if state in ENDED:
                return
            if read_config(workdir.path) is None:
                workdir.write_config(config.to_dict(run.spec))
            workdir.set_status("failed", rounds, f"{type(error).__name__}: {error}")
        self.display.ended(run, error)


def gather(items: Iterable[Any], key: Callable[[Any], Hashable]) -> list[list[Any]]:
    """Returns items in groups of equal keys, in the order of their first ones."""
    groups: dict[Hashable, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())
