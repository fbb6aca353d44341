"""A step of clients of whom some are not finite is that of the others alone."""

import jax
import jax.numpy as jnp
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


@pytest.fixture(scope="module")
def step():
    """Arguments of a step, in which client 1 has two samples, and the compiled functions."""
    model, rng = world.make_setup().model, np.random.default_rng(0)
    halves, _ = jax.eval_shape(model.init, jax.random.key(0))
    front, back = jax.tree.map(lambda x: np.float32(rng.normal(0, 0.3, x.shape)), halves)
    fronts = jax.tree.map(lambda x: np.stack([x] * CLIENTS), front)
    images = np.float32(rng.normal(size=(CLIENTS, BATCH, 8, 8, 1)))
    labels = rng.integers(0, 4, (CLIENTS, BATCH))
    valid = np.ones((CLIENTS, BATCH), bool)
    valid[1, 2] = False
    wire = make_link(CompressionSpec(), PrivacySpec())

    def compiled(f):
        keys = lambda valid: jax.random.split(jax.random.key(0), len(valid))  # noqa: E731
        return quick_jit(lambda *args: f(model, wire, keys(args[-1]), *args))

    finitely, plainly = compiled(split_step_dropping_nonfinite), compiled(split_step)
    return (fronts, back, images, labels, valid), finitely, plainly


def alone(args, finite):
    """The arguments of the finite clients only."""
    fronts, back, *samples = args
    return jax.tree.map(lambda x: x[finite], fronts), back, *(x[finite] for x in samples)


def nonfinite_features(args):
    images = args[2].copy()
    images[2, 0, 0, 0] = np.nan
    return (*args[:2], images, *args[3:])


def nonfinite_loss(args):
    """A label that is none: features and gradient are finite all the same."""
    labels = args[3].copy()
    labels[2, 0] = 77
    return (*args[:3], labels, args[4])


def nonfinite_gradient(args):
    """A pixel that the features do not see, and a back half that is steep."""
    fronts, back, images, *rest = args
    fronts, images = jax.tree.map(np.copy, (fronts, images))
    fronts[0]["Dense_0"]["kernel"][2, 0] = 0.0
    images[2, :, 0, 0] = HUGE
    back = jax.tree.map(lambda x: 5 * x, back)
    return fronts, back, images, *rest


@pytest.mark.parametrize("breaks", [nonfinite_features, nonfinite_loss, nonfinite_gradient])
def test_the_others_get_what_they_would_get_alone(step, breaks):
    args, finitely, plainly = step
    args = breaks(args)
    sent, raw = finitely(*args), plainly(*args)
    assert sent.finite.tolist() == raw.finite.tolist() == [True, True, False, True]
    others = np.asarray(sent.finite)
    expected = plainly(*alone(args, others))
    got = sent._replace(
        **{
            name: jax.tree.map(lambda x: x[others], getattr(sent, name))
            for name in ("smashed", "front_grads", "finite")
        }
    )
    assert_close(got, expected)
    # In each case another thing is not finite.
    seen = [
        name
        for name in ("smashed", "loss", "front_grads")
        if not jax.tree.all(jax.tree.map(lambda x: jnp.isfinite(x).all(), getattr(raw, name)))
    ]
    assert (
        seen[-1]
        == {
            nonfinite_features: "front_grads",
            nonfinite_loss: "loss",
            nonfinite_gradient: "front_grads",
        }[breaks]
    )
    assert ("smashed" in seen) == (breaks is nonfinite_features)
    assert ("loss" in seen) == (breaks is not nonfinite_gradient)


def test_of_finite_clients_nothing_changes(step):
    args, finitely, plainly = step
    jax.tree.map(np.testing.assert_array_equal, finitely(*args), plainly(*args))


def test_samples_that_do_not_count_do_not_make_a_client_nonfinite(step):
    args, finitely, _ = step
    labels = args[3].copy()
    labels[1, 2] = 77
    assert finitely(*args[:3], labels, args[4]).finite.all()


def test_with_a_back_half_that_is_not_finite_nobody_is_finite(step):
    """And the search for who is comes to an end."""
    (fronts, back, *samples), finitely, _ = step
    sent = finitely(fronts, jax.tree.map(lambda x: np.full_like(x, np.nan), back), *samples)
    assert not sent.finite.any()
    assert sent.loss == 0
