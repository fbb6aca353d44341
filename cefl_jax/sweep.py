"""Many runs: cells and axes of settings, with several seeds each, and their table.

    python -m cefl_jax.sweep --experiment=experiments/NAME.py --workdir=DIR [--scale=smoke]
                             [--seeds=N] [--config.FIELD=VALUE ...]

Each run has a folder of its own in DIR/SCALE, as `cefl_jax.main` leaves it; the same command
continues what is not finished, and any number of workers may share DIR. Runs that differ in what a
program takes in (seed, partition, network, rates) are one program: side by side on an accelerator,
one after another on a CPU.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cefl_jax import config
from cefl_jax.reports import check_libraries
from cefl_jax.runtime import console, cpu, preemption
from cefl_jax.runtime.command_line import Parser, refuse, split_settings, warn
from cefl_jax.runtime.kept import open_kept
from cefl_jax.runtime.workdir import (
    ENDED,
    check_workdir,
    lock_folder,
    open_workdir,
    read_status,
    write_whole,
)
from cefl_jax.safe_read import InputFileError, MissingError, expand_user, read_json
from cefl_jax.sweeps import launchers
from cefl_jax.sweeps.definition import Sweep, SweepRun, expand, load_definition
from cefl_jax.sweeps.launchers import FAILED_RUNS
from cefl_jax.sweeps.progress import SweepDisplay
from cefl_jax.sweeps.table import read_groups, tabulate

INDEX = "sweep.json"
MAX_INDEX_BYTES = 2**28


def main(argv: list[str] | None = None) -> None:
    """Makes the runs, and writes and prints their table when all have ended.

    Exit status: 2 for what cannot be run, with one line on standard error; 1 where a worker has
    failed, 3 where a run has; 75 where a signal has ended it, which the same command continues.

    Args:
      argv: the words after the command; None for those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        options = parse(words)
        sweep, defined = load_definition(options.experiment)
        options.scale = options.scale or sweep.default_scale()
        runs = expand(sweep, options.scale, options.seeds, options.only, options.settings)
        check_layouts(runs, options.width)
        check_libraries("duckdb")
        folder = open_folder(options, sweep, runs)
        if not options.collect:
            if options.retry:
                open_failed(runs, folder)
            make(options, words, sweep, runs, folder)
        collect(options, runs, folder, sweep, defined.get("tabulate", tabulate))
    except (ValueError, OSError) as problem:
        refuse(problem)


def collect(
    options: argparse.Namespace,
    runs: Sequence[SweepRun],
    folder: Path,
    sweep: Sweep,
    report: Callable[..., str],
) -> None:
    """Prints the table of the runs that have finished, when all have ended or it is asked for.

    It is written to a file where it is of the whole sweep.
    """
    found = [(run, *read_status(folder / run.id)) for run in runs]
    left = [run for run, state, *_ in found if state not in ENDED]
    if left and not options.collect:
        if options.launcher:
            refuse(f"{len(left)} of {len(runs)} runs have not ended; see {folder / 'workers'}", 1)
        print(f"{len(left)} of {len(runs)} runs are with other workers, such as {left[0].title}")
        return
    finished = [run for run, state, *_ in found if state == "finished"]
    failed = [(run, error) for run, state, _, error in found if state == "failed"]
    text = ""
    if finished:
        text = report(read_groups(folder, finished, warn), sweep, options.scale)
    for path, value in options.settings.items():
        text += f"\nWith {path}={value}."
    for group, errors in _by_group(failed).items():
        count = sum(run.group == group for run in runs)
        text += f"\nFailed, and in no mean: {len(errors)} of {count} seeds of {group!r}."
    if left:
        text += f"\n{len(left)} of {len(runs)} runs have not ended."
    print(text)
    if finished and not left and not options.only:
        with locked(folder):
            write_whole(folder / f"{sweep.name}.md", f"{text}\n".encode())
        print(f"written: {folder / sweep.name}.md")
    for group, errors in _by_group(failed).items():
        warn(f"failed: {len(errors)} seeds of {group!r}: {errors[0]}")
    if failed:
        refuse(f"{len(failed)} of {len(runs)} runs failed; --retry makes them again", FAILED_RUNS)


def _by_group(failed):
    """The errors of failed runs by group."""
    groups: dict[str, list[str]] = {}
    for run, error in failed:
        groups.setdefault(run.group, []).append(error)
    return groups


def open_failed(runs: Sequence[SweepRun], folder: Path) -> None:
    """Lets runs that failed be made again, which workers take from there."""
    for run in runs:
        if read_status(folder / run.id)[0] == "failed":
            with open_workdir(folder / run.id, resume=True) as workdir:
                workdir.set_status("preempted", 0, "failed, and is to be made again")


def make(
    options: argparse.Namespace,
    words: Sequence[str],
    sweep: Sweep,
    runs: Sequence[SweepRun],
    folder: Path,
) -> None:
    """Makes the runs, here or by workers that a launcher starts."""
    many = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    title = f"{sweep.name}: {many} at scale {options.scale}"
    with preemption.PreemptionGuard() as watch, SweepDisplay(runs, folder, title) as display:
        try:
            if options.launcher:
                launchers.launch(options, words, folder, display, watch)
                return
            with watch.exit_immediately():
                worker = start_worker(options, runs, folder, display, watch)
            worker.work(runs)
        except preemption.Preempted as ended:
            print(f"preempted: {ended}; the same command continues", file=sys.stderr)
            watch.leave()
        except RuntimeError as error:  # of the devices, or of a worker
            refuse(error, 1)


