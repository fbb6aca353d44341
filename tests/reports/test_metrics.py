"""All lines of all files are read, whatever the files are called, and what is broken is told."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax.reports.metrics import read_metrics

NAMES = ("plain", "lr=0.1", "a[1]", "*", "?", "{a,b}", "quo'te\"", "new\nline", "back\\slash",
         "ümlaut", "%20", "~", "$x", "<b>")


def write(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return str(folder / "metrics.jsonl")


def test_files_are_told_apart_whatever_their_folders_are_called(tmp_path):
    files = [write(tmp_path / name, json.dumps({"round": 1, "x": place}))
             for place, name in enumerate(NAMES)]
    whole, faults = read_metrics(files)
    assert faults == {}
    assert {file: found.values["x"].tolist() for file, found in whole.items()} == {
        file: [place] for place, file in enumerate(files)}


RECORDS = st.lists(
    st.dictionaries(st.sampled_from(["a/b", "$.a", "/a/b", 'quo"te', "c"]),
                    st.none() | st.floats(-1e9, 1e9) | st.integers(-2**40, 2**40)),
    min_size=1, max_size=6)


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
        np.testing.assert_array_equal(found.values[key],
                                      [math.nan if value is None else value for value in values])
    nulls = {key: sum(key in line and line[key] is None for line in lines) for key in keys}
    assert found.skipped == {key: count for key, count in nulls.items() if count}


@pytest.mark.parametrize(("lines", "fault"), [
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
])
def test_a_broken_file_is_told_and_harms_no_other(tmp_path, lines, fault):
    broken, sound = write(tmp_path / "broken", *lines), write(tmp_path / "sound", '{"round": 3}')
    whole, faults = read_metrics([broken, sound])
    assert faults == {broken: fault}
    assert whole[sound].values["round"].tolist() == [3]
    assert broken not in whole


def test_numbers_that_are_not_finite_are_as_null(tmp_path):
    file = write(tmp_path, '{"round": 1, "x": NaN}', '{"round": 2, "x": Infinity}',
                 '{"round": 3, "x": null}', '{"round": 4, "x": 0.5}')
    whole, faults = read_metrics([file])
    assert faults == {}
    np.testing.assert_array_equal(whole[file].values["x"], [math.nan, math.nan, math.nan, 0.5])
    assert whole[file].skipped == {"x": 3}


def test_no_files_are_no_metrics():
    assert read_metrics([]) == ({}, {})
