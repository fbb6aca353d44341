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
from cefl_jax.stages.split_step import SplitStepResult, split_step
from cefl_jax.stages.split_training import draw_key
from cefl_jax.types import Purpose, purpose_key, round_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.quick import quick_jit

WIRES = {
    "int8 up, topk down, noise": (CompressionSpec("int8", "topk", 0.07), PrivacySpec(0.3)),
    "topk up, int8 down": (CompressionSpec("topk", "int8", 0.07), PrivacySpec(0.0)),
}
NOISY = {
    "cefl.compression.smashed": "int8",
    "cefl.compression.gradient": "topk",
    "cefl.compression.topk_share": 0.3,
    "cefl.privacy.noise_std": 0.5,
    "train.optimizer.momentum": 0.5,
}


def before(key, round, halves):
    """A state of which there is what split training needs."""
    nothing = dict.fromkeys(CeflState._fields)
    return CeflState(**nothing | {"key": key, "round": round, "halves": halves})


@pytest.fixture(scope="module")
def batch():
    """A model, and a batch of two clients of different front halves, some of it padding."""
    model = world.make_setup().model
    halves = drawn_halves(model)
    rng = np.random.default_rng(0)
    fronts = jax.tree.map(
        lambda leaf: leaf + np.float32(rng.normal(0, 0.05, (2, *leaf.shape))), halves.front
    )
    images = jnp.float32(rng.normal(size=(2, 5, 8, 8, 1)))
    labels = jnp.int32(rng.integers(0, 4, (2, 5)))
    valid = jnp.array([[True] * 5, [True, True, True, False, False]])
    keys = jax.random.split(jax.random.key(7), 2)
    return model, (keys, fronts, halves.back, images, labels, valid)


def drawn_halves(model):
    """Parameters, biases included; to compile `init` would take seconds."""
    rng = np.random.default_rng(1)
    halves, _ = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.float32(rng.normal(0, 0.1, leaf.shape)), halves)


def sent_by(model, wire, batch):
    return quick_jit(lambda *batch: split_step(model, wire, *batch))(*batch)


def mean_loss(model, back, features, labels):
    logits = model.back(back, features)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def pull_back(model, front, images, gradient):
    return jax.vjp(lambda front: model.front(front, images), front)[1](gradient)[0]


@pytest.mark.parametrize("name", WIRES)
def test_gradients_pass_straight_through_the_wire(batch, name):
    """Plain JAX, one client at a time and only with its samples that count."""
    model, arrays = batch
    keys, fronts, back, images, labels, valid = arrays
    compression, privacy = WIRES[name]
    sent = sent_by(model, make_link(compression, privacy), arrays)
    smashed, gradient = (
        Codec(rule, compression.topk_share) for rule in (compression.smashed, compression.gradient)
    )
    alone = quick_jit(jax.value_and_grad(functools.partial(mean_loss, model), (0, 1)))
    front_of, pulled = quick_jit(model.front), quick_jit(functools.partial(pull_back, model))
    back_grad, loss, cut_size = jax.tree.map(jnp.zeros_like, back), 0.0, []
    for c in range(2):
        front, count = world.row_of(fronts, c), int(valid[c].sum())
        up, down = jax.random.split(keys[c])
        noise_key, codec_key = jax.random.split(up)
        features = front_of(front, images[c])
        noise = privacy.noise_std * jax.random.normal(noise_key, features.shape)
        arrived = smashed.transmit(codec_key, features + noise, valid[c])
        assert_close(sent.smashed[c], arrived)
        assert np.abs(arrived - features)[:count].max() > 1e-3
        value, grads = alone(back, arrived[:count], labels[c, :count])
        loss += count * value
        scaled = jax.tree.map(functools.partial(jnp.multiply, count), grads[0])
        back_grad = jax.tree.map(jnp.add, back_grad, scaled)
        cut = jnp.zeros_like(arrived).at[:count].set(grads[1])
        got = gradient.transmit(down, cut, valid[c])
        assert np.abs(got - cut)[:count].max() > 1e-3 * np.abs(cut).max()
        assert_close(world.row_of(sent.front_grads, c), pulled(front, images[c], got), 1e-4)
        cut_size.append(np.abs(cut).max())
    assert min(cut_size) > 1e-4
    assert_close(sent.back_grad, back_grad, 1e-4)
    assert_close(sent.loss, loss)


