"""Every run that an experiment names can be run, and what it leaves is told as it was."""

import importlib
import itertools
import json
import math
import pathlib
import shutil

import numpy as np
import pytest
from scipy import stats

from cefl_jax import config
from experiments import offloading, outcomes, reproduce_sequential_fl, runs

NAMES = (
    "main_comparison",
    "ablation",
    "heterogeneity",
    "cut_layer",
    "cloud_depth",
    "privacy",
    "reproduce_niid_bench",
)
EXPERIMENTS = {name: importlib.import_module(f"experiments.{name}").EXPERIMENT for name in NAMES}
EXPERIMENTS["reproduce_sequential_fl"] = reproduce_sequential_fl.make("partition.json")
TINY = runs.Experiment(
    name="tiny",
    common={
        "data.name": "fashion_mnist_12k",
        "model.name": "mlp",
        "train.clients_per_round": 4,
        "train.local_steps": 1,
        "train.batch_size": 4,
        "run.eval_every": 1,
        "method.name": "fedavg",
    },
    cells={"slow": {}, "a long/one": {"train.optimizer.learning_rate": 0.1}},
    scales={"smoke": {"train.rounds": 1}},
    seeds={"smoke": 2},
    target={"smoke": 0.5},
    stretch={"a long/one": 2},
)


def line(round, accuracy, **more):
    """A record of an evaluation."""
    costs = dict.fromkeys(outcomes.LINKS, 10.0 * round)
    return {
        "round": round,
        "test/accuracy": accuracy,
        "sim/time_s": 2.0 * round,
        "sim/energy_j": 1e3 * round,
        **costs,
        **more,
    }


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_at_every_scale_is_a_run_that_can_be_made(name):
    of = EXPERIMENTS[name]
    assert of.name == name
    assert {"smoke", "cpu", "full"} == set(of.scales) == set(of.seeds) == set(of.target)
    for scale in of.scales:
        cells = of.cells_of(scale)
        specs = [runs.make_spec(of, scale, cell, 0) for cell in cells]
        assert len(set(specs)) == len(cells) > 0


@pytest.mark.parametrize("scale", offloading.SCALES)
def test_every_setting_of_the_offloading_experiment_is_a_run_that_can_be_made(scale):
    clusterings = [
        *offloading.CLUSTERINGS.values(),
        *({"cefl.clustering.network_weight": weight} for weight in offloading.WEIGHTS),
    ]
    for clustering, offload in itertools.product(clusterings, offloading.OFFLOADS.values()):
        offloading.make_spec(scale, 0, clustering, offload)


def test_cells_differ_in_what_their_names_say():
    of = EXPERIMENTS["ablation"]
    base = config.to_dict(runs.make_spec(of, "cpu", "defaults", 0))
    for cell in of.cells:
        other = config.to_dict(runs.make_spec(of, "cpu", cell, 0))
        assert len(_differences(base, other)) == (cell != "defaults")


def test_runs_are_made_once_and_again_when_their_settings_change(tmp_path, capsys):
    records = runs.run_all(TINY, "smoke", 2, tmp_path)
    assert {cell: [len(one) for one in seeds] for cell, seeds in records.items()} == {
        "slow": [1, 1],
        "a long/one": [2, 2],
    }
    assert records["slow"][0][0]["test/accuracy"] != records["slow"][1][0]["test/accuracy"]
    assert capsys.readouterr().out.count("compiling") == 2  # of four runs
    folder = tmp_path / "a_long-one-1"
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert runs.run_all(TINY, "smoke", 2, tmp_path) == records
    assert "compiling" not in capsys.readouterr().out
    settings = json.loads((folder / "config.json").read_text())
    settings["train"]["batch_size"] = 5
    (folder / "config.json").write_text(json.dumps(settings))
    (tmp_path / "slow-0" / "status.json").write_text('{"state": "running"}')
    shutil.rmtree(tmp_path / "slow-0" / "checkpoints")
    again = runs.run_all(TINY, "smoke", 2, tmp_path, only="slow")
    assert _plain(again["slow"][0]) == _plain(records["slow"][0])
    assert capsys.readouterr().out.count("compiling") == 1


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", "[" * 100_000, '{"data": 3}', "\xff"])
@pytest.mark.parametrize("name", ["status.json", "config.json"])
def test_a_damaged_folder_holds_no_finished_run(tmp_path, name, text):
    spec = runs.make_spec(TINY, "smoke", "slow", 0)
    (tmp_path / "status.json").write_text('{"state": "finished"}')
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(spec)))
    assert runs.is_finished(tmp_path, spec)
    (tmp_path / name).write_text(text)
    assert not runs.is_finished(tmp_path, spec)


def test_final_accuracy_is_the_mean_of_the_last_evaluations():
    records = [line(i, i / 100) for i in range(1, 21)]
    assert outcomes.final(records) == pytest.approx(np.mean(np.arange(11, 21)) / 100)
    assert outcomes.final(records, tail=2) == pytest.approx(0.195)
    assert math.isnan(outcomes.final(records, "test/cloud_accuracy"))
    assert outcomes.final([line(1, None), line(2, 0.5)]) == 0.5


def test_costs_are_those_of_the_first_evaluation_at_the_target():
    records = [line(1, 0.4), line(2, 0.6), line(3, 0.5), line(4, 0.9)]
    assert outcomes.cost_to(records, 0.6) == {
        "round": 2,
        "sim/time_s": 4.0,
        "sim/energy_j": 2e3,
        "bytes": 60.0,
    }
    assert outcomes.cost_to(records, 0.95) is None
    assert outcomes.cost_to([line(1, None)], 0.1) is None


def test_the_table_has_means_intervals_and_who_got_there():
    values = [0.5, 0.6, 0.9]
    text = outcomes.table(
        {"one": [[line(3, value)] for value in values], "none": [[line(3, 0.1)]]},
        target=0.6,
        more={"x": "X"},
    )
    first, second = text.splitlines()[2:]
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert f"| one | {100 * np.mean(values):.2f} ± {100 * half:.2f} | - | 2 of 3 | 3 ± 0" in first
    assert second == "| none | 10.00 | - | 0 of 1 | - | - | - | - | - |"


def test_published_values_stand_beside_ours(tmp_path):
    of = reproduce_sequential_fl.make(str(pathlib.Path(tmp_path) / "p.json"))
    records = {cell: [[line(1, 0.8559)]] for cell in of.cells}
    text = reproduce_sequential_fl.tell(records, of, "cpu")
    assert "| fedavg by cefl | 85.59 | 85.59 ± 0.04 |" in text
    assert "| sequential_split | 85.59 | 86.28 ± 0.49 |" in text


def _plain(records):
    return [{key: value for key, value in one.items() if key != "wall/round_ms"} for one in records]


def _differences(a, b, prefix=""):
    found = []
    for key in a:
        if isinstance(a[key], dict):
            found += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a[key] != b[key]:
            found.append(prefix + key)
    return found
