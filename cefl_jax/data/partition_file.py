"""Partitions that somebody else made, checked whole, and their JSON text.

A partition is a list with one list of example indices for each client, or a mapping from the
clients' ids to such lists.
"""

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from cefl_jax.safe_read import InputFileError, expand_user, one_line, parse_json, read_bytes, show

BYTES_AN_INDEX = 64  # of a file at most, its line's white space included
BYTES_BESIDE = 2**20
MAX_DIGITS = 18  # of a client's id

DUMP = "with json.dump([[int(i) for i in part] for part in parts], file)"


class FormError(InputFileError):
    """What should be a partition has another form than any that is taken."""


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


def checked_parts(parts: Any, num_examples: int) -> list[Int64[np.ndarray, "_"]]:
    """Returns the example indices of each client in ascending order, and checks all of them.

    Args:
      parts: for each client a list, range or array of its example indices, in any order, in a
        list or array; or in a mapping from the clients' ids, which are put in the order of their
        numbers. Examples may be left out.
      num_examples: n, the training examples there are.
    Returns:
      N arrays i64, none empty.
    Raises:
      InputFileError: no clients, an empty one, anything but whole numbers from 0 to n - 1, or an
        index twice; the line goes on after the name of what was given.
    """
    ids, parts = _by_id(parts)
    given = [_indices(*pair, num_examples) for pair in zip(ids, parts, strict=True)]
    sizes, indices = [len(part) for part in given], np.concatenate(given)
    holder = np.repeat(np.arange(len(ids)), sizes)
    order = np.argsort(indices, kind="stable")
    again = np.flatnonzero(np.diff(indices[order]) == 0)
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        raise InputFileError(
            f"gives example {indices[first]} twice, to clients "
            f"{ids[holder[first]]} and {ids[holder[second]]}"
        )
    order = order[np.argsort(holder[order], kind="stable")]  # by client, ascending within each
    return np.split(indices[order], np.cumsum(sizes)[:-1])


def _by_id(parts):
    """The clients' ids, and what was given for each of them."""
    parts = [*parts] if isinstance(parts, np.ndarray) and parts.ndim else parts
    if isinstance(parts, dict):
        numbers = [_number(key) for key in parts]
        if parts and None not in numbers:
            order = sorted(range(len(numbers)), key=numbers.__getitem__)
            keys, values = [*parts], [*parts.values()]
            for one, other in itertools.pairwise(order):
                if numbers[one] == numbers[other]:
                    raise InputFileError(
                        f"names client {numbers[one]} twice, as {show(keys[one])} "
                        f"and {show(keys[other])}"
                    )
            return [numbers[i] for i in order], [values[i] for i in order]
    elif isinstance(parts, (list, tuple)) and parts:
        return range(len(parts)), parts
    raise FormError(
        "is neither a list with one list of example indices for each client, such "
        'as [[0, 5], [1]], nor a mapping such as {"0": [0, 5], "1": [1]}'
    )


def _number(key):
    """The number of a client's id, or None where it is none."""
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return int(key)
    is_number = isinstance(key, str) and key.isascii() and key.isdigit()
    return int(key) if is_number and len(key) <= MAX_DIGITS else None


def _indices(client, part, num_examples):
    """The example indices of one client, i64[n_k], each of them that of an example."""
    if np.ma.is_masked(part):
        raise InputFileError(f"has masked indices for client {client}, which must be whole numbers")
    if isinstance(part, range) or (hasattr(part, "__array__") and np.ndim(part)):
        part = np.asarray(part)
        if part.ndim != 1 or (part.dtype.kind not in "iu" and part.size):
            raise InputFileError(
                f"has {part.dtype!s:.40}{[*part.shape]} for client {client}, which "
                "must be whole numbers in one axis"
            )
        in_range = not part.size or (part.min() >= 0 and part.max() < num_examples)
        beyond = [] if in_range else part[(part < 0) | (part >= num_examples)].tolist()
    elif isinstance(part, (list, tuple)):
        for index in part:
            if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
                raise InputFileError(
                    f"has {show(index)} among the examples of client {client}, "
                    "which must be whole numbers"
                )
        beyond = [int(index) for index in part if not 0 <= index < num_examples]
    else:
        raise FormError(f"has {show(part)} in place of a list for client {client}")
    if beyond:
        raise InputFileError(
            f"gives client {client} example {show(beyond[0])}, but there are "
            f"{num_examples} examples, numbered from 0"
        )
    if not len(part):
        raise InputFileError(f"has no examples for client {client}")
    return np.asarray(part, np.int64)


def _wrong(path, what):
    return ValueError(one_line(f"data.partition.path: {path} {what}"))
