"""Who may import whom is said in pyproject.toml; who may write files, here."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "cefl_jax"
SHELL = ("config", "experiment", "main", "plots", "report", "reports", "rounds", "runtime")
SHELL += ("stack", "sweep", "sweeps")
"""Modules and folders around the pure core, and the script that makes what ships inside."""

WRITERS = "write_text write_bytes mkdir touch unlink rmdir rename symlink_to dump save savez"
WRITERS += " savez_compressed savetxt tofile"


def test_layers_import_what_they_may():
    linter = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", linter, "--no-cache"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


def writes(source):
    """The calls in a source that change files; `open` with a mode that is not "r" is one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            values = [*node.args, *(word.value for word in node.keywords if word.arg == "mode")]
            texts = [getattr(value, "value", None) for value in values]
            modes = [
                text for text in texts if isinstance(text, str) and set(text) <= set("rwax+bt")
            ]
            if called in WRITERS.split() or (
                called == "open" and set("".join(modes)) & set("wax+")
            ):
                yield called


def test_core_writes_no_file():
    found = {
        str(path): calls
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in SHELL
        and path.parent.name != "assets"
        if (calls := [*writes(path.read_text())])
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("open('f', 'w')", True),
        ("Path('f').open('ab')", True),
        ("p.write_text('y')", True),
        ("open(f, mode='r+b')", True),
        ("open('f', 'rb')", False),
        ("gzip.open(p)", False),
        ("t.replace('a', 'b')", False),
    ],
)
def test_writes_finds_calls_that_write(source, found):
    assert bool([*writes(source)]) == found
