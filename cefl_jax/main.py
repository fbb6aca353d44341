"""One run of a method, with all its files.

python -m cefl_jax.main --config=configs/quickstart.py [--config.FIELD=VALUE ...] --workdir=DIR
"""

import os
import sys

from absl import app, flags, logging

from cefl_jax import build, config, experiment
from cefl_jax.config.resume import check as check_resume
from cefl_jax.config.resume import keep_choices
from cefl_jax.models.cost import measure_workload
from cefl_jax.runtime import console, cpu, distributed, nonfinite, preemption
from cefl_jax.runtime.checkpoint import Checkpoint
from cefl_jax.runtime.command_line import refuse, split_settings, warn
from cefl_jax.runtime.kept import open_kept
from cefl_jax.runtime.workdir import Workdir, check_workdir, read_config
from cefl_jax.safe_read import expand_user
from cefl_jax.stack import Compiler


class _Folder(flags.ArgumentParser):
    """A flag whose value is the path of a folder."""

    def parse(self, argument):
        return expand_user(argument)


_CONFIG: flags.FlagHolder = flags.DEFINE_string(
    "config",
    None,
    "Python file with get_config(), or FILE:TEXT for get_config('TEXT'). Any of its fields is set "
    "by --config.FIELD=VALUE, such as --config.train.rounds=10; VALUE may be None for some.",
)
_WORKDIR: flags.FlagHolder = flags.DEFINE(
    _Folder(), "workdir", None, "Folder for the files of this run."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the run that the folder holds.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of the first of several processes that compute this run together, or auto where "
    "jax.distributed finds it, as under SLURM.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many they are.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)

HELP = "see python -m cefl_jax.main --help"


def main(settings: list[tuple[str, str]]) -> None:
    """Runs what the flags and the fields set beside them say.

    Exit status: 2 for what cannot be run, with one line on standard error; 1 for a failure while
    running; 75 where a signal has ended the run, which the same command resumes.

    Args:
      settings: from `parse`.
    """
    with preemption.PreemptionGuard() as watch:
        with watch.exit_immediately():
            setup, workdir, past, compiler = begin(settings)
        watch.alone = distributed.are_one()
        try:
            experiment.conduct(setup, workdir, past, watch, compiler)
        except preemption.Preempted as ended:
            print(f"preempted: {ended}; the same command goes on from there", file=sys.stderr)
            watch.leave()
        except (nonfinite.NotFinite, OSError) as error:
            refuse(error, 1)


def begin(
    settings: list[tuple[str, str]],
) -> tuple[build.Setup, Workdir, Checkpoint | None, Compiler]:
    """The run that the flags describe, its folder, the checkpoint to go on from, a compiler."""
    try:
        setup, compiler = check(settings)
        workdir, past = experiment.claim(setup, _WORKDIR.value, _OVERWRITE.value, warn)
    except MemoryError as error:
        refuse(f"there is not the memory for these settings: {error}")
    except (ValueError, OSError) as error:
        refuse(error)
    if not distributed.is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # one of them tells
    return setup, workdir, past, compiler


def check(settings: list[tuple[str, str]]) -> tuple[build.Setup, Compiler]:
    """Checks the run that the flags describe whole, with nothing compiled or written of it.

    Args:
      settings: from `parse`.
    Returns:
      The run, and a Compiler that knows what earlier processes have kept.
    Raises:
      ValueError: one line that names the field, its value and the remedy.
    """
    for flag in (_CONFIG, _WORKDIR):
        if flag.value is None:
            raise config.SettingError(f"--{flag.name} is missing; {HELP}")
    for flag in (_PROCESSES, _PROCESS):
        if flag.value is not None and _COORDINATOR.value is None:
            raise config.SettingError(
                f"--{flag.name}={flag.value}: not read without --coordinator; pass that as well"
            )
    chosen = config.load(_CONFIG.value)
    for path, text in settings:
        config.set_field(chosen, path, text)
    resume = config.to_spec(chosen).run.resume == "auto" and not _OVERWRITE.value
    if not _PROCESS.value:
        check_workdir(_WORKDIR.value, _OVERWRITE.value, resume)
    earlier = read_config(_WORKDIR.value) if resume else None
    if earlier:
        keep_choices(chosen, earlier)
    spec = config.to_spec(chosen)
    cpu.set_up(spec.run.devices, warn, spec.run.deterministic)
    if _COORDINATOR.value is not None:
        distributed.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    kept = open_kept(warn, config.files.RUN) if spec.run.compile_cache else None
    setup = build.prepare(
        spec, measure=kept.remember(measure_workload) if kept else measure_workload
    )
    if earlier:
        check_resume(earlier, config.to_dict(setup.spec), _WORKDIR.value)
    return setup, Compiler(kept)


def parse(argv: list[str]) -> list[tuple[str, str]]:
    """Takes in a command line; one that cannot be read ends with one line and exit status 2.

    Returns:
      The path and the text of every `--config.PATH=TEXT`, or `--config.PATH TEXT`, in order.
    """
    try:
        rest, settings = split_settings(argv)
        logging.set_verbosity(logging.WARNING)  # or jax tells which accelerators are not there
        _, *others = flags.FLAGS(rest)
        if others:
            raise config.SettingError(f"{others[0]!r} is not a flag; {HELP}")
        return settings
    except (flags.Error, ValueError) as error:
        refuse(error)


if __name__ == "__main__":
    console.ignore_write_errors()
    app.run(main, flags_parser=parse)
