"""Which values a setting may have: each check passes, or says in one line what to change."""

import functools
import math
from typing import Any

from cefl_jax.config.fields import all_fields
from cefl_jax.specs import Spec


class SettingError(ValueError):
    """A setting that cannot be run; one line with the field, its value and what would be right."""


def check_fields(spec: Spec) -> None:
    """Refuses a value that is out of its range, or not among the known ones.

    Args:
      spec: Spec, every field of its type and every number finite.
    Raises:
      SettingError: for the first such field.
    """
    for path, field in all_fields().items():
        value: Any = functools.reduce(getattr, path.split("."), spec)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if field.choices and value not in field.choices:
            known = ", ".join(field.choices)
            raise SettingError(f"{path}={value!r} is unknown; known: {known}")
        if field.least is not None and not all(
            field.least <= number <= _most(field) for number in numbers
        ):
            wanted = f"at least {field.least}"
            wanted = wanted if field.most is None else f"from {field.least} to {field.most}"
            raise SettingError(f"{path}={value}: needs to be {wanted}")
        if field.above is not None and not all(number > field.above for number in numbers):
            raise SettingError(f"{path}={value}: needs to be more than {field.above}")


def _most(field):
    return math.inf if field.most is None else field.most
