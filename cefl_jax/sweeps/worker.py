"""One worker of a sweep: makes the runs that nobody else makes, side by side where it can.

Workers share nothing but the folder of the sweep. A run belongs to whoever has the lock of its
folder, which the system takes back from a process that dies.
"""

import functools
import itertools
import math
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import config_dict

from cefl_jax import build, config, experiment, parallel, stack
from cefl_jax.config.resume import keep_choices
from cefl_jax.data import sources
from cefl_jax.rounds import Rounds
from cefl_jax.runtime.checkpoint import Checkpoint
from cefl_jax.runtime.preemption import Preempted, PreemptionGuard
from cefl_jax.runtime.units import format_bytes
from cefl_jax.runtime.workdir import (
    ENDED,
    FolderInUse,
    Workdir,
    open_workdir,
    read_config,
    read_status,
)
from cefl_jax.sweeps.definition import SweepRun
from cefl_jax.sweeps.progress import RunDisplay, SweepDisplay

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # in what XLA says
MAX_WIDTH = 256  # runs side by side, where the width is chosen here


class TooWide(ValueError):
    """So many runs side by side as were asked for do not fit."""


class Checked(NamedTuple):
    """A run that can be made."""

    run: SweepRun
    setup: build.Setup


class Member(NamedTuple):
    """A run that is being made, its folder taken."""

    run: SweepRun
    setup: build.Setup
    workdir: Workdir
    past: Checkpoint | None


