"""The config files that people copy: each one runs, and default.py says what every field means."""

import ast
import dataclasses
import pathlib

import pytest

from cefl_jax import config
from cefl_jax.config.__main__ import markdown, python
from cefl_jax.config.fields import all_fields
from cefl_jax.methods import default_spec

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
DEFAULT = CONFIGS / "default.py"
FILES = sorted(CONFIGS.glob("*.py"))


def flat(values, prefix=""):
    """Every field of nested groups by its dotted path."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_default_is_the_spec_with_every_field():
    made = config.load(str(DEFAULT))
    assert dict(flat(made.to_dict())) == dict(flat(dataclasses.asdict(default_spec())))
    assert config.to_spec(made) == default_spec()


def test_default_keeps_the_types():
    made, expected = config.load(str(DEFAULT)), config.default_config()
    for path, _ in flat(config.to_dict(default_spec())):
        *groups, name = path.split(".")
        mine, theirs = made, expected
        for group in groups:
            mine, theirs = mine[group], theirs[group]
        assert mine.get_type(name) is theirs.get_type(name), path


def test_default_is_made_of_what_the_fields_say():
    text = DEFAULT.read_text()
    result = text[text.index("Seen on") : text.index('"""', 3)]
    assert text == python(f"\n{result.rstrip()}")


def test_every_setting_says_what_it_means():
    for path, field in all_fields().items():
        assert field.meaning, path
        assert f"| `{path}` |" in markdown()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_can_be_run(path):
    config.to_spec(config.load(str(path)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_tells_the_command_that_runs_it(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert f"python -m cefl_jax.main --config=configs/{path.name} --workdir=" in docstring
