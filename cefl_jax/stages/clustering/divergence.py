"""How far a cluster's labels are from the target, and when two divergences are equal."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Real

from cefl_jax.numerics import reciprocal
from cefl_jax.types import AnyArray, Count

TIE_NATS = 1e-5
"""Divergences closer than this are equal: float32 cannot tell them apart on every device."""

MIN_SHARE = 1e-30
"""In place of a share of 0, so that 0 log 0 is 0."""


def target_distribution(label_counts: Real[AnyArray, "K Y"], target: str) -> Float32[Array, "Y"]:
    """Returns the distribution that every cluster should resemble.

    Args:
      label_counts: i32[K, Y] examples of each label at each client of the round.
      target: static, "global" (the pooled labels of these clients) or "uniform".
    Returns:
      f32[Y] distribution; with "global", zero exactly where no client has examples.
    """
    if target == "uniform":
        return jnp.full(label_counts.shape[1], 1.0 / label_counts.shape[1])
    pooled = jnp.asarray(label_counts, jnp.float32).sum(0)
    return pooled / jnp.maximum(pooled.sum(), 1.0)


def cluster_kl(
    label_counts: Real[AnyArray, "K Y"],
    cluster: Int[AnyArray, "K"],
    num_clusters: int,
    target: Float[AnyArray, "Y"],
) -> Float32[Array, "M"]:
    """Computes the divergence of each cluster's pooled label distribution from the target.

    A cluster without examples has divergence 0. Labels that a cluster lacks contribute nothing.

    Args:
      label_counts: f32 or i32[K, Y] examples of each label at each client.
      cluster: i32[K] cluster of each client, -1 for none.
      num_clusters: static M.
      target: f32[Y] distribution with no zero where any client has examples.
    Returns:
      f32[M] D_KL(cluster || target), nats.
    """
    return divergence(pool(label_counts, cluster, num_clusters), target, empty=0.0)


def pool(
    label_counts: Real[AnyArray, "K Y"], cluster: Int[AnyArray, "K"], num_clusters: int
) -> Float32[Array, "M Y"]:
    """Counts the examples of each label in each cluster, f32[M, Y], without those of cluster -1."""
    pooled = jnp.zeros((num_clusters, label_counts.shape[1]))
    return pooled.at[cluster].add(label_counts, mode="drop", wrap_negative_indices=False)


def divergence(
    pooled: Float32[Array, "..."], target: Float[AnyArray, "Y"], empty: float, axis: int = -1
) -> Float32[Array, "..."]:
    """Computes D_KL from the target of distributions of counts; `empty` without examples.

    The labels lie along `axis`, which is counted from the last.
    """
    total = pooled.sum(axis)
    mix = pooled * jnp.expand_dims(reciprocal(total), axis)
    # A difference of logarithms costs half of the logarithm of a quotient with its special cases.
    log_mix, log_target = (jnp.log(jnp.maximum(x, MIN_SHARE)) for x in (mix, target))
    log_target = log_target.reshape([-1 if i == axis % mix.ndim else 1 for i in range(mix.ndim)])
    return jnp.where(total > 0, (mix * (log_mix - log_target)).sum(axis), empty)


def first_smallest(values: Float32[Array, "n"], allowed: Bool[Array, "n"]) -> Int32[Array, ""]:
    """Finds the first allowed value within `TIE_NATS` of the smallest allowed one: its index."""
    values = jnp.where(allowed, values, jnp.inf)
    return jnp.argmax(allowed & (values <= values.min() + TIE_NATS)).astype(jnp.int32)


def number_clients(num_clients: int, num_present: Count | None) -> Int32[Array, "K"]:
    """Numbers the places of a round, i32[K], from 0; -1 from place `num_present` on, None for K."""
    places = jnp.arange(num_clients, dtype=jnp.int32)
    return places if num_present is None else jnp.where(places < num_present, places, -1)
