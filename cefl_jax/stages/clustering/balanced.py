"""Clusters equal in size within one, improved by swaps; ours."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cefl_jax.stages.clustering.divergence import (
    TIE_NATS,
    divergence,
    first_smallest,
    pool,
    target_distribution,
)
from cefl_jax.stages.clustering.presence import close_places, counts_of_present, open_places
from cefl_jax.stages.clustering.swaps import best_pair, exchange, kl_gain, replaced_kl


def balanced_start(label_counts, num_clusters, target=None, present=None):
    """Greedy fill of clusters whose sizes are equal within one; where `balanced_clusters` starts.

    The clusters take turns, the lowest number first; each takes the free client that gives it the
    smallest divergence from the target. Ties (within `TIE_NATS`) go to the first client.

    Args:
      label_counts: i32 or f32[K, Y] examples of each label at each client.
      num_clusters: static M >= 1.
      target: f32[Y] distribution with no zero where any client has examples; None for the pooled
        labels of these clients.
      present: bool[K] places that a client takes; None for all.
    Returns:
      i32[K] cluster of each client, -1 where nobody is; of P clients present, the first P % M
      clusters have one member more.
    """
    counts = counts_of_present(label_counts, present)
    num_clients, num_labels = counts.shape
    target = target_distribution(counts, "global") if target is None else target

    def take(turn, carry):
        cluster, pooled = carry
        m = turn % num_clusters
        joined = divergence(pooled[m] + counts, target, empty=jnp.inf)
        k = first_smallest(joined, cluster < 0)
        return cluster.at[k].set(m), pooled.at[m].add(counts[k])

    free = open_places(num_clients, num_clusters, present)
    turns = num_clients if present is None else (free < 0).sum()
    start = free, jnp.zeros((num_clusters, num_labels))
    return close_places(jax.lax.fori_loop(0, turns, take, start)[0], num_clusters)


def balanced_clusters(label_counts, num_clusters, target=None, present=None):
    """Clusters equal in size within one, improved by swaps until no swap helps.

    From `balanced_start`, the swap of two clients of different clusters that lowers the sum of the
    clusters' divergences from the target most is made, again and again, while it lowers the
    sum by more than `TIE_NATS`. Ties go to the first pair. Only the rows of the two clusters that a
    swap touched are scored again.

    Args:
      label_counts: i32 or f32[K, Y] examples of each label at each client.
      num_clusters: static M >= 1.
      target: f32[Y] distribution with no zero where any client has examples; None for the pooled
        labels of these clients.
      present: bool[K] places that a client takes; None for all.
    Returns:
      i32[K] cluster of each client, -1 where nobody is.
    """
    counts = counts_of_present(label_counts, present)
    num_clients = counts.shape[0]
    target = target_distribution(counts, "global") if target is None else target
    start = balanced_start(counts, num_clusters, target, present)
    if num_clients < 2:
        return start
    width = -(-num_clients // num_clusters)
    score = functools.partial(_score_swaps, counts, target, num_clusters)

    def better(swaps):
        return swaps.gain > TIE_NATS

    def swap(swaps):
        cluster, touched = exchange(swaps.cluster, swaps.best, width)
        return score(cluster, swaps.replaced, touched)

    everyone = jnp.arange(num_clients)
    first = score(start, jnp.zeros((num_clients, num_clients)), everyone)
    return jax.lax.while_loop(better, swap, first).cluster


class _Swaps(NamedTuple):
    """The state of the swap search; `replaced` as in `replaced_kl`."""

    cluster: jax.Array  # i32[K]
    replaced: jax.Array  # f32[K, K]
    best: tuple[jax.Array, jax.Array]
    gain: jax.Array  # f32[], what the best swap lowers the sum by


def _score_swaps(counts, target, num_clusters, cluster, replaced, rows):
    pooled = pool(counts, cluster, num_clusters)                                  # [M, Y]
    replaced = replaced_kl(counts, target, pooled, cluster, replaced, rows)
    gain = kl_gain(divergence(pooled, target, empty=0.0), cluster, replaced)
    return _Swaps(cluster, replaced, *best_pair(gain, cluster))
