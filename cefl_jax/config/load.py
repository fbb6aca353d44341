"""From a config file and its overrides to checked, frozen settings.

What cannot be run is a `SettingError`: one line that names the field, its value and the remedy.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from cefl_jax.config.combinations import (
    check_combinations,
)
from cefl_jax.config.fields import hints
from cefl_jax.config.files import is_json, read_config_json, run_config_file, wrong_file
from cefl_jax.config.readers import without_unread
from cefl_jax.config.validate import SettingError, check_fields
from cefl_jax.config.values import convert, parse, type_of
from cefl_jax.methods import METHODS, spec_class
from cefl_jax.safe_read import one_line, show
from cefl_jax.specs import Spec


def default_config() -> config_dict.ConfigDict:
    """Every field with its default, as a ConfigDict; configs/default.py says what each means."""
    return _default(spec_class())


def load(location: str) -> config_dict.ConfigDict:
    """Returns the config that a file makes, its fields complete and their values not yet checked.

    Args:
      location: a Python `FILE`, whose `get_config()` is called, or `FILE:TEXT` for
        `get_config("TEXT")`; or the `config.json` of a run, which it repeats. What such a file
        lacks is newer than it, and has its default; so has what nothing has read, of which
        earlier versions wrote down other values.
    Returns:
      ConfigDict with all fields of `default_config` and no other.
    Raises:
      SettingError: for a file that is missing, fails, or makes anything else.
    """
    if is_json(location):
        return _restore(location)
    config = run_config_file(location)
    _check_names(spec_class(), config, "")
    return config


def set_field(config: config_dict.ConfigDict, path: str, text: str) -> None:
    """Sets a field of a config from text, as `--config.PATH=TEXT` does.

    `None` is None, `True`, `true` and `1` are True, a number stands for a tuple of one, and
    `0.5,0.4` or `(0.5, 0.4)` for one of two.

    Args:
      config: ConfigDict with all fields, changed in place.
      path: dotted, such as train.optimizer.momentum.
    Raises:
      SettingError: for an unknown field, a group of fields, or a text that is not of its type.
    """
    value = parse(_type_of_field(path), text, path)
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({path: value})


def to_spec(config: Any) -> Spec:
    """Returns the checked settings of a config.

    Args:
      config: ConfigDict or nested dict with all fields of `default_config`, and no other; groups
        of methods' own settings may be missing, and have their defaults.
    Returns:
      Spec.
    Raises:
      SettingError: for the first unknown field, wrong type, value out of range, or combination
        that cannot hold.
    """
    _check_names(spec_class(), config, "")
    spec = _build(spec_class(), config, "")
    check_fields(spec)
    check_combinations(spec)
    return spec


def make_spec(*changes: Mapping[str, Any]) -> Spec:
    """Returns the checked settings that differ from the defaults in some fields.

    Args:
      *changes: each {dotted path: value}, such as {"train.rounds": 5}; a later one wins.
    Raises:
      SettingError: as of `to_spec`.
    """
    config = default_config()
    for change in changes:
        for path, value in change.items():
            _type_of_field(path)  # refuses what is no field
            with config.unlocked(), config.ignore_type():
                config.update_from_flattened_dict({path: value})
    return to_spec(config)


def typed(path: str, value: Any) -> Any:
    """Returns the value of a field as its type has it: ints serve as floats, lists as tuples.

    Raises:
      SettingError: for an unknown field, a group of fields, or a value that is not of its type.
    """
    return convert(_type_of_field(path), value, path)


def to_dict(spec: Spec) -> dict[str, Any]:
    """Returns the settings as a nested dict of plain values, ready for JSON.

    Own settings of other methods are left out; `to_spec` takes it back.
    """
    others = _own_groups() - {spec.method.name}
    return {name: value for name, value in dataclasses.asdict(spec).items() if name not in others}


def _default(group):
    config = config_dict.ConfigDict()
    for item in dataclasses.fields(group):
        hint = hints(group)[item.name]
        if dataclasses.is_dataclass(hint):
            config[item.name] = _default(hint)
        elif item.default is None:
            config[item.name] = config_dict.placeholder(type_of(hint))
        else:
            config[item.name] = item.default
    return config


def _restore(location):
    """The config of a JSON file, each value of its field's type."""
    config, nested = default_config(), read_config_json(location)
    try:
        values = _flatten(spec_class(), nested, "")
    except SettingError as error:
        raise wrong_file(location, error) from error
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict(without_unread(values))
    return config


