"""Who reads which setting: what nothing would read is refused, and left out of comparisons."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from cefl_jax.config.fields import all_fields, defaults
from cefl_jax.config.validate import SettingError
from cefl_jax.specs import A_VALUE, Clause, Spec

MAX_NAMED = 4  # of the values that would do


def flatten(spec: Spec) -> dict[str, Any]:
    """Returns {dotted path: value} of all fields."""
    return traverse_util.flatten_dict(dataclasses.asdict(spec), sep=".")


def find_unread(settings: Mapping[str, Any]) -> dict[str, Clause]:
    """Returns the fields that nothing reads, each with the first of its clauses that does not hold.

    A clause takes a field that is missing, or that nothing reads, to be at its default. It holds
    for a value that is not known here, such as a method of a newer version.

    Args:
      settings: flat, {dotted path: value}; what is no field is read.
    Returns:
      {dotted path: Clause}, in the order of the fields.
    """
    fields = all_fields()
    known, found = {**{path: field.default for path, field in fields.items()}, **settings}, {}
    for path, field in fields.items():
        failing = next((one for one in field.clauses if not _holds(one, known, fields)), None)
        if failing is not None:
            found[path], known[path] = failing, field.default
    return found


def without_unread(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns flat settings in which the fields that nothing reads are at their defaults."""
    unread, at = find_unread(settings), defaults()
    return {path: at[path] if path in unread else value for path, value in settings.items()}


def check_unread(spec: Spec) -> None:
    """Refuses a setting that is not its default, and that nothing would read.

    Args:
      spec: Spec that `check_fields` passes.
    Raises:
      SettingError: for the first such setting.
    """
    settings, at = flatten(spec), defaults()
    for path, clause in find_unread(settings).items():
        if settings[path] != at[path]:
            held = " and ".join(f"{chooser}={settings[chooser]!r}" for chooser in clause)
            remedies = [
                f"{chooser if len(clause) > 1 else 'that'} to {_list(values)}"
                for chooser, values in clause.items()
            ]
            raise SettingError(
                f"{path}={settings[path]!r}: not read with {held}; set {', or '.join(remedies)}, "
                f"or {path} to {at[path]!r}"
            )


def _holds(clause, settings, fields):
    for path, values in clause.items():
        value = settings[path]
        if value in values or (values is A_VALUE and value is not None):
            return True
        if fields[path].choices and value not in fields[path].choices:  # of a newer version
            return True
    return False


def _list(values):
    more = " or ..." if len(values) > MAX_NAMED else ""
    return A_VALUE[0] if values is A_VALUE else " or ".join(map(repr, values[:MAX_NAMED])) + more
