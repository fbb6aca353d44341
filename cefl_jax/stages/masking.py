"""What is finite: of what the stages of a round leave, and of what single clients come to."""

import collections
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from cefl_jax.types import AnyArray


def finite_leaves(tree: PyTree) -> PyTree:
    """Returns whether all values of a leaf are finite, bool[] for each leaf; whole numbers are."""
    return jax.tree.map(lambda x: jnp.isfinite(x).all(), tree)


def finite_rows(tree: PyTree) -> Bool[Array, "C"]:
    """Tells whether all values of a row are finite, bool[C], in all leaves [C, ...] of a tree."""
    rows = [jnp.isfinite(x).reshape(x.shape[0], -1).all(1) for x in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, rows)


def finite_by_stage(*stages: tuple[str, PyTree]) -> collections.OrderedDict[str, PyTree]:
    """Returns which leaves are finite of what each stage of a round has left.

    Args:
      *stages: pairs of a stage's name and a tree, in the order in which they ran.
    Returns:
      OrderedDict {name: tree of bool[]}, in that order; of a dict, JAX would sort the names.
    """
    return collections.OrderedDict((name, finite_leaves(tree)) for name, tree in stages)


def where_rows(mask: Bool[Array, "..."], new: PyTree, old: PyTree) -> PyTree:
    """Returns the rows of the leaves [C, ...] of two trees: the new ones where bool[C] says so."""
    return jax.tree.map(lambda a, b: jnp.where(expand_like(mask, a), a, b), new, old)


def expand_like(values: Shaped[Array, "..."], x: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """Returns the values of the first axes of x, with its rank."""
    return values.reshape(*values.shape, *[1] * (x.ndim - values.ndim))
