"""What is compared is comparable, what is averaged differs in the seed alone, and names tell."""

import pathlib
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax import config
from cefl_jax.reports import runs
from cefl_jax.reports.groups import by_section, command, differences
from tests.reports.folders import dotted, make_config, make_run, section_of

DEFAULT = pathlib.Path(__file__).parents[2] / "configs" / "default.py"
RULE, RATE = {"cefl__clustering__rule": "patent"}, {"train__optimizer__learning_rate": 0.5}
NONE, EDGE = {"cefl__distill__rule": "none"}, {"cefl__distill__lambda_edge": 0.7}
FEDAVG = {"method__name": "fedavg"}
IID, ALPHA = {"data__partition__name": "iid"}, {"data__partition__alpha": 0.1}


def named(changes):
    """{title: {label: seeds}} of the sections of runs with these changes."""
    return {
        section.title: {group.label: [run.seed for run in group.runs] for group in section.groups}
        for section in by_section([make_run(**each) for each in changes])
    }


def title(*fields, data="fashion_mnist_12k", kind="dirichlet", model="lenet5"):
    """The title of a section."""
    return " · ".join((data, kind, *fields, model))


def seed(number, *changes, **more):
    """The changes of a run."""
    return {"seed": number} | more | {path: value for one in changes for path, value in one.items()}


LABELS = [
    ([seed(2), seed(0), seed(10)], {"cefl": [0, 2, 10]}),
    # How a run is executed makes no group, but its types do.
    ([seed(0, run__devices=2), seed(1, run__invented=1)], {"cefl": [0, 1]}),
    ([seed(0), seed(1, run__eval_every=1)], {"cefl": [0, 1]}),
    (
        [seed(0), seed(1, run__compute_dtype="bfloat16")],
        {"cefl · compute_dtype=bfloat16": [1], "cefl · compute_dtype=float32": [0]},
    ),
    # All that differs between any two groups of a method is named.
    (
        [seed(0), seed(1, RULE), seed(2, RULE, RATE)],
        {
            "cefl · clustering.rule=balanced · optimizer.learning_rate=0.05": [0],
            "cefl · clustering.rule=patent · optimizer.learning_rate=0.05": [1],
            "cefl · clustering.rule=patent · optimizer.learning_rate=0.5": [2],
        },
    ),
    # Settings that a method does not read make no group of it and are not named.
    (
        [seed(0), seed(0, RULE), seed(0, FEDAVG), seed(1, FEDAVG, RULE)],
        {
            "cefl · clustering.rule=balanced": [0],
            "cefl · clustering.rule=patent": [0],
            "fedavg": [0, 1],
        },
    ),
    (
        [seed(0), seed(1, EDGE), seed(0, NONE), seed(1, NONE, EDGE)],
        {
            "cefl · lambda_edge=0.5 · distill.rule=mutual": [0],
            "cefl · lambda_edge=0.7 · distill.rule=mutual": [1],
            "cefl · distill.rule=none": [0, 1],
        },
    ),
    # None is not named and is as missing.
    (
        [seed(0), seed(0, train__local_steps=None, train__local_epochs=1), seed(1, new__x=None)],
        {"cefl · local_epochs=1": [0], "cefl · local_steps=10": [0, 1]},
    ),
]


@pytest.mark.parametrize(("changes", "labels"), LABELS)
def test_by_section_groups_runs_and_names_groups_by_what_differs(changes, labels):
    assert named(changes) == {title(): labels}


@pytest.mark.parametrize(
    ("changes", "titles"),
    [
        ([{}, {"data__name": "digits"}], [title(data="digits"), title()]),
        ([{}, {"model__name": "cnn"}], [title(model="cnn"), title()]),
        ([{}, IID], [title(), title(kind="iid")]),
        ([{"data__partition__alpha": 1.0}, ALPHA], [title("alpha=0.1"), title("alpha=1.0")]),
        ([IID, IID | ALPHA, ALPHA], [title("alpha=0.1"), title(kind="iid")]),
        ([], []),
    ],
)
def test_by_section_never_mixes_data_partition_and_model(changes, titles):
    assert list(named(changes)) == titles


