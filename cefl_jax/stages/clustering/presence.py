"""Places of a round that no client takes; `present` is None where every place is taken."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Real

from cefl_jax.types import AnyArray


def counts_of_present(
    label_counts: Real[AnyArray, "K Y"], present: Bool[AnyArray, "K"] | None
) -> Float32[Array, "K Y"]:
    """Label counts as f32[K, Y], zero where nobody is."""
    counts = jnp.asarray(label_counts, jnp.float32)
    return counts if present is None else jnp.where(present[:, None], counts, 0.0)


def open_places(
    num_clients: int, num_clusters: int, present: Bool[AnyArray, "K"] | None
) -> Int32[Array, "K"]:
    """i32[K] clusters to fill: -1 for a client without one, one past the last for nobody."""
    free = jnp.full(num_clients, -1, jnp.int32)
    return free if present is None else jnp.where(present, free, num_clusters)


def close_places(cluster: Int32[Array, "K"], num_clusters: int) -> Int32[Array, "K"]:
    """i32[K] clusters when all are filled: nobody is in none, -1."""
    return jnp.where(cluster < num_clusters, cluster, -1)


def number_present(num_clients: int, present: Bool[AnyArray, "K"] | None) -> Int32[Array, "K"]:
    """i32[K] the clients numbered from 0 in their order; -1 for nobody."""
    if present is None:
        return jnp.arange(num_clients, dtype=jnp.int32)
    return jnp.where(present, jnp.cumsum(present, dtype=jnp.int32) - 1, -1)