def test_what_is_sent_is_what_the_settings_say(batch):
    """Seen in the values alone: levels of int8, the number of values of topk, the noise's size."""
    model, arrays = batch
    valid = arrays[-1]
    int8 = sent_by(model, make_link(CompressionSpec("int8"), PrivacySpec()), arrays)
    for values in np.asarray(int8.smashed)[0], np.asarray(int8.smashed)[1, :3]:
        levels = values / np.abs(values).max() * 127
        assert_close(levels, np.round(levels), 0, atol=1e-3)
    topk = sent_by(model, make_link(CompressionSpec("topk", "none", 0.07), PrivacySpec()), arrays)
    assert ((np.asarray(topk.smashed) != 0).sum(2)[valid] <= 14).all()  # of 200 values
    plain, noisy = (
        sent_by(model, make_link(CompressionSpec(), PrivacySpec(std)), arrays).smashed
        for std in (0.0, 0.3)
    )
    noise = np.asarray(noisy - plain)
    assert abs(noise.std() - 0.3) < 0.02
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.15


def test_a_wire_that_does_nothing_leaves_every_bit(batch):
    """Features and gradients are those of split training in which nothing is ever sent."""
    model, arrays = batch
    wire = make_link(CompressionSpec(), PrivacySpec())

    def without_wire(_, fronts, back, images, labels, valid):
        features, pull = jax.vjp(lambda fronts: jax.vmap(model.front)(fronts, images), fronts)

        def summed_loss(back, features):
            logits = model.back(back, features.reshape(-1, *features.shape[2:]))
            losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels.ravel())
            return jnp.where(valid.ravel(), losses, 0.0).sum()

        loss, (back_grad, cut) = jax.value_and_grad(summed_loss, (0, 1))(back, features)
        share = 1.0 / jnp.maximum(valid.sum(1), 1)
        (front_grads,) = pull(cut * share[:, None, None])
        return SplitStepResult(loss, features, front_grads, back_grad, jnp.ones(2, bool))

    sent = sent_by(model, wire, arrays)
    jax.tree.map(np.testing.assert_array_equal, sent, quick_jit(without_wire)(*arrays))
    keys, *_, valid = arrays
    for message in (wire.send_features, wire.send_gradient):
        np.testing.assert_array_equal(message(keys[0], sent.smashed[0], valid[0]), sent.smashed[0])


def test_sizes_of_the_messages():
    """200 values of a sample: an int8 each and one f32 scale; 14 of topk with a byte of index."""
    setup = world.make_setup()
    for rules, up, down in (
        (("none", "bf16", 0.1), (800, 0), (400, 0)),
        (("int8", "topk", 0.07), (200, 4), (14 * 5, 0)),
    ):
        wire = make_link(CompressionSpec(*rules), PrivacySpec())
        sizes = wire.measure(setup.model, setup.planner.work)
        assert sizes == Sizes(
            up, down, 4, setup.planner.work.front_bytes, setup.planner.work.back_bytes
        )


@pytest.fixture(scope="module")
def trained():
    """A function from a chunk width and a learning rate to the setup, the Plan and the result."""
    setups = {width: world.make_setup(NOISY | {"run.client_chunk": width}) for width in (1, 3, 7)}
    trainers = {width: world.trainer(setup) for width, setup in setups.items()}
    spec, data = setups[1].spec, setups[1].data
    state = before(jax.random.key(spec.seed), jnp.int32(0), drawn_halves(setups[1].model))
    clients, cluster = np.int32([4, 0, 9, 6, 2, 10, 1]), np.int32([0, 1, 0, 1, 1, 2, 1])
    plan = replay.make_plan(clients, cluster, data.sizes[clients], 3, spec.train, None)

    def train(width, learning_rate=0.05):
        hparams = program.make_hparams(spec)
        hparams = hparams._replace(learning_rate=jnp.float32(learning_rate))
        return setups[width], state, plan, trainers[width](state, plan, hparams)

    return train