def test_by_section_says_once_what_all_groups_share():
    section = section_of(
        *(make_run(0, train__rounds=7, method__name=x) for x in ("cefl", "fedavg"))
    )
    assert section.common == {"train.rounds": 7}
    assert (section.partition["name"], section.partition["alpha"]) == ("dirichlet", 0.3)
    assert section_of(make_run(**IID | ALPHA)).partition == {"name": "iid", "num_clients": 100}


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2),
        "method__name": st.sampled_from(["cefl", "fedavg", "splitfed_v1", "invented"]),
        "cefl__clustering__rule": st.sampled_from(["patent", "random"]),
        "cefl__distill__rule": st.sampled_from(["none", "mutual"]),
        "fedavg__x": st.none() | st.integers(0, 1),
        "train__local_epochs": st.none() | st.integers(1, 2),
        "run__archive_dtype": st.sampled_from(["bfloat16"]),
        "run__devices": st.integers(1, 2),
        "data__name": st.sampled_from(["digits", "mnist"]),
        "data__partition__name": st.sampled_from(["iid", "shards"]),
        "data__partition__alpha": st.sampled_from([0.1, 1]),
        "cefl__distill__temperature": st.sampled_from([1.0]),
        "cefl__compression__smashed": st.sampled_from(["topk"]),
        "cefl__compression__topk_share": st.sampled_from([0.2]),
    },
)


@given(st.lists(FIELDS, max_size=8))
def test_by_section_puts_every_run_with_its_like_under_a_name_of_its_own(changes):
    made = [make_run(**change) for change in changes]
    sections = by_section(made)
    assert len({section.title for section in sections}) == len(sections)
    gathered = {}
    for section in sections:
        assert len({group.label for group in section.groups}) == len(section.groups)
        for group in section.groups:
            gathered |= {id(run): (section.title, group.label) for run in group.runs}
    assert sorted(gathered) == sorted(map(id, made))
    for one, first in zip(made, changes, strict=True):
        for other, second in zip(made, changes, strict=True):
            alike = essence(first) == essence(second)
            assert (gathered[id(one)] == gathered[id(other)]) == alike


def essence(changes):
    """The settings less those that leave a run in its group, typed from the rule."""
    known = runs.defaults() | dotted(changes)
    method, unread = known["method.name"], {"seed", "run.devices"}
    distilling = {"cefl.distill.temperature", "run.archive_dtype"}
    if method in ("fedavg", "splitfed_v1"):
        unread |= {"cefl.clustering.rule", "cefl.distill.rule", *distilling}
    if method == "fedavg":
        unread |= {"cefl.compression.smashed", "cefl.compression.topk_share"}
    if known["cefl.distill.rule"] == "none":
        unread |= distilling
    if known["cefl.compression.smashed"] == "none":
        unread |= {"cefl.compression.topk_share"}
    if known["data.partition.name"] != "dirichlet":
        unread |= {"data.partition.alpha"}
    return {
        path: value for path, value in known.items() if path not in unread and value is not None
    }


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "cefl__clustering__rule": st.sampled_from(["patent", "balanced"]),
        "cefl__clustering__max_size": st.none() | st.integers(1, 9),
        "cefl__offload__include_cloud": st.booleans(),
        "cefl__distill__temperature": st.floats(0.1, 9.0),
        "data__normalization__mean": st.lists(st.floats(0.0, 1.0), min_size=1, max_size=3).map(
            tuple
        ),
        "data__name": st.just("mnist"),
        "data__path": st.none() | st.text("ab c'\"$;\\\n&|=ü", min_size=1),
        "data__partition__name": st.just("iid"),
        "data__partition__alpha": st.just(0.1),
        "train__local_steps": st.none() | st.integers(1, 9),
        "run__eval_every": st.integers(1, 9),
    },
)


@settings(max_examples=50)
@given(CHANGES)
def test_command_repeats_the_differences_and_no_default(changes):
    flat = runs.complete(make_config(**changes))
    wanted = dotted(changes)
    if wanted.get("cefl.clustering.rule") != "patent":
        wanted.pop("cefl.clustering.max_size", None)  # which nothing reads
    if "data.name" not in wanted:
        wanted.pop("data.path", None)
    if "data.partition.name" in wanted:
        wanted.pop("data.partition.alpha", None)
    default = runs.flatten(config.default_config().to_dict())
    wanted = {path: value for path, value in wanted.items() if value != default[path]}
    assert differences(flat) == wanted
    *start, workdir = shlex.split(command(flat, "a folder;"))
    assert workdir == "--workdir=a folder;"
    assert start[:4] == ["python", "-m", "cefl_jax.main", "--config=configs/default.py"]
    chosen = config.load(str(DEFAULT))
    for word in start[4:]:
        path, value = word.removeprefix("--config.").split("=", 1)
        config.set_field(chosen, path, value)
    assert runs.flatten(chosen.to_dict()) == flat
    assert len(start) == 4 + len(wanted)
