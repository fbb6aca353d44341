"""Parameters that are drawn: to compile a model's `init` would take seconds."""

import jax
import numpy as np


def draw_halves(model, scale, seed=0):
    """The Halves of a split model with normal values everywhere, in biases too."""
    rng = np.random.default_rng(seed)
    halves, _ = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.float32(rng.normal(0, scale, leaf.shape)), halves)
