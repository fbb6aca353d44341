"""Clusters equal in size within one, improved by swaps; ours."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Real

from cefl_jax.stages.clustering.divergence import target_distribution
from cefl_jax.stages.clustering.greedy import clusters_of, greedy_fill
from cefl_jax.stages.clustering.swaps import swap_until_none_helps
from cefl_jax.types import AnyArray, Count


def balanced_start(
    label_counts: Real[AnyArray, "K Y"],
    num_clusters: int,
    target: Float[AnyArray, "Y"] | None = None,
    num_present: Count | None = None,
) -> Int32[Array, "K"]:
    """Fills clusters greedily, in sizes equal within one; `balanced_clusters` starts there.

    The clusters take turns, the lowest number first; each takes the free client that gives it the
    smallest divergence from the target. Ties (within `TIE_NATS`) go to the first client.

    Args:
      label_counts: i32 or f32[K, Y] examples of each label at each client.
      num_clusters: static M >= 1.
      target: f32[Y] distribution with no zero where any client has examples; None for the pooled
        labels of these clients.
      num_present: i32[] clients, in the first places; None for K. Labels of the places after them
        are not to be counted: rows of zeros.
    Returns:
      i32[K] cluster of each client, -1 where nobody is; of P clients present, the first P % M
      clusters have one member more.
    """
    _, _, client = _seat(label_counts, num_clusters, target, num_present)
    return _leave_seats(client, num_clusters, label_counts.shape[0])


def balanced_clusters(
    label_counts: Real[AnyArray, "K Y"],
    num_clusters: int,
    target: Float[AnyArray, "Y"] | None = None,
    num_present: Count | None = None,
) -> Int32[Array, "K"]:
    """Returns clusters equal in size within one, improved by swaps until no swap helps.

    From `balanced_start`, the swap of two clients of different clusters that lowers the sum of the
    clusters' divergences from the target most is made, again and again, while it lowers the
    sum by more than `TIE_NATS`. Ties go to the first pair.

    Args:
      label_counts: i32 or f32[K, Y] examples of each label at each client.
      num_clusters: static M >= 1.
      target: f32[Y] distribution with no zero where any client has examples; None for the pooled
        labels of these clients.
      num_present: i32[] clients, in the first places; None for K. Labels of the places after them
        are not to be counted: rows of zeros.
    Returns:
      i32[K] cluster of each client, -1 where nobody is.
    """
    counts, target, client = _seat(label_counts, num_clusters, target, num_present)
    if counts.shape[0] > 1:
        client = swap_until_none_helps(counts, target, client, num_clusters)
    return _leave_seats(client, num_clusters, counts.shape[0])


def _seat(label_counts, num_clusters, target, num_present):
    """Returns counts and target, and the greedy fill as clients by seats, i32[M * W]."""
    counts = jnp.asarray(label_counts, jnp.float32)
    target = target_distribution(counts, "global") if target is None else target
    num_clients = counts.shape[0]
    owner = jnp.arange(num_clients) % num_clusters
    taken = greedy_fill(counts, target, num_clusters, owner, num_present)
    empty = -num_clients % num_clusters
    taken = jnp.pad(taken, (0, empty), constant_values=num_clients)
    return counts, target, taken.reshape(-1, num_clusters).T.ravel()


def _leave_seats(client, num_clusters, num_clients):
    """Returns the cluster of each client, i32[K], from clients by seats."""
    seats = jnp.arange(client.shape[0])
    return clusters_of(client, seats // max(client.shape[0] // num_clusters, 1), num_clients)
