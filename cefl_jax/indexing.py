"""Reading single elements of a matrix; a file of its own, as every part of a round does it."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from cefl_jax.types import AnyArray


def at_pairs(
    values: Shaped[AnyArray, "... R C"], row: Int[AnyArray, "..."], column: Int[AnyArray, "..."]
) -> Shaped[Array, "..."]:
    """Returns the elements at pairs of a row and a column, by one flat index each.

    It is `values[..., row, column]`. But where an element so read is itself an index, and so on,
    XLA's CPU compiler evaluates a pair of indices twice at each link of the chain, and takes time
    that grows exponentially with its length.

    Args:
      values: [..., R, C].
      row: i32[...] in [0, R); broadcast with `column`.
      column: i32[...] in [0, C).
    Returns:
      [..., *pairs] the elements; of no meaning for an index out of its range.
    """
    *lead, rows, columns = values.shape
    flat = jnp.asarray(values).reshape(*lead, rows * columns)
    row, column = jnp.broadcast_arrays(row, column)
    return flat[..., row * columns + column]
