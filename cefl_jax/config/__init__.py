"""Settings: from files and overrides to a checked Spec, and what may differ on resume."""

from cefl_jax.config.fields import SettingError
from cefl_jax.config.load import (
    default_config,
    load,
    make_spec,
    parse_field,
    set_field,
    to_dict,
    to_spec,
    typed,
)
from cefl_jax.config.validate import check_channels, check_file_clients, check_population

__all__ = [
    "SettingError",
    "check_channels",
    "check_file_clients",
    "check_population",
    "default_config",
    "load",
    "make_spec",
    "parse_field",
    "set_field",
    "to_dict",
    "to_spec",
    "typed",
]
