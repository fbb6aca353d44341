"""The hand-written gradients against finite differences, and the optimizer against optax."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from tests.compare import assert_close
from tests.oracles import split_round
from tests.oracles.dense_net import (
    Sgd,
    drawn_network,
    each,
    forward,
    sgd_step,
    zeros_like,
)
from tests.oracles.round_types import Archive, Settings, Teaching

RNG = np.random.default_rng(5)


def numeric_gradient(loss, layers, step=1e-6):
    """Central differences of `loss(layers)` by every parameter."""
    grads = zeros_like(layers)
    for (w, b), (dw, db) in zip(layers, grads, strict=True):
        for array, grad in ((w, dw), (b, db)):
            for i in np.ndindex(array.shape):
                keep = array[i]
                array[i] = keep + step
                above = loss(layers)
                array[i] = keep - step
                grad[i] = (above - loss(layers)) / (2 * step)
                array[i] = keep
    return grads


def mean_loss(layers, x, y):
    logits = x
    for i, (w, b) in enumerate(layers):
        logits = np.maximum(logits, 0) @ w + b if i else logits @ w + b
    return -log_softmax(logits, axis=1)[np.arange(len(y)), y].mean()


class TestGradients:
    def test_a_training_step_follows_both_mean_losses(self):
        """At rate 1 a step is the gradient: of the cluster's mean loss, of the client's own."""
        front, back = drawn_network(4, 5, seed=1), drawn_network(5, 4, 3, seed=2)
        fronts = {0: front, 1: drawn_network(4, 5, seed=3)}
        rng = np.random.default_rng(0)
        batches = {k: (rng.normal(size=(n, 4)), rng.integers(0, 3, n)) for k, n in ((0, 2), (1, 5))}
        settings = Settings(1, Sgd(1.0), Sgd(1.0))
        buffers = {k: zeros_like(front) for k in fronts}
        moved, _, new_back, _, _, loss = split_round.train_step(
            fronts, buffers, back, zeros_like(back), batches, settings
        )

        def cluster_loss(layers):
            losses = [len(y) * mean_loss(fronts[k] + layers, x, y) for k, (x, y) in batches.items()]
            return sum(losses) / 7

        assert loss == pytest.approx(cluster_loss(back))
        gradient = each(np.subtract, back, new_back)
        assert_close(gradient, numeric_gradient(cluster_loss, back), atol=1e-8)
        for k, (x, y) in batches.items():

            def own_loss(layers, x=x, y=y):
                return mean_loss(layers + back, x, y)

            gradient = each(np.subtract, fronts[k], moved[k])
            assert_close(gradient, numeric_gradient(own_loss, fronts[k]), atol=1e-8)

    @pytest.mark.parametrize(("weight", "temperature"), [(0.0, 1.0), (0.3, 2.0), (1.0, 4.0)])
    def test_a_teaching_step_follows_the_distillation_loss(self, weight, temperature):
        student, teacher = drawn_network(5, 4, 3, seed=1), drawn_network(5, 6, 4, 3, seed=2)
        x, y = RNG.normal(size=(6, 5)), RNG.integers(0, 3, 6)
        archive = Archive([], np.abs(x), y)
        rows = [4, 0, 1]

        def loss(layers):
            z = archive.features[rows]
            soft = [log_softmax(forward(n, z)[-1] / temperature, axis=1) for n in (teacher, layers)]
            kl = (np.exp(soft[0]) * (soft[0] - soft[1])).sum(1).mean()
            hard = mean_loss(layers, z, y[rows])
            return (1 - weight) * hard + weight * temperature**2 * kl

        moved, _, losses = split_round.teach(
            student,
            zeros_like(student),
            teacher,
            archive,
            [[rows]],
            Teaching(weight, temperature, Sgd(1.0)),
        )
        assert losses == [pytest.approx(loss(student))]
        gradient = each(np.subtract, student, moved)
        assert_close(gradient, numeric_gradient(loss, student), atol=1e-8)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_sgd_is_optaxs(clip_norm):
    sgd = Sgd(0.1, momentum=0.9, weight_decay=0.01, clip_norm=clip_norm)
    chain = optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.add_decayed_weights(sgd.weight_decay),
        optax.sgd(sgd.learning_rate, momentum=sgd.momentum),
    )
    layers = drawn_network(3, 2, 2)
    buffer, theirs = zeros_like(layers), each(lambda p: jnp.asarray(p, jnp.float32), layers)
    state = chain.init(theirs)
    for seed in range(4):
        grads = drawn_network(3, 2, 2, seed=seed + 10)
        layers, buffer = sgd_step(layers, buffer, grads, sgd)
        grads = each(lambda g: jnp.asarray(g, jnp.float32), grads)
        updates, state = chain.update(grads, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    assert_close(layers, theirs, atol=1e-6)
