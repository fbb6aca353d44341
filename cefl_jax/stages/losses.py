"""Losses of single samples, which every way of training shares."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from cefl_jax.types import AnyArray


def cross_entropy(
    logits: Float[AnyArray, "*B Y"], labels: Int[AnyArray, "*B"]
) -> Float32[Array, "*B"]:
    """Returns the cross-entropy f32[*B] of logits f32[*B, Y] and labels i32[*B], in nats.

    Infinite for a label that is none. Labels are compared and not looked up: the gradient of a
    look-up is a loop over the samples.
    """
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    nats = -jnp.where(own, jax.nn.log_softmax(logits), 0.0).sum(-1)
    return jnp.where(own.any(-1), nats, jnp.inf)
