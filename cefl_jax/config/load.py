"""From a config file and its overrides to checked, frozen settings.

What cannot be run is a `SettingError`: one line that names the field, its value and the remedy.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from flax import traverse_util
from ml_collections import config_dict

from cefl_jax.config.fields import SettingError, all_fields, hints, without_unread
from cefl_jax.config.files import is_json, read_config_json, run_config_file, wrong_file
from cefl_jax.config.validate import check_combinations, check_fields
from cefl_jax.methods import METHODS, default_spec, spec_class
from cefl_jax.safe_read import one_line, show
from cefl_jax.specs import Spec

MAX_FLOAT = 3.4e38  # floats have 32 bits on the device
MAX_INT = 10**18  # so that it can be shown; what a field can hold is less
MAX_TEXT = 4096  # characters; no path is longer
MAX_NUMBERS = 1000  # of a tuple
WORDS = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False"}
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def default_config() -> config_dict.ConfigDict:
    """Returns every field with its default; configs/default.py says what each means."""
    values = {
        path: config_dict.placeholder(_type_of(field.hint))
        if field.default is None
        else field.default
        for path, field in all_fields().items()
    }
    return config_dict.ConfigDict(traverse_util.unflatten_dict(values, sep="."))


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
    _walk_complete(config)
    return config


def set_field(config: config_dict.ConfigDict, path: str, text: str) -> None:
    """Sets a field of a config from text, in place, as `--config.PATH=TEXT` does.

    Args:
      config: ConfigDict with all fields.
      path, text: as of `parse_field`.
    Raises:
      SettingError: as of `parse_field`.
    """
    set_values(config, {path: parse_field(path, text)})


def parse_field(path: str, text: str) -> Any:
    """Returns the value that a text stands for, of the field's type and not yet checked.

    `None` is None, `True`, `true` and `1` are True, a number stands for a tuple of one, and
    `0.5,0.4` or `(0.5, 0.4)` for one of two.

    Args:
      path: dotted, such as train.optimizer.momentum.
      text: of the value.
    Raises:
      SettingError: for an unknown field, a group of fields, or a text that is not of its type.
    """
    return _parse(_hint_of(path), text, path)


def set_values(config: config_dict.ConfigDict, values: Mapping[str, Any]) -> None:
    """Sets fields of a config, in place, whatever the types of {dotted path: value}."""
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict(values)


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
    spec: Spec = default_spec().replace(_values(_walk_complete(config)))
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
        for path in change:
            _hint_of(path)  # refuses what is no field
        set_values(config, change)
    return to_spec(config)


def typed(path: str, value: Any) -> Any:
    """Returns the value of a field as its type has it: ints serve as floats, lists as tuples.

    Raises:
      SettingError: for an unknown field, a group of fields, or a value that is not of its type.
    """
    return _convert(_hint_of(path), value, path)


def to_dict(spec: Spec) -> dict[str, Any]:
    """Returns the settings as a nested dict of plain values, ready for JSON.

    Own settings of other methods are left out; `to_spec` takes it back.
    """
    others = _own_groups() - {spec.method.name}
    return {name: value for name, value in dataclasses.asdict(spec).items() if name not in others}


def _own_groups():
    """The names of the groups that are methods' own."""
    return {name for name, info in METHODS.items() if info.settings is not None}


def _restore(location):
    """The config of a JSON file, each value of its field's type."""
    config, nested = default_config(), read_config_json(location)
    try:
        values = _values(_walk(spec_class(), nested))
    except SettingError as error:
        raise wrong_file(location, error) from error
    set_values(config, without_unread(values))
    return config


def _walk(group: Any, values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the fields that nested values have of a group, each with what holds its value."""
    if not isinstance(values, (config_dict.ConfigDict, dict)):
        what = f"{prefix[:-1] or 'config'}={show(values)}"
        raise SettingError(f"{what}: needs to be a group of fields, not a value")
    known = hints(group)
    for name in values:
        if name not in known:
            raise _unknown(prefix, name, known)
        if dataclasses.is_dataclass(known[name]):
            yield from _walk(known[name], values[name], f"{prefix}{name}.")
        else:
            yield prefix + name, values


def _walk_complete(config):
    """What `_walk` yields of a config, which has to have every field that every run has."""
    found, own = dict(_walk(spec_class(), config)), _own_groups()
    for path in all_fields():
        group = path.split(".")[0]
        if path not in found and (group in config or group not in own):
            missing = path if group in config else group
            raise SettingError(
                f"{missing} is missing; start from cefl_jax.config.default_config, which has every "
                "field"
            )
    return found.items()


def _values(found):
    """{dotted path: value of its type} of what `_walk` yields."""
    fields = all_fields()
    return {path: _convert(fields[path].hint, _read(group, path), path) for path, group in found}


def _read(group, path):
    """A value that may refer to other fields, in a way that a person's file says."""
    try:
        return group[path.rpartition(".")[2]]
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise SettingError(f"{path} has no value ({reason}); set --config.{path}") from error


def _hint_of(path):
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
    elsewhere = [path for path in all_fields() if path.endswith(f".{name}")]
    name = name if str(name).isprintable() and len(str(name)) <= 60 else show(name)
    if near:
        remedy = f"did you mean {prefix}{near[0]}?"
    elif elsewhere:
        remedy = f"did you mean {' or '.join(elsewhere)}?"
    else:
        remedy = f"known here: {', '.join(known) or 'nothing'}"
    return SettingError(f"{prefix}{name} is not a field; {remedy}")


def _convert(hint, value, path):
    """A value of the field's type; ints serve as floats, and lists or one number as tuples."""
    kind = _type_of(hint)
    if value is None and _is_optional(hint):
        return None
    if typing.get_origin(kind) is tuple:
        values = value if isinstance(value, (tuple, list)) else (value,)
        if len(values) > MAX_NUMBERS:
            raise SettingError(f"{path} has {len(values)} numbers, and {MAX_NUMBERS} is the most")
        return tuple(_convert(float, item, path) for item in values)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise _unfit(hint, value, path)
    if kind is float and not -MAX_FLOAT <= value <= MAX_FLOAT:
        raise _unfit(hint, value, path)
    if kind is int and abs(value) > MAX_INT:
        raise SettingError(f"{path}={show(value)}: needs to be a whole number of fewer digits")
    if kind is str and (length := len(str(value))) > MAX_TEXT:
        raise SettingError(f"{path} has {length} characters, and {MAX_TEXT} is the most")
    return kind(value)


def _parse(hint, text, path):
    """The value that a text stands for, of the field's kind and not yet checked."""
    kind = _type_of(hint)
    if text == "None":
        return _convert(hint, None, path)
    try:
        if typing.get_origin(kind) is tuple:
            return tuple(float(item) for item in text.strip("()[] ").removesuffix(",").split(","))
        return BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        raise _unfit(hint, text, path) from error


def _type_of(hint):
    """The type that a hint allows besides None."""
    return typing.get_args(hint)[0] if _is_optional(hint) else hint


def _is_optional(hint):
    return isinstance(hint, types.UnionType)


def _unfit(hint, value, path):
    wanted = WORDS.get(_type_of(hint), "numbers, such as 0.5 or (0.5, 0.4)")
    wanted += " or None" if _is_optional(hint) else ""
    return SettingError(f"{path}={show(value)}: needs {wanted}")
