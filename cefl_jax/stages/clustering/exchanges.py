"""Exchanges of two clients of different clusters, all pairs scored at once."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32

from cefl_jax.stages.clustering.divergence import divergence
from cefl_jax.types import AnyArray


def replaced_kl(
    counts: Float32[Array, "K Y"],
    target: Float[AnyArray, "Y"],
    pooled: Float32[Array, "M Y"],
    cluster: Int32[Array, "K"],
    replaced: Float32[Array, "K K"],
    rows: Int32[Array, "R"],
) -> Float32[Array, "K K"]:
    """`replaced` f32[K, K] with the rows i32[R] scored again.

    `replaced[i, j]` is the divergence of client i's cluster with client j in i's place.
    """
    without = pooled[cluster[rows]] - counts[rows]                                 # [R, Y]
    fresh = divergence(without[:, None] + counts[None], target, empty=0.0)        # [R, K]
    return replaced.at[rows].set(fresh, mode="drop")


def kl_gain(
    kl: Float32[Array, "M"], cluster: Int32[Array, "K"], replaced: Float32[Array, "K K"]
) -> Float32[Array, "K K"]:
    """What every exchange lowers the sum of the clusters' divergences kl f32[M] by, f32[K, K]."""
    now = kl[cluster]
    return now[:, None] + now[None] - replaced - replaced.T


def best_pair(
    gain: Float32[Array, "K K"], cluster: Int32[Array, "K"]
) -> tuple[tuple[Int32[Array, ""], Int32[Array, ""]], Float32[Array, ""]]:
    """The first pair of greatest gain in two different clusters, and its gain."""
    placed = cluster >= 0
    apart = (cluster[:, None] != cluster[None]) & placed[:, None] & placed[None]
    gain = jnp.where(apart, gain, -jnp.inf)
    i, j = jnp.unravel_index(jnp.argmax(gain), gain.shape)
    return (i, j), gain[i, j]


def exchange(
    cluster: Int32[Array, "K"], pair: tuple[Int32[Array, ""], Int32[Array, ""]], width: int
) -> tuple[Int32[Array, "K"], Int32[Array, "touched"]]:
    """The clusters after an exchange, and the members, at most 2 * width, of the two touched."""
    i, j = pair
    a, b = cluster[i], cluster[j]
    cluster = cluster.at[i].set(b).at[j].set(a)
    touched = (cluster == a) | (cluster == b)
    return cluster, jnp.nonzero(touched, size=2 * width, fill_value=cluster.shape[0])[0]
