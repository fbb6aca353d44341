"""Runs are found wherever they are, and only those that are finished and whole are counted."""

import json
import os

import pytest

from cefl_jax.reports import runs
from cefl_jax.reports.groups import differences
from cefl_jax.reports.runs import ALL_BYTES, complete, read_runs
from tests.reports.folders import add_file, make_config, status, write_run
from tests.runtime.examples import make_record, make_records, without

CONFIG = json.dumps(make_config())


def changed(old, new):
    """The text of a config.json with a change."""
    assert old in CONFIG
    return CONFIG.replace(old, new)


def seed_and(text):
    """The text of a config.json with more beside the seed."""
    return changed('"seed": 0', f'"seed": 0, {text}')


def shown(left_out):
    return [(run.folder.name, run.state, run.reason) for run in left_out]


def test_read_runs_finds_runs_at_any_depth_and_once(tmp_path):
    for seed, name in enumerate(("a", "a/b", "c/d/e")):
        write_run(tmp_path / name, seed=seed)
    (tmp_path / "link").symlink_to(tmp_path / "c")
    found, left_out = read_runs([tmp_path, tmp_path / "a", tmp_path / "link", f"{tmp_path}/c/../a"])
    assert (sorted(run.seed for run in found), left_out) == ([0, 1, 2], [])


def test_read_runs_returns_what_was_written(tmp_path):
    records = [without(record, "cluster/", "test/cloud") for record in make_records(4)]
    records[1]["test/loss"] = float("nan")
    write_run(tmp_path / "run", records, seed=5, train__batch_size=7)
    write_run(tmp_path / "run" / "less", [without(make_record(3), "test/", "comm/")])
    (run, less), _ = read_runs([tmp_path])
    assert (run.folder, run.seed) == (tmp_path / "run", 5)
    assert run.config["train.batch_size"] == 7
    assert run.metrics.keys() == records[0].keys() | {ALL_BYTES}
    assert run.metrics["test/accuracy"].tolist() == [each["test/accuracy"] for each in records]
    assert run.metrics[ALL_BYTES].tolist() == [5_090_000 * each["round"] for each in records]
    assert run.skipped == {"test/loss": 1}
    assert not {"test/accuracy", ALL_BYTES} & less.metrics.keys()


@pytest.mark.parametrize(
    ("state", "error", "reason"),
    [
        ("running", None, "after round 10"),
        ("failed", "<b>\n", "<b>\n"),
        ("failed", "x" * 1000, "x" * 300),
        ("failed", {"a": [1]}, "after round 10"),
        ("failed", "", "after round 10"),
    ],
)
def test_read_runs_leaves_out_what_is_not_finished(tmp_path, state, error, reason):
    write_run(tmp_path / "whole", seed=1)
    add_file(write_run(tmp_path / "part"), "status.json", status(state=state, error=error))
    found, left_out = read_runs([tmp_path])
    assert [run.seed for run in found] == [1]
    assert shown(left_out) == [("part", state, reason)]


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("status.json", "{", "cannot be read as JSON: "),
        ("status.json", "[" * 100_000, "is nested too deeply"),
        ("status.json", f"{' ' * 2**20}{status()}", "has 10486"),
        ("status.json", '{"state": "failed", "state": "finished"}', "cannot be read as"),
        ("status.json", "[]", "names no state"),
        ("status.json", status(state="asleep"), "names no state"),
        ("status.json", status(round=True), "has the round True"),
        ("status.json", status(round=-1), "has the round -1"),
        ("status.json", status(round=10**4000), "has the round 1000"),
        ("status.json", None, "is missing"),
        ("config.json", b"\xff\xfe{}", "is not UTF-8 text"),
        ("config.json", '{"seed":' * 60 + "1" + "}" * 60, "is nested too deeply"),
        ("config.json", seed_and('"seed": 1'), "cannot be read as"),
        ("config.json", changed('"eval_every": 5', '"eval_every": "5"'), ": run.eval_every='5': n"),
        ("config.json", changed('"seed": 0', '"seed": [0]'), ": seed=(0,): needs a"),
        ("config.json", seed_and(f'"x": {json.dumps(dict.fromkeys(range(1000)))}'), ": it has "),
        ("config.json", "[]", ": it holds a list"),
        ("config.json", "{}", ": it has no seed"),
        ("config.json", '{"seed": 1, "method": {"name": "cefl"}, "data": 3}', ": it has no data"),
        ("config.json", None, "is missing"),
        ("metrics.jsonl", "", "is empty"),
        ("metrics.jsonl", '{"round": 15}\n', "ends with round 15, and status.json with 10"),
        ("metrics.jsonl", None, "is missing"),
        *((file, os.mkfifo, "is a pipe or a device; name a reg") for file in runs.MARKS),
        *((file, os.mkdir, "is a folder; name a file") for file in runs.MARKS),
    ],
)
def test_read_runs_leaves_out_a_broken_run_and_harms_no_other(tmp_path, file, text, reason):
    write_run(tmp_path / "sound", seed=1)
    broken = write_run(tmp_path / "broken", seed=2) / file
    broken.unlink()
    if callable(text):
        text(broken)
    elif text is not None:
        broken.write_bytes(text if isinstance(text, bytes) else text.encode())
    found, left_out = read_runs([tmp_path])
    assert [run.folder.name for run in found] == ["sound"]
    ((name, state, given),) = shown(left_out)
    assert (name, state) == ("broken", "unreadable")
    assert given.removeprefix(file).strip().startswith(reason)


