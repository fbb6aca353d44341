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
        least = -math.inf if field.least is None else field.least
        most = math.inf if field.most is None else field.most
        bounded = field.least is not None or field.most is not None
        if bounded and not all(least <= number <= most for number in numbers):
            wanted = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise SettingError(f"{path}={value}: needs to be {wanted}")
        if field.above is not None and not all(number > field.above for number in numbers):
            raise SettingError(f"{path}={value}: needs to be more than {field.above}")
