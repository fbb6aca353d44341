"""One run of a method, with all its files.

    python -m cefl_jax.main --config=configs/quickstart.py [--config.FIELD=VALUE ...] --workdir=DIR
"""

import re
import sys

from absl import app, flags, logging

from cefl_jax import build, config, experiment
from cefl_jax.runtime import compile_cache, cpu, logs

_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "Python file with get_config(), or FILE:TEXT for get_config('TEXT'). Any of its fields is set "
    "by --config.FIELD=VALUE, such as --config.train.rounds=10; VALUE may be None for some.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the files of this run.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the run that the folder holds.")

HELP = "see python -m cefl_jax.main --help"


def main(settings):
    """Runs what the flags and the fields set beside them say.

    What cannot be run ends with one line on standard error and exit status 2.

    Args:
      settings: from `parse`.
    """
    try:
        setup = check(settings)
        workdir = logs.open_workdir(_WORKDIR.value, _OVERWRITE.value)
    except MemoryError as error:
        refuse(f"there is not the memory for these settings: {error}")
    except (ValueError, OSError) as error:
        refuse(error)
    if setup.spec.run.compile_cache:
        keep_compiled()
    experiment.conduct(setup, workdir)


def check(settings):
    """The run that the flags describe, checked whole, with nothing compiled or written.

    Args:
      settings: from `parse`.
    Returns:
      build.Setup.
    Raises:
      ValueError: one line that names the field, its value and the remedy.
    """
    for flag in (_CONFIG, _WORKDIR):
        if flag.value is None:
            raise config.SettingError(f"--{flag.name} is missing; {HELP}")
    chosen = config.load(_CONFIG.value)
    for path, text in settings:
        config.set_field(chosen, path, text)
    spec = config.to_spec(chosen)
    logs.check_workdir(_WORKDIR.value, _OVERWRITE.value)
    cpu.offer_devices(spec.run.devices)
    return build.prepare(spec)


def parse(argv):
    """Takes in a command line; one that cannot be read ends with one line and exit status 2.

    Returns:
      The path and the text of every `--config.PATH=TEXT`, or `--config.PATH TEXT`, in order.
    """
    try:
        rest, settings = _split(argv)
        logging.set_verbosity(logging.WARNING)  # or jax tells which accelerators are not there
        _, *others = flags.FLAGS(rest)
        if others:
            raise config.SettingError(f"{others[0]!r} is not a flag; {HELP}")
        return settings
    except (flags.Error, config.SettingError) as error:
        refuse(error)


def keep_compiled():
    """Compiled programs are kept for later runs, or one line says why not."""
    try:
        compile_cache.keep()
    except OSError as error:
        print(
            f"warning: compiled programs cannot be kept for later runs: {error}; set "
            "JAX_COMPILATION_CACHE_DIR to a folder, or --config.run.compile_cache=False",
            file=sys.stderr,
        )


def refuse(error):
    """Ends the program with one line on standard error and exit status 2."""
    print("error:", re.sub(r"\s+", " ", str(error)), file=sys.stderr)
    sys.exit(2)


def _split(argv):
    """A command line without its `--config.PATH=TEXT`, and these as pairs."""
    rest, settings, arguments = [], [], iter(argv)
    for argument in arguments:
        match = re.fullmatch(r"--?config\.([^=]+)(?:=(.*))?", argument, re.DOTALL)
        if not match:
            rest.append(argument)
            continue
        path, text = match[1], next(arguments, None) if match[2] is None else match[2]
        if text is None:
            raise config.SettingError(f"{path} has no value; write --config.{path}=VALUE")
        settings.append((path, text))
    return rest, settings


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
