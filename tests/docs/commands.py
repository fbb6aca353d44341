"""Takes the commands of a page as far as is wanted.

    python -m tests.docs.commands PAGE check|run

- `check`: a run's settings, data, network and model are made, and nothing is compiled. What it
  would leave for the commands after it is left: its settings, and its trace. Of a sweep the
  settings of all runs are checked, and a benchmark's options are looked up in its help.
- `run`: runs are run, in a small form, and so are reports.
"""

import contextlib
import importlib.util
import io
import json
import pathlib
import runpy
import sys
import tomllib
from unittest import mock

import jax
import numpy as np
from absl.testing import flagsaver

from cefl_jax import config, experiment, main, program, report, sweep
from cefl_jax.data import sources
from cefl_jax.runtime import distributed
from cefl_jax.sweeps import definition, launchers
from tests.docs.pages import ROOT, read_commands

SMALL = ("--config.train.rounds=2", "--config.train.local_steps=1", "--config.run.eval_every=1")
MODEL = "--config.model.name=mlp"  # in place of the default one


def check_page(page, mode="check"):
    """Takes all commands of a page, in order, in the current folder."""
    with mock.patch.object(sources, "_from_folder", stand_in):
        for words in read_commands(page):
            check_command(words, mode)


def stand_in(name, path):
    """The extract that ships inside, in place of files that need not be here."""
    return sources.load("fashion_mnist_12k")._replace(name=name)


def check_command(words, mode):
    """Takes one command; raises where it would be refused."""
    match pathlib.Path(words[0]).name, words[1:]:
        case "python3", ["-m", "venv", _]:
            pass
        case "pip", ["install", *options]:
            check_install(options)
        case "python", ["-m", "cefl_jax.main", *options]:
            check_run(options, mode)
        case "python", ["-m", "cefl_jax.report", *options]:
            report.main(options) if mode == "run" else report.parse(options)
        case "python", ["-m", "pytest", *options]:
            for option in options:
                assert option in ("-m", "slow") or (ROOT / option).exists(), option
        case "python", ["-m", "cefl_jax.sweep", *options]:
            check_sweep(options)
        case "python", ["-m", name, *options]:
            check_options(name, options)
        case "python", [script]:
            check_script(script, mode)
        case _:
            raise ValueError(f"no test knows this command: {words}")


def check_install(options):
    """Looks up the extras that a `pip install` names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for option in options:
        extras = option.partition("[")[2].rstrip("]")
        assert option in ("-q", "-e", ".") or extras in project["optional-dependencies"], option


def check_run(options, mode):
    """Checks the settings of a run, and leaves what commands after it read."""
    if mode == "run" and not any("--coordinator" in option for option in options):
        with flagsaver.flagsaver():
            main.main(main.parse(["main", *options, *make_small(options)]))
        return
    with flagsaver.flagsaver(), mock.patch.object(distributed, "join"):
        setup, _ = main.check(main.parse(["main", *options]))
        folder = pathlib.Path(main._WORKDIR.value)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict(setup.spec)))
    if setup.spec.run.save_trace:
        np.savez(folder / "network_trace.npz", **experiment.record_trace(setup))


def make_small(options):
    """Returns the options that make a run small; a model of a page's own stays."""
    (location,) = (one.partition("=")[2] for one in options if one.startswith("--config="))
    is_default = config.load(location).model.name == config.default_config().model.name
    return (MODEL, *SMALL) if is_default else SMALL


def trace_rounds(setup):
    """Traces the first rounds of a run."""
    start, advance = program.make_program(setup)

    def run(key, hparams, data, network):
        return advance(start(key, data, network), hparams, data, network)

    jax.eval_shape(run, jax.random.key(setup.spec.seed), *program.put_inputs([setup]))


def check_options(name, options):
    """Looks up every option of a module's command in its help."""
    known = read_help(name)
    for option in options:
        assert option.partition("=")[0] in known, f"{name} has no {option}:\n{known}"


def read_help(name):
    """What `python -m NAME --help` prints."""
    found = importlib.util.find_spec(name)
    module = f"{name}.__main__" if found.submodule_search_locations else name
    shown, imported = io.StringIO(), sys.modules.pop(module, None)  # or Python warns
    with (
        mock.patch.object(sys, "argv", [name, "--help"]),
        contextlib.redirect_stdout(shown),
        contextlib.suppress(SystemExit),
    ):
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    if imported:
        sys.modules[module] = imported
    assert "usage:" in shown.getvalue(), name
    return shown.getvalue()


def check_sweep(words):
    """Checks the options of a sweep, and the settings of all its runs."""
    with mock.patch.object(launchers, "PACKAGES", dict.fromkeys(launchers.LAUNCHERS)):
        options = sweep.parse(words)
    of, _ = definition.load_definition(options.experiment)
    for scale in [options.scale] if options.scale else of.scales:
        definition.expand(of, scale, options.seeds, options.only, options.settings)


def check_script(script, mode):
    """Runs a script, up to its rounds or to its end."""
    if mode == "run":
        runpy.run_path(script, run_name="__main__")
        return
    with mock.patch.object(experiment, "conduct") as conduct:
        runpy.run_path(script, run_name="__main__")
    (setup, workdir, _), _ = conduct.call_args
    workdir.close()
    trace_rounds(setup)


if __name__ == "__main__":
    check_page(pathlib.Path(sys.argv[1]), sys.argv[2])
