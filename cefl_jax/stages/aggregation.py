"""Aggregation: weighted averages of the front halves and of the back halves."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from cefl_jax import parallel
from cefl_jax.numerics import reciprocal, weighted_sum
from cefl_jax.stages.round_plan import Plan
from cefl_jax.types import Halves


def aggregate(
    halves: Halves, front_sums: PyTree, backs: PyTree, plan: Plan, mesh: parallel.EdgeMesh
) -> Halves:
    """Averages front halves by their clients' weight, and back halves by their cluster's.

    When nothing has weight, the halves stay as they were. Runs inside `EdgeMesh.spread`.

    Args:
      halves: Halves before the round.
      front_sums: leaves f32[L, ...], for each of this device's clusters the sum of its clients'
        front halves, each times its weight; zero where none formed.
      backs: leaves f32[L, ...], the back half of each.
      plan: Plan.
      mesh: EdgeMesh.
    Returns:
      Halves of the edge-side global model, alike on every device.
    """
    num_clusters = plan.first.shape[0]
    of_cluster = jnp.zeros(num_clusters).at[plan.cluster].add(plan.weight, mode="drop")
    total = plan.weight.sum()
    each = reciprocal(total)
    weights = Halves(jnp.broadcast_to(each, num_clusters), of_cluster * each)
    halves_of = Halves(front_sums, backs)
    if mesh.deterministic:
        halves_of = parallel.gather_items(halves_of, num_clusters)
    else:
        weights = parallel.take_local(weights, num_clusters)
    new = Halves(*(weighted_sum(*pair) for pair in zip(halves_of, weights, strict=True)))
    if not mesh.deterministic:
        new = parallel.total(new)
    anybody = total > 0
    return jax.tree.map(lambda after, before: jnp.where(anybody, after, before), new, halves)
