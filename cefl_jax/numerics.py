"""Arithmetic that a compiler does to the same bits in every program, and in reasonable time.

With `run.deterministic` a run has the same bits on any number of devices. What that asks of single
operations stands here; how work is dealt to devices and gathered, in `parallel`.
"""

import collections
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Real, Shaped

from cefl_jax.types import AnyArray


def reciprocal(count: Real[AnyArray, "..."]) -> Any:
    """Returns 1 / count, f32[...], and 1 where the count is 0, to multiply a sum by.

    A mean is a product here and not a quotient: the compiler for CPUs turns some divisions by a
    scalar into a product with the reciprocal, and leaves others, which round differently.
    """
    return 1.0 / jnp.where(count > 0, count, 1)


def take(
    values: Shaped[AnyArray, "n ..."], index: Int[AnyArray, "..."], fill_value: Any = 0
) -> Any:
    """Returns rows of an array by index, and a value where an index is out of its range.

    A negative index is out of it, and does not count from the end.

    Args:
      values: [n, ...].
      index: i32[...].
      fill_value: of the values' type; None for the row of the nearest index.
    Returns:
      [*index, ...].
    """
    rows, mode = jnp.asarray(values).at[index], "clip" if fill_value is None else "fill"
    return rows.get(mode=mode, fill_value=fill_value, wrap_negative_indices=False)


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
    at = row * columns + column
    return flat.at[..., at].get(mode="promise_in_bounds", wrap_negative_indices=False)


def sum_in_order(results: PyTree) -> PyTree:
    """Returns sums of the leaves `[n, ...]` of a tree over their n items, from first to last.

    A loop, whose order is the same however the items were gathered; the order of a reduction is the
    compiler's, which has taken another one where every device had a single item.
    """
    counts = {leaf.shape[0] for leaf in jax.tree.leaves(results)}
    if not counts:
        return results
    (count,) = counts
    first = jax.tree.map(lambda x: x[0], results)
    return jax.lax.fori_loop(
        1, count, lambda i, sums: jax.tree.map(lambda s, x: s + x[i], sums, results), first
    )


def weighted_sum(stack: PyTree, weights: Float[AnyArray, "... n"]) -> PyTree:
    """Returns sums of stacked trees, leaves f32[n, ...], times weights f32[..., n].

    In full float32 on every device: by default a GPU multiplies matrices with 10 bits of mantissa,
    which is enough for a gradient, and not for parameters.

    Returns:
      Tree with leaves f32[..., *leaf.shape[1:]].
    """
    exact = functools.partial(jnp.tensordot, precision=jax.lax.Precision.HIGHEST)
    return jax.tree.map(lambda leaf: exact(weights, leaf, axes=1), stack)


def finite_rows(tree: PyTree) -> Bool[Array, "C"]:
    """Tells whether all values of a row are finite, bool[C], in all leaves [C, ...] of a tree."""
    rows = [jnp.isfinite(x).reshape(x.shape[0], -1).all(1) for x in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, rows)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["first"], meta_fields=["leaves"])
@dataclasses.dataclass(frozen=True)
class FiniteCheck:
    """Where a tree first holds a number that is not finite."""

    first: Any  # i32[...], among its values, leaf after leaf; their number: nowhere
    leaves: tuple[tuple[str, int], ...]  # each one's name, and where its values end

    @property
    def passed(self) -> Any:
        """Whether all of it is finite, bool[...]."""
        return self.first == self.leaves[-1][1]


def check_finite(tree: PyTree) -> FiniteCheck:
    """Returns the FiniteCheck of a tree, of which whole numbers pass.

    All leaves are looked at as one array: a reduction a leaf is as much code to compile as a layer.
    """
    flat, leaves, end = [], [], 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            flat.append(leaf.ravel().astype(jnp.float32))
            end += leaf.size
            leaves.append((name_leaf(path), end))
    if not flat:
        return FiniteCheck(jnp.int32(0), (("", 0),))
    bad = ~jnp.isfinite(jnp.concatenate(flat))
    return FiniteCheck(jnp.where(bad, jnp.arange(end), end).min(), tuple(leaves))


def name_leaf(path: tuple[Any, ...]) -> str:
    """Returns a leaf's place as a person writes it, such as halves.back[2]['Dense_0']['kernel']."""
    return jax.tree_util.keystr(path[:1], simple=True) + jax.tree_util.keystr(path[1:])


def finite_by_stage(*stages: tuple[str, PyTree]) -> collections.OrderedDict[str, FiniteCheck]:
    """Returns the FiniteCheck of what each stage of a round has left.

    Args:
      *stages: pairs of a stage's name and a tree, in the order in which they ran.
    Returns:
      OrderedDict by name, in that order; of a dict, JAX would sort the names.
    """
    return collections.OrderedDict((name, check_finite(tree)) for name, tree in stages)


def where_rows(mask: Bool[Array, "..."], new: PyTree, old: PyTree) -> PyTree:
    """Returns the rows of the leaves [C, ...] of two trees: the new ones where bool[C] says so."""
    return jax.tree.map(lambda a, b: jnp.where(expand_like(mask, a), a, b), new, old)


def expand_like(values: Shaped[Array, "..."], x: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """Returns the values of the first axes of x, with its rank."""
    return values.reshape(*values.shape, *[1] * (x.ndim - values.ndim))
