"""What a sweep's runs are, and which sweeps are refused."""

import dataclasses
import importlib

import pytest
from scipy import stats

from cefl_jax import config
from cefl_jax.reports.runs import flatten
from cefl_jax.sweeps import Sweep
from cefl_jax.sweeps.definition import expand, load_definition
from experiments import offloading

NAMES = ("main_comparison", "ablation", "heterogeneity", "cut_layer", "cloud_depth", "privacy")
NAMES += ("distillation_rates", "distillation_restart", "reproduce_niid_bench", "offloading")
NAMES += ("reproduce_sequential_fl",)
RATE, ALPHA, BATCH = "train.optimizer.learning_rate", "data.partition.alpha", "train.batch_size"
GIVEN = {"reproduce_sequential_fl": {"data.partition.path": "partition.json"}}


@pytest.mark.parametrize("name", NAMES)
def test_expand_of_every_experiment_at_every_scale(name):
    sweep = importlib.import_module(f"experiments.{name}").EXPERIMENT
    assert {"smoke", "cpu"} <= set(sweep.scales) == set(sweep.seeds) == set(sweep.target)
    for scale in sweep.scales:
        runs = expand(sweep, scale, changes=GIVEN.get(name))
        cells = sweep.of_scale.get(scale, sweep.cells)
        assert len({run.id for run in runs}) == len(runs) == len(cells) * sweep.seeds[scale]


@pytest.mark.parametrize("scale", offloading.SCALES)
def test_make_spec_of_every_setting_of_the_offloading_experiment(scale):
    weights = [{"cefl.clustering.network_weight": weight} for weight in offloading.WEIGHTS]
    for clustering in (*offloading.CLUSTERINGS.values(), *weights):
        for offload in offloading.OFFLOADS.values():
            offloading.make_spec(scale, 0, clustering, offload)


def test_cells_of_the_ablation_differ_from_the_defaults_in_one_field():
    runs = expand(importlib.import_module("experiments.ablation").EXPERIMENT, "cpu")
    flat = {run.group: set(flatten(config.to_dict(run.spec)).items()) for run in runs}
    differing = {cell: len(fields - flat["defaults"]) for cell, fields in flat.items()}
    assert differing == {cell: int(cell != "defaults") for cell in flat}


def test_expand_makes_every_cell_at_every_point_with_every_seed():
    sweep = Sweep(
        cells={"a": {"method.name": "fedavg"}, "b": {}},
        grid={ALPHA: (0.1, 1.0), "train.local_steps": (5, 10)},
        zip={RATE: (0.1, 0.2, 0.3), BATCH: (10, 20, 30)},
        common={"train.rounds": 7},
        stretch={"b": 2},
        seeds=2,
    )
    runs = expand(sweep, "full")
    assert len(runs) == len({run.id for run in runs}) == 2 * 2 * 2 * 3 * 2
    assert runs[0].title == "a, alpha=0.1, local_steps=5, learning_rate=0.1, batch_size=10, seed 0"
    pairs = {(run.spec.train.optimizer.learning_rate, run.spec.train.batch_size) for run in runs}
    assert pairs == {(0.1, 10), (0.2, 20), (0.3, 30)}
    assert {(run.group[0], run.spec.train.rounds) for run in runs} == {("a", 7), ("b", 14)}
    some = expand(sweep, "full", num_seeds=1, only="alpha=1.0, local_steps=5")
    assert [run.seed for run in some] == [0] * 6
    assert {run.id for run in some} < {run.id for run in runs}


def test_expand_draws_the_same_random_points_each_time_one_for_each_number():
    sweep = Sweep(
        random={RATE: stats.loguniform(1e-3, 1e-1), BATCH: (10, 20)},
        grid={"method.name": ("fedavg", "cefl")},
        num_random=50,
    )
    runs = expand(sweep, "full")
    assert runs == expand(sweep, "full")
    assert len(runs) == 100
    rates = {run.spec.train.optimizer.learning_rate for run in runs}
    assert len(rates) == 50
    assert 1e-3 <= min(rates) < 3e-3
    assert 3e-2 < max(rates) <= 1e-1
    assert {run.spec.train.batch_size for run in runs} == {10, 20}
    more = expand(dataclasses.replace(sweep, num_random=60), "full")
    assert {run.id for run in runs} < {run.id for run in more}  # those made are not made again


def test_labels_of_axes_with_one_ending_are_whole_paths():
    rates = {RATE: (0.1,), "cefl.distill.learning_rate": (0.2,)}
    (run,) = expand(Sweep(grid=rates), "full")
    assert run.group == f"{RATE}=0.1, cefl.distill.learning_rate=0.2"


