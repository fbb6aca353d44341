"""The link at the cut within training: its sizes, its keys, and what it gives away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax import program
from cefl_jax.methods.cefl import CeflState
from cefl_jax.network.messages import Sizes
from cefl_jax.specs import CompressionSpec, PrivacySpec
from cefl_jax.stages.leakage import distance_correlation
from cefl_jax.stages.link import make_link
from cefl_jax.stages.split_training import draw_key
from cefl_jax.types import Purpose, purpose_key, round_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.quick import quick_jit
from tests.stages.drawn import draw_halves

NOISY = {
    "cefl.compression.smashed": "int8",
    "cefl.compression.gradient": "topk",
    "cefl.compression.topk_share": 0.3,
    "cefl.privacy.noise_std": 0.5,
    "cefl.privacy.probe_size": 20,
    "run.client_chunk": 3,
}


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


@pytest.fixture(scope="module")
def noisy():
    """A setup, a state of which there is what training needs, its link and its front halves."""
    setup = world.make_setup(NOISY)
    state = CeflState(**dict.fromkeys(CeflState._fields))._replace(
        key=jax.random.key(setup.spec.seed),
        round=jnp.int32(0),
        halves=draw_halves(setup.model, 0.1),
    )
    link = make_link(setup.spec.cefl.compression, setup.spec.cefl.privacy)
    return setup, state, link, quick_jit(setup.model.front)


def test_split_train_draws_a_message_by_its_client_and_its_step(noisy):
    """With a learning rate of 0 every uploaded message is that of the first front half."""
    setup, state, link, front = noisy
    spec, data = setup.spec, setup.data
    clients, cluster = np.int32([4, 0, 9, 6, 2, 10, 1]), np.int32([0, 1, 0, 1, 1, 2, 1])
    plan = replay.make_plan(clients, cluster, data.sizes[clients], 3, spec.train, None)
    hparams = program.make_hparams(spec)._replace(learning_rate=jnp.float32(0))
    uploads = world.trainer(setup)(state, plan, hparams).uploads
    batches, links = (
        round_key(state.key, 0, purpose) for purpose in (Purpose.BATCHES, Purpose.LINK)
    )
    send, sent = quick_jit(link.send_features), 0
    shape = (7, setup.planner.bounds.uploads, 4, *setup.model.feature_shape)
    features = np.asarray(uploads.features).reshape(shape)
    for k, client in enumerate(plan.clients.tolist()):
        for slot in range(int(plan.uploaded[k])):
            step = int(plan.steps[k] - plan.uploaded[k]) + slot
            examples, valid = replay.draw_batch(data, batches, client, step, 4)
            images = data.images[np.minimum(examples, len(data.labels) - 1)]
            plain = front(state.halves.front, data.normalise(images))
            up, _ = jax.random.split(draw_key(links, client, step))
            expected, plain, there = jax.device_get((send(up, plain, valid), plain, valid))
            level = np.abs(expected[there]).max() / 127
            off = np.abs(features[k, slot] - expected)[there]
            assert off.max() < 1.01 * level  # where rounding turns one of int8's coins
            assert (off < level / 10).mean() > 0.999
            assert np.abs(expected - plain)[there].max() > 0.5  # it is noisy
            sent += int(there.sum())
    assert sent == int(uploads.count)


def test_measures_of_leakage_are_of_what_is_sent(noisy):
    """Of the probe as one message, with the noise and the codec of the smashed data."""
    setup, state, link, front = noisy
    measure = quick_jit(lambda *args: program.make_method(setup, *args[1:]).measures(args[0]))
    measured = measure(state, setup.data, setup.network)
    images = setup.data.normalise(setup.data.test_images[:20])
    features = front(state.halves.front, images)
    up = purpose_key(state.key, Purpose.PROBE)
    sent, plain = (
        float(quick_jit(distance_correlation)(images, message))
        for message in (link.send_features(up, features, np.ones(20, bool)), features)
    )
    assert abs(sent - plain) > 0.01
    assert_close(measured, {"privacy/distance_correlation": sent}, 1e-4)
