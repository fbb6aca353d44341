"""The config files that people copy: each one runs, and default.py says what every field means."""

import ast
import pathlib

import pytest

from cefl_jax import config
from cefl_jax.specs import Spec

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
    assert dict(flat(made.to_dict())) == dict(flat(config.to_dict(Spec())))
    assert config.to_spec(made) == Spec()


def test_default_keeps_the_types():
    made, expected = config.load(str(DEFAULT)), config.default_config()
    for path, _ in flat(config.to_dict(Spec())):
        *groups, name = path.split(".")
        mine, theirs = made, expected
        for group in groups:
            mine, theirs = mine[group], theirs[group]
        assert mine.get_type(name) is theirs.get_type(name), path


def test_every_field_of_default_has_a_comment():
    lines = DEFAULT.read_text().splitlines()
    assignments = [
        node for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, ast.Assign)
    ]
    fields = [
        lines[node.lineno - 1]
        for node in assignments
        if not ast.unparse(node.value).endswith("ConfigDict()")
    ]
    assert len(fields) == len(list(flat(config.to_dict(Spec()))))
    assert [line for line in fields if "  # " not in line] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_can_be_run(path):
    config.to_spec(config.load(str(path)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_tells_the_command_that_runs_it(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert f"python -m cefl_jax.main --config=configs/{path.name} --workdir=" in docstring
