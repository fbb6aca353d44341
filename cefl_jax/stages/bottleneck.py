"""The limit that the costliest pair of a matching can be kept to."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32


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
    """The least value such that the pairs up to it hold a matching as large as any.

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
        left = jnp.where(now.reached[:, None] & (now.via == rows), cost, jnp.inf)
        least = left.min()
        going = least < jnp.inf
        limit = jnp.where(going, jnp.maximum(now.limit, least), now.limit)
        via = jnp.where(left <= limit, jnp.arange(rows)[:, None], rows).min(0)     # [E]
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
    """The matching with the path that ends at a column taken in; E for no path."""

    def turn(path):
        row_of, column_of, column = path
        row = via[column]
        return row_of.at[column].set(row), column_of.at[row].set(column), column_of[row]

    path = row_of, column_of, end.astype(jnp.int32)
    return jax.lax.while_loop(lambda path: path[2] < row_of.shape[0], turn, path)[:2]
