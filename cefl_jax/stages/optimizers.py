"""Optimizers in two parts: a direction, and a step along it by a traced learning rate."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, Float, PyTree

from cefl_jax.specs import OptimizerSpec


def make_direction(
    name: str, momentum: float = 0.0, weight_decay: float = 0.0, clip_norm: float | None = None
) -> optax.GradientTransformation:
    """Makes the direction of an optimizer in PyTorch's order: clip, decay, momentum or Adam.

    Args:
      name: "sgd" or "adam".
      momentum: of "sgd"; 0 keeps no state.
      weight_decay: times the parameters, added to the gradient.
      clip_norm: largest global norm of the gradient; None for no limit.
    Returns:
      optax.GradientTransformation whose updates are multiplied by minus the learning rate.
    Raises:
      ValueError: for an unknown name.
    """
    parts = []
    if clip_norm is not None:
        parts.append(_clip(clip_norm))
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay))
    if name == "adam":
        parts.append(optax.scale_by_adam())
    elif name != "sgd":
        raise ValueError(f"optimizer.name={name!r} is unknown; known: sgd, adam")
    elif momentum:
        parts.append(optax.trace(momentum))
    return optax.chain(*parts) if parts else optax.identity()


def _clip(most):
    """Makes `optax.clip_by_global_norm` with one division, which no compiler does in two ways."""

    def update(grads, state, _=None):
        norm = optax.tree.norm(grads)
        share = jnp.where(norm < most, 1.0, most * (1.0 / norm))
        return jax.tree.map(lambda g: g * share, grads), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def named_direction(spec: OptimizerSpec) -> optax.GradientTransformation:
    """Returns the direction that an OptimizerSpec names; see `make_direction`."""
    return make_direction(spec.name, spec.momentum, spec.weight_decay, spec.clip_norm)


def descend(
    direction: optax.GradientTransformation,
    grads: PyTree,
    state: PyTree,
    params: PyTree,
    learning_rate: Float[ArrayLike, ""],
) -> tuple[PyTree, PyTree]:
    """Takes one step; returns the new parameters and optimizer state."""
    updates, state = direction.update(grads, state, params)
    return jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), state
