"""Which edge node trains which cluster's back half."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, Real

from cefl_jax.numerics import at_pairs
from cefl_jax.specs import OffloadSpec
from cefl_jax.types import AnyArray


def match(cost: Real[AnyArray, "M E"], objective: str = "sum") -> Int32[Array, "M"]:
    """Returns the column of each row, each column used once, so that the objective is least.

    "sum" minimises the total cost of the pairs; "bottleneck" minimises the largest pair's cost
    and, among the matchings that reach it, the total. A cost that is not finite forbids its pair;
    the matching then uses as few forbidden pairs as possible, and a row left with one gets -1.

    Args:
      cost: f32[M, E] cost of each pair, M <= E.
      objective: static, "sum" or "bottleneck".
    Returns:
      i32[M] column of each row, -1 for none.
    Raises:
      ValueError: when M > E, or for an unknown objective.
    Reference:
      Kuhn, The Hungarian method (1955); Garfinkel, The bottleneck assignment problem (1971).
    """
    cost = jnp.asarray(cost, jnp.float32)
    rows, columns = cost.shape
    _check_slots(rows, columns)
    if rows == 0:
        return jnp.zeros(0, jnp.int32)
    allowed = jnp.isfinite(cost)
    if objective == "bottleneck":
        allowed &= cost <= least_limit(cost, allowed)
    elif objective != "sum":
        raise ValueError(f"offload.objective={objective!r} is unknown; known: sum, bottleneck")
    column = _assign_min_sum(_forbid(cost, allowed))
    return jnp.where(jnp.isfinite(at_pairs(cost, jnp.arange(rows), column)), column, -1)


def place_clusters(
    cost_clients: Float[AnyArray, "M E"],
    cost_node: Float[AnyArray, "M E"],
    formed: Bool[AnyArray, "M"],
    spec: OffloadSpec,
    distance: Float[AnyArray, "M E"] | None = None,
    key: PRNGKeyArray | None = None,
) -> tuple[Int32[Array, "M"], Float32[Array, ""]]:
    """Gives every cluster that formed a slot of an edge node, by the rule that the settings name.

    A node has `edge_capacity` slots; its j-th multiplies the node's own cost by j. (That is what
    one more cluster adds to a node; the simulated round shares a node evenly among those that it
    got, so that with several the value is not what they then pay.) Slots are numbered through the
    nodes' first ones, then through their second ones. A cost that is not finite forbids its pair;
    a cluster without an allowed slot gets no node.
    Clusters that did not form take no slot. The rules:

    - "optimal": the least value of the objective, `match`.
    - "greedy": the cheapest pair that is left of a cluster and a slot, again and again. Ties go to
      the first cluster, then to the first slot.
    - "random": the clusters in order each draw one of the free slots, all alike.
    - "nearest": the clusters in order each take the first free slot of the nearest node that has
      one. Ties go to the first node; an infinite distance is farther than any other.

    Args:
      cost_clients: f32[M, E] cost of a pair in clients' computing and links.
      cost_node: f32[M, E] cost of a pair in the node's computing and its link to the cloud.
      formed: bool[M] whether the cluster has members.
      spec: static OffloadSpec.
      distance: f32[M, E] mean distance of a cluster's clients to a node, for "nearest".
      key: for "random".
    Returns:
      i32[M] edge node of each cluster, -1 for none; and f32[] what the placement costs: the sum
      of its pairs, or with the objective "bottleneck" the largest.
    Raises:
      ValueError: with more clusters than slots, or for an unknown rule or objective.
    """
    if spec.rule not in RULES:
        raise ValueError(f"cefl.offload.rule={spec.rule!r} is unknown; known: {', '.join(RULES)}")
    num_clusters, num_edges = cost_clients.shape
    _check_slots(num_clusters, spec.edge_capacity * num_edges)
    times = jnp.arange(1, spec.edge_capacity + 1, dtype=jnp.float32)[
        None, :, None
    ]  # [1, copies, 1]
    cost = cost_clients[:, None] + times * cost_node[:, None]  # [M, copies, E]
    cost = cost.reshape(num_clusters, -1)
    slot = RULES[spec.rule](Pairs(cost, formed, distance, key, spec))
    placed = formed & (slot >= 0)
    paid = jnp.where(placed, at_pairs(cost, jnp.arange(num_clusters), slot), 0.0)
    value = paid.max() if spec.objective == "bottleneck" else paid.sum()
    return jnp.where(placed, slot % num_edges, -1), value


class Pairs(NamedTuple):
    """Clusters and slots, and what a rule may go by; S = E x `edge_capacity` slots."""

    cost: Float[AnyArray, "M S"]  # infinite where forbidden
    formed: Bool[AnyArray, "M"]  # a cluster that did not form may get any slot, or -1
    distance: Float[AnyArray, "M E"] | None  # mean distance of a cluster's clients to a node
    key: PRNGKeyArray | None
    spec: OffloadSpec  # static

    def order(self, preference: Real[Array, "M S"]) -> Float32[Array, "M S"]:
        """Returns a preference, least first, that is infinite where a pair is not allowed."""
        allowed = self.formed[:, None] & jnp.isfinite(self.cost)
        return jnp.where(allowed, preference, jnp.inf)


def _optimal(pairs):
    return match(jnp.where(pairs.formed[:, None], pairs.cost, 0.0), pairs.spec.objective)


def _greedy(pairs):
    return _take_cheapest(pairs.order(pairs.cost))


def _random(pairs):
    return _take_in_turn(pairs.order(jax.random.uniform(pairs.key, pairs.cost.shape)))


def _nearest(pairs):
    rank = jnp.argsort(jnp.argsort(pairs.distance, axis=1), axis=1)  # of equal ones, the first
    return _take_in_turn(pairs.order(jnp.tile(rank, (1, pairs.spec.edge_capacity))))


RULES: dict[str, Callable[[Pairs], Int32[Array, "M"]]] = {
    "optimal": _optimal,
    "greedy": _greedy,
    "random": _random,
    "nearest": _nearest,
}
"""Slot of each cluster, -1 for none. A script may add a rule before it makes settings."""


def _take_cheapest(cost):
    """Returns each cluster's slot, the cheapest pair left taken each time; inf forbids a pair."""

    def take(_, carry):
        left, slot = carry
        m, s = jnp.unravel_index(jnp.argmin(left), left.shape)
        slot = slot.at[m].set(jnp.where(jnp.isfinite(left[m, s]), s, slot[m]))
        return left.at[m].set(jnp.inf).at[:, s].set(jnp.inf), slot

    start = cost, jnp.full(cost.shape[0], -1, jnp.int32)
    return jax.lax.fori_loop(0, cost.shape[0], take, start)[1]


