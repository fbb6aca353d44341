"""Clusters equal in size within one, improved by swaps of two clients until none helps; ours."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Real

from cefl_jax.numerics import at_pairs
from cefl_jax.stages.clustering.divergence import TIE_NATS, divergence, target_distribution
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


class _Search(NamedTuple):
    """Who sits where, and what exchanges would bring. Cluster m has the W seats from m W on."""

    client: Int32[Array, "M*W"]  # K, not a client, on an empty seat
    counts: Float32[Array, "Y M*W"]  # of that client, 0 for none
    replaced: Float32[Array, "M*W M*W"]  # [i, j]: divergence of i's cluster with j in i's place
    gain: Float32[Array, "M M*W"]  # of the best exchange of a seat with one of a cluster


def swap_until_none_helps(
    counts: Float32[Array, "K Y"],
    target: Float[AnyArray, "Y"],
    client: Int32[Array, "seats"],
    num_clusters: int,
) -> Int32[Array, "seats"]:
    """Makes the swap that lowers the sum of divergences most, again and again, while it helps.

    It helps when it lowers the sum by more than `TIE_NATS`. Of swaps that lower it alike, the one
    of the first client is made, and of these the one with the first client. All are scored
    once; after a swap, those with a client of the two clusters that it touched.

    Args:
      counts: f32[K, Y] examples of each label at each client.
      target: f32[Y] distribution with no zero where any client has examples.
      client: i32[M * W] who sits where: cluster m has the W seats from m * W on, and takes the
        first of them; empty ones have K.
      num_clusters: static M.
    Returns:
      i32[M * W] who sits where in the end.
    """
    num_seats, num_clients = client.shape[0], counts.shape[0]
    seats = jnp.arange(num_seats)
    own = seats // (num_seats // num_clusters)  # cluster
    taken = client < num_clients

    def gains(replaced, rows):
        """Returns what exchanging seats i32[R] with all gains, f32[R, M W].

        -inf for no swap, inf for one that is not scored.
        """
        kl = at_pairs(replaced, seats, seats)  # of each seat's cluster
        gain = (kl[rows][:, None] + kl[None]) - (replaced[rows] + replaced[:, rows].T)
        apart = (own[rows][:, None] != own[None]) & taken[rows][:, None] & taken[None]
        return jnp.where(apart, gain, -jnp.inf)

    def first(seats, client):
        return jnp.argmin(jnp.where(seats, client, num_clients))

    def swap(now):
        best = now.gain.max(0)
        i = first(best == best.max(), now.client)
        partners = gains(now.replaced, i[None])[0]
        j = first(partners == partners.max(), now.client)
        pair = jnp.stack([i, j])
        # A pair that is not scored yet has an infinite gain; choosing it scores its clusters.
        new = jnp.where(jnp.isfinite(partners[j]), pair[::-1], pair)
        client, counts, replaced = (x.at[..., pair].set(x[..., new]) for x in now[:3])
        replaced, rows = _score(counts, target, num_clusters, replaced, own[pair])
        gain = _best_by_cluster(gains(replaced, rows), now.gain, own[pair])
        return _Search(client, counts, replaced, gain)

    formed = jnp.zeros(num_clusters, bool).at[own].max(taken)[:, None]
    apart = (jnp.arange(num_clusters)[:, None] != own[None]) & taken[None] & formed
    start = _Search(
        client,
        counts.T.at[:, client].get(mode="fill", fill_value=0.0),
        jnp.where(jnp.eye(num_seats, dtype=bool), 0.0, -jnp.inf),
        jnp.where(apart, jnp.inf, -jnp.inf),
    )
    return jax.lax.while_loop(lambda now: now.gain.max() > TIE_NATS, swap, start).client


def _score(counts, target, num_clusters, replaced, pair):
    """Scores the seats of two clusters i32[2] again: `replaced`, and these seats."""
    num_labels, num_seats = counts.shape
    width = num_seats // num_clusters
    rows = (pair[:, None] * width + jnp.arange(width)[None]).ravel()
    pooled = counts.reshape(num_labels, num_clusters, width).sum(-1)
    without = jnp.repeat(pooled[:, pair], width, axis=1) - counts[:, rows]  # [Y, 2 W]
    fresh = divergence(without.T[:, :, None] + counts[None], target, empty=0.0, axis=-2)
    return replaced.at[rows].set(fresh), rows


def _best_by_cluster(fresh, gain, pair):
    """Updates `gain` f32[M, M W] by the gains f32[2 W, M W] of the seats of two clusters i32[2]."""
    num_clusters, num_seats = gain.shape
    fresh = fresh.reshape(2, -1, num_clusters, num_seats // num_clusters)  # [2, W, M, W]
    gain = gain.at[pair].set(fresh.max(1).reshape(2, num_seats))
    seats = gain.reshape(num_clusters, *fresh.shape[2:])
    return seats.at[:, pair].set(jnp.moveaxis(fresh.max(3), 2, 0)).reshape(gain.shape)
