"""A local step against plain JAX, client by client, and without those who are not finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cefl_jax.specs import CompressionSpec, PrivacySpec
from cefl_jax.stages.link import Codec, make_link
from cefl_jax.stages.split_step import split_step, split_step_dropping_nonfinite
from tests import world
from tests.compare import assert_close
from tests.quick import quick_jit
from tests.stages.drawn import draw_halves

CLIENTS, BATCH = 4, 3
HUGE = 3e38  # in f32 two of them are infinite
LINKS = {
    "int8 up, topk down, noise": (CompressionSpec("int8", "topk", 0.07), PrivacySpec(0.3)),
    "topk up, int8 down": (CompressionSpec("topk", "int8", 0.07), PrivacySpec(0.0)),
    "nothing": (CompressionSpec(), PrivacySpec()),
}


@functools.cache
def make_step(function, name):
    """The compiled step of a function over a link."""
    model, link = world.make_setup().model, make_link(*LINKS[name])

    def run(*args):
        return function(model, link, draw_keys(len(args[-1])), *args)

    return quick_jit(run)


def draw_keys(count):
    return jax.random.split(jax.random.key(7), count)


def draw_arrays():
    """Different front halves, a back half, images, labels, and which count: client 1 has two."""
    model, rng = world.make_setup().model, np.random.default_rng(0)
    every = [draw_halves(model, 0.3, seed) for seed in range(CLIENTS)]
    fronts = jax.tree.map(lambda *leaves: np.stack(leaves), *(halves.front for halves in every))
    images = np.float32(rng.normal(size=(CLIENTS, BATCH, 8, 8, 1)))
    labels = rng.integers(0, 4, (CLIENTS, BATCH))
    valid = np.ones((CLIENTS, BATCH), bool)
    valid[1, 2] = False
    return fronts, every[0].back, images, labels, valid


@pytest.mark.parametrize("name", LINKS)
def test_split_step_passes_gradients_straight_through_the_link(name):
    """One client at a time and only with its samples that count."""
    model, (compression, privacy) = world.make_setup().model, LINKS[name]
    fronts, back, images, labels, valid = args = draw_arrays()
    sent = make_step(split_step, name)(*args)
    smashed, gradient = (
        Codec(rule, compression.topk_share) for rule in (compression.smashed, compression.gradient)
    )

    def summed_loss(back, features, labels):
        logits = model.back(back, features)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).sum()

    @quick_jit
    def pull_back(front, images, gradient):
        return jax.vjp(lambda front: model.front(front, images), front)[1](gradient)[0]

    alone, front_of = quick_jit(jax.value_and_grad(summed_loss, (0, 1))), quick_jit(model.front)
    back_grad, loss = jax.tree.map(np.zeros_like, back), 0.0
    for c, key in enumerate(draw_keys(CLIENTS)):
        front, count = world.row_of(fronts, c), int(valid[c].sum())
        up, down = jax.random.split(key)
        noise_key, codec_key = jax.random.split(up)
        features = front_of(front, images[c])
        noise = privacy.noise_std * jax.random.normal(noise_key, features.shape)
        arrived = smashed.transmit(codec_key, features + noise, valid[c])
        assert_close(sent.smashed[c], arrived)
        value, grads = alone(back, arrived[:count], labels[c, :count])
        loss, back_grad = loss + value, jax.tree.map(jnp.add, back_grad, grads[0])
        cut = jnp.zeros_like(arrived).at[:count].set(grads[1] / count)  # of the mean loss
        got = gradient.transmit(down, cut, valid[c])
        assert_close(world.row_of(sent.front_grads, c), pull_back(front, images[c], got), 1e-4)
        # The values do change on their way, except where nothing is done to them.
        assert np.array_equal(arrived, features) == (name == "nothing")
        assert np.array_equal(got, cut) == (name == "nothing")
        assert np.abs(cut).max() > 1e-4
    assert_close(sent.back_grad, back_grad, 1e-4)
    assert_close(sent.loss, loss)
    assert sent.finite.all()


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
def test_split_step_dropping_nonfinite_is_that_of_the_others_alone(damage, nonfinite):
    dropping, plain = (
        make_step(step, "nothing") for step in (split_step_dropping_nonfinite, split_step)
    )
    fronts, back, images, labels, valid = draw_arrays()
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


def test_split_step_dropping_nonfinite_changes_nothing_of_finite_clients():
    """Samples that do not count do not make a client nonfinite."""
    args = draw_arrays()
    args[3][1, 2] = 77
    sent, plain = (
        make_step(step, "nothing")(*args) for step in (split_step_dropping_nonfinite, split_step)
    )
    assert sent.finite.all()
    jax.tree.map(np.testing.assert_array_equal, sent, plain)


def test_split_step_dropping_nonfinite_drops_all_with_a_back_half_that_is_not():
    """And the search for those who are finite comes to an end."""
    fronts, back, *samples = draw_arrays()
    back = jax.tree.map(lambda x: np.nan * x, back)
    sent = make_step(split_step_dropping_nonfinite, "nothing")(fronts, back, *samples)
    assert not sent.finite.any()
    assert sent.loss == 0