def _take_in_turn(preference):
    """Gives each cluster, in order, the free slot that it puts first; inf forbids a pair."""

    def take(m, carry):
        free, slot = carry
        left = jnp.where(free, preference[m], jnp.inf)
        s = jnp.argmin(left)
        going = jnp.isfinite(left[s])
        return free.at[s].set(free[s] & ~going), slot.at[m].set(jnp.where(going, s, -1))

    num_clusters, num_slots = preference.shape
    start = jnp.ones(num_slots, bool), jnp.full(num_clusters, -1, jnp.int32)
    return jax.lax.fori_loop(0, num_clusters, take, start)[1]


def _check_slots(num_clusters, num_slots):
    """Raises ValueError where there are more clusters than slots."""
    if num_clusters > num_slots:
        raise ValueError(
            f"{num_clusters} clusters cannot each have one of {num_slots} server slots; "
            "raise offload.edge_capacity or lower clustering.num_clusters"
        )


def _forbid(cost, allowed):
    """Costs scaled to [0, 1] with a finite penalty, larger than any total, where not allowed."""
    least = jnp.where(allowed, cost, jnp.inf).min()
    most = jnp.where(allowed, cost, -jnp.inf).max()
    span = jnp.where(most > least, most - least, 1.0)
    return jnp.where(allowed, (cost - least) / span, cost.shape[0] + 1.0)


