"""Clusters filled one after another: the rule of the source, and Astraea's."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Real

from cefl_jax.stages.clustering.divergence import (
    TIE_NATS,
    divergence,
    first_smallest,
    number_clients,
)
from cefl_jax.types import AnyArray, Count


def patent_clusters(
    label_counts: Real[AnyArray, "K Y"],
    num_clusters: int,
    min_size: int,
    target: Float[AnyArray, "Y"],
    max_size: int | None = None,
    num_present: Count | None = None,
) -> Int32[Array, "K"]:
    """Fills clusters one after another with the clients that lower their divergence.

    A new cluster is empty and has divergence infinity. The remaining clients are walked once, in
    order; a client joins when the cluster's divergence would decrease, and the cluster is updated
    at once. Then, while the cluster has fewer than `min_size` members, the client that gives the
    smallest divergence is added. As soon as fewer than `min_size` clients remain, and for whatever
    remains after the last cluster, each remaining client in order joins the cluster whose
    divergence changes least. So fewer than `num_clusters` clusters may form, numbered from 0.

    Ties (within `TIE_NATS`) are no decrease, and go to the first client or cluster. A cluster
    whose members have no examples keeps divergence infinity; infinity to infinity is no change.
    With fewer clients than `min_size` every client therefore ends in cluster 0.

    Args:
      label_counts: i32 or f32[K, Y] examples of each label at each client, in sampling order.
      num_clusters: static M >= 1, the most clusters that may form.
      min_size: static, least members of a cluster, >= 1.
      target: f32[Y] distribution with no zero where any client has examples.
      max_size: static, the walk for a cluster ends when it has this many members; None for no
        limit. The clients left over at the end may exceed it.
      num_present: i32[] clients, in the first places; None for K. Labels of the places after them
        are not to be counted: rows of zeros.
    Returns:
      i32[K] cluster of each client, -1 where nobody is.
    Raises:
      ValueError: on a size that is not positive, or `max_size` < `min_size`.
    Reference:
      The source text, paragraphs 12 to 16.
    """
    num_clients = label_counts.shape[0]
    most = num_clients if max_size is None else max_size
    if num_clusters < 1 or min_size < 1 or (max_size is not None and max_size < min_size):
        raise ValueError(
            f"num_clusters={num_clusters}, min_size={min_size}, max_size={max_size}: "
            "need num_clusters >= 1 and 1 <= min_size <= max_size"
        )
    counts = jnp.asarray(label_counts, jnp.float32)
    nobody = jnp.full(num_clients, -1, jnp.int32)
    if num_clients == 0:
        return nobody
    present = number_clients(num_clients, num_present) >= 0

    def place(walk):
        return _place_next(counts, target, min_size, most, present & (walk.cluster < 0), walk)

    first = jnp.where(present.sum() < min_size, num_clusters, 0)
    nothing = jnp.zeros((num_clusters, counts.shape[1]))
    walk = _Walk(nobody, nothing, first, jnp.int32(0), jnp.float32(jnp.inf))
    walk = jax.lax.while_loop(lambda walk: (present & (walk.cluster < 0)).any(), place, walk)
    return walk.cluster


def astraea_clusters(
    label_counts: Real[AnyArray, "K Y"],
    num_clusters: int,
    max_size: int | None,
    target: Float[AnyArray, "Y"],
    num_present: Count | None = None,
) -> Int32[Array, "K"]:
    """Fills clusters one after another, each time with the client that minimises the divergence.

    A cluster is full at `max_size` members. Ties (within `TIE_NATS`) go to the first client.

    Args:
      label_counts: i32 or f32[K, Y] examples of each label at each client.
      num_clusters: static M, with M * `max_size` >= K.
      max_size: static, members of a full cluster; None for the clients / M, rounded up.
      target: f32[Y] distribution with no zero where any client has examples.
      num_present: i32[] clients, in the first places; None for K. Labels of the places after them
        are not to be counted: rows of zeros.
    Returns:
      i32[K] cluster of each client, -1 where nobody is.
    Raises:
      ValueError: when the clusters cannot hold all clients.
    Reference:
      Duan et al., Astraea, ICCD 2019, algorithm 3.
    """
    num_clients = label_counts.shape[0]
    if max_size is not None and num_clusters * max_size < num_clients:
        raise ValueError(
            f"{num_clusters} clusters of at most {max_size} cannot hold {num_clients} clients; "
            "raise clustering.num_clusters or clustering.max_size"
        )
    counts = jnp.asarray(label_counts, jnp.float32)
    most: Any = max_size
    if most is None:
        members = num_clients if num_present is None else num_present
        most = jnp.maximum(-(-members // num_clusters), 1)
    owner = jnp.arange(num_clients, dtype=jnp.int32) // most
    taken = greedy_fill(counts, target, num_clusters, owner, num_present)
    return clusters_of(taken, owner, num_clients)


class _Walk(NamedTuple):
    """How far the clusters are filled."""

    cluster: Int32[Array, "K"]  # -1 for a client without one
    pooled: Float32[Array, "M Y"]
    m: Int32[Array, ""]  # being filled; M: the others join whichever changes least
    here: Int32[Array, ""]  # the walk goes on from this client; K: it is over
    current: Float32[Array, ""]  # divergence of cluster m


def _place_next(counts, target, min_size, most, free, walk):
    """Puts the next client into its cluster, or goes to the next cluster where none joins."""
    num_clients, num_clusters = counts.shape[0], walk.pooled.shape[0]
    clients, clusters = jnp.arange(num_clients), jnp.arange(num_clusters)
    size = (walk.cluster == walk.m).sum()
    joined = divergence(walk.pooled[walk.m][None] + counts, target, empty=jnp.inf)  # [K]
    joins = free & (clients >= walk.here) & (joined < walk.current - TIE_NATS) & (size < most)
    walking, left_over = joins.any(), walk.m == num_clusters
    k = jnp.where(walking, jnp.argmax(joins), first_smallest(joined, free))
    k = jnp.where(left_over, jnp.argmax(free), k)
    before = divergence(walk.pooled, target, empty=jnp.inf)  # [M]
    after = divergence(walk.pooled + counts[k][None], target, empty=jnp.inf)
    change = jnp.where(before == after, 0.0, jnp.abs(after - before))
    least = first_smallest(change, jnp.ones(num_clusters, bool))
    m = jnp.where(left_over, least, walk.m)
    placed = left_over | walking | (size < min_size)
    enough = free.sum() >= min_size
    return _Walk(
        cluster=jnp.where(placed & (clients == k), m, walk.cluster),
        pooled=walk.pooled + jnp.where((placed & (clusters == m))[:, None], counts[k][None], 0.0),
        m=jnp.where(placed, walk.m, jnp.where(enough, walk.m + 1, num_clusters)),
        here=jnp.where(placed, jnp.where(walking, k + 1, num_clients), 0),
        current=jnp.where(placed, joined[k], jnp.inf),
    )


def greedy_fill(
    counts: Float32[Array, "K Y"],
    target: Float[AnyArray, "Y"],
    num_clusters: int,
    owner: Int32[Array, "K"],
    num_present: Count | None,
) -> Int32[Array, "K"]:
    """Lets clusters take the free client that gives them the smallest divergence, in a given order.

    Ties (within `TIE_NATS`) go to the first client.

    Args:
      counts: f32[K, Y] examples of each label at each client.
      target: f32[Y] distribution with no zero where any client has examples.
      num_clusters: static M.
      owner: i32[K] cluster that takes the next client, K times.
      num_present: i32[] clients, in the first places; None for K. Labels of the places after them
        are not to be counted: rows of zeros.
    Returns:
      i32[K] clients in the order in which they are taken; K once nobody is free.
    """
    num_clients, num_labels = counts.shape
    clients, clusters = jnp.arange(num_clients), jnp.arange(num_clusters)

    def take(carry, m):
        free, pooled = carry
        joined = divergence(pooled[m][None] + counts, target, empty=jnp.inf)
        k = first_smallest(joined, free)
        taken = free & (clients == k)
        takes = free[k] & (clusters == m)
        pooled = pooled + jnp.where(takes[:, None], counts[k][None], 0.0)
        return (free & ~taken, pooled), jnp.where(free[k], k, num_clients)

    free = number_clients(num_clients, num_present) >= 0
    start = free, jnp.zeros((num_clusters, num_labels))
    return jax.lax.scan(take, start, owner)[1]


def clusters_of(
    client: Int32[Array, "seats"], owner: Int32[Array, "seats"], num_clients: int
) -> Int32[Array, "K"]:
    """Returns i32[K], the cluster of each client, -1 for none, from clients and their clusters."""
    return jnp.full(num_clients, -1, jnp.int32).at[client].set(owner, mode="drop")
