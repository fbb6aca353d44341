"""The fuzzer's readers take what is valid, and notice what must not be."""

import random
import subprocess
import sys

import duckdb
import pytest

from tests.fuzz import readers, table
from tests.fuzz.mutations import change_json, change_settings

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
        RecursionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
        ValueError("someone else's"),
        ValueError("data.partition.path: two\nlines"),
        ValueError(f"data.partition.path: {'x' * 9999}"),
        MemoryError(),
    ],
)
def test_read_raises_what_a_reader_must_not(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(readers.partition_file, "from_file", fail)
    with pytest.raises(type(error)):
        READERS["partition"].read(b"[[0]]", tmp_path)


def test_read_fails_on_a_result_that_breaks_the_promise(tmp_path, monkeypatch):
    twice = [readers.np.array([3]), readers.np.array([3])]
    monkeypatch.setattr(readers.partition_file, "from_file", lambda *_: twice)
    with pytest.raises(readers.Failure, match="each example is one's own"):
        READERS["partition"].read(b"[[3],[3]]", tmp_path)


def test_changes_keep_the_form():
    made = {change_json(b'{"a": [1, {"b": "c"}]}', random.Random(seed)) for seed in range(300)}
    assert len(made) > 50
    assert change_json(b"{", random.Random(0)) is None
    assert change_json(b"", random.Random(0), b"\n") is None
    change = change_settings([b"seed"], [b"1"])
    made = {change(b"seed=0", random.Random(seed)) for seed in range(50)}
    assert made == {b"", b"seed=1", b"seed=0\nseed=0"}


def run(*arguments, blocked=()):
    """The fuzzer in a process of its own, which cannot import some libraries."""
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); sys.argv[1:] = "
    program = f"{block}{arguments!r}; from tests.fuzz.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_main_reads_one_input_again_without_atheris(tmp_path):
    (tmp_path / "input").write_bytes(b"[[0]]")
    done = run("partition", str(tmp_path / "input"), blocked=("atheris",))
    assert (done.returncode, done.stdout) == (0, "partition: taken\n")


def test_main_says_how_to_get_atheris(tmp_path):
    done = run("partition", "--runs=1", f"--folder={tmp_path}", blocked=("atheris",))
    assert done.returncode == 1
    assert done.stderr == "python -m tests.fuzz needs atheris; pip install 'cefl_jax[fuzz]'\n"


def test_main_tries_so_many_inputs(tmp_path):
    pytest.importorskip("atheris")
    done = run("partition", "--runs=50", f"--folder={tmp_path}", "--seed=1")
    assert done.returncode == 0, done.stderr
    assert "number_of_executed_units: 50" in done.stderr
