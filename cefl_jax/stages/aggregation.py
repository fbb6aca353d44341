"""Aggregation: weighted averages of the front halves and of the back halves."""

import jax
import jax.numpy as jnp

from cefl_jax import parallel
from cefl_jax.types import Halves


def weighted_sum(stack, weights):
    """Sum of stacked trees, leaves f32[K, ...], times weights f32[K]; leaves f32[...]."""
    return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, axes=1), stack)


def aggregate(halves, fronts, backs, plan, mesh):
    """The edge-side global model: front halves by their weight, back halves by their cluster's.

    When nothing has weight, the halves stay as they were. Runs inside `EdgeMesh.spread`.

    Args:
      halves: Halves before the round.
      fronts: leaves f32[K, ...] in the order of the plan, zero for clients of other devices.
      backs: leaves f32[L, ...], one for each of this device's clusters.
      plan: Plan.
      mesh: EdgeMesh.
    Returns:
      Halves, alike on every device.
    """
    num_clusters = plan.first.shape[0]
    of_cluster = jnp.zeros(num_clusters).at[plan.cluster].add(plan.weight, mode="drop")
    total = plan.weight.sum()
    each = 1.0 / jnp.where(total > 0, total, 1.0)
    share, cluster_share = plan.weight * each, of_cluster * each
    if mesh.deterministic:
        fronts = parallel.merge_rows(fronts)
        backs = parallel.gather_items(backs, num_clusters)
        new = Halves(weighted_sum(fronts, share), weighted_sum(backs, cluster_share))
    else:
        own = parallel.own_items(num_clusters, mesh.size)
        own_share = cluster_share.at[own].get(mode="fill", fill_value=0)
        new = parallel.total(Halves(weighted_sum(fronts, share), weighted_sum(backs, own_share)))
    anybody = total > 0
    return jax.tree.map(lambda after, before: jnp.where(anybody, after, before), new, halves)
