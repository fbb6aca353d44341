"""A folder is refused untouched or taken cleanly, and its files are whole at every moment."""

import json
import math
import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from cefl_jax.runtime.summary import METRIC_KEYS, read_metrics
from cefl_jax.runtime.workdir import EVENTS, LOCK, RUN_FILES, check_workdir, open_workdir
from tests.runtime.examples import make_record, without

# Typed from the design's list, and not taken from the code.
DESIGN_KEYS = [
    "round",
    "train/loss",
    "test/accuracy",
    "test/loss",
    "test/cloud_accuracy",
    "test/cloud_loss",
    "cluster/count",
    "cluster/kl_mean",
    "cluster/kl_max",
    "cluster/size_min",
    "cluster/size_max",
    "offload/cost",
    "sim/time_s",
    "sim/energy_j",
    "comm/client_up_bytes",
    "comm/client_down_bytes",
    "comm/edge_cloud_bytes",
    "wall/round_ms",
]


def contents(folder):
    """Bytes of every file under a folder but locks, None for a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != LOCK
    }


def events_of(folder):
    """All TensorBoard events of a folder, read by the record format and not by a library."""
    events = []
    for file in sorted(folder.glob(EVENTS)):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            events.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return events


def scalars_of(folder):
    return {
        (value.tag, event.step): value.simple_value
        for event in events_of(folder)
        for value in event.summary.value
    }


def occupied(folder):
    """A folder with an earlier run, its checkpoint, and things that are not the run's."""
    folder.mkdir()
    for name in (
        *RUN_FILES,
        "learning_curve.png",
        "partition.png",
        "events.out.tfevents.1.host",
        "notes.txt",
        "config.json.bak",
        "my_learning_curve.png",
        "events.out",
    ):
        (folder / name).write_text(f"old {name}")
    for name in ("checkpoints", "old"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("nested")
        (folder / name / "events.out.tfevents.2.host").write_text("nested")
    return folder


@pytest.mark.parametrize("claim", [check_workdir, open_workdir])
@pytest.mark.parametrize("name", RUN_FILES)
def test_another_run_is_refused_and_left_as_it_is(tmp_path, claim, name):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).write_text("an earlier run")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="--overwrite") as refusal:
        claim(folder)
    assert contents(tmp_path) == before
    message = str(refusal.value)
    assert f"--workdir={folder}" in message
    assert name in message
    assert "\n" not in message


def make_file(place):
    (place / "run").write_text("precious")
    return place / "run", "not a folder"


def make_dangling_link(place):
    (place / "run").symlink_to(place / "nowhere")
    return place / "run", "not a folder"


def make_orphan(place):
    return place / "typo" / "run", "there is no folder"


def make_child_of_file(place):
    (place / "file").write_text("precious")
    return place / "file" / "run", "there is no folder"


def make_folder_for_file(place):
    (place / "run" / "status.json").mkdir(parents=True)
    return place / "run", "status.json in it is a folder"


