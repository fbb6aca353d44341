"""One run: the rounds, what a person sees of them, and the files that they leave."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cefl_jax import build, config
from cefl_jax.build import Setup
from cefl_jax.config import resume
from cefl_jax.data import partition
from cefl_jax.network import dynamics
from cefl_jax.network.sources import trace_file
from cefl_jax.program import warn_of_deadline
from cefl_jax.rounds import Rounds
from cefl_jax.runtime import distributed
from cefl_jax.runtime.checkpoint import Checkpoint
from cefl_jax.runtime.console import Display, print_choices, print_summary, print_work
from cefl_jax.runtime.nonfinite import NotFinite
from cefl_jax.runtime.preemption import PreemptionGuard
from cefl_jax.runtime.workdir import ReadOnlyWorkdir, Workdir, open_workdir
from cefl_jax.specs import Spec
from cefl_jax.stack import Compiler, Stack
from cefl_jax.types import Purpose, purpose_key

REFUSED = -1  # in place of a round
OTHER = {
    "data_sha256": "other images or labels, though with the same settings: the data have changed "
    "since",
    "partition_sha256": "another partition, though with the same settings and data: its file has "
    "changed since, or this version of NumPy draws another one",
}
"""What a run was on, whose checkpoint has another hash of that name."""


def claim(
    setup: Setup,
    path: str | Path,
    overwrite: bool = False,
    warn: Callable[[str], object] = print,
) -> tuple[Workdir, Checkpoint | None]:
    """Takes the folder of a run, for all of its processes.

    Args:
      setup: Setup.
      path: of the folder.
      overwrite: whether an earlier run in it is removed.
      warn: called with one line about a checkpoint that is damaged or cannot be written.
    Returns:
      The folder, and the Checkpoint with which the run in it goes on, or None.
    Raises:
      ValueError: one line, as `workdir.check_workdir`, and where the folder holds another run, or
        one that has gone further than this is to go. Nothing has been changed then.
    """
    run = setup.spec.run
    options = run.checkpoint_keep, run.checkpoint_async, warn
    if not distributed.is_first():
        return _look_on(path, *options)
    try:
        workdir = open_workdir(path, overwrite, run.resume == "auto", *options)
        with contextlib.ExitStack() as refused:
            refused.callback(workdir.close)
            past = workdir.recall(functools.partial(check_facts, setup, path))
            check_summary(setup, workdir, past)
            refused.pop_all()
    except Exception:
        distributed.agree(REFUSED)
        raise
    distributed.agree(past.round if past else 0)
    return workdir, past


def _look_on(path, *options):
    """`claim` on a process other than the first."""
    round = distributed.agree(0)
    if round == REFUSED:
        raise ValueError("the first process has refused to start, and says why")
    workdir = ReadOnlyWorkdir(path, None, *options)
    return workdir, workdir.checkpoints.load_round(round) if round else None


def check_facts(setup: Setup, path: str | Path, facts: dict[str, Any]) -> None:
    """Refuses the facts of a checkpoint that is another run's, or that has gone too far."""
    resume.check(facts["settings"], config.to_dict(setup.spec), path)
    for name, digest in setup.hashes().items():
        if facts.get(name) != digest:
            what = (
                f"on {OTHER[name]}; "
                if name in facts
                else f"that was saved by a version that noted no {name}; finish it with that, or "
            )
            raise ValueError(f"--workdir={path} holds a run {what}choose another folder")
    if facts["round"] > setup.spec.train.rounds:
        raise ValueError(
            f"train.rounds={setup.spec.train.rounds}: the run in --workdir={path} has done "
            f"{facts['round']} rounds already; raise it, or choose another folder"
        )


def conduct(
    setup: Setup,
    workdir: Workdir,
    past: Checkpoint | None = None,
    watch: PreemptionGuard | None = None,
    compiler: Callable | None = None,
) -> None:
    """Runs training end to end with display, files and pictures; `status.json` says how it ended.

    Args:
      setup: Setup.
      workdir: open; closed when this ends.
      past: from `claim`.
      watch: entered; without one, no signal is noticed.
      compiler: stack.Compiler, or what does as it does; None for a new one.
    Raises:
      Preempted: a signal asked to leave; the same call goes on from there.
      NotFinite: a number was not finite.
    """
    spec, watch = setup.spec, watch or PreemptionGuard()
    done = past.round if past else 0
    title = title_of(spec)
    leave = lambda: workdir.set_status("preempted", done, watch.asked)  # noqa: E731
    if done == spec.train.rounds and workdir.is_finished():
        with contextlib.closing(workdir):  # not `with workdir`: to show it changes no status
            show_finished(workdir)
        return
    with workdir:
        with watch.exit_immediately(leave):
            write_start(setup, workdir, done)
        print_work(setup.planner.work)
        print_choices(spec.run, setup.mesh.platform, build.archive_bytes(setup))
        with Display(spec.train.rounds, title) as display:
            draw: Callable = functools.partial(draw_start, setup, workdir.path, title)
            if not distributed.is_first():
                draw = do_nothing
            records, summary = run(setup, workdir, display, draw, compiler, past, watch)
        if distributed.is_first():
            draw_end(records, workdir.path, title)
        workdir.set_status("finished", spec.train.rounds)
    print_summary(summary, records, workdir.path)


