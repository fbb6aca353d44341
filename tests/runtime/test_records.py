"""The metrics of a run are read as they were written, or refused in one line that says where."""

import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.runtime import summary
from cefl_jax.runtime.summary import read_metrics

KEYS = st.sampled_from(["test/accuracy", "train/loss", "x"]) | st.text(
    st.characters(codec="utf-8"), max_size=5
)


def write(folder, content):
    file = folder / "metrics.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.dictionaries(KEYS, st.none() | st.integers(-(2**63), 2**63) | st.floats(-1e100, 1e100)),
        max_size=5,
    )
)
def test_what_was_written_is_read(tmp_path_factory, drawn):
    lines = [{**record, "round": round} for round, record in enumerate(drawn)]
    text = "".join(
        f"{json.dumps(line, ensure_ascii=round % 2 == 0)}\n" for round, line in enumerate(lines)
    )
    assert read_metrics(write(tmp_path_factory.getbasetemp(), text)) == lines


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    assert read_metrics(write(tmp_path, '{"round": 1}\n{"round": 2}')) == [{"round": 1}]
    assert read_metrics(write(tmp_path, '{"round": 1}\n{"rou')) == [{"round": 1}]
    assert read_metrics(write(tmp_path, "")) == []
    assert read_metrics(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "is nested too deeply"),
        (b"\xff", "is not UTF-8 text at byte 0"),
        ('{"round": 2, "round": 3}', "cannot be read as JSON: the key 'round' is given twice"),
        ('{"round": 2, "x": NaN}', "cannot be read as JSON: NaN is no number"),
        ("7", "is 7; it must be an object with its round"),
        ("{}", "is {}; it must be an object with its round"),
        ('{"round": true}', "is {'round': True}; it must be"),
        ('{"round": 2.0}', "is {'round': 2.0}; it must be"),
        ('{"round": 2, "x": "1"}', "has 'x': '1'; it must be a finite number or null"),
        ('{"round": 2, "x": true}', "has 'x': True; it must be"),
        ('{"round": 2, "x": 1e999}', "has 'x': inf; it must be"),
        (f'{{"round": 2, "x": {"9" * 4000}}}', "has 'x': 9999"),
        (f'{{"round": 2, "x": {"9" * 5000}}}', "cannot be read as JSON: Exceeds the limit"),
    ],
)
def test_a_line_that_is_no_record_is_told(tmp_path, line, said):
    line = line if isinstance(line, bytes) else line.encode()
    file = write(tmp_path, b'{"round": 1}\n' + line + b"\n")
    with pytest.raises(ValueError, match="line 2") as refusal:
        read_metrics(file)
    assert str(refusal.value).startswith(f"{file}: line 2 {said}")
    assert str(refusal.value).isprintable()


def test_what_is_no_file_of_bounded_size_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    file = write(tmp_path, '{"round": 1}\n')
    monkeypatch.setattr(summary, "MAX_METRICS_BYTES", 12)
    for path, said in (
        (tmp_path / "pipe", "is a pipe or a device"),
        (tmp_path, "is a folder"),
        (file, "has 13 bytes, and 12 is the most"),
    ):
        with pytest.raises(ValueError, match=said) as refusal:
            read_metrics(path)
        assert str(refusal.value).startswith(f"{path}: {said}")


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.sampled_from(
            [
                '{"round": 1}\n',
                '"round"',
                ":",
                "{",
                "}",
                "1",
                "1e400",
                "null",
                ",",
                "\n",
                "\r",
                "\u2028",
                '"\\ud800"',
                "\x00",
            ]
        )
    ).map("".join)
)
def test_any_text_is_metrics_or_is_refused(tmp_path_factory, text):
    try:
        read = read_metrics(write(tmp_path_factory.getbasetemp(), text))
    except ValueError as error:
        line = str(error)
        assert line.isprintable()
    else:
        assert all(isinstance(record["round"], int) for record in read)
        assert all(value is None or math.isfinite(value) for one in read for value in one.values())