@pytest.mark.parametrize(
    "make", [make_file, make_dangling_link, make_orphan, make_child_of_file, make_folder_for_file]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_impossible_place_is_refused_and_left_as_it_is(tmp_path, make, overwrite):
    path, reason = make(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=reason) as refusal:
        open_workdir(path, overwrite=overwrite)
    assert contents(tmp_path) == before
    assert str(refusal.value).startswith(f"--workdir={path}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("exists", [False, True])
def test_a_place_without_permission_is_refused(tmp_path, monkeypatch, exists):
    # Asked through os.access, because the superuser of a container may write anywhere.
    path = tmp_path / "run"
    if exists:
        path.mkdir()
    place = path if exists else tmp_path
    monkeypatch.setattr(os, "access", lambda asked, _: asked != place)
    with pytest.raises(ValueError, match="no permission") as refusal:
        open_workdir(path)
    assert f"write in {place};" in str(refusal.value)
    assert path.exists() == exists


def test_an_empty_name_is_refused():
    with pytest.raises(ValueError, match="--workdir is empty"):
        check_workdir("")


def test_checking_writes_nothing_and_opening_makes_the_folder(tmp_path):
    check_workdir(tmp_path / "run")
    assert contents(tmp_path) == {}
    assert open_workdir(str(tmp_path / "run")).path == tmp_path / "run"
    assert contents(tmp_path) == {"run": None}


def test_a_folder_of_other_things_is_accepted_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    open_workdir(tmp_path)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_overwriting_removes_the_files_of_a_run_and_nothing_else(tmp_path):
    folder = occupied(tmp_path / "run")
    before = contents(folder)
    open_workdir(folder, overwrite=True)
    removed = {*RUN_FILES, "learning_curve.png", "partition.png", "events.out.tfevents.1.host"}
    assert contents(folder) == {name: data for name, data in before.items() if name not in removed}


def test_overwriting_removes_a_link_and_not_what_it_points_to(tmp_path):
    (tmp_path / "elsewhere.json").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").symlink_to(tmp_path / "elsewhere.json")
    open_workdir(tmp_path / "run", overwrite=True)
    assert contents(tmp_path) == {"run": None, "elsewhere.json": b"precious"}


def test_config_and_partition_read_back(tmp_path):
    workdir = open_workdir(tmp_path)
    config = {"seed": 3, "data": {"normalization": {"mean": [0.28]}}, "path": None}
    workdir.write_config(config)
    workdir.write_partition("[[0,2],[1]]")
    assert json.loads((tmp_path / "config.json").read_text()) == config
    assert (tmp_path / "partition.json").read_bytes() == b"[[0,2],[1]]"
    with pytest.raises(ValueError, match="not JSON compliant"):
        workdir.write_config({"learning_rate": math.nan})
    assert json.loads((tmp_path / "config.json").read_text()) == config


def test_a_line_of_metrics_has_the_keys_in_the_order_of_the_design(tmp_path):
    record = without(make_record(5, zebra=1.0, apple=2.0), "clients/", "privacy/")
    shuffled = dict(sorted(record.items(), reverse=True))
    with open_workdir(tmp_path) as workdir:
        workdir.append_metrics(shuffled)
        workdir.append_metrics({"test/accuracy": 0.5, "round": 10})
    first, second = (
        json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    )
    assert list(METRIC_KEYS) == DESIGN_KEYS
    assert list(first) == [*DESIGN_KEYS, "zebra", "apple"]
    assert first == shuffled
    assert list(second.items()) == [("round", 10), ("test/accuracy", 0.5)]


def test_each_evaluation_is_in_the_file_at_once_and_by_one_write(tmp_path, monkeypatch):
    with open_workdir(tmp_path) as workdir:
        workdir.append_metrics(make_record(1))
        assert read_metrics(tmp_path / "metrics.jsonl") == [make_record(1)]
        writes = []
        real_open = open

        def watched_open(*args, **options):
            file = real_open(*args, **options)
            if str(args[0]).endswith("metrics.jsonl"):
                assert options["buffering"] == 0
                writes.append(file)
            return file

        monkeypatch.setattr("builtins.open", watched_open)
        workdir.append_metrics(make_record(2))
        assert len(writes) == 1
    assert read_metrics(tmp_path / "metrics.jsonl") == [make_record(1), make_record(2)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_in_json_and_not_in_tensorboard(tmp_path, value):
    with open_workdir(tmp_path) as workdir:
        workdir.append_metrics({"round": 1, "train/loss": value, "test/accuracy": 0.25})
        workdir.write_summary({"last": {"train/loss": value}, "list": [value, 1.0]})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == '{"round": 1, "train/loss": null, "test/accuracy": 0.25}\n'
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"last": {"train/loss": None}, "list": [None, 1.0]}
    assert scalars_of(tmp_path) == {("test/accuracy", 1): 0.25}


def test_a_record_that_is_not_of_python_numbers_is_refused_unwritten(tmp_path):
    workdir = open_workdir(tmp_path)
    with pytest.raises(ValueError, match=r"metric test/accuracy is a float32; convert"):
        workdir.append_metrics({"round": 1, "test/accuracy": np.float32(0.5)})
    with pytest.raises(ValueError, match="needs 'round'"):
        workdir.append_metrics({"test/accuracy": 0.5})
    assert contents(tmp_path) == {}


def test_tensorboard_has_every_metric_at_its_round(tmp_path):
    with open_workdir(tmp_path) as workdir:
        for round in (5, 10):
            workdir.append_metrics(make_record(round))
    expected = {
        (key, round): np.float32(value)
        for round in (5, 10)
        for key, value in make_record(round).items()
        if key != "round"
    }
    assert scalars_of(tmp_path) == expected


def status_of(folder):
    return json.loads((folder / "status.json").read_text())


def test_status_says_state_round_and_error(tmp_path):
    workdir = open_workdir(tmp_path)
    workdir.set_status("running", 3)
    assert status_of(tmp_path) == {"state": "running", "round": 3, "error": None}
    workdir.set_status("failed", 4, "out of memory\nin round 4")
    assert status_of(tmp_path) == {
        "state": "failed",
        "round": 4,
        "error": "out of memory\nin round 4",
    }
    with pytest.raises(ValueError, match="'done'; it must be one of running, finished"):
        workdir.set_status("done", 5)
    assert status_of(tmp_path)["round"] == 4


def test_a_write_that_fails_half_way_leaves_the_old_status(tmp_path, monkeypatch):
    workdir = open_workdir(tmp_path)
    workdir.set_status("running", 3)

    def fail(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            workdir.set_status("finished", 4)
    assert status_of(tmp_path) == {"state": "running", "round": 3, "error": None}


@pytest.mark.parametrize("error", [MemoryError("round 7"), KeyboardInterrupt(), SystemExit(143)])
def test_what_ends_a_run_early_is_in_its_status_and_goes_on(tmp_path, error):
    def run():
        with open_workdir(tmp_path) as workdir:
            workdir.set_status("running", 7)
            raise error

    with pytest.raises(type(error)):
        run()
    assert status_of(tmp_path) == {
        "state": "failed",
        "round": 7,
        "error": f"{type(error).__name__}: {error}",
    }


def test_a_full_disk_does_not_hide_what_ended_the_run(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    def run():
        with open_workdir(tmp_path):
            monkeypatch.setattr(os, "replace", fail)
            raise MemoryError("round 7")

    with pytest.raises(MemoryError):
        run()


def test_a_run_killed_while_it_writes_leaves_whole_files(tmp_path):
    # Large texts, so that a plain overwrite would be caught in the middle.
    program = (
        "import sys; from cefl_jax.runtime.workdir import Workdir\n"
        "workdir = Workdir(sys.argv[1])\n"
        "for round in range(10**9):\n"
        "    workdir.set_status('running', round, 'x' * 2_000_000)\n"
        "    workdir.append_metrics({'round': round, 'train/loss': 0.5})\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    try:
        deadline = time.monotonic() + 60.0
        reads = 0
        while reads < 200 and time.monotonic() < deadline:
            if (tmp_path / "status.json").exists():
                assert len(status_of(tmp_path)["error"]) == 2_000_000
                reads += 1
        assert reads == 200
    finally:
        run.kill()
        run.wait()
    assert len(status_of(tmp_path)["error"]) == 2_000_000
    rounds = [record["round"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert rounds == list(range(len(rounds)))


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"a": 1, "a": 2}', "\xff"])
def test_damaged_files_of_an_earlier_run_are_told(tmp_path, text):
    workdir = open_workdir(tmp_path)
    assert workdir.read_summary() is None
    assert not workdir.is_finished()
    for name in ("summary.json", "status.json"):
        (tmp_path / name).write_text(text, encoding="latin-1")
    assert not workdir.is_finished()
    with pytest.raises(ValueError, match=r"summary\.json: ") as refusal:
        workdir.read_summary()
    assert str(refusal.value).isprintable()
    (tmp_path / "status.json").write_text("[]")
    assert not workdir.is_finished()
    workdir.close()