def _flatten(group, values, prefix):
    """{dotted path: value of its type} of what nested dicts have of a group's fields."""
    _check_group(values, prefix)
    known = hints(group)
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise _unknown(prefix, name, known)
        if dataclasses.is_dataclass(known[name]):
            flat |= _flatten(known[name], value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = convert(known[name], value, prefix + name)
    return flat


def _check_group(values, prefix):
    """Refuses a value in place of a group of fields."""
    if not isinstance(values, (config_dict.ConfigDict, dict)):
        what = f"{prefix[:-1] or 'config'}={show(values)}"
        raise SettingError(f"{what}: needs to be a group of fields, not a value")


def _own_groups():
    """The names of the groups that are methods' own."""
    return {name for name, info in METHODS.items() if info.settings is not None}


def _check_names(group, values, prefix):
    """Refuses what lacks fields of a group, or has others."""
    _check_group(values, prefix)
    known = hints(group)
    for name in values:
        if name not in known:
            raise _unknown(prefix, name, known)
    for name, hint in known.items():
        if name not in values:
            if not prefix and name in _own_groups():
                continue
            raise SettingError(
                f"{prefix}{name} is missing; start from cefl_jax.config.default_config, which has "
                "every field"
            )
        if dataclasses.is_dataclass(hint):
            _check_names(hint, values[name], f"{prefix}{name}.")


def _build(group, values, prefix):
    """A dataclass of settings, each of its type, from a config or dict with all its fields."""
    built = {}
    for name, hint in hints(group).items():
        if name not in values:  # own settings of another method
            continue
        if dataclasses.is_dataclass(hint):
            built[name] = _build(hint, values[name], f"{prefix}{name}.")
        else:
            built[name] = convert(hint, _read(values, name, prefix + name), prefix + name)
    return group(**built)


def _read(values, name, path):
    """A value that may refer to other fields, in a way that a person's file says."""
    try:
        return values[name]
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise SettingError(f"{path} has no value ({reason}); set --config.{path}") from error


def _type_of_field(path):
    """The type hint of the field at a dotted path."""
    hint: Any = spec_class()
    prefix = ""
    for name in path.split("."):
        known = hints(hint) if dataclasses.is_dataclass(hint) else {}
        if name not in known:
            raise _unknown(prefix, name, known)
        hint, prefix = known[name], f"{prefix}{name}."
    if dataclasses.is_dataclass(hint):
        names = ", ".join(hints(hint))
        raise SettingError(f"{path} is a group of fields; set one of them: {names}")
    return hint


def _unknown(prefix, name, known):
    near = difflib.get_close_matches(str(name), known, 1)
    elsewhere = [path for path in _paths(spec_class()) if path.endswith(f".{name}")]
    name = name if str(name).isprintable() and len(str(name)) <= 60 else show(name)
    if not near and elsewhere:
        remedy = f"did you mean {' or '.join(elsewhere)}?"
        return SettingError(f"{prefix}{name} is not a field; {remedy}")
    here = f"known here: {', '.join(known) or 'nothing'}"
    remedy = f"did you mean {prefix}{near[0]}?" if near else here
    return SettingError(f"{prefix}{name} is not a field; {remedy}")


def _paths(group, prefix=""):
    """The dotted paths of all fields below a group."""
    paths: list[str] = []
    for name, hint in hints(group).items():
        inner = dataclasses.is_dataclass(hint)
        paths += _paths(hint, f"{prefix}{name}.") if inner else [prefix + name]
    return paths
