"""The random draws behind skewed partitions, and the repairs that make one draw always enough.

The published constructions draw again until every client has enough examples, which for a strong
skew never ends. Here each is drawn once, and what falls short is then repaired by a fixed rule.
"""

import bisect

import numpy as np
from jaxtyping import Bool, Int64

_EVEN_ALPHA = 1e100  # beyond every rounding the shares are even here; far above, NumPy overflows


def deal(
    rng: np.random.Generator, alpha: float, num_examples: int, num_clients: int
) -> Int64[np.ndarray, "n"]:
    """Gives examples to clients in random order and in shares ~ Dirichlet(alpha, ..., alpha).

    The shares are drawn once. Client j takes the examples between the shares cumulated before and
    after it, each bound rounded to the nearest example.

    Args:
      rng: np.random.Generator.
      alpha: concentration, finite and above 0.
      num_examples: n >= 0.
      num_clients: N >= 1.
    Returns:
      i64[n] client of each example.
    """
    shares = rng.dirichlet(np.full(num_clients, min(alpha, _EVEN_ALPHA)))
    bounds = np.rint(np.cumsum(shares) * num_examples).astype(np.int64)
    return rng.permutation(np.repeat(np.arange(num_clients), np.diff(bounds, prepend=0)))


def raise_to_min_size(
    rng: np.random.Generator, owner: Int64[np.ndarray, "n"], num_clients: int, min_size: int
) -> Int64[np.ndarray, "n"]:
    """Moves examples from the largest clients to those with fewer than `min_size`.

    The missing examples are taken one at a time from whichever client is then the largest (ties:
    the first). Which of its examples a client gives is drawn at random. They are handed out in the
    order of the givers to the needy in the order of the clients, so that each needy client is
    filled by few givers and stays nearly as skewed as they are.

    Args:
      rng: np.random.Generator.
      owner: i64[n] client of each example.
      num_clients: N, with N * min_size <= n.
      min_size: least examples of a client.
    Returns:
      i64[n] client of each example, `min_size` or more for each.
    """
    size = np.bincount(owner, minlength=num_clients)
    need = np.maximum(min_size - size, 0)
    order = rng.permutation(len(owner))
    order = order[np.argsort(owner[order], kind="stable")]  # by client, shuffled within each
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size)
    moved = order[rank < np.repeat(_taken_from_largest(size, need.sum()), size)]
    owner = owner.copy()
    owner[moved] = np.repeat(np.arange(num_clients), need)
    return owner


def _taken_from_largest(size, total):
    """How many each client gives when `total` examples are taken one by one from the largest."""

    def surplus(level):
        return np.maximum(size - level, 0).sum()

    level = bisect.bisect_left(range(size.max()), True, key=lambda it: surplus(it) <= total)
    given = np.maximum(size - level, 0)
    given[np.flatnonzero(size >= level)[: total - surplus(level)]] += 1
    return given


def allocate_labels(
    rng: np.random.Generator,
    num_clients: int,
    labels_per_client: int,
    fewest: Int64[np.ndarray, "Y"],
    most: Int64[np.ndarray, "Y"],
) -> Bool[np.ndarray, "N Y"]:
    """Gives each client `labels_per_client` different labels, uniformly, within bounds per label.

    Drawn once. Then, while a label has more clients than `most` allows, one client exchanges it for
    the label with the most room; and while a label has fewer than `fewest`, one client takes it for
    the label that is furthest above its own bound (ties: the first label, the first client).

    Args:
      rng: np.random.Generator.
      num_clients: N.
      labels_per_client: C <= Y.
      fewest: i64[Y] least clients of each label, at most N * C in all.
      most: i64[Y] most clients of each label, between `fewest` and N, at least N * C in all.
    Returns:
      bool[N, Y], true where a client has a label; C in each row.
    """
    rank = rng.random((num_clients, len(most))).argsort(axis=1).argsort(axis=1)
    holds = rank < labels_per_client
    count = holds.sum(axis=0)
    while (count > most).any() or (count < fewest).any():
        if (count > most).any():
            source, target = np.argmax(count - most), np.argmax(most - count)
        else:
            source, target = np.argmax(count - fewest), np.argmax(fewest - count)
        _exchange(holds, source, target)
        count = holds.sum(axis=0)
    return holds


def _exchange(holds, source, target):
    """Takes `source` from one client and gives `target` to one, who may be another."""
    able = holds[:, source] & ~holds[:, target]
    if able.any():
        holds[np.argmax(able), [source, target]] = False, True
        return
    # Whoever has `source` has `target` too. So a client without `target` has neither, and thereby
    # some third label that a client with both lacks: that one moves between them.
    giver, taker = np.argmax(holds[:, source]), np.argmin(holds[:, target])
    third = np.argmax(holds[taker] & ~holds[giver])
    holds[giver, [source, third]] = False, True
    holds[taker, [third, target]] = False, True
