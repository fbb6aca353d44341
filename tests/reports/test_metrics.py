"""All lines of all files are read, whatever they are called, and a broken file has a reason."""

import json
import math
import os

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.reports import metrics
from cefl_jax.reports.metrics import read_metrics

NAMES = [*"*?~$", "lr=0.1", "a[1]", "{a,b}", "quo'te\"", "new\nline", "a\\b", "ümlaut", "%20"]
TOKENS = [*'{}[]:, \n\r\0"1', '"round"', '"x"', "2.5", "-3", "1e999", "null", "true", "NaN", '"5"']
TOKENS += ['"a\\u0000"', '"\\ud800"', "9" * 30, '{"round":1,"x":2}\n', '{"round":2,"x":null}\n']
RECORDS = st.lists(
    st.dictionaries(
        st.sampled_from(["a/b", "$.a", "/a/b", 'quo"te', "c"]),
        st.none() | st.floats(-1e9, 1e9) | st.integers(-(2**40), 2**40),
    ),
    min_size=1,
    max_size=6,
)


def write(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return str(folder / "metrics.jsonl")


def test_read_metrics_knows_files_apart_whatever_their_folders_are_called(tmp_path):
    places = enumerate([*NAMES, "plain", "<b>"])
    files = {write(tmp_path / name, f'{{"round": 1, "x": {at}}}'): [at] for at, name in places}
    whole, faults = read_metrics(list(files))
    assert faults == {}
    assert {file: found.values["x"].tolist() for file, found in whole.items()} == files


@settings(max_examples=50)
@given(RECORDS, st.randoms(use_true_random=False))
def test_read_metrics_returns_the_values_of_the_lines(tmp_path_factory, records, random):
    rounds = sorted(random.sample(range(1, 100), len(records)))
    lines = [{"round": round, **record} for round, record in zip(rounds, records, strict=True)]
    file = write(tmp_path_factory.mktemp("run"), *map(json.dumps, lines))
    found = read_metrics([file])[0][file]
    assert found.values.keys() == {key for line in lines for key in line}
    for key, values in found.values.items():
        expected = np.array([line.get(key) for line in lines], float)
        np.testing.assert_array_equal(values, expected)
        nulls = sum(key in line and line[key] is None for line in lines)
        assert found.skipped.get(key, 0) == nulls


def test_read_metrics_takes_numbers_that_are_not_finite_as_null(tmp_path):
    values = ("NaN", "Infinity", "null", "0.5")
    lines = [f'{{"round": {at}, "x": {value}}}' for at, value in enumerate(values)]
    file = write(tmp_path, *lines)
    whole, faults = read_metrics([file])
    np.testing.assert_array_equal(whole[file].values["x"], [math.nan, math.nan, math.nan, 0.5])
    assert (whole[file].skipped, faults) == ({"x": 3}, {})


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["{broken}", '{"round": 2}'], "has a line that is not JSON"),
        (["[1, 2]"], "has a line that is not a record"),
        (['{"round": 1}', '{"x": 2}'], "has a line without a round"),
        (['{"round": 1.5, "x": 1}'], "has a line without a round"),
        (['{"round": true, "x": 1}'], "has a line without a round"),
        (['{"round": 1}', '{"round": 1}'], "has a round twice"),
        (['{"round": 1, "round": 2, "x": 1}'], "has round twice in a line"),
        (['{"round": 1, "x": 1, "x": 2}', '{"round": 2}'], "has x twice in a line"),
        (['{"round": 1, "x": "text"}'], "has values of x that are no numbers"),
        (['{"round": 1, "x": "5"}'], "has values of x that are no numbers"),
        (['{"round": 1, "x": ' + "[" * 10_000 + "]" * 10_000 + "}"], "has values of x that are"),
        (['{"round": 1, "x": 1e300}'], "has values of x beyond 1e+100"),
        (['{"round": 1, "a\\nb": 1}'], r"has a metric called 'a\nb'"),
        ([f'{{"round": 1, "{"k" * 200}": 1}}'], f"has a metric called '{'k' * 17}...{'k' * 18}'"),
        ([f'{{"round": {n}, "m{n}": 1}}' for n in range(1, 600)], "has more than 500 metrics"),
        (["", "  ", "\t"], "is empty"),
    ],
)
def test_read_metrics_gives_the_fault_of_a_broken_file_and_reads_the_others(tmp_path, lines, fault):
    broken, sound = write(tmp_path / "broken", *lines), write(tmp_path / "sound", '{"round": 3}')
    whole, faults = read_metrics([broken, sound])
    assert (list(faults), list(whole)) == ([broken], [sound])
    assert faults[broken].startswith(fault)
    assert whole[sound].values["round"].tolist() == [3]


def test_read_metrics_opens_only_files_of_bounded_size(tmp_path, monkeypatch):
    sound = write(tmp_path / "sound", '{"round": 3}')
    large = write(tmp_path / "large", '{"round": 3,            "x": 1}')
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(metrics, "MAX_METRICS_BYTES", 20)
    others = [str(tmp_path / name) for name in ("pipe", "absent")]
    whole, faults = read_metrics([sound, large, *others])
    assert list(whole) == [sound]
    starts = ("has 32 bytes, and 20 i", "is a pipe or a device;", "is missing")
    assert [fault[:22] for fault in faults.values()] == [*starts]
    assert read_metrics([]) == ({}, {})


def test_read_metrics_reads_what_it_can_where_duckdb_cannot(tmp_path, monkeypatch):
    """File by file where one query of all fails, whatever the reason."""
    good, bad = (write(tmp_path / name, '{"round": 3}') for name in ("good", "bad"))
    query = metrics._query

    def fail(files):
        if bad in files:
            raise duckdb.IOException("no\nsuch disk")
        return query(files)

    monkeypatch.setattr(metrics, "_query", fail)
    whole, faults = read_metrics([good, bad])
    assert (list(whole), faults) == ([good], {bad: "cannot be read: no?such disk"})


@settings(max_examples=40)
@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join) | st.text(max_size=20))
def test_read_metrics_takes_or_refuses_any_text(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8", errors="replace")
    file = str(folder / "metrics.jsonl")
    whole, faults = read_metrics([file])
    assert [*whole, *faults] == [file]
    for found in whole.values():
        rounds = found.values["round"]
        assert (np.diff(rounds) > 0).all()
        assert {values.shape for values in found.values.values()} == {rounds.shape}
    assert all(fault.isprintable() for fault in faults.values())
