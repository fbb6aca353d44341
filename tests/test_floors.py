"""Who may import whom: the floors of the house, read from every import of the package."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "cefl_jax"

DOORS = {"main", "sweep", "report"}
GROUND = {"types", "specs", "safe_read", "compiler", "indexing"}
ROOMS = {"network", "models", "data.federated", "parallel"}
BELOW = {
    "types": set(),
    "specs": set(),
    "safe_read": set(),
    "compiler": set(),
    "indexing": {"types"},
    "network": GROUND,
    "models": GROUND,
    "data.federated": GROUND,
    "parallel": GROUND,
    "data": GROUND,
    "config": GROUND | {"data", "models", "network"},
    "stages": GROUND | ROOMS,
    "methods": GROUND | ROOMS | {"stages"},
    "build": GROUND | ROOMS | {"config", "data", "stages"},
    "program": GROUND | ROOMS | {"build", "methods", "stages"},
    "plots": GROUND | {"network", "runtime"},
    "runtime": GROUND,
    "reports": GROUND | {"config", "data", "plots", "runtime"},
    "rounds": GROUND | {"config", "data", "network", "plots", "program", "runtime"},
    "experiment": GROUND
    | {"build", "config", "data", "network", "plots", "program", "rounds", "runtime"},
    **dict.fromkeys(DOORS, GROUND | {"build", "config", "experiment", "runtime"}),
    "report": GROUND | {"reports", "runtime"},
}
"""What each room may import besides itself. `data` is its files other than federated.py."""

SHELL = DOORS | {"config", "experiment", "plots", "reports", "rounds", "runtime"}
"""The rooms around the pure core."""

SHELL_ALONE = {
    "absl",
    "ml_collections",
    "orbax",
    "tensorflow_datasets",
    "rich",
    "matplotlib",
    "tensorboardX",
    "altair",
    "duckdb",
    "jinja2",
    "vl_convert",
    "os",
    "shutil",
    "tempfile",
}
"""What only these import: the libraries of the shell, and those that change files."""

WRITERS = {
    "write_text",
    "write_bytes",
    "mkdir",
    "touch",
    "unlink",
    "rmdir",
    "rename",
    "symlink_to",
    "dump",
    "save",
    "savez",
    "savez_compressed",
    "savetxt",
    "tofile",
}
"""Calls that change files, besides open."""

SCRIPTS = ("data.assets.",)
"""Started by hand to make what ships inside the package; no run imports them."""


def room_of(name):
    """The room of a module, such as stages for stages.offload."""
    if name == "data.federated":
        return name
    return name.split(".")[0]


def modules(package):
    """Dotted name within the package, and path, of every module but the package's own."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            yield name, path


def imports(tree, package, name, is_folder=False):
    """Full dotted names of the modules that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                own = [package.name, *name.split("."), *(["_"] if is_folder else [])]
                base = ".".join([*own[: -node.level], *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if is_module(package, inner) else base


def is_module(package, dotted):
    path = package.parent.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def writes(tree):
    """Names of the calls in a module that change files."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in WRITERS or (called == "open" and not opens_to_read(node)):
                yield called


def opens_to_read(call):
    """Whether no argument of an `open(path, mode)` or `path.open(mode)` is a mode to write."""
    first = 1 if isinstance(call.func, ast.Name) else 0
    values = [*call.args[first:], *(word.value for word in call.keywords if word.arg == "mode")]
    texts = [value.value for value in values if isinstance(value, ast.Constant)]
    modes = [set(text) for text in texts if isinstance(text, str) and set(text) <= set("rwax+bt")]
    return not any(mode & set("wax+") for mode in modes)


def violations(package):
    """What breaks the rules, one line each."""
    for name, path in modules(package):
        room, tree = room_of(name), ast.parse(path.read_text())
        if room not in BELOW:
            yield f"{name} is on no floor"
            continue
        for imported in imports(tree, package, name, path.name == "__init__.py"):
            top, _, inner = imported.partition(".")
            if top == package.name:
                if inner and room_of(inner) not in BELOW[room] | {room}:
                    yield f"{name} imports {inner}"
            elif top in SHELL_ALONE and room not in SHELL:
                yield f"{name} imports {top}"
        if room not in SHELL and not name.startswith(SCRIPTS):
            yield from (f"{name} calls {call}" for call in writes(tree))


