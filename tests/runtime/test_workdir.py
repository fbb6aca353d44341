"""A folder is refused untouched or taken by one process, and its files are whole at any moment."""

import io
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import time

import filelock
import numpy as np
import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from cefl_jax.runtime import workdir as folders
from cefl_jax.runtime.summary import METRIC_KEYS, read_metrics
from cefl_jax.runtime.workdir import EVENTS, LOCK, RUN_FILES, check_workdir, open_workdir
from tests.runtime.examples import contents, make_record, without

ROOT = pathlib.Path(__file__).parents[2]
DESIGN_KEYS = """
round train/loss test/accuracy test/loss test/cloud_accuracy test/cloud_loss cluster/count
cluster/kl_mean cluster/kl_max cluster/size_min cluster/size_max offload/cost sim/time_s
sim/energy_j comm/client_up_bytes comm/client_down_bytes comm/edge_cloud_bytes wall/round_ms
"""  # typed from the design's list, and not taken from the code
HOLD = """
import pathlib, sys
from cefl_jax.runtime.workdir import lock_folder
lock = lock_folder(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""
WRITE = """
import sys; from cefl_jax.runtime.workdir import Workdir
workdir = Workdir(sys.argv[1])
for round in range(10**9):
    workdir.set_status('running', round, 'x' * 2_000_000)
    workdir.append_metrics({'round': round, 'train/loss': 0.5})
"""


def scalars_of(folder):
    """TensorBoard's values by key and round, read by the record format and not by a library."""
    events = []
    for file in sorted(folder.glob(EVENTS)):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            events.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return {(v.tag, event.step): v.simple_value for event in events for v in event.summary.value}


def raising(error):
    """A function that fails."""

    def fail(*_, **__):
        raise error

    return fail


def status_of(folder):
    return json.loads((folder / "status.json").read_text())


def refusal(call, folder, **options):
    """The line with which a folder is refused, and left as it is."""
    before = contents(folder.parent) if folder.parent.exists() else None
    with pytest.raises(ValueError, match=rf"^--workdir={folder}") as refused:
        call(folder, **options)
    assert "\n" not in str(refused.value)
    assert before is None or contents(folder.parent) == before
    return str(refused.value)


@pytest.fixture
def run(tmp_path):
    """A folder with a run that can be gone on with."""
    folder = tmp_path / "run"
    with open_workdir(folder) as workdir:
        workdir.write_config({"seed": 3})
        workdir.append_metrics({"round": 1, "train/loss": 0.5})
        workdir.set_status("running", 1)
    return folder


@pytest.fixture
def hold():
    """A function that lets another process hold a folder, until the test ends."""
    processes = []

    def begin(folder):
        command = [sys.executable, "-c", HOLD, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        processes.append(subprocess.Popen(command, cwd=ROOT, **pipes))
        assert processes[-1].stdout.readline() == b"held\n"
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("call", [check_workdir, open_workdir])
@pytest.mark.parametrize("name", RUN_FILES)
def test_check_workdir_refuses_another_run(tmp_path, call, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("an earlier run")
    assert f"another run ({name}); pass --overwrite" in refusal(call, tmp_path / "run")
    if name != "config.json":
        line = refusal(call, tmp_path / "run", resume=True)
        assert "without its config.json, which cannot be gone on with; pass --overwrite" in line


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("made", "name", "words"),
    [
        ({"run": "precious"}, "run", "not a folder"),
        ({"run": None}, "run", "not a folder"),  # a link to nothing
        ({}, "typo/run", "there is no folder"),
        ({"file": "precious"}, "file/run", "there is no folder"),
        ({"run/status.json/deeper": "precious"}, "run", "status.json in it is a folder"),
        ({"run/checkpoints": "precious"}, "run", "checkpoints in it is a file"),
    ],
)
def test_check_workdir_refuses_an_impossible_place(tmp_path, made, name, words, overwrite):
    for file, content in made.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        if content:
            (tmp_path / file).write_text(content)
        else:
            (tmp_path / file).symlink_to(tmp_path / "nowhere")
    assert words in refusal(open_workdir, tmp_path / name, overwrite=overwrite)


def test_check_workdir_refuses_a_place_without_permission(tmp_path, monkeypatch):
    # Asked through os.access, because the superuser of a container may write anywhere.
    path = tmp_path / "run"
    for place in (tmp_path, path):
        monkeypatch.setattr(os, "access", lambda asked, _, place=place: asked != place)
        assert f"no permission to write in {place};" in refusal(open_workdir, path)
        path.mkdir(exist_ok=True)


def test_check_workdir_writes_nothing_and_open_workdir_makes_the_folder(tmp_path):
    with pytest.raises(ValueError, match="--workdir is empty"):
        check_workdir("")
    check_workdir(tmp_path / "run")
    assert [*tmp_path.iterdir()] == []
    assert open_workdir(str(tmp_path / "run")).path == tmp_path / "run"
    assert [path.name for path in tmp_path.rglob("*")] == ["run", LOCK]


@pytest.mark.parametrize("overwrite", [False, True])
def test_open_workdir_removes_the_files_of_a_run_and_nothing_else(tmp_path, overwrite):
    folder, events = tmp_path / "run", "events.out.tfevents.1.host"
    own = [*RUN_FILES, "learning_curve.png", "partition.png", events] if overwrite else []
    others = ["notes.txt", "config.json.bak", "my_learning_curve.png", "events.out"]
    others += [f"{name}/{file}" for name in ("checkpoints", "old") for file in ("config.json", "e")]
    for name in (*own, *others):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "elsewhere.json").write_text("precious")
    if overwrite:
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to(tmp_path / "elsewhere.json")
    open_workdir(folder, overwrite=overwrite)
    assert {*contents(folder)} == {*others}
    assert (tmp_path / "elsewhere.json").read_text() == "precious"