def _assign_min_sum(cost):
    """Returns the column of each row, i32[R], of least total of a finite f32[R, S], R <= S."""
    row, column = optax.assignment.hungarian_algorithm(cost)  # rows come unordered
    return jnp.zeros(cost.shape[0], jnp.int32).at[row].set(column.astype(jnp.int32))


class _Growth(NamedTuple):
    """A matching of pairs up to a limit, and the search for a larger one."""

    limit: Float32[Array, ""]  # of the pairs searched
    needed: Float32[Array, ""]  # limit at which the matching last grew
    row_of: Int32[Array, "E"]  # M for a column that is free
    column_of: Int32[Array, "M"]  # E for a row that is free
    reached: Bool[Array, "M"]  # from free rows, along pairs up to the limit
    via: Int32[Array, "E"]  # row from which a column is reached, M for none
    going: Bool[Array, ""]


def least_limit(cost: Float32[Array, "M E"], allowed: Bool[Array, "M E"]) -> Float32[Array, ""]:
    """Returns the least value such that the pairs up to it hold a matching as large as any.

    A matching of pairs up to a limit grows by a pair at a time. From all free rows at once, the
    search goes to all columns within the limit, and on to the rows matched to these; where that
    leads nowhere the limit rises to the next pair. A free column ends a path that makes the
    matching larger by one. Without such a path at any limit, it is as large as any, and the limit
    at which it last grew is the least.

    Args:
      cost: f32[M, E] cost of each pair.
      allowed: bool[M, E] pairs that may be matched.
    Returns:
      f32[]; -inf where no pair is allowed.
    Reference:
      Derigs and Zimmermann, An augmenting path method for solving linear bottleneck assignment
      problems, Computing 19 (1978), here from all free rows at once.
    """
    rows, columns = cost.shape
    cost = jnp.where(allowed, cost, jnp.inf)

    def search(now):
        left = jnp.where(now.reached[:, None] & (now.via == rows)[None], cost, jnp.inf)
        least = left.min()
        going = least < jnp.inf
        limit = jnp.where(going, jnp.maximum(now.limit, least), now.limit)
        via = jnp.where(left <= limit, jnp.arange(rows)[:, None], rows).min(0)  # [E]
        ends = (via < rows) & (now.row_of == rows)
        found = ends.any()
        reached = now.reached.at[now.row_of].max(via < rows, mode="drop")
        via = jnp.minimum(now.via, via)
        end = jnp.where(found, jnp.argmax(ends), columns)
        row_of, column_of = _enlarge(now.row_of, now.column_of, via, end)
        return _Growth(
            limit,
            jnp.where(found, limit, now.needed),
            row_of,
            column_of,
            jnp.where(found, column_of == columns, reached),
            jnp.where(found, rows, via),
            going,
        )

    nothing = jnp.full(columns, rows, jnp.int32)
    free = jnp.full(rows, columns, jnp.int32)
    everyone = jnp.ones(rows, bool)
    least = jnp.float32(-jnp.inf)
    start = _Growth(least, least, nothing, free, everyone, nothing, jnp.bool_(True))
    return jax.lax.while_loop(lambda now: now.going, search, start).needed


def _enlarge(row_of, column_of, via, end):
    """Enlarges the matching by the path that ends at a column; E for no path."""

    def turn(path):
        row_of, column_of, column = path
        row = via[column]
        return row_of.at[column].set(row), column_of.at[row].set(column), column_of[row]

    path = row_of, column_of, end.astype(jnp.int32)
    return jax.lax.while_loop(lambda path: path[2] < row_of.shape[0], turn, path)[:2]
