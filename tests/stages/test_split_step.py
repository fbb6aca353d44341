"""A step of clients of whom some are not finite is that of the others alone."""

import jax
import numpy as np
import pytest

from cefl_jax.specs import CompressionSpec, PrivacySpec
from cefl_jax.stages.link import make_link
from cefl_jax.stages.split_step import split_step, split_step_dropping_nonfinite
from tests import world
from tests.compare import assert_close
from tests.quick import quick_jit

CLIENTS, BATCH = 4, 3
HUGE = 3e38  # in f32 two of them are infinite


def draw_arrays():
    """The model, and arguments of a step in which client 1 has two samples."""
    model, rng = world.make_setup().model, np.random.default_rng(0)
    halves, _ = jax.eval_shape(model.init, jax.random.key(0))
    front, back = jax.tree.map(lambda x: np.float32(rng.normal(0, 0.3, x.shape)), halves)
    fronts = jax.tree.map(lambda x: np.stack([x] * CLIENTS), front)
    images = np.float32(rng.normal(size=(CLIENTS, BATCH, 8, 8, 1)))
    labels = rng.integers(0, 4, (CLIENTS, BATCH))
    valid = np.ones((CLIENTS, BATCH), bool)
    valid[1, 2] = False
    return model, (fronts, back, images, labels, valid)


@pytest.fixture(scope="module")
def steps():
    """The compiled functions, which drop clients and do not."""
    model, _ = draw_arrays()
    link = make_link(CompressionSpec(), PrivacySpec())

    def compiled(function):
        def run(*args):
            keys = jax.random.split(jax.random.key(0), len(args[-1]))
            return function(model, link, keys, *args)

        return quick_jit(run)

    return compiled(split_step_dropping_nonfinite), compiled(split_step)


def break_features(fronts, back, images, labels):
    images[2, 0, 0, 0] = np.nan
    return back


def break_loss(fronts, back, images, labels):
    """A label that is none: features and gradient are finite all the same."""
    labels[2, 0] = 77
    return back


def break_gradient(fronts, back, images, labels):
    """A pixel that the features do not see, and a back half that is steep."""
    fronts[0]["Dense_0"]["kernel"][2, 0] = 0.0
    images[2, :, 0, 0] = HUGE
    return jax.tree.map(lambda x: 5 * x, back)


@pytest.mark.parametrize(
    ("damage", "nonfinite"),
    [
        (break_features, ["loss", "smashed", "front_grads"]),
        (break_loss, ["loss"]),
        (break_gradient, ["front_grads"]),
    ],
)
def test_the_others_get_what_they_would_get_alone(steps, damage, nonfinite):
    dropping, plain = steps
    _, (fronts, back, images, labels, valid) = draw_arrays()
    args = fronts, damage(fronts, back, images, labels), images, labels, valid
    sent, raw = dropping(*args), plain(*args)
    assert sent.finite.tolist() == raw.finite.tolist() == [True, True, False, True]
    others = np.asarray(sent.finite)
    fronts, back, *samples = args
    expected = plain(world.row_of(fronts, others), back, *world.row_of(samples, others))
    rows = {
        name: world.row_of(getattr(sent, name), others)
        for name in ("smashed", "front_grads", "finite")
    }
    assert_close(sent._replace(**rows), expected)
    seen = [
        name
        for name in ("loss", "smashed", "front_grads")
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(getattr(raw, name)))
    ]
    assert seen == nonfinite


def test_of_finite_clients_nothing_changes(steps):
    """Samples that do not count do not make a client nonfinite."""
    dropping, plain = steps
    _, args = draw_arrays()
    args[3][1, 2] = 77
    sent = dropping(*args)
    assert sent.finite.all()
    jax.tree.map(np.testing.assert_array_equal, sent, plain(*args))


def test_with_a_back_half_that_is_not_finite_nobody_is_finite(steps):
    """And the search for those who are comes to an end."""
    _, (fronts, back, *samples) = draw_arrays()
    sent = steps[0](fronts, jax.tree.map(lambda x: np.nan * x, back), *samples)
    assert not sent.finite.any()
    assert sent.loss == 0
