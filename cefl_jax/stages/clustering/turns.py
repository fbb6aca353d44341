"""Clusters that take clients in turns, each the one that suits it best."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from cefl_jax.stages.clustering.divergence import divergence, first_smallest
from cefl_jax.types import AnyArray


def take_turns(
    counts: Float32[Array, "K Y"],
    target: Float[AnyArray, "Y"],
    num_clusters: int,
    owner: Int32[Array, "K"],
    present: Bool[AnyArray, "K"] | None,
) -> Int32[Array, "K"]:
    """Each turn's cluster takes the free client that gives it the smallest divergence.

    Ties (within `TIE_NATS`) go to the first client.

    Args:
      counts: f32[K, Y] examples of each label at each client, 0 where nobody is.
      target: f32[Y] distribution with no zero where any client has examples.
      num_clusters: static M.
      owner: i32[K] cluster whose turn it is, for every turn.
      present: bool[K] places that a client takes; None for all.
    Returns:
      i32[K] client that each turn takes; K once nobody is free.
    """
    num_clients, num_labels = counts.shape
    clients = jnp.arange(num_clients)

    def take(carry, m):
        free, pooled = carry
        joined = divergence(pooled[m] + counts, target, empty=jnp.inf)
        k = first_smallest(joined, free)
        taken = free & (clients == k)
        pooled = pooled.at[m].add(jnp.where(free[k], counts[k], 0.0), mode="drop")
        return (free & ~taken, pooled), jnp.where(free[k], k, num_clients)

    free = jnp.ones(num_clients, bool) if present is None else jnp.asarray(present)
    start = free, jnp.zeros((num_clusters, num_labels))
    return jax.lax.scan(take, start, owner)[1]


def clusters_of(
    client: Int32[Array, "seats"], owner: Int32[Array, "seats"], num_clients: int
) -> Int32[Array, "K"]:
    """i32[K] cluster of each client, -1 for none, of clients and the cluster that each is in."""
    return jnp.full(num_clients, -1, jnp.int32).at[client].set(owner, mode="drop")