def title_of(spec: Spec) -> str:
    """Returns the title of a run's display and pictures."""
    return f"{spec.method.name}: {spec.model.name} on {spec.data.name}"


def write_start(setup: Setup, workdir: Workdir, done: int) -> None:
    """Writes what is known of a run before its first round, or before it goes on."""
    workdir.write_config(config.to_dict(setup.spec))
    workdir.write_partition(partition.to_json(setup.partition))
    workdir.set_status("running", done)
    if setup.spec.run.save_trace:
        workdir.write_trace(record_trace(setup))


def show_finished(workdir: Workdir) -> None:
    """Prints the summary of a run that has nothing left to do."""
    summary: Any = workdir.read_summary()  # is there: `check_summary` has looked
    print(f"This run is finished: {summary['rounds']} rounds. More of them go on with it.")
    print_summary(summary, workdir.read_metrics(), workdir.path)


def check_summary(setup: Setup, workdir: Workdir, past: Checkpoint | None) -> None:
    """Refuses a run that has nothing left to do, and no summary of what it has done."""
    if past is None or past.round < setup.spec.train.rounds:
        return
    if (workdir.read_summary() or {}).get("rounds") != past.round:
        raise ValueError(
            f"train.rounds={past.round}: the run in --workdir={workdir.path} has stopped there and "
            "has no summary of it; raise it, or choose another folder"
        )


def do_nothing() -> None:
    """Nothing."""


def draw_start(setup: Setup, folder: Path, title: str) -> None:
    """Who holds which data; matplotlib is imported late, after the first evaluation."""
    from cefl_jax.plots.curves import draw_partition

    names = [*map(str, setup.classes)]
    draw_partition(folder / "partition.png", setup.data.label_counts, names, title)


def draw_end(records: Sequence[dict[str, float]], folder: Path, title: str) -> None:
    """How the run learned, and its last round."""
    from cefl_jax.plots.curves import draw_learning_curve
    from cefl_jax.plots.network_map import draw_round

    draw_learning_curve(folder / "learning_curve.png", records, title)
    if (folder / "timeline.json").exists():  # not every method has one
        draw_round(folder)


def run(
    setup: Setup,
    workdir: Any,
    display: Any,
    draw: Callable[[], object] = do_nothing,
    compiler: Callable | None = None,
    past: Checkpoint | None = None,
    watch: Any = None,
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Trains, evaluates, saves and writes until the last round.

    Args:
      setup: Setup.
      workdir: workdir.Workdir, or one that acts like it; with config and partition written.
      display: console.Display, or one that acts like it.
      draw: called once, after the first evaluation.
      compiler: as of `conduct`.
      past: from which it goes on, from `claim`.
      watch: preemption.PreemptionGuard, or what does as it does; asked after every chunk.
    Returns:
      The records, flat dicts as in `metrics.jsonl`, and the summary.
    Raises:
      Preempted, NotFinite: as `conduct`.
    """
    watch, rounds = watch or PreemptionGuard(), Rounds(setup, workdir, display, past)
    if rounds.over:
        return rounds.records, workdir.read_summary()
    leave = lambda: workdir.set_status("preempted", rounds.done, f"{watch.asked}, before a round")  # noqa: E731
    with watch.exit_immediately(leave):
        made = (compiler or Compiler())([setup], display)
    stack = Stack([setup], made, [past])
    rounds.compiled(stack.compile_s)
    if not past:
        warn_of_deadline(setup, *stack.first, display)
    leaves = functools.partial(stack.leaves, 0)
    while not rounds.over:
        seconds = stack.advance()
        try:
            rounds.record(stack.chunk(0), leaves, seconds)
        except NotFinite:
            draw()
            raise
        draw()
        draw = do_nothing
        rounds.pause(leaves, watch)
    return rounds.records, rounds.finish(leaves)


def record_trace(setup: Setup) -> dict[str, np.ndarray]:
    """The conditions of the network in every round of the run, as arrays of a trace file."""
    spec = setup.spec
    key = purpose_key(jax.random.key(spec.seed), Purpose.NETWORK)
    trace = dynamics.record(key, setup.network, spec.network, spec.train.rounds)
    return trace_file.to_arrays(trace)
