"""Every run that an experiment names can be run, and its table says what the runs left."""

import dataclasses
import importlib.util
import json
import shutil
import sys

import pytest

from cefl_jax import config
from cefl_jax.reports.groups import Group
from cefl_jax.reports.runs import flatten
from experiments import offloading, reproduce_niid_bench, reproduce_sequential_fl, runs
from tests.reports.folders import make_run

NAMES = ("main_comparison", "ablation", "heterogeneity", "cut_layer", "cloud_depth", "privacy")
NAMES += ("distillation_rates", "distillation_restart", "reproduce_niid_bench")
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
def test_make_spec_of_every_cell_at_every_scale(name):
    of = EXPERIMENTS[name]
    assert of.name == name
    assert {"smoke", "cpu"} <= set(of.scales) == set(of.seeds) == set(of.target)
    for scale in of.scales:
        cells = of.cells_of(scale)
        specs = [runs.make_spec(of, scale, cell, 0) for cell in cells]
        assert len(set(specs)) == len(cells) > 0


@pytest.mark.parametrize("scale", offloading.SCALES)
def test_make_spec_of_every_setting_of_the_offloading_experiment(scale):
    weights = [{"cefl.clustering.network_weight": weight} for weight in offloading.WEIGHTS]
    for clustering in (*offloading.CLUSTERINGS.values(), *weights):
        for offload in offloading.OFFLOADS.values():
            offloading.make_spec(scale, 0, clustering, offload)


def test_cells_of_the_ablation_differ_from_the_defaults_in_one_field():
    of = EXPERIMENTS["ablation"]
    made = {cell: config.to_dict(runs.make_spec(of, "cpu", cell, 0)) for cell in of.cells}
    flat = {cell: set(flatten(settings).items()) for cell, settings in made.items()}
    differing = {cell: len(fields - flat["defaults"]) for cell, fields in flat.items()}
    assert differing == {cell: int(cell != "defaults") for cell in of.cells}


def test_run_all_makes_runs_once_and_again_when_their_settings_change(tmp_path, capsys):
    folders = runs.run_all(TINY, "smoke", 2, tmp_path)
    slow, longer = runs.read_groups(folders)
    assert (slow.label, longer.label) == ("slow", "a long/one")
    rounds = [[*run.metrics["round"]] for run in slow.runs + longer.runs]
    assert rounds == [[1], [1], [1, 2], [1, 2]]
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
def test_is_finished_of_a_damaged_folder(tmp_path, name, text):
    spec = runs.make_spec(TINY, "smoke", "slow", 0)
    (tmp_path / "status.json").write_text('{"state": "finished"}')
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(spec)))
    assert runs.is_finished(tmp_path, spec)
    (tmp_path / name).write_text(text)
    assert not runs.is_finished(tmp_path, spec)


def groups_of(accuracies):
    """Runs of 3 rounds of {cell: [accuracy of each seed]}."""

    def run(seed, accuracy):
        metrics = {"test/accuracy": [0, accuracy, accuracy], "cluster/kl_mean": [0.1, 0.2, 0.3]}
        return make_run(seed, (1, 2, 3), **metrics)

    return [
        Group(cell, (), [run(*each) for each in enumerate(seeds)])
        for cell, seeds in accuracies.items()
    ]


def test_tell_has_the_cells_and_the_columns_of_the_experiment():
    of = dataclasses.replace(TINY, tail=2, more={"cluster/kl_mean": "KL"})
    text = runs.tell(groups_of({"one": [0.5, 0.6], "none": [0.1]}), of, "smoke")
    assert text.startswith("`tiny` at scale `smoke`, 2 seeds.")
    assert "| one | 55.00 ± " in text
    assert "| none | 10.00 | " in text
    assert "| KL |" in text


@pytest.mark.parametrize(
    ("module", "of", "lines"),
    [
        (
            reproduce_sequential_fl,
            dataclasses.replace(EXPERIMENTS["reproduce_sequential_fl"], tail=2),
            ["fedavg by cefl | 85.59 | 85.59 ± 0.04", "sequential_split | 85.59 | 86.28 ± 0.49"],
        ),
        (
            reproduce_niid_bench,
            reproduce_niid_bench.EXPERIMENT,
            ["fedprox, iid | 85.59 | 89.23 ± 0.45", "scaffold, 3 labels | 85.59 | 82.43 ± 1.52"],
        ),
    ],
)
def test_tell_published_puts_published_values_beside_ours(module, of, lines):
    text = module.tell(groups_of({cell: [0.8559] for cell in of.cells}), of, "cpu")
    assert all(f"| {line} |" in text for line in lines)


@pytest.mark.parametrize(
    ("arguments", "missing", "said"),
    [
        (["--seeds=0"], None, "--seeds: 0: needs to be at least 1"),
        (["--scale=wrong"], None, "cell 'a': cefl.clustering.rule='bal' is unknown"),
        ([], "duckdb", "duckdb cannot be imported; pip install 'cefl_jax[report]'"),
    ],
)
def test_main_refuses_what_cannot_be_run_before_the_first_run(
    monkeypatch, capsys, tmp_path, arguments, missing, said
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == missing else find(name)
    )
    scales = {"cpu": {}, "wrong": {"cefl.clustering.rule": "bal"}}
    seeds, target = dict.fromkeys(scales, 1), dict.fromkeys(scales, 0.5)
    of = runs.Experiment("x", {"a": {}}, scales, seeds, target)
    monkeypatch.setattr(sys, "argv", ["x", f"--workdir={tmp_path / 'made'}", *arguments])
    with pytest.raises(SystemExit) as ended:
        runs.main(of, "What is refused.")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
