"""Checked settings from texts FIELD=VALUE."""

from cefl_jax import config


def make_spec(fields):
    """Returns the default settings but for the fields set.

    Args:
      fields: texts `FIELD=VALUE`, such as train.optimizer.momentum=0.9; a later one wins.
    Raises:
      SettingError: for an unknown field, and what the settings' own checks refuse.
    """
    settings = config.default_config()
    for field in fields:
        path, _, text = field.partition("=")
        config.set_field(settings, path, text)
    return config.to_spec(settings)