def test_the_house_keeps_its_floors():
    assert len(list(modules(PACKAGE))) > 30
    assert list(violations(PACKAGE)) == []


def test_every_floor_is_of_a_room():
    assert set().union(*BELOW.values()) <= set(BELOW)


@pytest.mark.parametrize(
    ("file", "line", "violation"),
    [
        ("stages/a.py", "from cefl_jax.methods import b", "stages.a imports methods.b"),
        ("stages/a.py", "from cefl_jax.methods.b import c", "stages.a imports methods.b"),
        ("stages/a.py", "import cefl_jax.experiment as e", "stages.a imports experiment"),
        ("stages/a.py", "from cefl_jax import config", "stages.a imports config"),
        ("stages/a.py", "from ..data import sources", "stages.a imports data.sources"),
        (
            "stages/a.py",
            "def f():\n    from cefl_jax.data import sources",
            "stages.a imports data.sources",
        ),
        (
            "methods/b.py",
            "from cefl_jax.runtime import workdir",
            "methods.b imports runtime.workdir",
        ),
        ("methods/b.py", "import absl.logging", "methods.b imports absl"),
        ("models/c.py", "from cefl_jax.network import d", "models.c imports network.d"),
        (
            "models/c.py",
            "from ml_collections import config_dict",
            "models.c imports ml_collections",
        ),
        ("network/d.py", "from cefl_jax import parallel", "network.d imports parallel"),
        ("network/__init__.py", "from ..stages import a", "network imports stages.a"),
        ("parallel.py", "from . import config", "parallel imports config"),
        (
            "data/federated.py",
            "from cefl_jax.data import sources",
            "data.federated imports data.sources",
        ),
        ("data/sources.py", "import os", "data.sources imports os"),
        ("types.py", "import cefl_jax.specs", "types imports specs"),
        (
            "runtime/workdir.py",
            "from cefl_jax import experiment",
            "runtime.workdir imports experiment",
        ),
        ("experiment.py", "from cefl_jax import main", "experiment imports main"),
        ("stages/a.py", "open('x', 'w')", "stages.a calls open"),
        ("stages/a.py", "open('x', mode='r+b')", "stages.a calls open"),
        ("stages/a.py", "Path('x').open('ab')", "stages.a calls open"),
        ("stages/a.py", "Path('x').write_text('y')", "stages.a calls write_text"),
        ("stages/a.py", "np.save('x', y)", "stages.a calls save"),
        ("stages/a.py", "import duckdb", "stages.a imports duckdb"),
        ("runtime/workdir.py", "from cefl_jax import reports", "runtime.workdir imports reports"),
        ("report.py", "from cefl_jax import experiment", "report imports experiment"),
        ("attic.py", "", "attic is on no floor"),
    ],
)
def test_a_broken_rule_is_found(tmp_path, file, line, violation):
    assert list(violations(made_up(tmp_path, {file: line}))) == [violation]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("stages/a.py", "from cefl_jax.data.federated import FederatedData"),
        ("stages/a.py", "from cefl_jax.data import federated"),
        ("stages/a.py", "from . import __doc__"),
        ("methods/b.py", "from cefl_jax.stages import a; from cefl_jax import parallel, specs"),
        ("experiment.py", "import os; from cefl_jax.runtime import workdir; open('x', 'w')"),
        ("runtime/workdir.py", "import rich; path.write_text('x')"),
        (
            "data/sources.py",
            "open('x', 'rb'); path.open('rt'); gzip.open(p); text.replace('a', 'b')",
        ),
        ("main.py", "from absl import app; from cefl_jax import config, experiment"),
        (
            "reports/e.py",
            "import duckdb; from cefl_jax import config, runtime; path.write_text('x')",
        ),
    ],
)
def test_a_kept_rule_is_not_held_against_a_module(tmp_path, file, line):
    assert list(violations(made_up(tmp_path, {file: line}))) == []


def made_up(folder, lines):
    """A small house in which nothing imports anything but as these lines say."""
    package = folder / "cefl_jax"
    rooms = [
        "stages/a.py",
        "methods/b.py",
        "models/c.py",
        "network/d.py",
        "data/federated.py",
        "data/sources.py",
        "runtime/workdir.py",
        "reports/e.py",
        "parallel.py",
        "types.py",
        "specs.py",
        "config.py",
        "experiment.py",
        "main.py",
    ]
    for file in {*rooms, *lines}:
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text(lines.get(file, "") + "\n")
    return package