@pytest.mark.slow
@pytest.mark.parametrize("width", [3, 7])
def test_the_chunk_width_changes_nothing(trained, width):
    """Up to rounding, and where that turns one of int8's coins, up to one level of a value."""
    *_, wide = trained(width)
    *_, alone = trained(1)
    assert_close(wide.halves, alone.halves, 1e-3)
    assert_close(wide.loss, alone.loss, 1e-4)
    assert wide.samples == alone.samples
    np.testing.assert_array_equal(wide.uploads.order, alone.uploads.order)
    features = np.asarray(wide.uploads.features), np.asarray(alone.uploads.features)
    different = np.abs(np.subtract(*features)) > 1e-4 * np.abs(features[1]).max()
    assert different.mean() < 1e-3


def test_a_message_is_drawn_from_its_client_and_its_step(trained):
    """With a learning rate of 0 every uploaded message is that of the first front half."""
    setup, state, plan, after = trained(3, 0.0)
    model, data, wire = (
        setup.model,
        setup.data,
        make_link(setup.spec.cefl.compression, setup.spec.cefl.privacy),
    )
    batches, wires = (
        round_key(state.key, 0, purpose) for purpose in (Purpose.BATCHES, Purpose.LINK)
    )
    front, send = quick_jit(model.front), quick_jit(wire.send_features)
    shape = (7, setup.planner.bounds.uploads, 4, *model.feature_shape)
    features = np.asarray(after.uploads.features).reshape(shape)
    sent = 0
    for k, client in enumerate(plan.clients.tolist()):
        for slot in range(int(plan.uploaded[k])):
            step = int(plan.steps[k] - plan.uploaded[k]) + slot
            examples, valid = replay.draw_batch(data, batches, client, step, 4)
            images = data.images[np.minimum(examples, len(data.labels) - 1)]
            plain = front(state.halves.front, data.normalise(images))
            up, _ = jax.random.split(draw_key(wires, client, step))
            expected = np.asarray(send(up, plain, valid))[np.asarray(valid)]
            actual = features[k, slot][np.asarray(valid)]
            level = np.abs(expected).max() / 127
            assert np.abs(actual - expected).max() < 1.01 * level
            assert (np.abs(actual - expected) < level / 10).mean() > 0.999
            assert np.abs(actual - np.asarray(plain)[np.asarray(valid)]).max() > 0.5  # it is noisy
            sent += int(valid.sum())
    assert sent == int(after.uploads.count)


def test_leakage_is_that_of_what_is_sent():
    """Of the probe as one message, with the noise and the codec of the smashed data."""
    setup = world.make_setup(NOISY | {"cefl.privacy.probe_size": 20})
    state = before(jax.random.key(3), jnp.int32(0), drawn_halves(setup.model))
    measure = quick_jit(lambda *args: program.make_method(setup, *args[1:]).measures(args[0]))
    measured = measure(state, setup.data, setup.network)
    images = setup.data.normalise(setup.data.test_images[:20])
    wire = make_link(setup.spec.cefl.compression, setup.spec.cefl.privacy)
    features = quick_jit(setup.model.front)(state.halves.front, images)
    up = purpose_key(state.key, Purpose.PROBE)
    sent, plain = (
        float(quick_jit(distance_correlation)(images, message))
        for message in (wire.send_features(up, features, np.ones(20, bool)), features)
    )
    assert abs(sent - plain) > 0.01
    assert_close(measured, {"privacy/distance_correlation": sent}, 1e-4)