def start_worker(
    options: argparse.Namespace,
    runs: Sequence[SweepRun],
    folder: Path,
    display: SweepDisplay,
    watch: preemption.PreemptionGuard,
) -> Any:
    """Returns a Worker of this process, with the devices that its runs ask for."""
    # Imported here: a launcher leaves the devices to its workers.
    from cefl_jax.sweeps.worker import Worker

    settings = [run.spec.run for run in runs]
    asked = [each.devices for each in settings if each.devices]
    devices = max(asked) if len(asked) == len(settings) else None
    cpu.set_up(devices, display.warn, any(each.deterministic for each in settings))
    keeps = any(each.compile_cache for each in settings)
    kept = open_kept(display.warn, config.files.RUN) if keeps else None
    return Worker(folder, display, watch, options.width, options.shard, options.pictures, kept)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Returns the options of a command line.

    Raises:
      ValueError: one line that names the flag or the field, its value and the remedy.
    """
    rest, settings = split_settings(words)
    parser = Parser(
        prog="python -m cefl_jax.sweep",
        allow_abbrev=False,
        description=str(__doc__).splitlines()[0],
        epilog="Fields of all runs are set by --config.FIELD=VALUE.",
    )
    add = parser.add_argument
    add(
        "--experiment",
        required=True,
        type=expand_user,
        metavar="FILE",
        help="Python file with EXPERIMENT",
    )
    add("--workdir", required=True, type=expand_user, metavar="DIR", help="folder of all scales")
    add("--scale", help="of those that the file names; cpu where there is one, else the first")
    add("--seeds", type=int, metavar="N", help="how many: 0, 1, ..., N - 1")
    add("--only", default="", metavar="TEXT", help="runs with this in their names")
    add(
        "--width",
        default="auto",
        metavar="auto|R",
        help="runs side by side in one program; auto: as many as fit on an accelerator, one on a CPU",
    )
    add("--shard", default="0/1", metavar="i/n", help="this worker's number, of how many; from 0")
    add(
        "--launcher",
        choices=launchers.LAUNCHERS,
        help="what starts workers; none: this process is one",
    )
    add("--workers", type=int, metavar="N", help="of a launcher; local: one for each accelerator")
    add(
        "--launch_option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of slurm: for submitit, such as timeout_min=60; of ray: num_gpus=1, address=auto",
    )
    add("--retry", action="store_true", help="make runs again that failed")
    add("--nopictures", dest="pictures", action="store_false", help="no pictures of each run")
    add("--collect", action="store_true", help="only the table, of the runs that have finished")
    options = parser.parse_args(rest)
    options.width = _width(options.width)
    options.shard = _shard(options.shard)
    for flag in ("seeds", "workers"):
        value = getattr(options, flag)
        if value is not None and value < 1:
            raise config.SettingError(f"--{flag}={value}: needs to be at least 1")
    if options.launcher is None and (options.workers or options.launch_option):
        raise config.SettingError(
            "--workers and --launch_option are read with --launcher; pass that as well"
        )
    if options.launcher:
        if options.shard != (0, 1):
            raise config.SettingError("--shard: a launcher deals them; leave out one of the two")
        launchers.check(options)
    options.settings = {path: config.parse_field(path, text) for path, text in settings}
    return options


def check_layouts(runs: Sequence[SweepRun], width: int | None) -> None:
    """Refuses to put runs side by side whose layout is set to loops.

    Raises:
      SettingError: one line.
    """
    for run in runs:
        if run.spec.run.layout == "loop" and (width or 1) > 1:
            raise config.SettingError(
                f"--width={width}: runs with run.layout=loop ({run.title}) cannot be side by side; "
                "set it to auto, or pass --width=1"
            )


def open_folder(options: argparse.Namespace, sweep: Sweep, runs: Sequence[SweepRun]) -> Path:
    """Makes the folder of a scale, and says in its `sweep.json` what its runs are.

    Raises:
      ValueError: one line, where it holds another sweep, or cannot be one.
    """
    folder = Path(options.workdir) / options.scale
    check_workdir(options.workdir, resume=True)
    if options.collect and not folder.is_dir():
        raise ValueError(f"--workdir={options.workdir} has no runs at --scale={options.scale}")
    _read_index(options, sweep)  # refused before anything is made
    folder.mkdir(parents=True, exist_ok=True)
    changed = {path: str(value) for path, value in options.settings.items()}
    named = {run.id: {"group": run.group, "seed": run.seed} | changed for run in runs}
    with locked(folder):
        known = _read_index(options, sweep)
        if not named.items() <= known["runs"].items():
            text = json.dumps({**known, "runs": known["runs"] | named}, indent=1)
            write_whole(folder / INDEX, f"{text}\n".encode())
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While no other process writes what workers share in the folder of a sweep."""
    lock = lock_folder(folder, wait=True)
    try:
        yield
    finally:
        lock.release()


def _read_index(options, sweep):
    """What the folder of a scale says of its runs."""
    file = Path(options.workdir) / options.scale / INDEX
    try:
        known = read_json(file, MAX_INDEX_BYTES)
    except MissingError:
        return {"name": sweep.name, "runs": {}}
    except InputFileError as error:
        raise ValueError(f"--workdir: {file} {error}; choose another folder") from error
    name = known.get("name") if isinstance(known, dict) else None
    if name != sweep.name or not isinstance(known.get("runs"), dict):
        raise ValueError(
            f"--workdir={options.workdir} holds the runs of another sweep ({name!r}); choose "
            "another folder"
        )
    return known


def _width(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise config.SettingError(f"--width={text}: needs to be auto, or a number of at least 1")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise config.SettingError(
            f"--shard={text}: needs to be i/n with i from 0 to n - 1, such as 0/4"
        )
    return int(index), int(count)


if __name__ == "__main__":
    console.ignore_write_errors()
    main()
