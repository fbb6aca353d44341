"""Readers of a person's files open regular ones of bounded size; the rest is each reader's own."""

import functools
import os

import pytest

from cefl_jax.data import idx, partition
from cefl_jax.network.sources import network_file, trace_file
from cefl_jax.plots import timeline

network = functools.partial(network_file.read_network, num_clients=3, num_edges=2)
trace = functools.partial(trace_file.read_trace, rounds=3, num_clients=4, num_edges=2)
images = functools.partial(idx.read_idx, num_axes=3)
parts = functools.partial(partition.from_file, num_examples=10)
READERS = {  # by the end of a file's name: the reader, how its line begins, and the most bytes
    "network.json": (network, "network.path={}: ", network_file.MAX_BYTES),
    "network.yaml": (network, "network.path={}: ", network_file.MAX_YAML_BYTES),
    "trace.npz": (trace, "network.trace={}: ", trace_file.MAX_BYTES),
    "trace.csv": (trace, "network.trace={}: ", trace_file.MAX_CSV_BYTES),
    "images-idx3-ubyte": (images, "data.path: {} ", idx.MAX_FILE_BYTES),
    "partition.json": (parts, "data.partition.path: {} ", 2**20 + 64 * 10),
    "timeline.json": (timeline.read_timeline, "{}: ", timeline.MAX_BYTES),
}


@pytest.mark.parametrize("name", READERS)
def test_readers_take_only_a_regular_file_of_bounded_size(tmp_path, name):
    read, beginning, most = READERS[name]
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / f"pipe.{name}")
    with (tmp_path / f"large.{name}").open("wb") as file:
        file.truncate(most + 1)  # takes no room on the disk
    for place, words in (
        (f"a/two\nlines.{name}", "there is no such file"),
        (f"pipe.{name}", "is a pipe or a device"),
        (f"large.{name}", f"has {most + 1} bytes, and {most} is the most"),
    ):
        path = f"{tmp_path}/{place}"
        with pytest.raises(ValueError, match=words) as error:
            read(path)
        assert str(error.value).isprintable()
        assert str(error.value).startswith(beginning.format(path.replace("\n", "?")))


@pytest.mark.parametrize("path", [None, ""])
@pytest.mark.parametrize(
    ("read", "words"),
    [
        (network, "network.path=.*: name the JSON or YAML file"),
        (trace, "network.trace=.*: there is no such file; record one with run.save_trace"),
        (parts, "data.partition.path is not set"),
    ],
)
def test_readers_need_a_path(read, words, path):
    with pytest.raises(ValueError, match=words):
        read(path)
