"""From folders to runs: which are finished and whole, and why the others are left out."""

import collections
import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from cefl_jax.config import default_config, typed
from cefl_jax.config.fields import without_unread
from cefl_jax.config.files import NAMING
from cefl_jax.data import sources
from cefl_jax.reports import metrics
from cefl_jax.runtime.workdir import STATES
from cefl_jax.safe_read import InputFileError, MissingError, read_json, show

MAX_BYTES = 2**20  # of config.json and of status.json
MAX_FIELDS = 1000  # of a config.json
MAX_REASON = 300  # characters
MAX_ROUNDS = 2**31
MARKS = ("config.json", "status.json", "metrics.jsonl")
LINK_BYTES = ("comm/client_up_bytes", "comm/client_down_bytes", "comm/edge_cloud_bytes")
ALL_BYTES = "comm/bytes"


class Run(NamedTuple):
    """One finished run."""

    folder: Path
    config: dict  # flat, dotted path: value
    metrics: dict  # name: f64[T] in the order of the rounds, nan where missing or not finite
    skipped: dict = {}  # noqa: RUF012  # metric: how many values were not finite

    @property
    def seed(self) -> int:
        return self.config["seed"]


class LeftOut(NamedTuple):
    """One run of which nothing is averaged."""

    folder: Path
    state: str  # a state of status.json, unreadable, or repeated
    reason: str


def read_runs(folders: Iterable[str | Path]) -> tuple[list[Run], list[LeftOut]]:
    """Returns the runs at or below some folders.

    A run folder has at least two of config, status and metrics. Of two runs with the same settings
    and the same seed the second is left out: it is no further sample.

    Args:
      folders: where to look.
    Returns:
      Those that are finished and whole, and the others; both in the order of their folders.
    Raises:
      ValueError: a folder is missing, or there is no run at or below it.
    """
    found: dict = {}
    for folder in map(Path, folders):
        below = find_runs(folder)
        if not below:
            raise ValueError(f"{folder} holds no run (a folder with config.json and metrics.jsonl)")
        found |= {os.path.realpath(path): path for path in below}
    finished, left_out = {}, []
    for folder in found.values():
        try:
            finished[folder] = _read_ending(folder)
        except _NotFinished as error:
            left_out.append(LeftOut(folder, *error.args))
    runs, broken = _read_evaluations(finished)
    runs = _name_data_apart(runs)
    runs, repeated = _drop_repeated(runs)
    return runs, sorted([*left_out, *broken, *repeated])


def find_runs(folder: Path) -> list[Path]:
    """Returns the run folders at or below a folder, in order.

    Raises:
      ValueError: there is no such folder, or one below cannot be looked into.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}"
        )

    def refuse(error):
        raise ValueError(f"{error.filename} cannot be searched: {error.strerror}") from error

    return sorted(
        Path(place)
        for place, _, files in os.walk(folder, onerror=refuse)
        if len(set(MARKS) & set(files)) >= 2
    )


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {dotted path: value} of nested dicts, lists as tuples."""
    flat = traverse_util.flatten_dict(nested, sep=".")
    return {path: _hashable(value) for path, value in flat.items()}


@functools.cache
def defaults() -> dict[str, Any]:
    """Returns {dotted path: default} of every field; not to be changed."""
    return flatten(default_config().to_dict())


def complete(nested: Any) -> dict[str, Any]:
    """Returns all fields of a `config.json`; a field that is newer than the file has its default.

    A field that is known has a value of its type; others, of a newer version, have any. What
    nothing has read is at its default, so that runs which differ only in that are the same.

    Raises:
      ValueError: the content is not a config, lacks one of `NAMING`, or has a wrong value.
    """
    if not isinstance(nested, dict):
        raise ValueError(f"it holds a {type(nested).__name__}, not a group of fields")
    flat = flatten(nested)
    if len(flat) > MAX_FIELDS:
        raise ValueError(f"it has {len(flat)} fields, and {MAX_FIELDS} is the most")
    for path in NAMING:
        if path not in flat:
            raise ValueError(f"it has no {path}")
    known = {path: typed(path, value) for path, value in flat.items() if path in defaults()}
    return without_unread(defaults() | flat | known)


