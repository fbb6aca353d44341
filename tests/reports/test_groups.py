"""What is compared is comparable, what is averaged differs in the seed alone, and names tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax.reports.groups import by_section
from cefl_jax.reports.runs import defaults
from tests.reports.folders import make_run


def named(runs):
    """{title: {label: seeds}} of the sections of runs."""
    return {
        section.title: {group.label: [run.seed for run in group.runs] for group in section.groups}
        for section in by_section(runs)
    }


def groups_of(*runs):
    (groups,) = named(runs).values()
    return groups


def test_seeds_are_one_group():
    assert groups_of(make_run(2), make_run(0), make_run(10)) == {"cefl": [0, 2, 10]}


def test_how_a_run_is_executed_makes_no_group_but_its_types_do():
    assert groups_of(
        make_run(0, run__devices=2), make_run(1, run__eval_every=1), make_run(2, run__invented=1)
    ) == {"cefl": [0, 1, 2]}
    assert groups_of(make_run(0), make_run(1, run__compute_dtype="bfloat16")) == {
        "cefl · compute_dtype=bfloat16": [1],
        "cefl · compute_dtype=float32": [0],
    }


def test_groups_are_named_by_what_differs_in_short():
    rule, rate = {"cefl__clustering__rule": "patent"}, {"train__optimizer__learning_rate": 0.5}
    assert groups_of(make_run(0), make_run(1, **rule), make_run(2, **rule, **rate)) == {
        "cefl · clustering.rule=balanced · optimizer.learning_rate=0.05": [0],
        "cefl · clustering.rule=patent · optimizer.learning_rate=0.05": [1],
        "cefl · clustering.rule=patent · optimizer.learning_rate=0.5": [2],
    }


def test_the_settings_of_other_methods_are_not_named():
    rule, mu = {"cefl__clustering__rule": "patent"}, {"fedprox__mu": 0.1}
    assert groups_of(
        make_run(0),
        make_run(0, **rule),
        make_run(0, method__name="fedavg"),
        make_run(0, method__name="fedprox", **mu),
    ) == {
        "cefl · clustering.rule=balanced": [0],
        "cefl · clustering.rule=patent": [0],
        "fedavg": [0],
        "fedprox · mu=0.1": [0],
    }


def test_the_settings_of_a_family_are_named():
    assert groups_of(
        make_run(0),
        make_run(0, method__name="splitfed_v1", splitfed__x=1),
        make_run(0, method__name="splitfed_v2", splitfed__x=2),
    ) == {"cefl": [0], "splitfed_v1 · x=1": [0], "splitfed_v2 · x=2": [0]}


def test_what_nothing_reads_makes_no_group_and_is_not_named():
    rule = {"method__name": "fedavg", "cefl__clustering__rule": "patent"}
    alone = {"cefl__distill__rule": "none"}
    assert groups_of(
        make_run(0),
        make_run(1, cefl__distill__lambda_edge=0.7),
        make_run(0, **alone),
        make_run(1, **alone, cefl__distill__lambda_edge=0.1),
        make_run(0, method__name="fedavg"),
        make_run(1, **rule),
    ) == {
        "cefl · lambda_edge=0.5 · distill.rule=mutual": [0],
        "cefl · lambda_edge=0.7 · distill.rule=mutual": [1],
        "cefl · distill.rule=none": [0, 1],
        "fedavg": [0, 1],
    }


def test_what_a_partition_does_not_read_makes_no_section():
    iid = {"data__partition__name": "iid"}
    runs = [
        make_run(0, **iid),
        make_run(1, **iid, data__partition__alpha=0.1),
        make_run(0, data__partition__alpha=0.1),
    ]
    assert named(runs) == {
        "fashion_mnist_12k · dirichlet · alpha=0.1 · lenet5": {"cefl": [0]},
        "fashion_mnist_12k · iid · lenet5": {"cefl": [0, 1]},
    }
    assert [section.partition for section in by_section(runs)] == [
        {"name": "dirichlet", "num_clients": 100, "alpha": 0.1, "min_size": 10},
        {"name": "iid", "num_clients": 100},
    ]


def test_none_is_not_named_and_is_as_missing():
    steps = {"train__local_steps": None, "train__local_epochs": 1}
    assert groups_of(make_run(0), make_run(0, **steps), make_run(1, invented__x=None)) == {
        "cefl · local_epochs=1": [0],
        "cefl · local_steps=10": [0, 1],
    }


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"data__name": "digits"}, "digits · dirichlet · lenet5"),
        ({"model__name": "cnn"}, "fashion_mnist_12k · dirichlet · cnn"),
        ({"data__partition__name": "iid"}, "fashion_mnist_12k · iid · lenet5"),
    ],
)
def test_data_partition_and_model_are_never_mixed(change, title):
    assert named([make_run(0), make_run(0, **change)]) == {
        "fashion_mnist_12k · dirichlet · lenet5": {"cefl": [0]},
        title: {"cefl": [0]},
    }


def test_partitions_of_a_kind_are_told_apart_by_their_fields():
    assert list(named([make_run(0, data__partition__alpha=alpha) for alpha in (1.0, 0.1)])) == [
        "fashion_mnist_12k · dirichlet · alpha=0.1 · lenet5",
        "fashion_mnist_12k · dirichlet · alpha=1.0 · lenet5",
    ]


def test_what_all_groups_of_a_section_share_is_told_once():
    runs = [make_run(0, train__rounds=7, method__name=name) for name in ("cefl", "fedavg")]
    (section,) = by_section(runs)
    assert section.common == {"train.rounds": 7}
    assert section.partition["alpha"] == 0.3


def test_no_runs_have_no_sections():
    assert by_section([]) == []


CHANGES = st.fixed_dictionaries(
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


@given(st.lists(CHANGES, max_size=8))
def test_every_run_is_in_one_group_with_its_like_and_no_two_names_are_the_same(changes):
    runs = [make_run(**change) for change in changes]
    sections = by_section(runs)
    assert len({section.title for section in sections}) == len(sections)
    gathered = {}
    for section in sections:
        assert len({group.label for group in section.groups}) == len(section.groups)
        for group in section.groups:
            for run in group.runs:
                gathered[id(run)] = section.title, group.label
    assert sorted(gathered) == sorted(map(id, runs))
    for one, first in zip(runs, changes, strict=True):
        for other, second in zip(runs, changes, strict=True):
            alike = essence(first) == essence(second)
            assert (gathered[id(one)] == gathered[id(other)]) == alike


def essence(changes):
    """The settings less those that leave a run in its group, typed from the rule."""
    known = defaults() | {path.replace("__", "."): value for path, value in changes.items()}
    method, left = known["method.name"], {"seed", "run.devices"}
    if method in ("fedavg", "splitfed_v1"):
        left |= {
            "cefl.clustering.rule",
            "cefl.distill.rule",
            "cefl.distill.temperature",
            "run.archive_dtype",
        }
    if method == "fedavg":
        left |= {"cefl.compression.smashed", "cefl.compression.topk_share"}
    if known["cefl.distill.rule"] == "none":
        left |= {"cefl.distill.temperature", "run.archive_dtype"}
    if known["cefl.compression.smashed"] == "none":
        left |= {"cefl.compression.topk_share"}
    if known["data.partition.name"] != "dirichlet":
        left |= {"data.partition.alpha"}
    return {path: value for path, value in known.items() if path not in left and value is not None}
