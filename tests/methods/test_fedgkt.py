"""FedGKT against the oracle of its paper, and how its models are evaluated."""

import functools

import jax
import numpy as np
import pytest

from cefl_jax import program
from cefl_jax.stages.evaluation import evaluate
from cefl_jax.types import Purpose, purpose_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.oracles import fedgkt
from tests.oracles.mlp import Sgd, cross_entropy, forward, zeros_like
from tests.quick import quick_jit

CLOSE = 3e-5
SERVER = {
    "method.name": "fedgkt",
    "fedgkt.server_epochs": 2,
    "fedgkt.server_batch_size": 16,
    "fedgkt.server_learning_rate": 0.05,
}
CASES = {
    # With everything that an optimizer has, on a network that clients leave.
    "steps, leaving": {
        "train.optimizer.momentum": 0.9,
        "train.optimizer.weight_decay": 0.01,
        "train.optimizer.clip_norm": 0.5,
        "fedgkt.weight": 2.5,
        "fedgkt.temperature": 1.5,
        "model.cut": 2,
        "seed": 1,  # with 0 a unit of the server is so near its kink that rounding decides
    },
    "epochs": {"train.local_steps": None, "train.local_epochs": 2},
    "no weight": {"fedgkt.weight": 0.0},  # every client trains alone, whatever the server says
}
DEFAULT = ("steps, leaving",)
PRESENT = (5, 11, 7, 10)  # clients of each round, and of one more


@functools.cache
def play(case):
    return replay.play(SERVER | CASES[case], 3, PRESENT if "leaving" in case else None)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case not in DEFAULT)) for case in CASES]
)
def test_fedgkt_equals_the_oracle(case):
    rounds = play(case)
    setup, state = rounds[0].setup, rounds[0].before
    spec = setup.spec.fedgkt
    server = Sgd(spec.server_learning_rate, spec.server_momentum)
    settings = fedgkt.Settings(replay.sgd_of(setup.spec), server, spec.weight, spec.temperature)
    cloud = replay.layers(state.server)
    clients = dict(enumerate(replay.stacked(state.clients)))
    expected = fedgkt.State(clients, cloud, zeros_like(cloud), {})
    x, labels, left, known = replay.pixels_of(setup), setup.data.labels, 0, []
    for played in rounds:
        drawn = replay.draws(played)
        counts = played.decision.schedule.counts[: len(drawn.clients)].tolist()
        trained = {e for batches in drawn.batches for batch in batches for e in batch}
        known += [trained & {*expected.teacher}, trained - {*expected.teacher}]
        expected, loss = fedgkt.one_round(expected, x, labels, drawn, counts, settings)
        after, metrics = played.after, played.metrics
        assert_close(replay.stacked(after.clients), [*expected.clients.values()], CLOSE)
        assert_close(replay.layers(after.server), expected.server, CLOSE)
        assert_close(replay.momentum(after.server_optimizer), expected.buffer, CLOSE)
        examples = sorted(expected.teacher)
        assert np.flatnonzero(after.teacher_logits.known).tolist() == examples
        logits = np.stack([expected.teacher[example] for example in examples])
        assert_close(after.teacher_logits.logits[np.array(examples)], logits, CLOSE)
        assert_close(metrics.train_loss, loss, 1e-4)
        assert (metrics.sampled, metrics.counted) == (len(counts), sum(counts))
        assert metrics.round_trace is None
        left += counts.count(False)
    # Clients come back that know something of their examples, and not of all; and some leave.
    assert all(known[2:])
    assert (left > 0) == ("leaving" in case)


@pytest.fixture(scope="module")
def compiled():
    """A state with clients of their own, the compiled predictors of its run, and its scores."""
    setup = world.make_setup(SERVER)
    start, _, _ = world.compile_round(setup)
    rng = np.random.default_rng(0)
    clients = jax.tree.map(
        lambda x: rng.normal(scale=0.1, size=x.shape).astype(np.float32), start.clients
    )
    method = program.make_method(setup, setup.data, setup.network)
    score = quick_jit(lambda state: evaluate(method.predictors, state, setup.data, setup.mesh))
    state = start._replace(clients=clients)
    return start, state, quick_jit(method.predictors), score(state)


def predictions(state, x, first=0):
    """Logits of images [n, pixels]: image i by client i mod N with the server, or on its own."""
    networks, server, logits = replay.stacked(state.clients), replay.layers(state.server), []
    for i, image in enumerate(x, first):
        *_, features, own = forward(networks[i % len(networks)], image[None])
        logits.append((forward(server, features)[-1][0], own[0]))
    return dict(zip(("", "client_"), map(np.stack, zip(*logits, strict=True)), strict=True))


@pytest.mark.parametrize(("first", "count"), [(0, 4), (3, 11), (3, 30)])
def test_predictors_find_each_image_its_client(compiled, first, count):
    """Fewer images than clients, as many, and more; from any image on."""
    _, state, predictors, _ = compiled
    images = np.random.default_rng(count).normal(size=(count, 8, 8, 1)).astype(np.float32)
    logits = predictors(state, images, first + np.arange(count))
    assert_close(logits, predictions(state, images.reshape(count, -1), first), 1e-4)


def test_scores_are_those_of_every_image_with_its_client(compiled):
    _, state, _, scores = compiled
    dataset, setup = world.make_dataset(), world.make_setup(SERVER)
    logits = predictions(state, replay.pixels_of(setup, dataset.test_images))
    assert scores.keys() == logits.keys()
    for name, rows in logits.items():
        losses, _ = cross_entropy(rows, dataset.test_labels)
        hits = rows.argmax(1) == dataset.test_labels
        assert_close(scores[name].loss, losses.mean(), 1e-4)
        assert_close(scores[name].accuracy, hits.mean(), 0, atol=1e-6)


def test_all_clients_start_alike_with_the_front_half_of_other_methods(compiled):
    start, *_ = compiled
    spec = world.make_spec()
    halves, cloud = quick_jit(world.make_setup().model.init)(
        purpose_key(jax.random.key(spec.seed), Purpose.MODEL)
    )
    assert_close(replay.layers(start.server), replay.layers(cloud))
    clients = replay.stacked(start.clients)
    for layers in clients:
        assert_close(layers[:1], replay.layers(halves.front))
        assert_close(layers[1:], clients[0][1:], rtol=0)
        assert layers[1][0].shape == (200, 4)