def changes_results(path: str) -> bool:
    """Returns whether a field makes another experiment, as the seed and most of `run` do not.

    How a run is executed changes rounding only, but for the types it computes with.
    """
    return path != "seed" and (not path.startswith("run.") or path.endswith("_dtype"))


def key(config: Mapping[str, Any], belongs: Callable[[str], bool]) -> frozenset:
    """Returns what is equal where two flat configs are, in the fields that belong.

    A field that is missing is as one that is None.
    """
    return frozenset(
        (path, value) for path, value in config.items() if value is not None and belongs(path)
    )


class _NotFinished(Exception):
    """State and reason of a run that cannot be counted."""


def _read_ending(folder):
    """The flat config of a finished run, and its last round."""
    status = _read_json(folder / "status.json")
    if not isinstance(status, dict) or status.get("state") not in STATES:
        raise _NotFinished("unreadable", "status.json names no state that is known")
    last = status.get("round")
    if status["state"] != "finished":
        error = status.get("error")
        reason = error if error and isinstance(error, str) else f"after round {show(last)}"
        raise _NotFinished(status["state"], f"{reason:.{MAX_REASON}}")
    if type(last) is not int or not 0 <= last <= MAX_ROUNDS:
        raise _NotFinished("unreadable", f"status.json has the round {show(last)}")
    try:
        return complete(_read_json(folder / "config.json")), last
    except ValueError as error:
        raise _NotFinished("unreadable", f"config.json: {error}") from error


def _read_json(file):
    try:
        return read_json(file, MAX_BYTES)
    except MissingError as error:
        raise _NotFinished("unreadable", f"{file.name} is missing") from error
    except InputFileError as error:
        raise _NotFinished("unreadable", f"{file.name} {error}") from error


def _read_evaluations(finished):
    """The runs of {folder: (config, last round)} whose metrics are whole, and those left out."""
    files = {folder: str(folder.absolute() / "metrics.jsonl") for folder in finished}
    whole, faults = metrics.read_metrics(list(files.values()))
    runs, broken = [], []
    for folder, (config, last) in finished.items():
        why = faults.get(files[folder])
        if why is None:
            found = whole[files[folder]]
            ends = found.values["round"][-1]
            if ends == last:
                runs.append(Run(folder, config, _add_bytes(found.values), found.skipped))
                continue
            why = f"ends with round {ends:.0f}, and status.json with {last}"
        broken.append(LeftOut(folder, "unreadable", f"metrics.jsonl {why}"))
    return runs, broken


def _name_data_apart(runs):
    """Runs whose `data.name` ends with a hash of the data, where others bear that name too.

    The name of a known data set says which data they are; one's own may be of any name.
    """
    found = {
        run.folder: (run.config["data.name"], _data_hash(run.folder))
        for run in runs
        if run.config["data.name"] not in sources.KNOWN
    }
    count = collections.Counter(name for name, _ in set(found.values()))

    def rename(run):
        name, digest = found.get(run.folder, ("", ""))
        if count[name] < 2:
            return run
        return run._replace(config={**run.config, "data.name": f"{name} ({digest})"})

    return [rename(run) for run in runs]


def _data_hash(folder):
    """The first eight digits of the hash of a run's data, or a word where there is none."""
    try:
        summary = read_json(folder / "summary.json", MAX_BYTES)
    except InputFileError:
        return "unknown"
    digest = summary.get("data_sha256") if isinstance(summary, dict) else None
    return digest[:8] if isinstance(digest, str) and digest.isalnum() else "unknown"


def _add_bytes(values):
    """The same metrics and the bytes over all links."""
    links = [values[key] for key in LINK_BYTES if key in values]
    return values | {ALL_BYTES: np.sum(links, 0)} if links else values


def _drop_repeated(runs):
    """Runs without those that repeat an earlier one, and these as left out."""
    first: dict = {}
    repeated = []
    for run in runs:
        same = key(run.config, lambda path: path == "seed" or changes_results(path))
        if same in first:
            reason = f"same settings and seed as {first[same].folder}, which is counted"
            repeated.append(LeftOut(run.folder, "repeated", reason))
        else:
            first[same] = run
    return list(first.values()), repeated


def _hashable(value):
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    return json.dumps(value) if isinstance(value, dict) else value
