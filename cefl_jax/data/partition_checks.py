"""What may be asked of a partition: a check passes, or says in one line what to change."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer


def checked_labels(
    labels: Sequence[int] | np.ndarray, num_clients: Any, min_size: Any = 1
) -> Integer[np.ndarray, "n"]:
    """The labels as an array, when there are enough for the clients."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}{list(labels.shape)}; they must be whole "
                         "numbers in one axis, one for each example")
    _check_whole("num_clients", num_clients)
    _check_whole("min_size", min_size)
    if num_clients * min_size > len(labels):
        raise ValueError(f"data.partition.num_clients is {num_clients}, but {len(labels)} examples "
                         f"give {min_size} or more each to at most {len(labels) // min_size} "
                         "clients; lower num_clients or data.partition.min_size")
    return labels


def check_labels_per_client(labels_per_client: Any, num_labels: int) -> None:
    """Refuses more labels for a client than there are."""
    _check_whole("labels_per_client", labels_per_client)
    if labels_per_client > num_labels:
        raise ValueError(f"data.partition.labels_per_client is {labels_per_client}, but the data "
                         f"has {num_labels} labels; lower it to that or below")


def clients_per_label(
    available: Int64[np.ndarray, "Y"], num_clients: int, labels_per_client: int, least: int
) -> tuple[Int64[np.ndarray, "Y"], Int64[np.ndarray, "Y"]]:
    """Least and most clients that may hold each label, when that is possible."""
    places = num_clients * labels_per_client
    most = np.minimum(available // least, num_clients)
    if places < len(available):
        raise ValueError(f"{num_clients} clients with {labels_per_client} labels each leave some "
                         f"of the {len(available)} labels to nobody; raise "
                         "data.partition.num_clients or labels_per_client")
    if most.sum() < places or most.min() == 0:
        raise ValueError(f"{num_clients} clients cannot each hold {labels_per_client} labels with "
                         f"{least} or more examples of each, for the data has room for "
                         f"{most.sum()} of these {places} and the rarest label for {most.min()}; "
                         "lower data.partition.num_clients, labels_per_client or min_size")
    return np.minimum(max(places // len(available) // 5, 1), most), most


def check_alpha(alpha: Any) -> None:
    """Refuses a concentration that no Dirichlet distribution has."""
    if not _is_number(alpha, numbers.Real) or not 0 < alpha < math.inf:
        raise ValueError(f"data.partition.alpha is {alpha!r}; it must be a finite number above 0, "
                         "such as 0.1 for a strong skew or 100 for nearly none")


def _check_whole(field, value, least=1):
    if not _is_number(value, numbers.Integral) or value < least:
        raise ValueError(f"data.partition.{field} is {value!r}; it must be a whole number of "
                         f"{least} or more")


def _is_number(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)


def generator(seed: Any) -> np.random.Generator:
    """The stream of random numbers of a seed."""
    _check_whole("seed", seed, least=0)
    return np.random.default_rng(seed)
