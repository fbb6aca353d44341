"""What crosses the cut: noise and compression change values on their way, and no gradient rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cefl_jax import program
from cefl_jax.methods.cefl import CeflState
from cefl_jax.network.messages import Sizes
from cefl_jax.specs import CompressionSpec, PrivacySpec
from cefl_jax.stages.compression import Codec
from cefl_jax.stages.leakage import distance_correlation
from cefl_jax.stages.link import make_link
from cefl_jax.stages.split_step import split_step
from cefl_jax.stages.split_training import draw_key
from cefl_jax.types import Purpose, purpose_key, round_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.quick import quick_jit

LINKS = {
    "int8 up, topk down, noise": (CompressionSpec("int8", "topk", 0.07), PrivacySpec(0.3)),
    "topk up, int8 down": (CompressionSpec("topk", "int8", 0.07), PrivacySpec(0.0)),
    "nothing": (CompressionSpec(), PrivacySpec()),
}
NOISY = {
    "cefl.compression.smashed": "int8",
    "cefl.compression.gradient": "topk",
    "cefl.compression.topk_share": 0.3,
    "cefl.privacy.noise_std": 0.5,
    "train.optimizer.momentum": 0.5,
}


def draw_halves(model):
    """Parameters, biases included; to compile `init` would take seconds."""
    rng = np.random.default_rng(1)
    halves, _ = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.float32(rng.normal(0, 0.1, leaf.shape)), halves)


def make_state(key, halves):
    """A state of which there is what split training needs."""
    nothing = dict.fromkeys(CeflState._fields)
    return CeflState(**nothing | {"key": key, "round": jnp.int32(0), "halves": halves})


def mean_loss(model, back, features, labels):
    logits = model.back(back, features)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def pull_back(model, front, images, gradient):
    return jax.vjp(lambda front: model.front(front, images), front)[1](gradient)[0]


@pytest.mark.parametrize("name", LINKS)
def test_split_step_passes_gradients_straight_through_the_link(name):
    """Plain JAX, one of two clients at a time and only with its samples that count."""
    model, rng = world.make_setup().model, np.random.default_rng(0)
    halves = draw_halves(model)
    fronts = jax.tree.map(
        lambda leaf: leaf + np.float32(rng.normal(0, 0.05, (2, *leaf.shape))), halves.front
    )
    images = jnp.float32(rng.normal(size=(2, 5, 8, 8, 1)))
    labels = jnp.int32(rng.integers(0, 4, (2, 5)))
    valid = jnp.array([[True] * 5, [True, True, True, False, False]])
    keys = jax.random.split(jax.random.key(7), 2)
    compression, privacy = LINKS[name]
    link = make_link(compression, privacy)
    batch = keys, fronts, halves.back, images, labels, valid
    sent = quick_jit(lambda *batch: split_step(model, link, *batch))(*batch)
    smashed, gradient = (
        Codec(rule, compression.topk_share) for rule in (compression.smashed, compression.gradient)
    )
    alone = quick_jit(jax.value_and_grad(functools.partial(mean_loss, model), (0, 1)))
    front_of, pulled = quick_jit(model.front), quick_jit(functools.partial(pull_back, model))
    back_grad, loss = jax.tree.map(jnp.zeros_like, halves.back), 0.0
    for c in range(2):
        front, count = world.row_of(fronts, c), int(valid[c].sum())
        up, down = jax.random.split(keys[c])
        noise_key, codec_key = jax.random.split(up)
        features = front_of(front, images[c])
        noise = privacy.noise_std * jax.random.normal(noise_key, features.shape)
        arrived = smashed.transmit(codec_key, features + noise, valid[c])
        assert_close(sent.smashed[c], arrived)
        value, grads = alone(halves.back, arrived[:count], labels[c, :count])
        loss += count * value
        scaled = jax.tree.map(functools.partial(jnp.multiply, count), grads[0])
        back_grad = jax.tree.map(jnp.add, back_grad, scaled)
        cut = jnp.zeros_like(arrived).at[:count].set(grads[1])
        got = gradient.transmit(down, cut, valid[c])
        assert_close(world.row_of(sent.front_grads, c), pulled(front, images[c], got), 1e-4)
        # The values do change on their way, except where nothing is done to them.
        assert (np.abs(arrived - features)[:count].max() > 1e-3) == (name != "nothing")
        assert (np.abs(got - cut).max() > 1e-3 * np.abs(cut).max()) == (name != "nothing")
        assert np.abs(cut).max() > 1e-4
    assert_close(sent.back_grad, back_grad, 1e-4)
    assert_close(sent.loss, loss)


def test_make_link_of_default_settings_leaves_every_bit():
    link, message = make_link(CompressionSpec(), PrivacySpec()), jnp.ones((2, 3))
    for send in link.send_features, link.send_gradient:
        assert send(jax.random.key(0), message, np.ones(2, bool)) is message


@pytest.mark.parametrize(
    ("smashed", "gradient", "up", "down"),
    [
        ("none", "bf16", (800, 0), (400, 0)),
        ("int8", "topk", (200, 4), (14 * 5, 0)),  # a scale; indices of a byte
    ],
)
def test_sizes_are_those_of_the_messages_of_200_values(smashed, gradient, up, down):
    compression = {"smashed": smashed, "gradient": gradient, "topk_share": 0.07}
    changes = {f"cefl.compression.{name}": value for name, value in compression.items()}
    planner = world.make_setup(changes).planner
    assert planner.sizes == Sizes(up, down, 4, planner.work.front_bytes, planner.work.back_bytes)


@functools.cache
def make_trainer(client_chunk):
    """A setup, and from a learning rate to the state, the Plan and the result of training."""
    setup = world.make_setup(NOISY | {"run.client_chunk": client_chunk})
    trainer, spec = world.trainer(setup), setup.spec
    state = make_state(jax.random.key(spec.seed), draw_halves(setup.model))
    clients, cluster = np.int32([4, 0, 9, 6, 2, 10, 1]), np.int32([0, 1, 0, 1, 1, 2, 1])
    plan = replay.make_plan(clients, cluster, setup.data.sizes[clients], 3, spec.train, None)
    hparams = program.make_hparams(spec)

    def train(learning_rate):
        rate = jnp.float32(learning_rate)
        return state, plan, trainer(state, plan, hparams._replace(learning_rate=rate))

    return setup, train


@pytest.mark.slow
def test_split_train_is_the_same_with_any_client_chunk():
    """Up to rounding, and where that turns one of int8's coins, up to one level of a value."""
    (*_, some), (*_, all_at_once) = (make_trainer(width)[1](0.05) for width in (3, 7))
    assert_close(some.halves, all_at_once.halves, 1e-3)
    assert_close(some.loss, all_at_once.loss, 1e-4)
    assert some.samples == all_at_once.samples
    np.testing.assert_array_equal(some.uploads.order, all_at_once.uploads.order)
    features = np.asarray(some.uploads.features), np.asarray(all_at_once.uploads.features)
    different = np.abs(np.subtract(*features)) > 1e-4 * np.abs(features[1]).max()
    assert different.mean() < 1e-3


