"""The end of a convolution block: pooling, bias and ReLU in one, and one gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cefl_jax.types import AnyArray

NONE = np.int8(4)  # place of a window that the gradient goes to where ReLU lets none through


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def pool_and_activate(
    x: Float[AnyArray, "N ..."], bias: Float[Array, "..."], column: int, platform: str
) -> Float[Array, "N ..."]:
    """Returns ReLU of the largest of each 2x2 window and a bias.

    Pooling first gives the same as ReLU first, with less work. Where several of a window are
    largest, the first gets the gradient, as in PyTorch.

    Args:
      x: f32[N, 2, ..., 2, ...], its second axis that of a window's rows.
      bias: of as many axes as the result, 1 long where it is repeated.
      column: static axis of a window's columns.
      platform: static, where it will run.
    """
    return _forward(x, bias, column, platform)[0]


def _forward(x, bias, column, _):
    top = x.max((1, column), keepdims=True)
    taken = jnp.where(x == top, _numbers(x.ndim, 1, column), NONE).min((1, column))
    out = jnp.squeeze(top, (1, column)) + bias
    taken = jnp.where(out > 0, taken, NONE)
    return jnp.maximum(out, 0), (taken, bias)


def _backward(column, platform, kept, grad):
    taken, bias = kept
    repeated = [axis for axis, length in enumerate(bias.shape) if length == 1]
    of_bias = jnp.where(taken == NONE, 0, grad).sum(repeated, keepdims=True)

    def spread(taken, grad):
        taken, grad = (jnp.expand_dims(array, (0, column - 1)) for array in (taken, grad))
        return jnp.where(taken == _numbers(grad.ndim, 0, column - 1), grad, 0)

    # On a CPU in a loop, or XLA makes `taken` and `grad` anew for each of the four.
    if platform == "cpu":
        return jax.lax.map(lambda both: spread(*both), (taken, grad)), of_bias
    return jax.vmap(spread)(taken, grad), of_bias


pool_and_activate.defvjp(_forward, _backward)


def _numbers(ndim, *axes):
    """Numbers of a window's places along its rows, i8[...], these axes 2 long."""
    return np.arange(4, dtype=np.int8).reshape([2 if axis in axes else 1 for axis in range(ndim)])
