"""Settings: from files and overrides to a checked Spec, and what may differ on resume."""

from cefl_jax.config.load import (
    SettingError,
    check_channels,
    check_file_clients,
    check_population,
    default_config,
    load,
    set_field,
    to_dict,
    to_spec,
    typed,
)

__all__ = [
    "SettingError",
    "check_channels",
    "check_file_clients",
    "check_population",
    "default_config",
    "load",
    "set_field",
    "to_dict",
    "to_spec",
    "typed",
]
