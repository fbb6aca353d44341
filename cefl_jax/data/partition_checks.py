"""What may be asked of a partition, and what one may be: a check passes, or says in one line what
to change.
"""

import itertools
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from cefl_jax.safe_read import InputFileError, show

MOST_DIGITS = 18  # of a client's id


class FormError(InputFileError):
    """What should be a partition has another form than any that is taken."""


def checked_labels(
    labels: Sequence[int] | np.ndarray, num_clients: Any, min_size: Any = 1
) -> Integer[np.ndarray, "n"]:
    """The labels as an array, when there are enough for the clients."""
    if np.ma.is_masked(labels):
        raise ValueError("labels are masked in places; leave those examples out, or fill them")
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels are {labels.dtype}{list(labels.shape)}; they must be whole "
            "numbers in one axis, one for each example"
        )
    _check_whole("num_clients", num_clients)
    _check_whole("min_size", min_size)
    if num_clients * min_size > len(labels):
        raise ValueError(
            f"data.partition.num_clients is {num_clients}, but {len(labels)} examples "
            f"give {min_size} or more each to at most {len(labels) // min_size} "
            "clients; lower num_clients or data.partition.min_size"
        )
    return labels


def check_labels_per_client(labels_per_client: Any, num_labels: int) -> None:
    """Refuses more labels for a client than there are."""
    _check_whole("labels_per_client", labels_per_client)
    if labels_per_client > num_labels:
        raise ValueError(
            f"data.partition.labels_per_client is {labels_per_client}, but the data "
            f"has {num_labels} labels; lower it to that or below"
        )


def clients_per_label(
    available: Int64[np.ndarray, "Y"], num_clients: int, labels_per_client: int, least: int
) -> tuple[Int64[np.ndarray, "Y"], Int64[np.ndarray, "Y"]]:
    """Least and most clients that may hold each label, when that is possible."""
    places = num_clients * labels_per_client
    most = np.minimum(available // least, num_clients)
    if places < len(available):
        raise ValueError(
            f"{num_clients} clients with {labels_per_client} labels each leave some "
            f"of the {len(available)} labels to nobody; raise "
            "data.partition.num_clients or labels_per_client"
        )
    if most.sum() < places or most.min() == 0:
        raise ValueError(
            f"{num_clients} clients cannot each hold {labels_per_client} labels with "
            f"{least} or more examples of each, for the data has room for "
            f"{most.sum()} of these {places} and the rarest label for {most.min()}; "
            "lower data.partition.num_clients, labels_per_client or min_size"
        )
    return np.minimum(max(places // len(available) // 5, 1), most), most


def check_alpha(alpha: Any) -> None:
    """Refuses a concentration that no Dirichlet distribution has."""
    if not _is_number(alpha, numbers.Real) or not 0 < alpha < math.inf:
        raise ValueError(
            f"data.partition.alpha is {alpha!r}; it must be a finite number above 0, "
            "such as 0.1 for a strong skew or 100 for nearly none"
        )


def _check_whole(field, value, least=1):
    if not _is_number(value, numbers.Integral) or value < least:
        raise ValueError(
            f"data.partition.{field} is {value!r}; it must be a whole number of {least} or more"
        )


def _is_number(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)


def generator(seed: Any) -> np.random.Generator:
    """The stream of random numbers of a seed."""
    _check_whole("seed", seed, least=0)
    return np.random.default_rng(seed)


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
    return int(key) if is_number and len(key) <= MOST_DIGITS else None


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
