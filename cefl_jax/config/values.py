"""Values of settings: what a text or a file says, as a value of its field's type."""

import types
import typing
from typing import Any

from cefl_jax.config.validate import SettingError
from cefl_jax.safe_read import show

MAX_FLOAT = 3.4e38  # floats have 32 bits on the device
MAX_INT = 10**18  # so that it can be shown; what a field can hold is less
MAX_TEXT = 4096  # characters; no path is longer
MAX_NUMBERS = 1000  # of a tuple
WORDS = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False"}
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def convert(hint: Any, value: Any, path: str) -> Any:
    """Returns a value of the field's type; ints serve as floats, and lists or one number as tuples.

    Args:
      hint: type hint of the field.
      value: from a file.
      path: dotted, of the field.
    Raises:
      SettingError: when it is of another type, or larger than any setting.
    """
    kind = type_of(hint)
    if value is None and is_optional(hint):
        return None
    if typing.get_origin(kind) is tuple:
        values = value if isinstance(value, (tuple, list)) else (value,)
        if len(values) > MAX_NUMBERS:
            raise SettingError(f"{path} has {len(values)} numbers, and {MAX_NUMBERS} is the most")
        return tuple(convert(float, item, path) for item in values)
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


def parse(hint: Any, text: str, path: str) -> Any:
    """Returns the value that a text stands for; arguments and errors as of `convert`."""
    kind = type_of(hint)
    if text == "None":
        return convert(hint, None, path)
    try:
        if typing.get_origin(kind) is tuple:
            return tuple(float(item) for item in text.strip("()[] ").removesuffix(",").split(","))
        return BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        raise _unfit(hint, text, path) from error


def type_of(hint: Any) -> Any:
    """Returns the type that a hint allows besides None."""
    return typing.get_args(hint)[0] if is_optional(hint) else hint


def is_optional(hint: Any) -> bool:
    """Returns whether a hint allows None."""
    return isinstance(hint, types.UnionType)


def _unfit(hint, value, path):
    wanted = WORDS.get(type_of(hint), "numbers, such as 0.5 or (0.5, 0.4)")
    wanted += " or None" if is_optional(hint) else ""
    return SettingError(f"{path}={show(value)}: needs {wanted}")
