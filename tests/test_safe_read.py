"""Files and values from outside: of bounded size, plain data alone, and shown in one line."""

import json
import math
import os

import pytest

from cefl_jax import safe_read
from cefl_jax.safe_read import InputFileError, expand_user, parse_json, read_bytes, show


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", "there is no such file; correct the name"),
        ("nul\0", "cannot be read: .*; correct the name"),
        ("x" * 300, "cannot be read: .*; correct the name"),
        ("", "is a folder; name a file"),
        ("pipe", "is a pipe or a device; name a regular file"),
        ("large", "has 9 bytes, and 8 is the most; name a smaller one"),
    ],
)
def test_read_bytes_reads_only_a_regular_file_that_is_not_too_large(tmp_path, name, words):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(9))
    with pytest.raises(InputFileError, match=f"^{words}$"):
        read_bytes(f"{tmp_path}/{name}", 8)
    assert read_bytes(tmp_path / "large", 9) == bytes(9)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as JSON: Expecting value: line 1"),
        (b"[[0], [1]", "cannot be read as JSON"),
        (b'{"a": 1, "a": 2}', "cannot be read as JSON: the key 'a' is given twice"),
        (f"[{'9' * 5000}]".encode(), "cannot be read as JSON: Exceeds the limit"),
        (b"[" * 100_000, "is nested too deeply; write it flatter"),
        (b"[" * 60 + b"]" * 60, "is nested too deeply"),
        (b'{"a": "\\ud800"}', "has text that is not Unicode, half of a surrogate pair"),
        (b'{"\\udfff": 1}', "has text that is not Unicode, half of a surrogate pair"),
        (b'["\xe4"]', "is not UTF-8 text at byte 2; save it as such"),
        ("[0]".encode("utf-16"), "is not UTF-8 text at byte 0"),
        (b"[NaN]", "cannot be read as JSON: NaN is no number in JSON; correct it"),
        (b"[-Infinity]", "cannot be read as JSON: -Infinity is no number in JSON"),
    ],
)
def test_parse_json_refuses_what_is_no_plain_data(content, words):
    with pytest.raises(InputFileError, match=f"^{words}") as error:
        parse_json(content, finite=True)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_parse_json_reads_plain_data(mark):
    tree = {"a": [1, -0.5, None, True, "\u00e4\U0001f600"], "b": {"c": {}}}
    assert parse_json(mark + json.dumps(tree).encode()) == tree
    assert math.isnan(parse_json(b"NaN"))


def test_show_is_one_short_line():
    assert show("a\nb") == r"'a\nb'"
    assert show(10**5000) == "a number of thousands of digits"
    for endless in (
        "x" * 999,
        [*range(999)],
        dict.fromkeys(range(99), "y" * 99),
        {"a" * 99: [1] * 9},
    ):
        assert len(show(endless)) <= 60
    assert safe_read.one_line("a\nb\0c") == "a?b?c"


def test_expand_user_knows_home_and_leaves_the_rest(monkeypatch):
    monkeypatch.setenv("HOME", "/here")
    assert expand_user("~/a") == "/here/a"
    for path in ("~no.such.user/a", "a~", "/b", "~a\0"):
        assert expand_user(path) == path
