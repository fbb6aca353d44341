"""The command of a sweep, its launchers, and what they refuse."""

import argparse
import dataclasses
import importlib.util
import json
import re
import sys
from concurrent import futures

import pytest

from cefl_jax import sweep
from cefl_jax.reports.groups import Group
from cefl_jax.sweeps import Sweep, launchers, table
from cefl_jax.sweeps.definition import expand, load_definition
from experiments import reproduce_niid_bench, reproduce_sequential_fl
from tests.reports.folders import make_run
from tests.sweeps.test_worker import COMMON, RATE, _small_and_quick  # noqa: F401

DEFINITION = f"""
from cefl_jax.sweeps import Sweep

EXPERIMENT = Sweep(
    common={COMMON},
    scales={{"smoke": {{}}, "full": {{"train.rounds": 9}}}},
    grid={{"{RATE}": (0.05, 0.2)}},
    seeds={{"smoke": 1, "full": 3}},
    target=0.1,
)
"""


@pytest.fixture
def definition(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(DEFINITION)
    return file


def command(definition, *more):
    """The words of a command in which `more` wins."""
    named = {word.partition("=")[0] for word in more}
    words = [f"--experiment={definition}", f"--workdir={definition.parent / 'out'}"]
    return [word for word in words if word.partition("=")[0] not in named] + [*more]


def test_main_makes_the_runs_and_their_table_and_goes_on(definition, capsys):
    words = command(definition, "--scale=smoke", "--nopictures", "--config.run.compile_cache=0")
    sweep.main(words)
    folder = definition.parent / "out" / "smoke"
    printed = capsys.readouterr().out
    text = (folder / "mine.md").read_text()
    assert printed.endswith(f"{text}written: {folder / 'mine.md'}\n")
    assert text.startswith("`mine` at scale `smoke`, 1 seeds.")
    assert re.search(r"\| learning_rate=0.05 \| \d", text)
    index = json.loads((folder / "sweep.json").read_text())
    assert index["name"] == "mine"
    groups = [run["group"] for run in index["runs"].values()]
    assert groups == ["learning_rate=0.05", "learning_rate=0.2"]
    assert all((folder / id / "summary.json").exists() for id in index["runs"])
    sweep.main([*words, "--seeds=2", "--width=1"])
    assert "compiling" not in capsys.readouterr().out.partition("finished")[2]
    assert len(json.loads((folder / "sweep.json").read_text())["runs"]) == 4
    sweep.main([*words, "--seeds=3", "--collect"])
    printed = capsys.readouterr().out
    assert "2 seeds" in printed
    assert "2 of 6 runs have not ended." in printed


def test_workers_that_start_together_do_not_disturb_each_other(definition):
    """Each notes what the runs are, in one file."""
    words = command(definition, "--scale=smoke")
    made = sweep.parse(words)
    of, _ = load_definition(made.experiment)

    def note(seeds):
        for _ in range(20):
            sweep.open_folder(made, of, expand(of, "smoke", seeds))

    with futures.ThreadPoolExecutor() as threads:
        list(threads.map(note, range(1, 7)))
    index = json.loads((definition.parent / "out" / "smoke" / "sweep.json").read_text())
    assert len(index["runs"]) == 12


def test_a_launcher_whose_workers_end_with_an_error_says_so(definition, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    with pytest.raises(SystemExit) as ended:
        sweep.main(command(definition, "--scale=smoke", "--launcher=local", "--workers=1"))
    assert ended.value.code == 2
    assert "--workers: devices cannot be counted" in capsys.readouterr().err


def test_main_says_which_runs_failed_and_tabulates_the_others(definition, capsys):
    definition.write_text(DEFINITION.replace("(0.05, 0.2)", "(0.05, 1e30)"))
    words = command(definition, "--scale=smoke", "--nopictures", "--config.run.compile_cache=0")
    with pytest.raises(SystemExit) as ended:
        sweep.main(words)
    said = capsys.readouterr()
    assert ended.value.code == 3
    assert "| learning_rate=0.05 |" in said.out
    assert "1e+30 |" not in said.out
    assert "Failed, and in no mean: 1 of 1 seeds of 'learning_rate=1e+30'." in said.out
    assert re.search(r"warning: failed: 1 seeds of 'learning_rate=1e\+30': NotFinite", said.err)
    assert said.err.endswith("error: 1 of 2 runs failed; --retry makes them again\n")
    with pytest.raises(SystemExit):
        sweep.main(words)
    assert "compiling" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        sweep.main([*words, "--retry"])
    assert "compiling" in capsys.readouterr().out


REFUSED = [
    (["--experiment=none.py"], "--experiment=none.py: there is no such file"),
    (["--scale=cpu"], "--scale=cpu: mine has smoke, full; choose one of them"),
    (["--seeds=0"], "--seeds=0: needs to be at least 1"),
    (["--only=nothing"], "mine has no runs with --only='nothing'; choose another text"),
    (["--width=0"], "--width=0: needs to be auto, or a number of at least 1"),
    (["--width=all"], "--width=all: needs to be auto, or a number of at least 1"),
    (["--shard=2/2"], "--shard=2/2: needs to be i/n with i from 0 to n - 1, such as 0/4"),
    (["--shard=1"], "--shard=1: needs to be i/n with i from 0 to n - 1"),
    (["--config.train.rate=1"], "train.rate is not a field; known here: rounds"),
    (["--config.train.rounds=x"], "train.rounds='x': needs a whole number"),
    (["--config.train.rounds"], "train.rounds has no value; write --config.train.rounds=VALUE"),
    (["--config.train.rounds=0"], "mine at 'learning_rate=0.05': train.rounds=0"),
    (["--config.run.layout=loop", "--width=2"], "--width=2: runs with run.layout=loop ("),
    (["--config.seed=7"], "--config.seed: a sweep has seeds 0, 1, ...; pass --seeds=N"),
    ([f"--config.{RATE}=1"], f"--config.{RATE}: mine varies that field; leave one of them"),
    (["--workdir="], "--workdir is empty; name a folder for the files of this run"),
    (["--workdir=none/there"], "--workdir=none/there: there is no folder none; create it"),
    (["--collect"], "has no runs at --scale=smoke"),
    (["--launcher=slurm"], "--launcher=slurm needs --workers=N, how many it is to start"),
    (["--launcher=local", "--shard=0/2"], "--shard: a launcher deals them; leave out one"),
    (["--launcher=local", "--launch_option=a=1"], "--launcher=local has none; leave it out"),
    (["--launcher=slurm", "--launch_option=a"], "--launch_option=a: needs to be NAME=VALUE"),
    (["--workers=2"], "--workers and --launch_option are read with --launcher; pass that"),
    (["--launcher=kubernetes"], "invalid choice: 'kubernetes'"),
    (["more"], "unrecognized arguments: more"),
]


@pytest.mark.parametrize(("more", "said"), REFUSED, ids=[" ".join(more) for more, _ in REFUSED])
def test_main_refuses_in_one_line_before_anything_is_written(definition, capsys, more, said):
    with pytest.raises(SystemExit) as ended:
        sweep.main(command(definition, *more))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (definition.parent / "out").exists()


MISSING = {
    "submitit": (
        ["--launcher=slurm", "--workers=2"],
        "--launcher=slurm: submitit cannot be imported; pip install 'cefl_jax[slurm]'",
    ),
    "ray": (
        ["--launcher=ray", "--workers=2"],
        "--launcher=ray: ray cannot be imported; pip install 'cefl_jax[ray]'",
    ),
    "duckdb": ([], "duckdb cannot be imported; pip install 'cefl_jax[report]'"),
}


@pytest.mark.parametrize("package", MISSING)
def test_main_names_the_command_that_installs_what_is_missing(
    definition, capsys, monkeypatch, package
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else find(name)
    )
    more, said = MISSING[package]
    with pytest.raises(SystemExit):
        sweep.main(command(definition, *more))
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"name": "other", "runs": {}}', "[]", "{", "\xff"])
def test_main_refuses_the_folder_of_another_sweep(definition, capsys, text):
    folder = definition.parent / "out" / "smoke"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(text)
    with pytest.raises(SystemExit):
        sweep.main(command(definition, "--scale=smoke"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "choose another folder" in line
    assert [path.name for path in folder.iterdir()] == ["sweep.json"]


def test_launch_gives_each_worker_the_command_and_its_shard():
    words = ["--experiment=a b.py", "--workers", "3", "--launcher=local", "--seeds", "2"]
    words += ["--launch_option=x=1", "--config.train.rounds=3"]
    made = launchers._command(words, "1/3")
    assert made[:3] == [sys.executable, "-m", "cefl_jax.sweep"]
    assert made[3:] == [
        "--experiment=a b.py",
        "--seeds",
        "2",
        "--config.train.rounds=3",
        "--shard=1/3",
    ]


def test_ray_takes_no_other_options(monkeypatch):
    monkeypatch.setitem(launchers.PACKAGES, "ray", None)  # as if it were installed
    options = argparse.Namespace(launcher="ray", launch_option=["gpus=1"], workers=2)
    with pytest.raises(ValueError, match="--launch_option=gpus=1: ray has address, num_gpus"):
        launchers.check(options)
    options.launch_option = ["num_gpus=x"]
    with pytest.raises(ValueError, match="--launch_option=num_gpus=x: needs to be a number"):
        launchers.check(options)


def groups_of(accuracies):
    """Runs of 3 rounds of {cell: [accuracy of each seed]}."""

    def run(seed, accuracy):
        metrics = {"test/accuracy": [0, accuracy, accuracy], "cluster/kl_mean": [0.1, 0.2, 0.3]}
        return make_run(seed, (1, 2, 3), **metrics)

    return [
        Group(cell, (), [run(*each) for each in enumerate(seeds)])
        for cell, seeds in accuracies.items()
    ]


def test_tabulate_has_the_cells_and_the_columns_of_the_sweep():
    of = Sweep(name="tiny", tail=2, more={"cluster/kl_mean": "KL"}, target={"smoke": 0.5})
    text = table.tabulate(groups_of({"one": [0.5, 0.6], "none": [0.1]}), of, "smoke")
    assert text.startswith("`tiny` at scale `smoke`, 2 seeds.")
    assert "| one | 55.00 ± " in text
    assert "| none | 10.00 | " in text
    assert "| KL |" in text


@pytest.mark.parametrize(
    ("module", "lines"),
    [
        (
            reproduce_sequential_fl,
            ["fedavg by cefl | 85.59 | 85.59 ± 0.04", "sequential_split | 85.59 | 86.28 ± 0.49"],
        ),
        (
            reproduce_niid_bench,
            ["fedprox, iid | 85.59 | 89.23 ± 0.45", "scaffold, 3 labels | 85.59 | 82.43 ± 1.52"],
        ),
    ],
)
def test_tabulate_beside_published_values(module, lines):
    of = module.EXPERIMENT
    groups = groups_of({cell: [0.8559] for cell in of.cells})
    text = module.tabulate(groups, dataclasses.replace(of, tail=2), "cpu")
    assert all(f"| {line} |" in text for line in lines)


def test_a_worker_that_ends_with_an_error_ends_the_launcher_with_one(
    definition, monkeypatch, capsys
):
    started = (lambda: [0, 1]), (lambda: None)
    monkeypatch.setattr(launchers, "_start_local", lambda *_: started)
    with pytest.raises(SystemExit) as ended:
        sweep.main(command(definition, "--scale=smoke", "--launcher=local", "--workers=2"))
    assert ended.value.code == 1
    assert "error: worker 1 ended with status 1; see " in capsys.readouterr().err
