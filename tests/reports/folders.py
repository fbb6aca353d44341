"""Folders of runs that never were, written by what writes the folders of runs that were."""

import json

import numpy as np

from cefl_jax import config
from cefl_jax.config.fields import without_unread
from cefl_jax.reports.groups import by_section
from cefl_jax.reports.runs import Run, defaults
from cefl_jax.runtime.workdir import open_workdir
from tests.runtime.examples import make_record


def dotted(changes):
    """Changes with dots in place of double underscores."""
    return {path.replace("__", "."): value for path, value in changes.items()}


def make_config(**changes):
    """The defaults with dotted fields changed, as a nested dict."""
    settings = config.default_config()
    with settings.unlocked(), settings.ignore_type():
        settings.update_from_flattened_dict(dotted(changes))
    return settings.to_dict()


def write_run(folder, records=None, state="finished", error=None, **changes):
    """A folder of a run that ends with the last of its records."""
    method = changes.get("method__name", "cefl")
    records = records or [make_record(round, method) for round in (5, 10)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    workdir = open_workdir(folder)
    workdir.set_status("running", 0)
    workdir.write_config(make_config(**changes))
    for record in records:
        workdir.append_metrics(record)
    workdir.set_status(state, records[-1]["round"], error)
    workdir.close()
    return folder


def add_file(folder, name, text):
    """A further file of a folder, or the same with another content."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


def make_run(seed=0, rounds=(), skipped=None, folder="run", **parts):
    """A Run without files.

    Args:
      rounds: of its evaluations.
      **parts: fields of its config with double underscores for dots, or, where the name has a
        slash, values of metrics.
    """
    changes = dotted({path: value for path, value in parts.items() if "/" not in path})
    metrics = {name: np.array(values, float) for name, values in parts.items() if "/" in name}
    settings = without_unread({**defaults(), "seed": seed, **changes})
    return Run(folder, settings, {"round": np.array(rounds, float), **metrics}, skipped or {})


def section_of(*runs):
    """The one section of some runs."""
    (section,) = by_section(runs)
    return section


def status(**parts):
    """The text of a status.json."""
    return json.dumps({"state": "finished", "round": 10, "error": None, **parts})
