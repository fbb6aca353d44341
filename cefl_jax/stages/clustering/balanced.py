"""Clusters equal in size within one, improved by swaps of two clients until none helps; ours."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Real

from cefl_jax.numerics import reciprocal, take
from cefl_jax.stages.clustering.divergence import (
    MIN_SHARE,
    TIE_NATS,
    divergence,
    pool,
    target_distribution,
)
from cefl_jax.stages.clustering.greedy import clusters_of, greedy_fill
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
    counts = jnp.asarray(label_counts, jnp.float32)
    target = target_distribution(counts, "global") if target is None else target
    num_clients = counts.shape[0]
    owner = jnp.arange(num_clients, dtype=jnp.int32) % num_clusters
    taken = greedy_fill(counts, target, num_clusters, owner, num_present)
    return clusters_of(taken, owner, num_clients)


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
    counts = jnp.asarray(label_counts, jnp.float32)
    target = target_distribution(counts, "global") if target is None else target
    cluster = balanced_start(counts, num_clusters, target, num_present)
    return swap_until_none_helps(counts, target, cluster, num_clusters)


class _Search(NamedTuple):
    """The state of the swap search; `replaced` as in `replaced_kl`."""

    cluster: Int32[Array, "K"]
    replaced: Float32[Array, "K K"]
    best: tuple[Int32[Array, ""], Int32[Array, ""]]
    gain: Float32[Array, ""]  # what the best swap lowers the sum of the divergences by


def swap_until_none_helps(
    counts: Float32[Array, "K Y"],
    target: Float[AnyArray, "Y"],
    cluster: Int32[Array, "K"],
    num_clusters: int,
) -> Int32[Array, "K"]:
    """Makes the swap that lowers the sum of divergences most, again and again, while it helps.

    It helps when it lowers the sum by more than `TIE_NATS`. All swaps are scored once; after a
    swap, those with a client of the two clusters that it touched. Ties go to the first pair.

    Args:
      counts: f32[K, Y] examples of each label at each client.
      target: f32[Y] distribution with no zero where any client has examples.
      cluster: i32[K] cluster of each client, -1 for none; equal in size within one.
      num_clusters: static M.
    Returns:
      i32[K] cluster of each client in the end.
    """
    num_clients = counts.shape[0]
    if num_clients < 2:
        return cluster

    def score(cluster, replaced, rows):
        pooled = pool(counts, cluster, num_clusters)
        replaced = replaced_kl(counts, target, pooled, cluster, replaced, rows)
        gain = kl_gain(divergence(pooled, target, empty=0.0), cluster, replaced)
        return _Search(cluster, replaced, *best_pair(gain, cluster))

    def swap(now):
        cluster, touched = swap_clients(now.cluster, now.best, -(-num_clients // num_clusters))
        return score(cluster, now.replaced, touched)

    first = score(cluster, jnp.zeros((num_clients, num_clients)), jnp.arange(num_clients))
    return jax.lax.while_loop(lambda now: now.gain > TIE_NATS, swap, first).cluster


def replaced_kl(
    counts: Float32[Array, "K Y"],
    target: Float[AnyArray, "Y"],
    pooled: Float32[Array, "M Y"],
    cluster: Int32[Array, "K"],
    replaced: Float32[Array, "K K"],
    rows: Int32[Array, "R"],
) -> Float32[Array, "K K"]:
    """Scores the rows i32[R] of `replaced` f32[K, K] again.

    `replaced[i, j]` is the divergence of client i's cluster with client j in i's place.
    """
    without = take(pooled, take(cluster, rows)) - take(counts, rows)  # [R, Y]
    size = without.sum(1)[:, None] + counts.sum(1)[None]  # [R, K]
    # Of c examples of a label, c log(c / size / target). With the clusters' mean size in place of
    # `size`, a factor a label, it needs fewer steps and is as small; log(size / mean) is left.
    mean = jnp.maximum(pooled.sum() * (1.0 / pooled.shape[0]), 1.0)
    scale = 1.0 / (mean * jnp.maximum(target, MIN_SHARE))
    count = without[:, :, None] + counts.T[None]  # [R, Y, K]
    nats = (count * jnp.log(jnp.maximum(count * scale[None, :, None], MIN_SHARE))).sum(1)
    fresh = nats * reciprocal(size) - jnp.log(jnp.maximum(size, 1.0) * (1.0 / mean))
    return replaced.at[rows].set(jnp.where(size > 0, fresh, 0.0), mode="drop")


def kl_gain(
    kl: Float32[Array, "M"], cluster: Int32[Array, "K"], replaced: Float32[Array, "K K"]
) -> Float32[Array, "K K"]:
    """Returns f32[K, K], by how much each exchange lowers the sum of the divergences kl f32[M]."""
    now = take(kl, cluster)
    return now[:, None] + now[None] - replaced - replaced.T


def best_pair(
    gain: Float32[Array, "K K"], cluster: Int32[Array, "K"]
) -> tuple[tuple[Int32[Array, ""], Int32[Array, ""]], Float32[Array, ""]]:
    """Returns the first pair of greatest gain in two different clusters, and its gain."""
    placed = cluster >= 0
    apart = (cluster[:, None] != cluster[None]) & placed[:, None] & placed[None]
    gain = jnp.where(apart, gain, -jnp.inf)
    best, num_clients = jnp.argmax(gain), jnp.int32(cluster.shape[0])
    return (jax.lax.div(best, num_clients), jax.lax.rem(best, num_clients)), gain.max()


def swap_clients(
    cluster: Int32[Array, "K"], pair: tuple[Int32[Array, ""], Int32[Array, ""]], width: int
) -> tuple[Int32[Array, "K"], Int32[Array, "touched"]]:
    """Exchanges two clients: the clusters, and the members, at most 2 * width, of those touched."""
    (a, b), client = take(cluster, jnp.stack(pair)), jnp.arange(cluster.shape[0])
    cluster = jnp.where(client == pair[0], b, jnp.where(client == pair[1], a, cluster))
    touched = (cluster == a) | (cluster == b)
    return cluster, jnp.nonzero(touched, size=2 * width, fill_value=cluster.shape[0])[0]
