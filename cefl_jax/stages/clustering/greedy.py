"""Clusters filled one after another: the rule of the source, and Astraea's."""

import jax
import jax.numpy as jnp

from cefl_jax.stages.clustering.divergence import TIE_NATS, divergence, first_smallest, pool
from cefl_jax.stages.clustering.presence import close_places, counts_of_present, open_places


def patent_clusters(
    label_counts, num_clusters, min_size, target, max_size=None, present=None
):
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
      present: bool[K] places that a client takes; None for all.
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
    counts = counts_of_present(label_counts, present)
    start = open_places(num_clients, num_clusters, present)
    if num_clients == 0:
        return start

    def fill(m, cluster):
        enough = (cluster < 0).sum() >= min_size
        walked = _walk(counts, target, cluster, m, most)
        filled = _add_smallest(counts, target, walked, m, min_size)
        return jnp.where(enough, filled, cluster)

    filled = jax.lax.fori_loop(0, num_clusters, fill, start)
    return close_places(_place_leftovers(counts, target, filled, num_clusters), num_clusters)


def astraea_clusters(label_counts, num_clusters, max_size, target, present=None):
    """Fills clusters one after another, each time with the client that minimises the divergence.

    A cluster is full at `max_size` members. Ties (within `TIE_NATS`) go to the first client.

    Args:
      label_counts: i32 or f32[K, Y] examples of each label at each client.
      num_clusters: static M, with M * `max_size` >= K.
      max_size: static, members of a full cluster; None for the clients / M, rounded up.
      target: f32[Y] distribution with no zero where any client has examples.
      present: bool[K] places that a client takes; None for all.
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
    counts = counts_of_present(label_counts, present)
    start = open_places(num_clients, num_clusters, present)
    most = -(-(start < 0).sum() // num_clusters) if max_size is None else max_size

    def fill(m, cluster):
        return _add_smallest(counts, target, cluster, m, most)

    filled = jax.lax.fori_loop(0, num_clusters if num_clients else 0, fill, start)
    return close_places(filled, num_clusters)


def _walk(counts, target, cluster, m, most):
    """Cluster m after one walk over the free clients: each step jumps to the next that joins."""
    positions = jnp.arange(counts.shape[0])

    def step(carry):
        cluster, pooled, current, here, _ = carry
        joined = divergence(pooled + counts, target, empty=jnp.inf)
        joins = (cluster < 0) & (positions >= here) & (joined < current - TIE_NATS)
        k = jnp.argmax(joins)
        going = joins[k] & ((cluster == m).sum() < most)
        return (
            jnp.where(going, cluster.at[k].set(m), cluster),
            jnp.where(going, pooled + counts[k], pooled),
            jnp.where(going, joined[k], current),
            k + 1,
            going,
        )

    start = cluster, jnp.zeros_like(target), jnp.float32(jnp.inf), jnp.int32(0), jnp.bool_(True)
    return jax.lax.while_loop(lambda carry: carry[-1], step, start)[0]


def _add_smallest(counts, target, cluster, m, size):
    """Cluster m with the free clients of smallest pooled divergence, up to `size` members."""

    def short(cluster):
        return ((cluster == m).sum() < size) & (cluster < 0).any()

    def add(cluster):
        pooled = jnp.where(cluster[:, None] == m, counts, 0.0).sum(0)
        joined = divergence(pooled + counts, target, empty=jnp.inf)
        return cluster.at[first_smallest(joined, cluster < 0)].set(m)

    return jax.lax.while_loop(short, add, cluster)


def _place_leftovers(counts, target, cluster, num_clusters):
    """Every free client, in order, in the cluster whose divergence changes least."""

    def place(carry):
        cluster, pooled = carry
        k = jnp.argmax(cluster < 0)
        before = divergence(pooled, target, empty=jnp.inf)
        after = divergence(pooled + counts[k], target, empty=jnp.inf)
        change = jnp.where(before == after, 0.0, jnp.abs(after - before))
        m = first_smallest(change, jnp.ones(num_clusters, bool))
        return cluster.at[k].set(m), pooled.at[m].add(counts[k])

    start = cluster, pool(counts, cluster, num_clusters)
    return jax.lax.while_loop(lambda carry: (carry[0] < 0).any(), place, start)[0]
