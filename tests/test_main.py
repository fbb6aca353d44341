"""The command of one run: what it refuses and how, and all that a run leaves behind."""

import dataclasses
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import logging
from absl.testing import flagsaver
from flax.traverse_util import flatten_dict

from cefl_jax import compiler, config, experiment, main
from cefl_jax.data import partition
from cefl_jax.methods import default_spec
from cefl_jax.plots.timeline import read_timeline
from cefl_jax.runtime import cpu
from cefl_jax.runtime.summary import METRIC_KEYS
from cefl_jax.runtime.workdir import LOCK
from tests.quick import OPTIONS
from tests.runtime.examples import MORE_KEYS
from tests.runtime.examples import timeless_records as metrics

ROOT = pathlib.Path(__file__).parents[1]
QUICKSTART = f"--config={ROOT / 'configs' / 'quickstart.py'}"
TINY = (
    QUICKSTART,
    "--config.model.name=mlp",
    "--config.data.partition.num_clients=10",
    "--config.train.rounds=2",
    "--config.train.clients_per_round=4",
    "--config.train.local_steps=1",
    "--config.train.batch_size=4",
    "--config.cefl.clustering.num_clusters=2",
    "--config.cefl.distill.batch_size=8",
    "--config.cefl.distill.temperature_cloud=None",
    "--config.network.num_edges=2",
    "--config.run.eval_every=1",
)
FILES = {
    "config.json",
    "metrics.jsonl",
    "status.json",
    "summary.json",
    "partition.json",
    "partition.png",
    "learning_curve.png",
    "timeline.json",
    "gantt.png",
    "map.png",
}

NETWORK = """
devices:
  camera: {flop_per_s: 2.0e+9, idle_w: 1, busy_w: 3, bandwidth_hz: 5.0e+6, transmit_w: 0.1}
clients:
  - {device: camera, position_km: [0.1, 0.2], count: 4}
  - {device: phone, position_km: [-0.3, 0], count: 6}
edges:
  - {device: edge_server, position_km: [0.2, 0.1], backhaul_bps: 1.0e+9}
  - {device: edge_server, position_km: [0, 0.3], backhaul_bps: 1.0e+9}
front: {device: edge_server, position_km: [0, 0], backhaul_bps: 1.0e+9}
cloud: {device: cloud_accelerator}
"""
EVERYTHING = (
    "--config.train.rounds=4",
    "--config.train.local_steps=3",
    "--config.network.preset=file",
    "--config.network.deadline_s=0.15",
    "--config.network.late=keep",
    "--config.network.dynamics=markov",
    "--config.network.leave_probability=0.3",
    "--config.run.save_trace=True",
    "--config.cefl.clustering.network_weight=0.5",
    "--config.cefl.distill.rule=none",  # to compile less
    "--config.cefl.distill.batch_size=64",
    "--config.cefl.offload.rule=random",
    "--config.cefl.offload.include_cloud=True",
    "--config.cefl.offload.energy_weight=0.1",
    "--config.cefl.compression.smashed=int8",
    "--config.cefl.compression.gradient=topk",
    "--config.cefl.privacy.noise_std=0.2",
)


@pytest.fixture(autouse=True)
def _flags():
    with flagsaver.flagsaver():
        yield


@pytest.fixture(scope="module")
def compilations():
    """Seconds of every compilation since the list was last cleared."""
    seconds = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return seconds


@pytest.fixture
def refused(tmp_path, capsys, compilations):
    """A function from arguments to the one line with which the command refuses them."""

    def start(*arguments):
        before = sorted(path.name for path in tmp_path.iterdir())
        compilations.clear()
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
        shown = capsys.readouterr()
        assert ended.value.code == 2
        assert shown.out == ""
        assert shown.err.startswith("error: ")
        assert shown.err.count("\n") == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == before  # nothing written
        assert compilations == []
        return shown.err.removeprefix("error: ").strip()

    return start


def run(*arguments):
    """The command without a process of its own."""
    with flagsaver.flagsaver():
        main.main(main.parse(["main", *arguments]))