def test_split_train_draws_a_message_by_its_client_and_its_step():
    """With a learning rate of 0 every uploaded message is that of the first front half."""
    setup, train = make_trainer(3)
    state, plan, after = train(0.0)
    model, data = setup.model, setup.data
    link = make_link(setup.spec.cefl.compression, setup.spec.cefl.privacy)
    batches, links = (
        round_key(state.key, 0, purpose) for purpose in (Purpose.BATCHES, Purpose.LINK)
    )
    front, send = quick_jit(model.front), quick_jit(link.send_features)
    shape = (7, setup.planner.bounds.uploads, 4, *model.feature_shape)
    features = np.asarray(after.uploads.features).reshape(shape)
    sent = 0
    for k, client in enumerate(plan.clients.tolist()):
        for slot in range(int(plan.uploaded[k])):
            step = int(plan.steps[k] - plan.uploaded[k]) + slot
            examples, valid = replay.draw_batch(data, batches, client, step, 4)
            images = data.images[np.minimum(examples, len(data.labels) - 1)]
            plain = front(state.halves.front, data.normalise(images))
            up, _ = jax.random.split(draw_key(links, client, step))
            expected, plain, actual, there = jax.device_get(
                (send(up, plain, valid), plain, features[k, slot], valid)
            )
            level = np.abs(expected[there]).max() / 127
            off = np.abs(actual - expected)[there]
            assert off.max() < 1.01 * level
            assert (off < level / 10).mean() > 0.999
            assert np.abs(actual - plain)[there].max() > 0.5  # it is noisy
            sent += int(there.sum())
    assert sent == int(after.uploads.count)


def test_measures_of_leakage_are_of_what_is_sent():
    """Of the probe as one message, with the noise and the codec of the smashed data."""
    setup = world.make_setup(NOISY | {"cefl.privacy.probe_size": 20})
    state = make_state(jax.random.key(3), draw_halves(setup.model))
    measure = quick_jit(lambda *args: program.make_method(setup, *args[1:]).measures(args[0]))
    measured = measure(state, setup.data, setup.network)
    images = setup.data.normalise(setup.data.test_images[:20])
    link = make_link(setup.spec.cefl.compression, setup.spec.cefl.privacy)
    features = quick_jit(setup.model.front)(state.halves.front, images)
    up = purpose_key(state.key, Purpose.PROBE)
    sent, plain = (
        float(quick_jit(distance_correlation)(images, message))
        for message in (link.send_features(up, features, np.ones(20, bool)), features)
    )
    assert abs(sent - plain) > 0.01
    assert_close(measured, {"privacy/distance_correlation": sent}, 1e-4)
