"""Which client holds which examples.

Every function here returns a list of N arrays, the ascending indices of each client's
examples: no index twice, no client empty, and the same for the same arguments. All but `from_file`
use every example. What cannot be done is a one-line ValueError that names the field; so is a number
of the wrong kind, and therefore they are `Any`.

NumPy may change its random streams from one version to another, so that a seed alone does not name
a partition for ever. The JSON text of a partition does, and `from_file` reads it back.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from cefl_jax.data import skew
from cefl_jax.data.partition_file import from_file, sha256, to_json

__all__ = [
    "dirichlet",
    "extended_dirichlet",
    "from_file",
    "iid",
    "quantity_skew",
    "sha256",
    "shards",
    "to_json",
]


def iid(
    labels: Sequence[int] | np.ndarray, num_clients: Any, seed: Any
) -> list[Int64[np.ndarray, "_"]]:
    """Shuffled examples in N parts, equal in size within one.

    Args:
      labels: i64[n] label of each example.
      num_clients: N.
      seed: whole number.
    Returns:
      N arrays of example indices.
    Raises:
      ValueError: fewer examples than clients, or an argument of the wrong kind.
    """
    labels = _checked_labels(labels, num_clients)
    num_examples = len(labels)
    order = _generator(seed).permutation(num_examples)
    owner = np.empty(num_examples, np.int64)
    owner[order] = np.arange(num_examples) * num_clients // num_examples
    return _by_client(owner, num_clients)


def dirichlet(
    labels: Sequence[int] | np.ndarray, num_clients: Any, alpha: Any, seed: Any, min_size: Any = 10
) -> list[Int64[np.ndarray, "_"]]:
    """Each label's examples in shares ~ Dirichlet(alpha) over the clients.

    Small alpha: few clients share a label, and sizes differ widely; large alpha: as iid. Drawn
    once, for any alpha; then `skew.raise_to_min_size` moves examples from the largest clients to
    those with fewer than `min_size`. As in the articles' text, and unlike the code released with
    them, a client is not passed over once it holds n / N examples.

    Args:
      labels: i64[n] label of each example.
      num_clients: N.
      alpha: concentration, finite and above 0.
      seed: whole number.
      min_size: least examples of a client.
    Returns:
      N arrays of example indices.
    Raises:
      ValueError: N * min_size > n, or an argument of the wrong kind.
    Reference: Yurochkin et al., Bayesian Nonparametric Federated Learning of Neural Networks, ICML
      2019, section 4; Li et al., Federated Learning on Non-IID Data Silos (NIID-Bench), ICDE 2022,
      distribution-based label imbalance.
    """
    labels = _checked_labels(labels, num_clients, min_size)
    _check_alpha(alpha)
    rng = _generator(seed)
    owner = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        examples = np.flatnonzero(labels == label)
        owner[examples] = skew.deal(rng, alpha, len(examples), num_clients)
    return _by_client(skew.raise_to_min_size(rng, owner, num_clients, min_size), num_clients)


def shards(
    labels: Sequence[int] | np.ndarray, num_clients: Any, labels_per_client: Any, seed: Any
) -> list[Int64[np.ndarray, "_"]]:
    """Examples sorted by label in N * C shards, C of them at random to each client.

    Shards are equal in size within one, and examples of one label stay in order. A shard that lies
    across the border of two labels holds both, so that a client may hold more than C labels where
    the shards do not divide the labels; and fewer where two of its shards are of one label.

    Args:
      labels: i64[n] label of each example.
      num_clients: N.
      labels_per_client: C, the shards of a client.
      seed: whole number.
    Returns:
      N arrays of example indices.
    Raises:
      ValueError: C above the number of labels, N * C > n, or an argument of the wrong kind.
    Reference: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized
      Data, AISTATS 2017, section 3.
    """
    labels = _checked_labels(labels, num_clients)
    _check_labels_per_client(labels_per_client, len(np.unique(labels)))
    num_shards = num_clients * labels_per_client
    if num_shards > len(labels):
        raise ValueError(
            f"{len(labels)} examples do not make {num_clients} x {labels_per_client} "
            "shards; lower data.partition.num_clients or labels_per_client"
        )
    holder = _generator(seed).permutation(num_shards) // labels_per_client
    shard = np.arange(len(labels)) * num_shards // len(labels)
    owner = np.empty(len(labels), np.int64)
    owner[np.argsort(labels, kind="stable")] = holder[shard]
    return _by_client(owner, num_clients)


def extended_dirichlet(
    labels: Sequence[int] | np.ndarray,
    num_clients: Any,
    labels_per_client: Any,
    alpha: Any,
    seed: Any,
    min_size: Any = 1,
) -> list[Int64[np.ndarray, "_"]]:
    """C labels to each client; each label's examples in shares ~ Dirichlet(alpha) over its clients.

    Every client holds examples of exactly C labels. Each label goes to at least a fifth of the
    clients that an even allocation would give it, as in the code of the reference, and to one at
    least. Both steps are drawn once and then repaired: `skew.allocate_labels` exchanges labels,
    and within a label `skew.raise_to_min_size` gives each of its clients min_size / C, rounded up.

    Args:
      labels: i64[n] label of each example.
      num_clients: N.
      labels_per_client: C.
      alpha: concentration, finite and above 0.
      seed: whole number.
      min_size: least examples of a client.
    Returns:
      N arrays of example indices.
    Raises:
      ValueError: C above the number of labels Y, N * C < Y, too few examples, or an argument of the
        wrong kind.
    Reference: Li and Lyu, Convergence Analysis of Sequential Federated Learning on Heterogeneous
      Data, NeurIPS 2023, the Extended Dirichlet strategy of its appendix.
    """
    labels = _checked_labels(labels, num_clients, min_size)
    _check_alpha(alpha)
    kinds, available = np.unique(labels, return_counts=True)
    _check_labels_per_client(labels_per_client, len(kinds))
    least = -(-min_size // labels_per_client)
    fewest, most = _clients_per_label(available, num_clients, labels_per_client, least)
    rng = _generator(seed)
    holds = skew.allocate_labels(rng, num_clients, labels_per_client, fewest, most)
    owner = np.empty(len(labels), np.int64)
    for label, holders in zip(kinds, holds.T, strict=True):
        examples, clients = np.flatnonzero(labels == label), np.flatnonzero(holders)
        dealt = skew.deal(rng, alpha, len(examples), len(clients))
        owner[examples] = clients[skew.raise_to_min_size(rng, dealt, len(clients), least)]
    return _by_client(owner, num_clients)


def quantity_skew(
    labels: Sequence[int] | np.ndarray, num_clients: Any, alpha: Any, seed: Any, min_size: Any = 10
) -> list[Int64[np.ndarray, "_"]]:
    """Client sizes ~ n * Dirichlet(alpha), whatever the labels.

    Drawn once, for any alpha, and repaired as in `dirichlet`.

    Args:
      labels: i64[n] label of each example; only their number counts.
      num_clients: N.
      alpha: concentration, finite and above 0.
      seed: whole number.
      min_size: least examples of a client.
    Returns:
      N arrays of example indices.
    Raises:
      ValueError: N * min_size > n, or an argument of the wrong kind.
    Reference: Li et al., NIID-Bench, ICDE 2022, quantity skew.
    """
    labels = _checked_labels(labels, num_clients, min_size)
    _check_alpha(alpha)
    rng = _generator(seed)
    owner = skew.deal(rng, alpha, len(labels), num_clients)
    return _by_client(skew.raise_to_min_size(rng, owner, num_clients, min_size), num_clients)


def _by_client(owner, num_clients):
    """The ascending example indices of each client."""
    by_client = np.argsort(owner, kind="stable").astype(np.int64)
    return np.split(by_client, np.cumsum(np.bincount(owner, minlength=num_clients))[:-1])


def _checked_labels(
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


def _check_labels_per_client(labels_per_client: Any, num_labels: int) -> None:
    """Refuses more labels for a client than there are."""
    _check_whole("labels_per_client", labels_per_client)
    if labels_per_client > num_labels:
        raise ValueError(
            f"data.partition.labels_per_client is {labels_per_client}, but the data "
            f"has {num_labels} labels; lower it to that or below"
        )


def _clients_per_label(
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


def _check_alpha(alpha: Any) -> None:
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


def _generator(seed: Any) -> np.random.Generator:
    """The stream of random numbers of a seed."""
    _check_whole("seed", seed, least=0)
    return np.random.default_rng(seed)