def test_id_follows_what_results_depend_on_and_not_how_a_run_is_executed():
    def id_of(**changes):
        paths = {path.replace("__", "."): value for path, value in changes.items()}
        (run,) = expand(Sweep(common=paths), "full")
        return run.id

    alone = id_of()
    assert id_of(run__layout="flat", run__client_chunk=3, run__eval_every=7) == alone
    assert id_of(method__name="cefl") == alone  # its default
    others = [
        id_of(run__archive_dtype="bfloat16"),
        id_of(train__rounds=7),
        id_of(method__name="fedavg"),
    ]
    assert len({alone, *others}) == 4
    assert len(alone) == 12


WRONG = [
    ({"grid": {RATE: (0.1,)}, "zip": {RATE: (0.2,)}}, f"{RATE} is on two axes"),
    ({"grid": {RATE: (0.1,)}, "cells": {"a": {RATE: 1.0}}}, f"{RATE} is on an axis, and changed"),
    ({"grid": {RATE: ()}}, f"{RATE}=(): an axis needs a list of values"),
    ({"grid": {"method.name": "cefl"}}, "method.name='cefl': an axis needs a list of values"),
    ({"zip": {RATE: (0.1, 0.2), BATCH: (5,)}}, "zip has axes of unequal lengths"),
    ({"grid": {"train.rate": (0.1,)}}, "train.rate is not a field; known here: rounds,"),
    ({"grid": {RATE: (0.1, -1.0)}}, f"s at 'learning_rate=-1.0': {RATE}=-1"),
    ({"random": {RATE: (0.1,)}}, "num_random=0: needs to be above 0 with axes in random"),
    ({"num_random": 3}, "num_random=3: needs to be above 0 with axes in random"),
    ({"random": {RATE: 0.1}, "num_random": 3}, "needs a frozen distribution of scipy.stats"),
    ({"cells": {}}, "s has no runs; give it cells"),
    ({"grid": {RATE: (0.1, 0.1)}}, f"{RATE}=(0.1, 0.1): a value is there twice"),
    ({"grid": {"seed": (1, 2)}}, "seed is set; say with seeds how many"),
    ({"common": {"seed": 2}}, "seed is set; say with seeds how many"),
    ({"seeds": 0}, "s: seeds=0: needs to be at least 1"),
    ({"seeds": {"cpu": 3}}, "s: seeds says nothing of the scale 'full'"),
    ({"target": {"cpu": 0.3}}, "s: target says nothing of the scale 'full'"),
    ({"stretch": {"b": 2}}, "s: of_scale or stretch names 'b', which is no cell"),
    ({"of_scale": {"full": ["b"]}}, "s: of_scale or stretch names 'b', which is no cell"),
    ({"stretch": {"": 0}}, "s: stretch needs whole numbers"),
    ({"scales": {}}, "--scale=full: s has ; choose one of them"),
    ({"cells": {"a": {}, "b": {}}}, "'a, seed 0' and 'b, seed 0' have the same settings"),
    ({"cells": {"a": {"method.name": "fedavg", "cefl.distill.rule": "none"}}}, "s at 'a': cefl."),
]


@pytest.mark.parametrize(("parts", "said"), WRONG, ids=[said for _, said in WRONG])
def test_expand_refuses_in_one_line(parts, said):
    with pytest.raises(config.SettingError) as refused:
        expand(Sweep(name="s", **parts), "full")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


FILES = [
    ("", "needs EXPERIMENT = cefl_jax.sweeps.Sweep(...)"),
    ("EXPERIMENT = 3", "needs EXPERIMENT = cefl_jax.sweeps.Sweep(...)"),
    ("x = 1\ny = 1 / 0", "ZeroDivisionError in line 2"),
    ("from cefl_jax.sweeps import Sweep\nEXPERIMENT = Sweep(cell={})", "TypeError in line 2"),
]


@pytest.mark.parametrize(("text", "said"), FILES, ids=[said for _, said in FILES])
def test_load_definition_refuses_in_one_line(tmp_path, text, said):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(config.SettingError) as refused:
        load_definition(str(file))
    assert f"--experiment={file}: " in str(refused.value)
    assert said in str(refused.value)


def test_load_definition_names_a_sweep_after_its_file_and_refuses_missing_ones(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from cefl_jax.sweeps import Sweep\nEXPERIMENT = Sweep()\nx = 1\n")
    sweep, defined = load_definition(str(file))
    assert (sweep.name, defined["x"]) == ("mine", 1)
    for path in (tmp_path, tmp_path / "none.py"):
        with pytest.raises(config.SettingError, match=f"--experiment={path}: "):
            load_definition(str(path))
