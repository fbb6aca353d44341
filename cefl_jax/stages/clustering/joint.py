"""Clusters alike in their labels and quick on the network at once; ours."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Real

from cefl_jax.numerics import at_pairs
from cefl_jax.stages.clustering.balanced import (
    balanced_clusters,
    best_pair,
    kl_gain,
    replaced_kl,
    swap_clients,
)
from cefl_jax.stages.clustering.divergence import (
    TIE_NATS,
    divergence,
    pool,
    target_distribution,
)
from cefl_jax.stages.offload import match
from cefl_jax.types import AnyArray, Count, Number

MAX_PASSES = 8
"""Matchings, each with its swaps, after which the search ends; after the second, swaps are rare."""


class ClientSeconds(NamedTuple):
    """What decides how long a cluster takes on an edge node, seconds.

    A cluster takes the longest `client_s` of its members and the sum of their `node_s`.
    """

    client_s: Float32[Array, "K E"]  # that a client alone takes with a node: computing and links
    node_s: Float32[Array, "K E"]  # that a node computes for the client's samples


def joint_clusters(
    label_counts: Real[AnyArray, "K Y"],
    num_clusters: int,
    client_s: Float[AnyArray, "K E"],
    node_s: Float[AnyArray, "K E"],
    weight: Number,
    target: Float[AnyArray, "Y"] | None = None,
    num_present: Count | None = None,
) -> Int32[Array, "K"]:
    """Clusters by divergence and by the slowest pair's time, in sizes equal within one.

    The objective is the sum of the clusters' divergences plus `weight` times the seconds of the
    slowest cluster on its edge node. From `balanced_clusters`, every cluster gets a node by
    bottleneck matching of the seconds, a node taking as many clusters as M / E asks for. Then the
    swap of two clients of different clusters that lowers the objective most, the nodes fixed, is
    made, again and again, while it lowers the objective by more than `TIE_NATS`. Ties go to the
    first pair. Both steps repeat until no swap helps, at most `MAX_PASSES` times; neither ever
    raises the objective. With weight 0 the clusters are those of `balanced_clusters`.

    Args:
      label_counts: i32 or f32[K, Y] examples of each label at each client.
      num_clusters: static M >= 1.
      client_s: f32[K, E] seconds that a client alone takes with a node; inf where it cannot.
      node_s: f32[K, E] seconds that a node computes for the client's samples.
      weight: f32[] >= 0, nats that a second of the slowest pair is worth.
      target: f32[Y] distribution with no zero where any client has examples; None for the pooled
        labels of these clients.
      num_present: i32[] clients, in the first places; None for K. Labels of the places after them
        are not to be counted: rows of zeros.
    Returns:
      i32[K] cluster of each client, -1 where nobody is.
    """
    counts = jnp.asarray(label_counts, jnp.float32)
    target = target_distribution(counts, "global") if target is None else target
    start = balanced_clusters(counts, num_clusters, target, num_present)
    if counts.shape[0] < 2:
        return start
    seconds = ClientSeconds(jnp.asarray(client_s), jnp.asarray(node_s))
    problem = _Problem(counts, target, num_clusters, seconds, weight)

    def improve(carry):
        cluster, passes, _ = carry
        swapped = _swap_until_none_helps(problem, cluster)
        return swapped, passes + 1, (swapped != cluster).any()

    def going(carry):
        return carry[2] & (carry[1] < MAX_PASSES)

    return jax.lax.while_loop(going, improve, (start, jnp.int32(0), jnp.bool_(True)))[0]


def slowest_after_swaps(
    seconds: ClientSeconds,
    node: Int32[Array, "M"],
    cluster: Int32[Array, "K"],
    now_s: Float32[Array, "M"],
) -> Float32[Array, "K K"]:
    """Returns the seconds of the slowest cluster after every swap of two clients.

    Args:
      seconds: ClientSeconds.
      node: i32[M] edge node of each cluster.
      cluster: i32[K] cluster of each client, -1 for none.
      now_s: f32[M] seconds of each cluster on its node before the swap.
    Returns:
      f32[K, K] seconds; of no meaning for two clients that cannot be swapped.
    """
    client_s, node_s = (s.T[node[cluster]] for s in seconds)  # [K, K]: of j at the node of i
    same = cluster[:, None] == cluster[None]
    others = same & ~jnp.eye(cluster.shape[0], dtype=bool)
    longest = jnp.where(others, client_s, 0.0).max(1, keepdims=True)
    total = jnp.where(others, node_s, 0.0).sum(1, keepdims=True)
    replaced_s = jnp.maximum(longest, client_s) + total + node_s
    # One of the three slowest clusters is in no swap of two.
    most_s, slowest = jax.lax.top_k(now_s, min(3, now_s.shape[0]))
    mine, theirs = cluster[:, None, None], cluster[None, :, None]
    most_s, slowest = most_s[None, None], slowest[None, None]
    untouched_s = jnp.where((slowest != mine) & (slowest != theirs), most_s, 0.0).max(-1)
    return jnp.maximum(untouched_s, jnp.maximum(replaced_s, replaced_s.T))


class _Problem(NamedTuple):
    counts: Float32[Array, "K Y"]
    target: Float[AnyArray, "Y"]
    num_clusters: int
    seconds: ClientSeconds
    weight: Number


class _Swaps(NamedTuple):
    """The state of the swap search; `replaced` as in `replaced_kl`."""

    cluster: Int32[Array, "K"]
    replaced: Float32[Array, "K K"]
    value: Float32[Array, ""]  # the objective
    best: tuple[jax.Array, jax.Array]
    gain: Float32[Array, ""]  # what the best swap lowers the objective by


def _swap_until_none_helps(problem, cluster):
    """Makes the swaps that help while each cluster keeps the node that it is matched to now."""
    num_clients = cluster.shape[0]
    width = -(-num_clients // problem.num_clusters)
    node = _match_nodes(problem, cluster)
    score = functools.partial(_score_swaps, problem, node)

    def swap(now):
        cluster, touched = swap_clients(now.cluster, now.best, width)
        after = score(cluster, now.replaced, touched)
        # A gain can be rounding alone; the objective itself falls each time, so the search ends.
        better = now.value - after.value > TIE_NATS
        stay = now._replace(gain=-jnp.inf)
        return jax.tree.map(functools.partial(jnp.where, better), after, stay)

    unknown = jnp.zeros((num_clients, num_clients))
    first = score(cluster, unknown, jnp.arange(num_clients))
    return jax.lax.while_loop(lambda now: now.gain > TIE_NATS, swap, first).cluster


def _match_nodes(problem, cluster):
    """Matches an edge node to each cluster, i32[M], by the bottleneck."""
    pair_s = _pair_seconds(problem, cluster)  # [M, E]
    num_clusters, num_edges = pair_s.shape
    slot = match(jnp.tile(pair_s, (1, -(-num_clusters // num_edges))), "bottleneck")
    # A cluster left with nodes that cannot serve it stays with one of these.
    return jnp.where(slot >= 0, slot % num_edges, jnp.argmax(pair_s, 1))


def _pair_seconds(problem, cluster):
    """Computes the seconds of each cluster on each node, f32[M, E]; 0 without members."""
    member = cluster[None] == jnp.arange(problem.num_clusters)[:, None]  # [M, K]
    client_s, node_s = (jnp.where(member[:, :, None], s, 0.0) for s in problem.seconds)
    return client_s.max(1) + node_s.sum(1)


def _score_swaps(problem, node, cluster, replaced, rows):
    counts, target, num_clusters, _, weight = problem
    pooled = pool(counts, cluster, num_clusters)  # [M, Y]
    replaced = replaced_kl(counts, target, pooled, cluster, replaced, rows)
    kl = divergence(pooled, target, empty=0.0)  # [M]
    now_s = at_pairs(_pair_seconds(problem, cluster), jnp.arange(num_clusters), node)
    after_s = slowest_after_swaps(problem.seconds, node, cluster, now_s)
    saved_s = jnp.where(after_s == now_s.max(), 0.0, now_s.max() - after_s)  # inf - inf
    gain = kl_gain(kl, cluster, replaced) + weight * saved_s
    value = kl.sum() + weight * now_s.max()
    return _Swaps(cluster, replaced, value, *best_pair(gain, cluster))