def test_lock_refuses_a_folder_in_use(run, hold):
    hold(run)
    for call in (check_workdir, open_workdir):
        for options in ({"resume": True}, {"overwrite": True}):
            assert "in use by another process" in refusal(call, run, **options)


@pytest.mark.parametrize("error", [OSError(95, "not supported"), NotImplementedError("no locks")])
def test_lock_refuses_a_file_system_without_locks(run, monkeypatch, error):
    monkeypatch.setattr(filelock.FileLock, "acquire", raising(error))
    assert f"cannot be locked ({error});" in refusal(open_workdir, run, resume=True)


def test_lock_is_given_back(run, hold):
    """When its process is killed, on closing, and when a run fails."""
    process = hold(run)
    assert "in use" in refusal(open_workdir, run, resume=True)
    process.kill()
    process.wait()
    workdir = open_workdir(run, resume=True)
    assert "in use" in refusal(open_workdir, run, resume=True)
    workdir.close()
    with pytest.raises(MemoryError), open_workdir(run, resume=True):
        raise MemoryError("round 7")
    hold(run)  # another process gets it
    assert (run / LOCK).exists()


def test_lock_refuses_a_run_that_came_after_the_check(tmp_path, monkeypatch):
    """Another process may have had the folder, and be done with it, after it was looked at."""

    def lock_late(path, real=folders.lock_folder):
        (path / "status.json").write_text("another run")
        return real(path)

    monkeypatch.setattr(folders, "lock_folder", lock_late)
    with pytest.raises(ValueError, match="holds another run"):
        open_workdir(tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run" / "status.json").read_text() == "another run"
    open_workdir(tmp_path / "run", overwrite=True).close()  # and the lock is given back


@pytest.mark.parametrize("content", ["[1]", "{", '{"a": NaN}'])
def test_read_refuses_damaged_files(run, content):
    """A config.json and a summary.json that are no groups of values; such a status is none."""
    workdir = open_workdir(run, resume=True)
    assert folders.read_config(run) == {"seed": 3}
    assert folders.read_config(run / "none") is None
    assert workdir.read_summary() is None
    for name in ("config.json", "summary.json", "status.json"):
        (run / name).write_text(content)
    for name, read in (
        ("config.json", lambda: folders.read_config(run)),
        ("summary.json", workdir.read_summary),
    ):
        with pytest.raises(ValueError, match=rf"{name}: .*--overwrite") as refused:
            read()
        assert str(refused.value).isprintable()
    assert not workdir.is_finished()
    workdir.close()


def test_write_config_refuses_what_json_cannot_repeat(tmp_path):
    workdir = open_workdir(tmp_path)
    config = {"seed": 3, "data": {"normalization": {"mean": [0.28]}}, "path": None}
    workdir.write_config(config)
    workdir.write_partition("[[0,2],[1]]")
    with pytest.raises(ValueError, match="not JSON compliant"):
        workdir.write_config({"learning_rate": math.nan})
    assert folders.read_config(tmp_path) == config
    assert (tmp_path / "partition.json").read_bytes() == b"[[0,2],[1]]"


def test_append_metrics_has_the_keys_in_the_order_of_the_design(tmp_path):
    record = without(make_record(5, zebra=1.0, apple=2.0), "clients/", "privacy/")
    shuffled = dict(sorted(record.items(), reverse=True))
    with open_workdir(tmp_path) as workdir:
        workdir.append_metrics(shuffled)
        assert read_metrics(tmp_path / "metrics.jsonl") == [shuffled]  # at once
        workdir.append_metrics({"test/accuracy": 0.5, "round": 10})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert list(METRIC_KEYS) == DESIGN_KEYS.split()
    assert list(first) == [*DESIGN_KEYS.split(), "zebra", "apple"]
    assert first == shuffled
    assert list(second.items()) == [("round", 10), ("test/accuracy", 0.5)]
    expected = {(key, 5): np.float32(value) for key, value in record.items() if key != "round"}
    assert scalars_of(tmp_path) == expected | {("test/accuracy", 10): 0.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_append_metrics_writes_null_for_what_is_not_finite(tmp_path, value):
    with open_workdir(tmp_path) as workdir:
        workdir.append_metrics({"round": 1, "train/loss": value, "test/accuracy": 0.25})
        workdir.write_summary({"last": {"train/loss": value}, "list": [value, 1.0]})
        assert math.isnan(workdir.read_metrics()[0]["train/loss"])
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == '{"round": 1, "train/loss": null, "test/accuracy": 0.25}\n'
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"last": {"train/loss": None}, "list": [None, 1.0]}
    assert scalars_of(tmp_path) == {("test/accuracy", 1): 0.25}


def test_append_metrics_names_the_events_that_a_full_disk_has_no_room_for(tmp_path, monkeypatch):
    def flush(self, real=EventsWriter.flush):
        monkeypatch.setattr(EventsWriter, "flush", real)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventsWriter, "flush", flush)
    with (
        pytest.raises(OSError, match=r"No space left on device: .*events\.out"),
        open_workdir(tmp_path) as workdir,
    ):
        workdir.append_metrics({"round": 1})
    assert status_of(tmp_path)["state"] == "failed"


