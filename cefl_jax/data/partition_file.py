"""Partitions as JSON text: a list with one list of example indices for each client, or a mapping
from the clients' ids to such lists.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int64

from cefl_jax.data.partition_checks import FormError, checked_parts
from cefl_jax.safe_read import InputFileError, expand_user, one_line, parse_json, read_bytes

BYTES_AN_INDEX = 64  # of a file at most, its line's white space included
BYTES_BESIDE = 2**20

DUMP = "with json.dump([[int(i) for i in part] for part in parts], file)"


def from_file(path: str | Path | None, num_examples: int) -> list[Int64[np.ndarray, "_"]]:
    """Reads a partition that somebody published, and checks all of it.

    The file is JSON: `[[0, 5], [1]]`, or `{"0": [0, 5], "1": [1]}`, whose clients come in the order
    of the numbers that their ids are. It may leave examples out. Indices come back in ascending
    order, whatever theirs was. It may have `BYTES_AN_INDEX` for each example there is, and
    `BYTES_BESIDE`.

    Args:
      path: data.partition.path, the JSON file.
      num_examples: n, the training examples there are.
    Returns:
      N arrays of example indices.
    Raises:
      ValueError: a file that cannot be read, is neither such a list nor such a mapping, or holds an
        empty client, anything but whole numbers from 0 to n - 1, or an index twice.
    """
    if not path:
        raise ValueError("data.partition.path is not set; name the JSON file of the partition")
    path = expand_user(path)
    try:
        content = read_bytes(path, BYTES_AN_INDEX * num_examples + BYTES_BESIDE)
    except InputFileError as error:
        raise _wrong(path, error) from error
    try:
        parts = parse_json(content)
    except InputFileError as error:
        raise _wrong(path, f"{error}, for example {DUMP}") from error
    try:
        return checked_parts(parts, num_examples)
    except InputFileError as error:
        is_form = isinstance(error, FormError)
        remedy = f"write it {DUMP}" if is_form else "correct the file or name another"
        raise _wrong(path, f"{error}; {remedy}") from error


def to_json(partition: list[Int[np.ndarray, "_"]]) -> str:
    """The text of `partition.json`: one line without spaces, the same for the same partition."""
    return json.dumps([indices.tolist() for indices in partition], separators=(",", ":"))


def sha256(partition: list[Int[np.ndarray, "_"]]) -> str:
    """Hexadecimal SHA-256 of the bytes of `to_json`, the name of a partition."""
    return hashlib.sha256(to_json(partition).encode("ascii")).hexdigest()


def _wrong(path, what):
    return ValueError(one_line(f"data.partition.path: {path} {what}"))
