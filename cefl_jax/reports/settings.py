"""A run's settings as flat fields: what differs from the defaults, and the command to repeat it."""

import functools
import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from flax import traverse_util

from cefl_jax.config import default_config, typed
from cefl_jax.config.fields import without_unread
from cefl_jax.config.files import NAMING

MAX_FIELDS = 1000


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """{dotted path: value} of nested dicts, lists as tuples."""
    flat = traverse_util.flatten_dict(nested, sep=".")
    return {path: _hashable(value) for path, value in flat.items()}


@functools.cache
def defaults() -> dict[str, Any]:
    """{dotted path: default} of every field; not to be changed."""
    return flatten(default_config().to_dict())


def complete(nested: Any) -> dict[str, Any]:
    """All fields of a `config.json`; a field that is newer than the file has its default.

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
    """What is equal where two flat configs are, in the fields of which `belongs(path)` is true.

    A field that is missing is as one that is None.
    """
    return frozenset(
        (path, value) for path, value in config.items() if value is not None and belongs(path)
    )


def differences(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a flat config that are not at their defaults, unknown ones included."""
    known = defaults()
    return {
        path: value for path, value in config.items() if path not in known or value != known[path]
    }


def command(config: Mapping[str, Any], workdir: str) -> str:
    """The shell command that repeats a run, every field that is not at its default spelt out.

    Args:
      config: flat config.
      workdir: folder for the repetition.
    """
    words = ["python", "-m", "cefl_jax.main", "--config=configs/default.py"]
    words += [f"--config.{path}={text(value)}" for path, value in differences(config).items()]
    return shlex.join([*words, f"--workdir={workdir}"])


def text(value: object) -> str:
    """Returns a value as `--config.FIELD=` takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _hashable(value):
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    return json.dumps(value) if isinstance(value, dict) else value
