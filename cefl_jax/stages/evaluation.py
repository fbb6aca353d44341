"""Evaluation on the whole test set: front with back half, and front with cloud model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from cefl_jax.data.federated import FederatedData
from cefl_jax.numerics import sum_in_order, take
from cefl_jax.parallel import EdgeMesh
from cefl_jax.stages.losses import cross_entropy


class Scores(NamedTuple):
    """How a classifier does on a test set."""

    accuracy: Float32[Array, ""]  # share of the samples whose largest logit is the label's
    loss: Float32[Array, ""]  # mean cross-entropy, nats


def evaluate(
    predictors: Callable, state: Any, data: FederatedData, mesh: EdgeMesh
) -> dict[str, Scores]:
    """Scores a method's classifiers on the whole test set, in one pass.

    Args:
      predictors: from state, normalised images f32[B, ...] and their places in the test set
        i32[B], one after another, to a dict of logits f32[B, Y].
      state: what `predictors` takes.
      data: FederatedData.
      mesh: EdgeMesh, over which the batches are spread.
    Returns:
      Scores under each name that `predictors` gives.
    """
    num_examples = data.test_labels.shape[0]
    size = mesh.predicted_rows(num_examples)

    def batch(i, state, data):
        index = i * size + jnp.arange(size)
        images = data.normalise(take(data.test_images, index))
        labels = take(data.test_labels, index)
        logits = predictors(state, images, index)
        return jax.tree.map(lambda logits: _count(logits, labels, index < num_examples), logits)

    counted = sum_in_order(mesh.map(batch, -(-num_examples // size), state, data))
    each = jnp.float32(1 / num_examples)
    return {name: Scores(hits * each, losses * each) for name, (hits, losses) in counted.items()}


def _count(logits, labels, valid):
    """Counts the right answers of one batch and sums its loss, padding left out."""
    losses = cross_entropy(logits, labels)
    hits = (logits.argmax(-1) == labels) & valid
    return hits.sum(), jnp.where(valid, losses, 0.0).sum()
