"""All lines of all files are read, whatever the files are called, and what is broken is told."""

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

NAMES = (
    "plain",
    "lr=0.1",
    "a[1]",
    "*",
    "?",
    "{a,b}",
    "quo'te\"",
    "new\nline",
    "back\\slash",
    "ümlaut",
    "%20",
    "~",
    "$x",
    "<b>",
)


def write(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return str(folder / "metrics.jsonl")


def test_files_are_told_apart_whatever_their_folders_are_called(tmp_path):
    files = [
        write(tmp_path / name, json.dumps({"round": 1, "x": place}))
        for place, name in enumerate(NAMES)
    ]
    whole, faults = read_metrics(files)
    assert faults == {}
    assert {file: found.values["x"].tolist() for file, found in whole.items()} == {
        file: [place] for place, file in enumerate(files)
    }


RECORDS = st.lists(
    st.dictionaries(
        st.sampled_from(["a/b", "$.a", "/a/b", 'quo"te', "c"]),
        st.none() | st.floats(-1e9, 1e9) | st.integers(-(2**40), 2**40),
    ),
    min_size=1,
    max_size=6,
)


@given(RECORDS, st.randoms(use_true_random=False))
def test_values_are_those_of_the_lines(tmp_path_factory, records, random):
    rounds = sorted(random.sample(range(1, 100), len(records)))
    lines = [{"round": round, **record} for round, record in zip(rounds, records, strict=True)]
    file = write(tmp_path_factory.mktemp("run"), *map(json.dumps, lines))
    found = read_metrics([file])[0][file]
    keys = {key for line in lines for key in line}
    assert found.values.keys() == keys
    for key in keys:
        values = [line.get(key) for line in lines]
        np.testing.assert_array_equal(
            found.values[key], [math.nan if value is None else value for value in values]
        )
    nulls = {key: sum(key in line and line[key] is None for line in lines) for key in keys}
    assert found.skipped == {key: count for key, count in nulls.items() if count}


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (['{"round": 1}', '{"round": 2, "te'], "has a line that is not JSON"),
        (["{broken}", '{"round": 2}'], "has a line that is not JSON"),
        (["[1, 2]"], "has a line that is not a record"),
        (["7"], "has a line that is not a record"),
        (['{"round": 1}', '{"x": 2}'], "has a line without a round"),
        (['{"round": "first"}'], "has a line without a round"),
        (['{"round": 1}', '{"round": 1}'], "has a round twice"),
        (['{"round": 1, "x": "text"}'], "has values of x that are no numbers"),
        (['{"round": 1, "x": {"y": 1}}'], "has values of x that are no numbers"),
        (['{"round": 1, "x": "5"}'], "has values of x that are no numbers"),
        ([], "is empty"),
        (["", "  ", "\t"], "is empty"),
        (['{"round": 1.5, "x": 1}'], "has a line without a round"),
        (['{"round": true, "x": 1}'], "has a line without a round"),
        (['{"round": 99999999999999999999, "x": 1}'], "has a line without a round"),
        (['{"round": 1, "round": 2, "x": 1}'], "has round twice in a line"),
        (['{"round": 1, "x": 1, "x": 2}', '{"round": 2}'], "has x twice in a line"),
        (['{"round": 1, "x": 1e300}'], "has values of x beyond 1e+100"),
        (['{"round": 1, "a\\nb": 1}'], r"has a metric called 'a\nb'"),
        ([f'{{"round": 1, "{"k" * 200}": 1}}'], f"has a metric called '{'k' * 17}...{'k' * 18}'"),
        ([f'{{"round": {n}, "m{n}": 1}}' for n in range(1, 600)], "has more than 500 metrics"),
        (['{"round": 1, "x": ' + "[" * 10_000 + "]" * 10_000 + "}"], "has values of x that are"),
    ],
)
def test_a_broken_file_is_told_and_harms_no_other(tmp_path, lines, fault):
    broken, sound = write(tmp_path / "broken", *lines), write(tmp_path / "sound", '{"round": 3}')
    whole, faults = read_metrics([broken, sound])
    assert list(faults) == [broken]
    assert faults[broken].startswith(fault)
    assert whole[sound].values["round"].tolist() == [3]
    assert broken not in whole


def test_numbers_that_are_not_finite_are_as_null(tmp_path):
    file = write(
        tmp_path,
        '{"round": 1, "x": NaN}',
        '{"round": 2, "x": Infinity}',
        '{"round": 3, "x": null}',
        '{"round": 4, "x": 0.5}',
    )
    whole, faults = read_metrics([file])
    assert faults == {}
    np.testing.assert_array_equal(whole[file].values["x"], [math.nan, math.nan, math.nan, 0.5])
    assert whole[file].skipped == {"x": 3}


def test_what_is_no_file_of_bounded_size_is_told(tmp_path, monkeypatch):
    sound = write(tmp_path / "sound", '{"round": 3}')
    large = write(tmp_path / "large", '{"round": 3,            "x": 1}')
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(metrics, "MAX_METRICS_BYTES", 20)
    others = [str(tmp_path / name) for name in ("pipe", "absent")]
    whole, faults = read_metrics([sound, large, *others])
    assert list(whole) == [sound]
    assert [told[:22] for told in faults.values()] == [
        "has 32 bytes, and 20 i",
        "is a pipe or a device;",
        "is missing",
    ]


def test_what_duckdb_cannot_read_harms_no_other_file(tmp_path, monkeypatch):
    """Told apart file by file where one query of all fails, whatever the reason."""
    good, bad = (write(tmp_path / name, '{"round": 3}') for name in ("good", "bad"))
    query = metrics._query

    def fail(files):
        if bad in files:
            raise duckdb.IOException("no\nsuch disk")
        return query(files)

    monkeypatch.setattr(metrics, "_query", fail)
    whole, faults = read_metrics([good, bad])
    assert list(whole) == [good]
    assert faults == {bad: "cannot be read: no?such disk"}


TOKENS = [
    '"round"',
    '"x"',
    ":",
    ",",
    "{",
    "}",
    "[",
    "]",
    "1",
    "2.5",
    "-3",
    "1e999",
    "null",
    "true",
    "NaN",
    '"5"',
    " ",
    "\n",
    "\r",
    "\x00",
    '"a\\u0000"',
    '"\\ud800"',
    '{"round":1,"x":2}\n',
    '{"round":2,"x":null}\n',
    "9" * 30,
]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join) | st.text(max_size=20))
def test_any_text_is_metrics_or_a_fault(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8", errors="replace")
    file = str(folder / "metrics.jsonl")
    whole, faults = read_metrics([file])
    assert {*whole, *faults} == {file}
    if whole:
        rounds = whole[file].values["round"]
        assert (np.diff(rounds) > 0).all()
        assert {values.shape for values in whole[file].values.values()} == {rounds.shape}
    else:
        assert faults[file].isprintable()


def test_no_files_are_no_metrics():
    assert read_metrics([]) == ({}, {})
