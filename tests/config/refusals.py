"""Settings as texts, and the one line with which wrong ones are refused."""

import pytest

from cefl_jax import config
from cefl_jax.config import SettingError


def spec_with(text=""):
    """The Spec of the defaults with fields set as on a command line, FIELD=TEXT FIELD=TEXT."""
    chosen = config.default_config()
    for setting in text.split():
        path, _, value = setting.partition("=")
        config.set_field(chosen, path, value)
    return config.to_spec(chosen)


def refusal(call, *args):
    """The one line, of printable characters, with which a call refuses settings."""
    with pytest.raises(SettingError) as caught:
        call(*args)
    line = str(caught.value)
    assert line.isprintable()
    return line


def check_words(line, words):
    """The parts of some words, between their " ... ", have to be in a line, and begin it."""
    parts = words.split(" ... ")
    assert line.startswith(parts[0]), line
    assert [part for part in parts if part not in line] == [], line