def test_read_runs_counts_no_seed_twice(tmp_path):
    """Runs that differ in their types do not repeat each other, nor one that is left out."""
    write_run(tmp_path / "a", seed=1, state="failed", error="x")
    write_run(tmp_path / "b", seed=1, run__devices=1)
    write_run(tmp_path / "c", seed=1, run__devices=2)
    write_run(tmp_path / "d", seed=1, run__compute_dtype="bfloat16")
    found, left_out = read_runs([tmp_path])
    assert [run.folder.name for run in found] == ["b", "d"]
    reason = f"same settings and seed as {tmp_path / 'b'}, which is counted"
    assert shown(left_out) == [("a", "failed", "x"), ("c", "repeated", reason)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no folder"),
        ("other", "other holds no run"),
        ("other/config.json", "is not a folder"),
    ],
)
def test_read_runs_refuses_a_folder_without_runs(tmp_path, name, message):
    write_run(tmp_path / "runs" / "one")
    add_file(tmp_path / "other", "config.json", "{}")
    with pytest.raises(ValueError, match=message):
        read_runs([tmp_path / "runs", tmp_path / name])


def test_read_runs_refuses_a_folder_that_cannot_be_searched(tmp_path, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(folder)))

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(ValueError, match="cannot be searched: Permission denied"):
        read_runs([tmp_path])


def test_read_runs_names_own_data_sets_apart_by_their_hash(tmp_path):
    """Runs of the same data keep their name, whatever they are called; known names are trusted."""
    digests = {"mine": ["1", "2", None], "other": ["3", "3"], "digits": ["4", "5"]}
    for data, known in digests.items():
        for seed, digest in enumerate(known):
            folder = write_run(tmp_path / f"{data}{seed}", seed=seed, data__name=data)
            if digest:
                add_file(folder, "summary.json", json.dumps({"data_sha256": 64 * digest}))
    found, left_out = read_runs([tmp_path])
    names = [run.config["data.name"] for run in found]
    mine = ["mine (11111111)", "mine (22222222)", "mine (unknown)"]
    assert (names, left_out) == (["digits", "digits", *mine, "other", "other"], [])


def test_complete_gives_a_field_that_is_newer_than_the_run_its_default():
    older = make_config(seed=3)
    del older["cefl"]["privacy"]
    del older["train"]["batch_size"]
    assert complete(older) == complete(make_config(seed=3))


def test_complete_keeps_a_field_of_a_later_version():
    newer = make_config(method__name="fedprox")
    newer |= {"fedprox": {"mu": 0.1, "new": [1, {"c": None}]}, "a b\n": 1}
    expected = {"method.name": "fedprox", "fedprox.mu": 0.1, "fedprox.new": (1, '{"c": null}')}
    assert differences(complete(newer)) == expected | {"a b\n": 1}
