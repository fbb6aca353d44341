"""What differs from the defaults is found, and the command repeats exactly the run's settings."""

import pathlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax import config
from cefl_jax.reports import groups, runs
from tests.reports.folders import make_config

DEFAULT = pathlib.Path(__file__).parents[2] / "configs" / "default.py"

CHANGES = {
    "seed": st.integers(0, 2**31 - 1),
    "cefl__clustering__rule": st.sampled_from(["patent", "balanced"]),
    "cefl__clustering__max_size": st.none() | st.integers(1, 9),
    "cefl__offload__include_cloud": st.booleans(),
    "cefl__distill__temperature": st.floats(0.1, 9.0),
    "data__normalization__mean": st.lists(st.floats(0.0, 1.0), min_size=1, max_size=3).map(tuple),
    "data__name": st.just("mnist"),
    "data__path": st.none() | st.text("ab c'\"$;\\\n&|=ü", min_size=1),
    "train__local_steps": st.none() | st.integers(1, 9),
    "run__eval_every": st.integers(1, 9),
}


def repeated(command):
    """The settings that `cefl_jax.main` would take from a command, and the other words."""
    chosen, others = None, []
    for word in shlex.split(command):
        if word.startswith("--config="):
            assert word == "--config=configs/default.py"
            chosen = config.load(str(DEFAULT))
        elif word.startswith("--config."):
            path, value = word.removeprefix("--config.").split("=", 1)
            config.set_field(chosen, path, value)
        else:
            others.append(word)
    return runs.flatten(chosen.to_dict()), others


@given(st.fixed_dictionaries({}, optional=CHANGES))
def test_the_command_repeats_the_settings(changes):
    flat = runs.complete(make_config(**changes))
    found, others = repeated(groups.command(flat, "a folder;"))
    assert found == flat
    assert others == ["python", "-m", "cefl_jax.main", "--workdir=a folder;"]


@given(st.fixed_dictionaries({}, optional=CHANGES))
def test_the_differences_are_the_changes(changes):
    flat = runs.complete(make_config(**changes))
    default = runs.flatten(config.default_config().to_dict())
    wanted = {path.replace("__", "."): value for path, value in changes.items()}
    if wanted.get("cefl.clustering.rule") != "patent":
        wanted.pop("cefl.clustering.max_size", None)  # which nothing reads
    if "data.name" not in wanted:
        wanted.pop("data.path", None)
    assert groups.differences(flat) == {
        path: value for path, value in wanted.items() if value != default[path]
    }


def test_the_command_says_no_default():
    assert groups.command(runs.defaults(), "again").split() == [
        "python",
        "-m",
        "cefl_jax.main",
        "--config=configs/default.py",
        "--workdir=again",
    ]


def test_a_field_that_is_newer_than_the_run_has_its_default():
    older = make_config(seed=3)
    del older["cefl"]["privacy"]
    del older["train"]["batch_size"]
    assert runs.complete(older) == runs.complete(make_config(seed=3))


def test_a_field_that_is_unknown_is_a_difference():
    newer = make_config(method__name="fedprox") | {"fedprox": {"mu": 0.1, "schedule": [1, 2]}}
    assert groups.differences(runs.complete(newer)) == {
        "method.name": "fedprox",
        "fedprox.mu": 0.1,
        "fedprox.schedule": (1, 2),
    }


def test_what_nothing_has_read_is_no_difference():
    older = make_config(data__partition__name="iid", data__partition__alpha=0.1)
    flat = runs.complete(older)
    assert groups.differences(flat) == {"data.partition.name": "iid"}
    chosen, _ = repeated(groups.command(flat, "again"))
    assert chosen == flat


@pytest.mark.parametrize(
    "nested",
    [[], "text", None, {}, {"seed": 1}, {"seed": 1, "method": {"name": "cefl"}, "data": 3}],
)
def test_what_is_no_config_is_refused(nested):
    with pytest.raises(ValueError, match="it h"):
        runs.complete(nested)


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("seed", False),
        ("run.devices", False),
        ("run.eval_every", False),
        ("run.invented", False),
        ("run.compute_dtype", True),
        ("run.archive_dtype", True),
        ("train.rounds", True),
        ("invented.field", True),
        ("data.partition.alpha", True),
    ],
)
def test_which_fields_make_another_experiment(path, changes):
    assert runs.changes_results(path) == changes
