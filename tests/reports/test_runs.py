"""Runs are found wherever they are, and only those that are finished and whole are counted."""

import json
import os
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.reports import formats, metrics
from cefl_jax.reports.groups import by_section
from cefl_jax.reports.metrics import Metrics
from cefl_jax.reports.runs import ALL_BYTES, read_runs
from cefl_jax.reports.tables import summarize
from tests.reports.folders import add_file, make_config, status, write_run
from tests.runtime.examples import make_record, make_records, without

CONFIG = json.dumps(make_config())
MANY = dict.fromkeys(map(str, range(1000)))


def told(left_out):
    return [(run.folder.name, run.state, run.reason) for run in left_out]


def test_runs_are_found_at_any_depth_and_once(tmp_path):
    for seed, name in enumerate(("a", "a/b", "c/d/e")):
        write_run(tmp_path / name, seed=seed)
    (tmp_path / "link").symlink_to(tmp_path / "c")
    runs, left_out = read_runs([tmp_path, tmp_path / "a", tmp_path / "link", f"{tmp_path}/c/../a"])
    assert sorted(run.seed for run in runs) == [0, 1, 2]
    assert left_out == []


def test_a_run_is_what_was_written(tmp_path):
    records = [without(record, "cluster/", "test/cloud") for record in make_records(4)]
    records[1]["test/loss"] = float("nan")
    write_run(tmp_path / "run", records, seed=5, train__batch_size=7)
    (run,), _ = read_runs([tmp_path])
    assert (run.folder, run.seed) == (tmp_path / "run", 5)
    assert run.config["train.batch_size"] == 7
    assert run.metrics.keys() == records[0].keys() | {ALL_BYTES}
    assert run.metrics["test/accuracy"].tolist() == [each["test/accuracy"] for each in records]
    assert run.metrics[ALL_BYTES].tolist() == [5_090_000 * each["round"] for each in records]
    assert run.skipped == {"test/loss": 1}


@pytest.mark.parametrize("state", ["failed", "running", "preempted"])
def test_a_run_that_is_not_finished_is_left_out(tmp_path, state):
    write_run(tmp_path / "whole", seed=1)
    error = "out of <memory>" if state == "failed" else None
    write_run(tmp_path / "part", state=state, error=error)
    runs, left_out = read_runs([tmp_path])
    assert [run.seed for run in runs] == [1]
    assert told(left_out) == [("part", state, error or "after round 10")]


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("status.json", "{", "status.json cannot be read as JSON: "),
        ("status.json", "[" * 100_000, "status.json is nested too deeply"),
        ("status.json", f"{' ' * 2**20}{status()}", "status.json has 10486"),
        (
            "status.json",
            '{"state": "failed", "state": "finished"}',
            "status.json cannot be read as",
        ),
        ("status.json", "[]", "status.json names no state"),
        ("status.json", status(state=["finished"]), "status.json names no state"),
        ("status.json", status(round=[10, 10]), "status.json has the round [10, 10]"),
        ("status.json", status(round=True), "status.json has the round True"),
        ("status.json", status(round=10.0), "status.json has the round 10.0"),
        ("status.json", status(round=10**4000), "status.json has the round 1000"),
        ("status.json", status(state="asleep"), "status.json names no state"),
        ("status.json", None, "status.json is missing"),
        (
            "status.json",
            status(round=15),
            "metrics.jsonl ends with round 10, and status.json with 15",
        ),
        ("config.json", "{", "config.json cannot be read as JSON: "),
        ("config.json", "[" * 100_000, "config.json is nested too deeply"),
        ("config.json", '{"seed":' * 60 + "1" + "}" * 60, "config.json is nested too deeply"),
        (
            "config.json",
            CONFIG.replace('"seed"', '"seed": 1, "seed"'),
            "config.json cannot be read as",
        ),
        (
            "config.json",
            CONFIG.replace('"eval_every": 5', '"eval_every": "5"'),
            "config.json: run.eval_every='5': needs a whole number",
        ),
        (
            "config.json",
            CONFIG.replace('"seed": 0', '"seed": [0]'),
            "config.json: seed=(0,): needs a",
        ),
        (
            "config.json",
            CONFIG.replace('"seed": 0', f'"seed": 0, "x": {json.dumps(MANY)}'),
            "config.json: it has ",
        ),
        ("config.json", "[]", "config.json: it holds a list"),
        ("config.json", "{}", "config.json: it has no seed"),
        ("config.json", None, "config.json is missing"),
        ("metrics.jsonl", "", "metrics.jsonl is empty"),
        ("metrics.jsonl", "{\n", "metrics.jsonl has a line that is not JSON"),
        ("metrics.jsonl", " \n\n", "metrics.jsonl is empty"),
        ("metrics.jsonl", None, "metrics.jsonl is missing"),
    ],
)
def test_a_broken_run_is_left_out_and_harms_no_other(tmp_path, file, text, reason):
    write_run(tmp_path / "sound", seed=1)
    broken = write_run(tmp_path / "broken", seed=2)
    if text is None:
        (broken / file).unlink()
    else:
        add_file(broken, file, text)
    runs, left_out = read_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["sound"]
    ((name, state, told_reason),) = told(left_out)
    assert (name, state) == ("broken", "unreadable")
    assert told_reason.startswith(reason)