def command(*arguments, shell='"$@"', cache=None):
    """The command as a user calls it, in a shell, with a folder for what is kept."""
    environment = os.environ | {
        "XDG_CACHE_HOME": str(cache or jax.config.jax_compilation_cache_dir)
    }
    argv = ["bash", "-c", f"set -o pipefail; {shell}", "bash"]
    argv += [sys.executable, "-m", "cefl_jax.main", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)


REFUSED = [  # arguments beside --config and --workdir, and the beginning of the line
    ("extra", "'extra' is not a flag; see python -m cefl_jax.main --help"),
    ("--workdri=x", "Unknown command line flag 'workdri'. Did you mean: workdir ?"),
    ("--config.", "Unknown command line flag 'config.'"),
    ("--config.train.rounds", "train.rounds has no value; write --config.train.rounds=VALUE"),
    ("--config.train.rounds --overwrite", "train.rounds='--overwrite': needs a whole number"),
    ("--config.train.roundz=3", "train.roundz is not a field; did you mean train.rounds?"),
    ("--config.data.normalization.mean=0.1,0.2", "data.normalization.mean=(0.1, 0.2): 2 values"),
    ("--config.data.partition.min_size=101", "data.partition.num_clients is 100, but 10000"),
    ("--config.data.name=mnist", "data.path is not set, and mnist is not installed; set"),
    ("--config=nonesuch.py", "--config=nonesuch.py: there is no such file"),
    (f"{QUICKSTART}:big", f"{QUICKSTART}:big: get_config: too many positional arguments"),
    ("--workdir=", "--workdir is empty; name a folder"),
    ("--workdir=/nonesuch/deeper", "--workdir=/nonesuch/deeper: there is no folder /nonesuch"),
    ("--overwrite=maybe", "flag --overwrite=maybe: "),
    ("--processes=2", "--processes=2: not read without --coordinator; pass that as well"),
    ("--process=1", "--process=1: not read without --coordinator; pass that as well"),
    ("--coordinator=here", "--coordinator=here: needs to be HOST:PORT of the first process"),
    ("--config.network.preset=moon", "network.preset='moon' is unknown; known: cellular,"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_main_refuses_bad_input_in_one_line_and_leaves_nothing(refused, tmp_path, arguments, words):
    line = refused(QUICKSTART, f"--workdir={tmp_path / 'run'}", *arguments.split())
    assert line.startswith(words)


def test_compilations_would_be_noticed(compilations):
    compilations.clear()
    jax.jit(lambda x: x * 3)(2)
    assert compilations


def test_main_needs_two_flags(refused, tmp_path):
    assert refused(QUICKSTART).startswith("--workdir is missing; see ")
    assert refused(f"--workdir={tmp_path / 'run'}").startswith("--config is missing; see ")


PATHS = {  # what takes a path from a person, with what else is needed for it to be read
    "workdir": ("", "--workdir={}/deeper: there is no folder {}"),
    "config": ("", "--config={typed}: there is no such file"),
    "config.data.path": ("data.name=mnist", "data.path: there is no folder {} to read"),
    "config.data.partition.path": ("data.partition.name=file", "data.partition.path: {} there is"),
    "config.network.path": ("network.preset=file", "network.path={}: there is no such file"),
    "config.network.trace": ("network.dynamics=trace", "network.trace={}: there is no such file"),
}


@pytest.mark.parametrize("home", ["~/", "~no.such.user/"])
@pytest.mark.parametrize("flag", PATHS)
def test_main_puts_a_persons_home_in_every_path_and_leaves_one_of_nobody(
    refused, tmp_path, monkeypatch, flag, home
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    suffix = ".yaml" if flag == "config.network.path" else ""
    typed = f"{home}absent{suffix}"
    others, words = PATHS[flag]
    given = f"--{flag}={typed}/deeper" if flag == "workdir" else f"--{flag}={typed}"
    line = refused(
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        *(f"--config.{one}" for one in others.split()),
        given,
    )
    place = f"{tmp_path}/home/absent{suffix}" if home == "~/" else typed
    assert line.startswith(words.format(place, place, typed=typed))


def test_begin_finds_a_config_and_a_workdir_in_a_persons_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(ROOT / "configs" / "quickstart.py", tmp_path / "mine.py")
    _, workdir, *_ = main.begin(
        main.parse(["main", *TINY, "--config=~/mine.py", "--workdir=~/run"])
    )
    workdir.close()
    assert workdir.path == tmp_path / "run"


def test_every_setting_that_is_a_path_is_among_them():
    fields = flatten_dict(config.to_dict(default_spec()), sep=".")
    paths = [name for name in fields if name.split(".")[-1] in ("path", "trace")]
    assert {f"config.{name}" for name in paths} == {*PATHS} - {"workdir", "config"}


def network_with(old, new):
    """A file that describes the network of TINY, one thing in it changed."""
    assert old in NETWORK
    return NETWORK.replace(old, new).encode()


PARTITION_FILE = "--config.data.partition.name=file --config.data.partition.path={}/partition.json"
IDX_FILES = "--config.data.name=fashion_mnist --config.data.path={}"
IDX_FILE = "train-images-idx3-ubyte.gz"
NETWORK_FILE = "--config.network.preset=file --config.network.path={}/network.yaml"
TRACE_FILE = "--config.network.dynamics=trace --config.network.trace={}/trace.csv"
BAD_FILES = [  # name and content of a file, settings that name it, and words of the line
    ("partition.json", b"[[0, 1], [1, 2]]", PARTITION_FILE, "gives example 1 twice, to clients 0"),
    ("partition.json", b"[[0], [2]]", PARTITION_FILE, "lists 2 clients; set it to 2, or to its"),
    (IDX_FILE, gzip.compress(b"\0" * 100, mtime=0)[:-9], IDX_FILES, "train-images-idx3-ubyte"),
    (
        "network.yaml",
        network_with("device: camera", "device: toaster"),
        NETWORK_FILE,
        "clients[0].device='toaster' is unknown; ",
    ),
    (
        "network.yaml",
        network_with("count: 4", "count: 5"),
        NETWORK_FILE,
        "data.partition.num_clients=10: network.path={}/network.yaml describes 11 clients; set it to",
    ),
    (
        "network.yaml",
        network_with("- {device: edge_server, position_km: [0, 0.3], backhaul_bps: 1.0e+9}", ""),
        NETWORK_FILE,
        "network.num_edges=2: network.path={}/network.yaml describes 1 edge nodes; set it to 1",
    ),
    ("trace.csv", b"1,1,1,1,1,1,1,1,1,1\n", TRACE_FILE, "available has 1 rounds"),
]


@pytest.mark.parametrize(("name", "content", "settings", "words"), BAD_FILES)
def test_main_refuses_a_bad_file_by_its_name(refused, tmp_path, name, content, settings, words):
    (tmp_path / name).write_bytes(content)
    arguments = settings.format(tmp_path).split()
    line = refused(*TINY, f"--workdir={tmp_path / 'run'}", *arguments)
    assert words.format(tmp_path) in line
    assert arguments[-1].split("=")[1] in line


def test_parse_takes_fields_in_any_order_and_the_last_one_counts(tmp_path):
    others = ("-config.seed", "3", "--config.run.deterministic", "false", "--config.train.rounds=7")
    given = ("--config.train.rounds=5", *TINY, f"--workdir={tmp_path / 'run'}", *others)
    spec = main.check(main.parse(["main", *given]))[0].spec
    assert (spec.train.rounds, spec.seed, spec.run.deterministic) == (7, 3, False)
    assert spec.cefl.distill.temperature_cloud is None
    assert not (tmp_path / "run").exists()


def test_parse_keeps_verbosity_a_flag(tmp_path):
    main.parse(["main", *TINY])
    assert logging.get_verbosity() == logging.WARNING
    main.parse(["main", *TINY, "--verbosity=1"])
    assert logging.get_verbosity() == logging.DEBUG


def test_main_refuses_with_one_line_and_status_2(tmp_path):
    done = command(QUICKSTART, f"--workdir={tmp_path / 'run'}", "--config.model.cut=9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: model.cut=9: lenet5 has 5 blocks, so the cut is from 1 to 4\n"
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a tiny run on two devices, which a process of its own has made.

    Its standard output is a pipe that nobody reads, its standard error closed.
    """
    workdir = tmp_path_factory.mktemp("finished") / "run"
    unread = '"$@" 2>&- | sh -c "exec <&-"'
    done = command(*TINY, f"--workdir={workdir}", "--config.run.devices=2", shell=unread)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return workdir


def load(path):
    return json.loads(path.read_text())


def contents(workdir):
    """Bytes of every file directly in a folder but its lock."""
    files = (path for path in workdir.iterdir() if path.is_file() and path.name != LOCK)
    return {path.name: path.read_bytes() for path in files}


def test_main_leaves_every_file_and_metric_of_a_run(finished):
    names = set(contents(finished))
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == FILES
    assert [path.name for path in (finished / "checkpoints").iterdir()] == ["000002"]
    assert load(finished / "status.json") == {"state": "finished", "round": 2, "error": None}
    summary = load(finished / "summary.json")
    assert (summary["rounds"], summary["device"]["count"]) == (2, 2)
    for name in ("partition.png", "learning_curve.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2]
    for line in lines:
        assert list(line) == [*METRIC_KEYS, *MORE_KEYS]
        assert all(isinstance(value, (int, float)) for value in line.values())


def test_files_of_a_run_repeat_it(finished, tmp_path):
    setup, _ = main.check(main.parse(["main", *TINY, f"--workdir={tmp_path / 'run'}"]))
    on_two = dataclasses.replace(setup.spec.run, devices=2)
    repeated = config.to_spec(load(finished / "config.json"))
    assert repeated == dataclasses.replace(setup.spec, run=on_two)
    assert repeated.run.client_chunk is not None  # resolved
    parts = partition.from_file(finished / "partition.json", len(setup.data.labels))
    assert partition.sha256(parts) == partition.sha256(setup.partition)
    summary = load(finished / "summary.json")
    assert {name: summary[name] for name in setup.hashes()} == setup.hashes()
    assert setup.hashes()["partition_sha256"] == partition.sha256(parts)


@pytest.mark.slow
def test_main_with_everything_on(tmp_path, monkeypatch):
    """It ends, with every file and every metric known; what the options do can be seen in them."""
    quickly = compiler.compile_lowered
    monkeypatch.setattr(compiler, "compile_lowered", lambda one, *_: quickly(one, OPTIONS))
    monkeypatch.setattr(experiment, "warn_of_deadline", lambda *_: None)
    workdir = tmp_path / "run"
    (tmp_path / "network.yaml").write_text(NETWORK)
    network_file = f"--config.network.path={tmp_path / 'network.yaml'}"
    run(*TINY, *EVERYTHING, network_file, f"--workdir={workdir}")
    names = {name for name in contents(workdir) if not name.startswith("events.")}
    assert names == FILES | {"network_trace.npz"}
    assert load(workdir / "status.json")["state"] == "finished"
    keys = [key for key in (*METRIC_KEYS, *MORE_KEYS) if not key.startswith("test/cloud_")]
    for line in metrics(workdir):
        assert list(line) == keys
        assert None not in [line[key] for key in keys if not key.startswith("wall/")]
    finished, sampled = (
        sum(line[f"clients/{what}"] for line in metrics(workdir))
        for what in ("finished", "sampled")
    )
    assert 0 < finished < sampled
    with np.load(workdir / "network_trace.npz") as trace:
        shapes = {name: trace[name].shape for name in trace}
    assert shapes == {"shadow_db": (5, 10, 3), "edge_load": (5, 2), "available": (5, 10)}
    spec = config.to_spec(load(workdir / "config.json"))
    assert (spec.network.dynamics, spec.cefl.privacy.noise_std) == ("markov", 0.2)
    timeline = read_timeline(workdir / "timeline.json")
    assert timeline["deadline_s"] == 0.15
    assert {client["device"] for client in timeline["clients"]} <= {"camera", "phone"}
    network = load(workdir / "summary.json")["network"]
    assert {"camera", "phone", "edge_server"} <= set(network["joules"])
    sent = network["bytes"]["client_up"]
    values = sent["labels"] // 4 * 200  # of every sample
    assert values < sent["smashed_data"] < 1.1 * values  # an int8 each, and scales
    assert network["bytes"]["client_down"]["cut_gradient"] == values // 10 * 5  # 20, with an index


def test_a_second_process_finds_the_program_and_comes_to_the_same(tmp_path):
    """For other seeds and rates too, which are no part of it."""
    said = []
    for number, more in enumerate(([], [], ["seed=3", "train.optimizer.learning_rate=0.03"])):
        flags = [f"--config.{field}" for field in ("run.devices=2", *more)]
        done = command(*TINY, f"--workdir={tmp_path / str(number)}", *flags, cache=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        said.append("compiling the round" in done.stdout)
    assert said == [True, False, False]
    first, again, other = (metrics(tmp_path / str(number)) for number in range(3))
    assert first == again != other


@pytest.mark.parametrize(("text", "calls"), [("True", 1), ("False", 0)])
def test_main_keeps_compiled_programs_unless_switched_off(
    tmp_path, monkeypatch, capsys, text, calls
):
    """And goes on where they cannot be kept, or where JAX is in use already, with one line each."""
    called = []

    def open_kept(warn, _):
        called.append("keep")
        warn("no folder")

    monkeypatch.setattr(cpu, "set_up", lambda devices, warn, deterministic: warn("JAX is in use"))
    monkeypatch.setattr(main, "open_kept", open_kept)
    monkeypatch.setattr(experiment, "conduct", lambda *_: called.append("conduct"))
    run(*TINY, f"--workdir={tmp_path / 'run'}", f"--config.run.compile_cache={text}")
    assert called == ["keep"] * calls + ["conduct"]
    warned = ["warning: JAX is in use", *["warning: no folder"] * calls]
    assert capsys.readouterr().err.splitlines() == warned


def test_main_refuses_a_second_run_in_the_folder(finished, refused):
    before = contents(finished)
    line = refused(*TINY, f"--workdir={finished}", "--config.seed=5")
    assert line.startswith(f"--workdir={finished} holds a run with other settings: seed (0 there")
    line = refused(*TINY, f"--workdir={finished}", "--config.run.resume=never")
    assert line.startswith(f"--workdir={finished} holds another run (config.json); pass --over")
    assert contents(finished) == before


@pytest.mark.slow
def test_main_repeats_a_run_from_its_config(finished, tmp_path, capsys):
    """In one process: what devices it takes is settled by now, and changes no bit."""
    run(f"--config={finished / 'config.json'}", f"--workdir={tmp_path / 'run'}")
    assert metrics(tmp_path / "run") == metrics(finished)
    assert "Test accuracy after 2 rounds" in capsys.readouterr().out


def test_main_shows_a_finished_run_and_leaves_it_as_it_is(finished, capsys):
    before = contents(finished)
    run(f"--config={finished / 'config.json'}", f"--workdir={finished}")
    assert "This run is finished: 2 rounds." in capsys.readouterr().out
    assert contents(finished) == before


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), BrokenPipeError()])
def test_main_changes_no_status_when_a_finished_run_cannot_be_shown(finished, monkeypatch, error):
    def print_summary(*_):
        raise error

    before = contents(finished)
    monkeypatch.setattr(experiment, "print_summary", print_summary)
    with pytest.raises(SystemExit if isinstance(error, OSError) else type(error)):
        run(f"--config={finished / 'config.json'}", f"--workdir={finished}")
    assert contents(finished) == before


def test_main_replaces_a_run_with_overwrite_and_says_why_it_failed(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "notes.txt").write_text("mine")

    def fake_run(setup, workdir, *_):
        workdir.set_status("running", 1)
        raise RuntimeError("gone")

    monkeypatch.setattr(experiment, "run", fake_run)
    with pytest.raises(RuntimeError, match="gone"):
        run(*TINY, f"--workdir={folder}", "--overwrite", "--config.seed=5")
    assert {*contents(folder)} == {"config.json", "partition.json", "status.json", "notes.txt"}
    assert [*(folder / "checkpoints").iterdir()] == []
    assert load(folder / "config.json")["seed"] == 5
    assert (folder / "partition.json").read_bytes() != (finished / "partition.json").read_bytes()
    failed = {"state": "failed", "round": 1, "error": "RuntimeError: gone"}
    assert load(folder / "status.json") == failed