def test_append_metrics_refuses_what_is_no_record(tmp_path):
    workdir = open_workdir(tmp_path)
    with pytest.raises(ValueError, match=r"metric test/accuracy is a float32; convert"):
        workdir.append_metrics({"round": 1, "test/accuracy": np.float32(0.5)})
    with pytest.raises(ValueError, match="needs 'round'"):
        workdir.append_metrics({"test/accuracy": 0.5})
    assert contents(tmp_path) == {}


class HalfFull(io.FileIO):
    """A file on a disk with room for four bytes."""

    def write(self, data):
        return super().write(data[:4])


def test_append_metrics_leaves_no_half_line_on_a_full_disk(tmp_path, monkeypatch):
    def opened(file, *args, real=open, **options):
        if not str(file).endswith("metrics.jsonl"):
            return real(file, *args, **options)
        assert options["buffering"] == 0  # so that a line is one write
        return HalfFull(file, "ab")

    with open_workdir(tmp_path) as workdir:
        workdir.append_metrics({"round": 1})
        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", opened)
            with pytest.raises(OSError, match=r"No space left.*metrics\.jsonl"):
                workdir.append_metrics({"round": 2})
        workdir.append_metrics({"round": 3})
    assert [record["round"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 3]


def test_set_status_says_state_round_and_error(tmp_path, monkeypatch):
    workdir = open_workdir(tmp_path)
    workdir.set_status("running", 3)
    assert status_of(tmp_path) == {"state": "running", "round": 3, "error": None}
    failed = {"state": "failed", "round": 4, "error": "out of memory\nin round 4"}
    workdir.set_status(*failed.values())
    assert status_of(tmp_path) == failed
    with pytest.raises(ValueError, match="'done'; it must be one of running, finished"):
        workdir.set_status("done", 5)
    monkeypatch.setattr(os, "replace", raising(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        workdir.set_status("finished", 4)
    assert status_of(tmp_path) == failed


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("error", [MemoryError("round 7"), KeyboardInterrupt(), SystemExit(143)])
def test_workdir_says_what_ended_a_run_early(tmp_path, monkeypatch, error, full):
    """And a full disk does not hide it from the caller."""
    workdir = open_workdir(tmp_path)
    workdir.set_status("running", 7)
    if full:
        monkeypatch.setattr(os, "replace", raising(OSError("no space left")))
    with pytest.raises(type(error)), workdir:
        raise error
    noted = {"state": "failed", "round": 7, "error": f"{type(error).__name__}: {error}"}
    assert status_of(tmp_path) == (noted | {"state": "running", "error": None} if full else noted)


def test_workdir_has_whole_files_when_its_process_is_killed(tmp_path):
    """Large texts, so that a plain overwrite would be caught in the middle."""
    run = subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path)], cwd=ROOT)
    try:
        deadline, reads = time.monotonic() + 60.0, 0
        while reads < 100 and time.monotonic() < deadline:
            if (tmp_path / "status.json").exists():
                assert len(status_of(tmp_path)["error"]) == 2_000_000
                reads += 1
        assert reads == 100
    finally:
        run.kill()
        run.wait()
    assert len(status_of(tmp_path)["error"]) == 2_000_000
    rounds = [record["round"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert rounds == list(range(len(rounds)))
