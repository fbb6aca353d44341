"""The fuzzer's readers take what is valid, and notice what must not be."""

import random
import sys

import duckdb
import pytest

from tests.fuzz import __main__ as fuzzer
from tests.fuzz import readers, table

READERS = table.make_readers()


@pytest.fixture
def ready(monkeypatch):
    """Lets each reader be quick, and forgets that afterwards."""
    monkeypatch.setattr(readers.metrics, "read_metrics", readers.metrics.read_metrics)
    monkeypatch.setattr(duckdb, "connect", duckdb.connect)
    return table.make_ready


@pytest.mark.parametrize("name", READERS)
def test_read_takes_most_seeds(tmp_path, name, ready):
    ready(name)
    reader = READERS[name]
    taken = [reader.read(seed, tmp_path) for seed in reader.seeds]
    assert sum(taken) >= max(len(taken) / 2, 1)


@pytest.mark.parametrize("name", READERS)
def test_read_takes_or_refuses_changed_seeds(tmp_path, name, ready):
    """A hundred inputs a reader, two for the slowest; the fuzzer itself tries very many more."""
    ready(name)
    reader, rng = READERS[name], random.Random(0)
    for _ in range(2 if name == "metrics" else 100):
        data = rng.choice(reader.seeds)
        for _ in range(rng.randrange(1, 4)):
            changed = reader.change(data, rng) if reader.change else None
            data = damage(data, rng) if changed is None else changed
        reader.read(data, tmp_path)


def damage(data, rng):
    """The bytes with a few of them replaced by a token."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + rng.randrange(3) :]


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
        ValueError("someone else's"),
        ValueError("data.partition.path: two\nlines"),
        ValueError(f"data.partition.path: {'x' * 9999}"),
    ],
)
def test_read_raises_what_a_reader_must_not(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(readers.partition_file, "from_file", fail)
    with pytest.raises(type(error)):
        READERS["partition"].read(b"[[0]]", tmp_path)


def test_main_reads_one_input_again(tmp_path, monkeypatch, capsys):
    """Without atheris, without which nothing can be fuzzed."""
    (tmp_path / "input").write_bytes(b"[[0]]")
    monkeypatch.setitem(sys.modules, "atheris", None)
    monkeypatch.setattr(sys, "argv", ["fuzz", "partition", str(tmp_path / "input")])
    fuzzer.main()
    assert capsys.readouterr().out == "partition: taken\n"
    monkeypatch.setattr(sys, "argv", ["fuzz", "partition", "--runs=1"])
    with pytest.raises(SystemExit, match=r"needs atheris; pip install 'cefl_jax\[fuzz\]'"):
        fuzzer.main()


def test_read_fails_on_a_result_that_breaks_the_promise(tmp_path, monkeypatch):
    twice = [readers.np.array([3]), readers.np.array([3])]
    monkeypatch.setattr(readers.partition_file, "from_file", lambda *_: twice)
    with pytest.raises(readers.Failure, match="each example is one's own"):
        READERS["partition"].read(b"[[3],[3]]", tmp_path)