class Worker:
    """Makes the runs of a sweep that nobody else makes.

    Args:
      folder: of the sweep; each run is in a folder named by its id.
      display: SweepDisplay.
      watch: PreemptionGuard, entered.
      width: runs side by side, or None: as many as fit on an accelerator, and one on a CPU, where
        one after another is quicker.
      shard: (i, n), which of how many workers this is. It begins with its own part of the runs.
      retry: whether runs that failed are made again.
      pictures: whether each run gets its pictures.
    """

    def __init__(
        self,
        folder: Path,
        display: SweepDisplay,
        watch: PreemptionGuard,
        width: int | None = None,
        shard: tuple[int, int] = (0, 1),
        retry: bool = False,
        pictures: bool = True,
    ):
        self.folder, self.display, self.watch = folder, display, watch
        self.width, self.shard, self.retry, self.pictures = width, shard, retry, pictures
        self.side_by_side = jax.devices()[0].platform != "cpu" if width is None else width > 1
        self.compiler = stack.Compiler()
        self._load = functools.lru_cache(1)(sources.load)  # so that runs share their samples
        self._tried: set[str] = set()

    def work(self, runs: Sequence[SweepRun]) -> None:
        """Makes runs until none is left that nobody has; one that fails does not keep the others.

        Args:
          runs: of the sweep.
        Raises:
          Preempted: a signal asked to leave; everything is saved.
          TooWide: one line, for a stack that cannot fit.
        """
        index, count = self.shard
        first = index * len(runs) // count
        order = [*runs[first:], *runs[:first]]
        if not self.side_by_side:
            for run in order:
                self._make_all(self._check([run]), 1)
            return
        for similar in gather(order, lambda run: stack.neutral(run.spec)):
            for checked in gather(self._check(similar), lambda pair: stack.stack_key(pair.setup)):
                if not checked[0].setup.mesh.stacked:
                    self._make_all(checked, 1)
                    continue
                setups = stack.join([pair.setup for pair in checked])
                checked = [pair._replace(setup=s) for pair, s in zip(checked, setups, strict=True)]
                try:
                    width = self._choose_width(setups)
                except TooWide:
                    raise
                except Exception as error:  # of a person's code, while it is traced and compiled
                    for pair in checked:
                        self._fail(pair.run, error)
                    continue
                self._make_all(checked, width)

    def _make_all(self, checked: Iterable[Checked], width: int) -> None:
        """Makes runs of one program, so many side by side."""
        left = iter(checked)
        while members := self._take(left, width):
            if not self._make(members, width):
                width = -(-width // 2)
                self.display.note(f"out of memory; from here on {width} runs side by side")
                left = itertools.chain([Checked(*member[:2]) for member in members], left)

    def _check(self, runs: Sequence[SweepRun]) -> list[Checked]:
        """Loads and checks the runs that are to be made; what cannot be, its folder says."""
        checked = []
        for run in runs:
            if not self._is_open(run):
                continue
            try:
                spec, mesh = self._choose_layout(run), None
                if self.side_by_side and spec.run.layout == "flat":
                    mesh = parallel.make_stack_mesh(spec.run.devices or 1)
                checked.append(Checked(run, build.prepare(spec, mesh, self._load)))
            except (ValueError, OSError, MemoryError) as error:
                self._fail(run, error)
        return checked

    def _is_open(self, run):
        """Whether a run is to be made, as far as its folder tells."""
        state = read_status(self.folder / run.id)[0]
        if state == "failed" and self.retry:
            return run.id not in self._tried
        return state not in ENDED

    def _choose_layout(self, run):
        """The settings of a run, with what it chose automatically if it has begun."""
        chosen = config_dict.ConfigDict(config.to_dict(run.spec))
        if earlier := read_config(self.folder / run.id):
            keep_choices(chosen, earlier)
        if self.side_by_side and chosen.run.layout == "auto":
            chosen.run.layout = "flat"
        return config.to_spec(chosen)

    def _choose_width(self, setups: Sequence[build.Setup]) -> int:
        """Returns how many runs of one program are to be side by side, so that they fit."""
        mesh = setups[0].mesh.mesh
        devices, limit = mesh.shape[parallel.RUNS], stack.device_bytes(mesh.devices.flat[0])
        share = -(-len(setups) // self.shard[1])  # of this worker, if others have theirs
        most = min(share, self.width or MAX_WIDTH)
        width = -(-most // devices) * devices
        while True:
            needed = self._count_bytes(setups, width)
            if needed <= limit:
                return width
            if self.width is not None or width == devices:
                raise TooWide(
                    f"--width={width}: so many runs side by side need {format_bytes(needed)} on each "
                    f"device, which has {format_bytes(limit)}; lower it, or leave it out"
                )
            fitting = width // 2 if needed == math.inf else int(width * limit / needed)
            width = min(fitting, width - devices) // devices * devices
            width = max(width, devices)

    def _count_bytes(self, setups, width):
        """Bytes of so many runs side by side on each device; infinite where compiling has none."""
        try:
            return self.compiler.bytes(stack.pad(setups, width), self.display)
        except jax.errors.JaxRuntimeError as error:
            if OUT_OF_MEMORY in str(error):
                return math.inf
            raise

    def _take(self, left: Iterator[Checked], width: int) -> list[Member]:
        """Takes the folders of so many of the runs that are left, or of as many as nobody has."""
        members: list[Member] = []
        for run, setup in left:
            if self._is_open(run) and (taken := self._claim(run, setup)):
                members.append(Member(run, setup, *taken))
            if len(members) == width:
                break
        return members

    def _claim(self, run, setup):
        """The folder of a run, and its Checkpoint; None where it is not to be had."""
        self._tried.add(run.id)
        claim = functools.partial(
            experiment.claim, setup, self.folder / run.id, warn=self.display.warn
        )
        try:
            try:
                taken = claim()
            except FolderInUse:
                return None
            except ValueError as error:  # it cannot be gone on with
                self.display.warn(f"{run.title} starts anew: {error}")
                taken = claim(overwrite=True)
        except (ValueError, OSError) as error:
            self._fail(run, error)
            return None
        if taken[0].is_finished():  # by another worker, meanwhile
            taken[0].close()
            return None
        return taken

    def _make(self, members: Sequence[Member], width: int) -> bool:
        """Makes some runs side by side; returns whether the memory was enough.

        Raises:
          Preempted: a signal asked to leave; the runs are saved.
        """
        live: dict[int, Generator[None, Any, None]] = {}
        try:
            for at, member in enumerate(members):
                live[at] = self._follow(member)
                self._send(live, at, members, None)
            if live:
                self._run(live, members, width)
        except Preempted as ended:
            self._end(live, members, ended)
            raise
        except Exception as error:  # of the compiler, or of a person's code while it is traced
            if OUT_OF_MEMORY in str(error) and width > 1:
                self._end(live, members, Preempted("out of memory"), quiet=True)
                return False
            self._end(live, members, error)
        return True

    def _run(self, live, members, width):
        """Computes, and sends each run what concerns it, until all have ended."""
        setups = [member.setup for member in members]
        setups = stack.pad(setups, width) if setups[0].mesh.stacked else setups
        pasts = [member.past for member in members]
        pasts += [pasts[-1]] * (len(setups) - len(pasts))

        def leave():
            self._end(live, members, Preempted(f"{self.watch.asked}, before a round"), quiet=True)

        with self.watch.exit_immediately(leave):
            made = self.compiler(setups, self.display)
        running = stack.Stack(setups, made, pasts)
        for at in list(live):
            self._send(live, at, members, running.compile_s)
        left = None
        while live:
            seconds = running.advance()
            for at in list(live):
                leaves = functools.partial(running.leaves, at)
                left = self._send(live, at, members, (running.chunk(at), leaves, seconds)) or left
        if left:
            raise left

    def _send(self, live, at, members, value):
        """Hands a value to a run; returns the Preempted with which it ended, if it did."""
        try:
            live[at].send(value)
            return None
        except StopIteration:
            self.display.ended(members[at].run)
        except Preempted as left:
            del live[at]
            return left
        except Exception as error:  # not finite, a full disk: the others go on
            self.display.ended(members[at].run, error)
        del live[at]
        return None

    def _end(self, live, members, error, quiet=False):
        """Ends runs with an error, which their folders say."""
        for at in list(live):
            try:
                live.pop(at).throw(error)
            except BaseException:
                if not quiet and not isinstance(error, Preempted):
                    self.display.ended(members[at].run, error)

    def _follow(self, member: Member) -> Generator[None, Any, None]:
        """One run's side of it: takes seconds of compilation, then each chunk, and writes files."""
        run, setup, workdir, past = member
        with workdir:
            experiment.write_start(setup, workdir, past.round if past else 0)
            rounds = Rounds(setup, workdir, RunDisplay(self.display, run), past)
            if not rounds.over:
                rounds.compiled((yield))
                while not rounds.over:
                    chunk, leaves, seconds = yield
                    rounds.record(chunk, leaves, seconds)
                    rounds.pause(leaves, self.watch)
                rounds.finish(leaves)
            if self.pictures:
                title = experiment.title_of(setup.spec)
                experiment.draw_start(setup, workdir.path, title)
                experiment.draw_end(rounds.records, workdir.path, title)
            workdir.set_status("finished", rounds.done)

    def _fail(self, run, error):
        """Notes in a run's folder, and says, that it cannot be made."""
        self._tried.add(run.id)
        try:
            with open_workdir(self.folder / run.id, resume=True) as workdir:
                workdir.write_config(config.to_dict(run.spec))
                workdir.set_status("failed", 0, str(error))
        except (ValueError, OSError):
            pass  # somebody else has it, or the disk is full: then that is said below
        self.display.ended(run, error)


def gather(items: Iterable[Any], key: Callable[[Any], Hashable]) -> list[list[Any]]:
    """Returns items in groups of equal keys, in the order of their first ones."""
    groups: dict[Hashable, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())
