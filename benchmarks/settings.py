"""Checked settings from texts FIELD=VALUE; needs nothing that reads config files."""

import ast
import dataclasses

from cefl_jax.config.combinations import check_combinations
from cefl_jax.config.validate import SettingError, check_fields
from cefl_jax.specs import Spec


def make_spec(fields):
    """The Spec with its defaults, but for the fields set.

    Args:
      fields: texts `FIELD=VALUE`, such as train.optimizer.momentum=0.9; a later one wins.
    Returns:
      Spec.
    Raises:
      SettingError: for an unknown field, and what the settings' own checks refuse.
    """
    spec = Spec()
    for field in fields:
        path, _, text = field.partition("=")
        spec = _replace(spec, path.split("."), _read(text), path)
    check_fields(spec)
    check_combinations(spec)
    return spec


def _read(text):
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _replace(group, names, value, path):
    """A group of settings with the field of that path replaced."""
    name, *rest = names
    if name not in {item.name for item in dataclasses.fields(group)}:
        raise SettingError(f"{path} is not a field; configs/default.py lists them")
    now = getattr(group, name)
    if dataclasses.is_dataclass(now) != bool(rest):
        raise SettingError(f"{path} needs to name one field; configs/default.py lists them")
    if rest:
        value = _replace(now, rest, value, path)
    elif isinstance(now, float) and isinstance(value, int):
        value = float(value)
    elif None not in (now, value) and type(now) is not type(value):
        raise SettingError(f"{path}={value!r}: needs to be of the type of {now!r}")
    return dataclasses.replace(group, **{name: value})
