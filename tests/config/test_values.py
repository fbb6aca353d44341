"""Texts on fields: whatever they are, they are settings or are refused in one line."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax import config
from cefl_jax.config import SettingError
from cefl_jax.methods import default_spec

VALID = dataclasses.asdict(default_spec())


def paths(tree, prefix=""):
    """Dotted paths of all groups and fields."""
    for name, inner in tree.items():
        yield prefix + name
        if isinstance(inner, dict):
            yield from paths(inner, f"{prefix}{name}.")


PATHS = [*paths(VALID)]
VALUES = [
    "None",
    "True",
    "1",
    "0",
    "-1",
    "0.5",
    "(0.5, 0.4)",
    "()",
    "1e999",
    "nan",
    "9" * 400,
    "9" * 5000,
    "x" * 5000,
    "a\nb",
    "\0",
    "\udcff",
    "\u0661",
    "1_0",
    " 7 ",
    "",
]
wrong_paths = st.text(max_size=10) | st.sampled_from(
    [".", "", "train.", "train.rounds.x", "a\nb", "train.\x1b[2J", "x" * 5000, "\udcff", "seed\0"]
)
lines = st.tuples(
    st.sampled_from(PATHS),
    st.sampled_from(VALUES) | st.text(max_size=8) | st.integers().map(str) | st.floats().map(str),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(lines, max_size=3))
def test_any_text_on_any_field(pairs):
    chosen = config.default_config()
    try:
        for path, text in pairs:
            config.set_field(chosen, path, text)
        spec = config.to_spec(chosen)
    except SettingError as error:
        line = str(error)
        assert line.isprintable()
        assert len(line) < 1000
    else:
        assert config.to_spec(json.loads(json.dumps(config.to_dict(spec)))) == spec


@settings(deadline=None)
@given(wrong_paths, st.sampled_from(VALUES))
def test_what_is_no_field(path, text):
    if path in PATHS:
        return
    chosen = config.default_config()
    with pytest.raises(SettingError) as caught:
        config.set_field(chosen, path, text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert chosen.to_dict() == VALID


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("train.rounds", "9" * 400, "train.rounds=9999"),
        ("train.rounds", "9" * 5000, "train.rounds='9999"),
        (
            "train.optimizer.learning_rate",
            "9" * 5000,
            "train.optimizer.learning_rate=inf: needs a fin",
        ),
        ("data.path", "x" * 5000, "data.path has 5000 characters, and 4096 is the most"),
        ("method.name", "x\n" * 5000, "method.name has 10000 characters, and 4096 is the most"),
        (
            "data.normalization.mean",
            "1," * 2000,
            "data.normalization.mean has 2000 numbers, and 1000",
        ),
    ],
)
def test_what_is_too_long_is_told_in_short(path, text, said):
    def set_it():
        chosen = config.default_config()
        config.set_field(chosen, path, text)
        return config.to_spec(chosen)

    with pytest.raises(SettingError) as caught:
        set_it()
    assert str(caught.value).startswith(said)
    assert len(str(caught.value)) < 200