@pytest.mark.parametrize("file", ["status.json", "config.json", "metrics.jsonl"])
def test_pipes_and_folders_in_place_of_files_are_left_alone(tmp_path, file):
    write_run(tmp_path / "sound", seed=1)
    for number, make in enumerate((os.mkfifo, os.mkdir)):
        broken = write_run(tmp_path / f"broken{number}", seed=2)
        (broken / file).unlink()
        make(broken / file)
    runs, left_out = read_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["sound"]
    assert [reason.removeprefix(f"{file} ") for _, _, reason in told(left_out)] == [
        "is a pipe or a device; name a regular file",
        "is a folder; name a file",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("x" * 1000, "x" * 300),
        ({"a": [1]}, "after round 10"),
        (7, "after round 10"),
        ("", "after round 10"),
        ("<b>\n", "<b>\n"),
    ],
)
def test_what_ended_a_run_is_told_in_few_words(tmp_path, error, reason):
    add_file(write_run(tmp_path / "run"), "status.json", status(state="failed", error=error))
    assert told(read_runs([tmp_path])[1]) == [("run", "failed", reason)]


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400)
texts = st.text(max_size=4)
values = st.recursive(
    leaves | texts,
    lambda tree: st.lists(tree, max_size=2) | st.dictionaries(texts, tree, max_size=2),
    max_leaves=4,
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["status.json", "config.json"]), st.data())
def test_any_values_in_a_folder_harm_no_other(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("runs")
    for seed, place in enumerate(("sound", "changed")):
        add_file(folder / place, "status.json", status())
        add_file(folder / place, "config.json", CONFIG.replace('"seed": 0', f'"seed": {seed}'))
    changed = json.loads((folder / "changed" / name).read_text())
    group = data.draw(
        st.sampled_from([changed, *(one for one in changed.values() if isinstance(one, dict))])
    )
    group[data.draw(st.sampled_from([*group, "new"]))] = data.draw(values)
    add_file(folder / "changed", name, json.dumps(changed))
    found = Metrics({"round": np.array([5.0, 10.0]), "test/accuracy": np.array([0.5, 0.9])}, {})
    read = lambda files: (dict.fromkeys(files, found), {})  # noqa: E731
    with mock.patch.object(metrics, "read_metrics", read):
        runs, left_out = read_runs([folder])
    assert "sound" in [run.folder.name for run in runs]
    assert len(runs) + len(left_out) == 2
    for section in by_section(runs):
        formats.to_markdown(summarize(section, 0.8))


def test_a_field_of_a_later_version_may_be_anything(tmp_path):
    changed = CONFIG.replace('"seed": 0', '"seed": 0, "new": {"a b\\n": [1, {"c": null}]}')
    add_file(write_run(tmp_path / "run"), "config.json", changed)
    (run,), left_out = read_runs([tmp_path])
    assert run.config["new.a b\n"] == (1, '{"c": null}')
    assert left_out == []


def test_bytes_that_are_no_text_are_unreadable(tmp_path):
    broken = write_run(tmp_path / "broken")
    (broken / "config.json").write_bytes(b"\xff\xfe{}")
    _, left_out = read_runs([tmp_path])
    assert [run.state for run in left_out] == ["unreadable"]


def test_a_repetition_is_no_second_sample(tmp_path):
    write_run(tmp_path / "first", seed=1, run__devices=1)
    write_run(tmp_path / "second", seed=1, run__devices=2)
    write_run(tmp_path / "other", seed=1, run__compute_dtype="bfloat16")
    runs, left_out = read_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["first", "other"]
    assert told(left_out) == [
        ("second", "repeated", f"same settings and seed as {tmp_path / 'first'}, which is counted")
    ]


def test_a_repetition_of_what_is_left_out_is_counted(tmp_path):
    write_run(tmp_path / "first", seed=1, state="failed")
    write_run(tmp_path / "second", seed=1)
    runs, left_out = read_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["second"]
    assert [run.state for run in left_out] == ["failed"]


def test_a_folder_without_runs_is_refused(tmp_path):
    write_run(tmp_path / "runs" / "one")
    add_file(tmp_path / "other", "config.json", "{}")
    for folder, message in (
        (tmp_path / "nowhere", "there is no folder"),
        (tmp_path / "other", "holds no run"),
        (tmp_path / "other" / "config.json", "is not a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            read_runs([tmp_path / "runs", folder])


def test_a_run_without_a_metric_is_read(tmp_path):
    write_run(tmp_path / "run", [without(make_record(3), "test/", "comm/")])
    (run,), left_out = read_runs([tmp_path])
    assert not {"test/accuracy", ALL_BYTES} & run.metrics.keys()
    assert left_out == []


def test_own_data_sets_of_one_name_are_told_apart_by_their_hash(tmp_path):
    """Runs of the same data keep their name, whatever they are called; known names are trusted."""
    for name, data, digests in (
        ("a", "mine", ["1" * 64, "2" * 64, None]),
        ("b", "other", ["3" * 64, "3" * 64]),
        ("c", "digits", ["4" * 64, "5" * 64]),
    ):
        for seed, digest in enumerate(digests):
            folder = write_run(tmp_path / f"{name}{seed}", seed=seed, data__name=data)
            if digest:
                add_file(folder, "summary.json", json.dumps({"data_sha256": digest}))
    runs, left_out = read_runs([tmp_path])
    names = [run.config["data.name"] for run in runs]
    told = ["mine (11111111)", "mine (22222222)", "mine (unknown)"]
    assert names == [*told, "other", "other", "digits", "digits"]
    assert not left_out
