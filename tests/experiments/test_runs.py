"""Every run that an experiment names can be run, and what it leaves is told as it was."""

import dataclasses
import importlib.util
import itertools
import json
import pathlib
import shutil
import sys

import pytest

from cefl_jax import config
from cefl_jax.reports.groups import Group
from experiments import offloading, reproduce_sequential_fl, runs
from tests.reports.folders import make_run

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
    folders = runs.run_all(TINY, "smoke", 2, tmp_path)
    slow, longer = runs.read_groups(folders)
    assert (slow.label, longer.label) == ("slow", "a long/one")
    assert [[*run.metrics["round"]] for run in slow.runs + longer.runs] == [
        [1],
        [1],
        [1, 2],
        [1, 2],
    ]
    assert slow.runs[0].metrics["test/accuracy"] != slow.runs[1].metrics["test/accuracy"]
    assert capsys.readouterr().out.count("compiling") == 2  # of four runs
    folder = tmp_path / "a_long-one-1"
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert runs.run_all(TINY, "smoke", 2, tmp_path) == folders
    assert "compiling" not in capsys.readouterr().out
    settings = json.loads((folder / "config.json").read_text())
    settings["train"]["batch_size"] = 5
    (folder / "config.json").write_text(json.dumps(settings))
    (tmp_path / "slow-0" / "status.json").write_text('{"state": "running"}')
    shutil.rmtree(tmp_path / "slow-0" / "checkpoints")
    (again,) = runs.read_groups(runs.run_all(TINY, "smoke", 2, tmp_path, only="slow"))
    assert again.runs[0].metrics["test/loss"] == slow.runs[0].metrics["test/loss"]
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


def groups_of(accuracies):
    """Runs of 3 rounds of {cell: [accuracy of each seed]}."""
    return [
        Group(
            cell, (), [make_run(seed, (1, 2, 3), **values(one)) for seed, one in enumerate(seeds)]
        )
        for cell, seeds in accuracies.items()
    ]


def values(accuracy):
    """Metrics of three evaluations."""
    return {"test/accuracy": [0.0, accuracy, accuracy], "cluster/kl_mean": [0.1, 0.2, 0.3]}


def test_published_values_stand_beside_ours(tmp_path):
    of = reproduce_sequential_fl.make(str(pathlib.Path(tmp_path) / "p.json"))
    of = dataclasses.replace(of, tail=2)
    groups = groups_of({cell: [0.8559] for cell in of.cells})
    text = reproduce_sequential_fl.tell(groups, of, "cpu")
    assert "| fedavg by cefl | 85.59 | 85.59 ± 0.04 |" in text
    assert "| sequential_split | 85.59 | 86.28 ± 0.49 |" in text


def test_the_table_of_an_experiment_has_its_cells_and_its_own_columns():
    of = dataclasses.replace(TINY, tail=2, more={"cluster/kl_mean": "KL"})
    text = runs.tell(groups_of({"one": [0.5, 0.6], "none": [0.1]}), of, "smoke")
    assert text.startswith("`tiny` at scale `smoke`, 2 seeds.")
    assert "| one | 55.00 ± " in text
    assert "| none | 10.00 | " in text
    assert "| KL |" in text


def _differences(a, b, prefix=""):
    found = []
    for key in a:
        if isinstance(a[key], dict):
            found += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a[key] != b[key]:
            found.append(prefix + key)
    return found


@pytest.mark.parametrize(
    ("arguments", "missing", "said"),
    [
        (["--seeds=0"], None, "--seeds: 0: needs to be at least 1"),
        (["--scale=wrong"], None, "cell 'a': cefl.clustering.rule='bal' is unknown"),
        ([], "duckdb", "duckdb cannot be imported; pip install 'cefl_jax[report]'"),
    ],
)
def test_what_an_experiment_cannot_run_is_refused_before_its_first_run(
    monkeypatch, capsys, tmp_path, arguments, missing, said
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == missing else find(name)
    )
    scales = {"cpu": {}, "wrong": {"cefl.clustering.rule": "bal"}}
    of = runs.Experiment(
        "x", {"a": {}}, scales, dict.fromkeys(scales, 1), dict.fromkeys(scales, 0.5)
    )
    monkeypatch.setattr(sys, "argv", ["x", f"--workdir={tmp_path / 'made'}", *arguments])
    with pytest.raises(SystemExit) as ended:
        runs.main(of, "What is refused.")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
