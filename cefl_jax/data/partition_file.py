"""Partitions as JSON text: a list with one list of example indices for each client."""

import hashlib
import json
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int64

from cefl_jax.outside import OutsideError, one_line, read_json, show

BYTES_AN_INDEX = 64  # of a file at most, its line's white space included
BYTES_BESIDE = 2**20


def from_file(path: str | Path | None, num_examples: int) -> list[Int64[np.ndarray, "_"]]:
    """Reads a partition that somebody published, and checks all of it.

    The file may leave examples out. Indices come back in ascending order, whatever theirs was. It
    may have `BYTES_AN_INDEX` for each example there is, and `BYTES_BESIDE`.

    Args:
      path: data.partition.path, the JSON file.
      num_examples: n, the training examples there are.
    Returns:
      N arrays of example indices.
    Raises:
      ValueError: a file that cannot be read, is not a list of lists, or holds an empty client,
        anything but whole numbers from 0 to n - 1, or an index twice.
    """
    if not path:
        raise ValueError("data.partition.path is not set; name the JSON file of the partition")
    clients = _read(path, BYTES_AN_INDEX * num_examples + BYTES_BESIDE)
    if not isinstance(clients, list) or not clients:
        raise _wrong(path, "is not a list with one list of example indices for each client")
    for client, indices in enumerate(clients):
        _check_client(path, client, indices, num_examples)
    partition = [np.sort(np.array(indices, np.int64)) for indices in clients]
    _check_disjoint(path, partition)
    return partition


def to_json(partition: list[Int[np.ndarray, "_"]]) -> str:
    """The text of `partition.json`: one line without spaces, the same for the same partition."""
    return json.dumps([indices.tolist() for indices in partition], separators=(",", ":"))


def sha256(partition: list[Int[np.ndarray, "_"]]) -> str:
    """Hexadecimal SHA-256 of the bytes of `to_json`, the name of a partition."""
    return hashlib.sha256(to_json(partition).encode("ascii")).hexdigest()


def _read(path, most_bytes):
    try:
        return read_json(path, most_bytes)
    except OutsideError as error:
        raise ValueError(one_line(f"data.partition.path: {path} {error}")) from error


def _check_client(path, client, indices, num_examples):
    if not isinstance(indices, list) or not indices:
        kind = "no examples" if indices == [] else f"{show(indices)} in place of a list"
        raise _wrong(path, f"has {kind} for client {client}")
    for index in indices:
        if type(index) is not int:                              # true is an int, but no index
            raise _wrong(path, f"has {show(index)} among the examples of client {client}, which "
                               "must be whole numbers")
        if not 0 <= index < num_examples:
            raise _wrong(path, f"gives client {client} example {show(index)}, but there are "
                               f"{num_examples} examples, numbered from 0")


def _check_disjoint(path, partition):
    indices = np.concatenate(partition)
    holder = np.repeat(np.arange(len(partition)), [len(client) for client in partition])
    order = np.argsort(indices, kind="stable")
    again = np.flatnonzero(np.diff(indices[order]) == 0)
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        raise _wrong(path, f"gives example {indices[first]} twice, to clients {holder[first]} and "
                           f"{holder[second]}")


def _wrong(path, what):
    line = f"data.partition.path: {path} {what}; correct the file or name another"
    return ValueError(one_line(line))
