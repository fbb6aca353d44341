"""Reads config files: runs the Python of a person, or reads the `config.json` that a run left."""

import hashlib
import inspect
import math
import runpy
import traceback
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from cefl_jax.config.fields import SettingError
from cefl_jax.safe_read import (
    InputFileError,
    MissingError,
    check_file,
    expand_user,
    one_line,
    read_json,
)

MAX_JSON_BYTES = 2**20
RUN: dict[str, str] = {}
"""The SHA-256 of the Python files that were run, by path, as they were then."""

NAMING = ("seed", "method.name", "data.name", "model.name")
"""Without these a JSON file is no run's config. Other fields may be missing: newer than the run."""


def is_json(location: str) -> bool:
    """Returns whether a location names a JSON file and not Python."""
    return _split(location)[0].lower().endswith(".json")


def run_config_file(location: str) -> config_dict.ConfigDict:
    """Returns what the `get_config` of a Python file returns.

    Args:
      location: `FILE` for `get_config()`, or `FILE:TEXT` for `get_config("TEXT")`.
    Returns:
      ConfigDict, not locked, of any fields.
    Raises:
      SettingError: for a file that is missing, fails, or makes anything else.
    """
    path, arguments = _split(location)
    _check_file(location, path, math.inf)
    try:
        get_config: Any = _run(path).get("get_config")
        _check_call(get_config, arguments)
        return _to_config(get_config(*arguments))
    except (Exception, SystemExit) as error:  # a person's code may raise whatever there is
        raise wrong_file(location, _reason(error, path)) from error


def read_config_json(location: str) -> dict[str, Any]:
    """Returns what a run's `config.json` holds.

    Args:
      location: the file, of at most `MAX_JSON_BYTES`.
    Returns:
      dict of whatever JSON has, with all of `NAMING`.
    Raises:
      SettingError: for a file that is missing, too large, or anything but such a JSON text.
    """
    path, arguments = _split(location)
    _check_file(location, path, MAX_JSON_BYTES)
    if arguments:
        raise wrong_file(location, f"a JSON file takes no text; write --config={path}")
    try:
        made = read_json(path, MAX_JSON_BYTES, finite=True)
    except InputFileError as error:
        raise wrong_file(location, error) from error
    for name in NAMING:
        if not has_field(made, name):
            raise wrong_file(location, f"has no {name}; name the config.json that a run left")
    return made


def has_field(nested: Any, path: str) -> bool:
    """Whether nested dicts, or what was read in place of them, have a field of a dotted path."""
    for name in path.split("."):
        if not isinstance(nested, dict) or name not in nested:
            return False
        nested = nested[name]
    return True


def run_definition(file: str) -> dict[str, Any]:
    """Returns what a Python file defines, that of a sweep.

    Raises:
      SettingError: for a file that is missing or fails.
    """
    file = expand_user(file)
    _check_file(file, file, math.inf, "--experiment", "experiments/ has some to copy")
    try:
        return _run(file)
    except (Exception, SystemExit) as error:  # a person's code may raise whatever there is
        raise wrong_file(file, _reason(error, file), "--experiment") from error


def _run(path):
    """Runs a Python file, and notes which."""
    RUN[str(path)] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return runpy.run_path(path)


def wrong_file(location: str, what: object, flag: str = "--config") -> SettingError:
    """SettingError of one line about a file that a flag names."""
    return SettingError(one_line(f"{flag}={location}: {what}"))


def _split(location):
    """Path, and list of at most one text, of FILE or FILE:TEXT."""
    location = expand_user(location)
    if Path(location).is_file():  # its name may have a colon
        return location, []
    path, *arguments = location.split(":", 1)
    return path, arguments


def _check_file(location, path, most_bytes, flag="--config", remedy="configs/ has some to copy"):
    """Refuses what is no file to read settings from, a folder with what to add to it."""
    try:
        if path and Path(path).is_dir():
            more = "to repeat the run in it, add /config.json"
            raise InputFileError(
                f"is a folder; {more if flag == '--config' else 'name a file in it'}"
            )
        if not path:
            raise MissingError
        check_file(path, most_bytes)
    except MissingError as error:
        remedy = "name the config.json of a run" if is_json(path) else remedy
        raise wrong_file(location, f"there is no such file; {remedy}", flag) from error
    except InputFileError as error:
        raise wrong_file(location, error, flag) from error


def _check_call(get_config, arguments):
    if not callable(get_config):
        raise SettingError("the file needs a function get_config that returns a ConfigDict")
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        raise SettingError(
            f"get_config: {error}; write --config=FILE where it takes no argument, and "
            "--config=FILE:TEXT where it takes one"
        ) from error


def _to_config(made):
    if not isinstance(made, (config_dict.ConfigDict, dict)):
        raise SettingError(
            f"get_config returns {made!r:.40} and needs to return a ConfigDict, such as that of "
            "cefl_jax.config.default_config"
        )
    return config_dict.ConfigDict(made)


def _reason(error, path):
    """What is wrong, and in which line of the file, as far as the traceback tells."""
    if isinstance(error, SettingError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    place = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{place}: {error}; correct the file or name another"
