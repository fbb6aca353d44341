"""FedGKT against a slow reading of its paper, and what must and must not matter to it."""

import functools
import json

import jax
import numpy as np
import pytest

from cefl_jax import config, experiment, program
from cefl_jax.runtime import workdir
from cefl_jax.types import Purpose, purpose_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.oracles import knowledge
from tests.oracles.dense_net import (
    Sgd,
    backward,
    cross_entropy,
    forward,
    sgd_step,
    zeros_like,
)
from tests.oracles.split_round import features_of
from tests.quick import quick_jit

CLOSE = 3e-5
CASES = {
    # All examples of a client are known when it is sampled again.
    "epochs": {"train.local_steps": None, "train.local_epochs": 2},
    # Some of its examples are; with everything that an optimizer has.
    "steps": {
        "train.optimizer.momentum": 0.9,
        "train.optimizer.weight_decay": 0.01,
        "train.optimizer.clip_norm": 0.5,
        "fedgkt.weight": 2.5,
        "fedgkt.temperature": 1.5,
        "model.cut": 2,
        "seed": 1,  # with 0 a unit of the server is so near its kink that rounding decides
    },
    "no weight": {"fedgkt.weight": 0.0},
}
# Of 7 places 5 are taken, then 7; who is not there in the next round leaves in this one.
AVAILABLE = np.arange(11) >= np.array([6, 0, 4, 1])[:, None]


def make_setup(changes=None):
    return world.make_setup(
        {
            "method.name": "fedgkt",
            "fedgkt.server_epochs": 2,
            "fedgkt.server_batch_size": 16,
            "fedgkt.server_learning_rate": 0.05,
            "run.eval_every": 1,
            **(changes or {}),
        }
    )


@functools.cache
def outcomes(case):
    """The state and the Chunk after each of two rounds, as NumPy arrays."""
    return world.run_whole(make_setup(CASES[case]))


def moving_setup(devices=1):
    """Three rounds on a network that clients leave."""
    setup = make_setup({"train.rounds": 3, "run.devices": devices, "run.distill_parts": 4})
    return world.follow(setup, world.make_trace(setup, AVAILABLE))


@functools.cache
def moving_outcomes(devices=1):
    return world.run_whole(moving_setup(devices))


@functools.cache
def drawn(case):
    """The replayed Draws of the two rounds."""
    setup = make_setup(CASES[case])
    spec, clients = setup.planner.spec, setup.spec.train.clients_per_round
    spec = spec.replace({"cefl.clustering.num_clusters": clients})
    setup, start = setup._replace(spec=spec), first_state(setup)
    return [replay.draws(setup, start, index) for index in range(2)]


def first_state(setup):
    """The state before the first round."""

    @quick_jit
    def start(key, data, network):
        return program.make_method(setup, data, network).init(key)

    return start(jax.random.key(setup.spec.seed), setup.data, setup.network)


@functools.cache
def predictors():
    """A first state, and the compiled predictors of its run."""
    setup = make_setup()
    method = program.make_method(setup, setup.data, setup.network)
    return first_state(setup), quick_jit(method.predictors)


def clients_of(tree):
    """{client: layers} of leaves [N, ...]."""
    count = jax.tree.leaves(tree)[0].shape[0]
    return {n: replay.layers(jax.tree.map(lambda x, n=n: x[n], tree)) for n in range(count)}


def examples_of(setup):
    """Features and labels of all examples."""
    dataset = world.make_dataset()
    x = features_of(dataset.train_images, setup.spec.data.normalization)
    return x, dataset.train_labels


def expected(case):
    """The reference's World and mean loss after each round."""
    setup = make_setup(CASES[case])
    own, optimizer = setup.spec.fedgkt, setup.spec.train.optimizer
    client = Sgd(
        optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay, optimizer.clip_norm
    )
    server = Sgd(own.server_learning_rate, own.server_momentum)
    rules = knowledge.Rules(client, server, own.weight, own.temperature)
    start = first_state(setup)
    cloud = replay.layers(start.server)
    known = knowledge.World(clients_of(start.clients), cloud, zeros_like(cloud), {})
    for draws in drawn(case):
        known, loss = knowledge.one_round(known, draws, *examples_of(setup), rules)
        yield known, loss


LONG = [pytest.param(case, marks=pytest.mark.slow) for case in ("epochs", "no weight")]


@pytest.mark.parametrize("case", ["steps", *LONG])
def test_two_rounds_equal_the_slow_reading(case):
    for (state, chunk), (known, loss) in zip(outcomes(case), expected(case), strict=True):
        for client, layers in clients_of(state.clients).items():
            assert_close(layers, known.clients[client], CLOSE)
        assert_close(replay.layers(state.server), known.server, CLOSE)
        assert_close(replay.momentum(state.server_optimizer), known.buffer, CLOSE)
        examples = sorted(known.told)
        assert np.flatnonzero(state.told.known).tolist() == examples
        told = np.stack([known.told[example] for example in examples])
        assert_close(state.told.logits[examples], told, CLOSE)
        assert_close(chunk.metrics.train_loss, [loss], 1e-4)


def test_the_cases_come_back_to_clients_that_know_something_and_not_all():
    for case, all_of_it in (("epochs", True), ("steps", False)):
        first, second = drawn(case)
        again = set(first.clients) & set(second.clients)
        uploaded = {e for place, s in first.uploads for e in first.batches[place][s]}
        trained = {
            example
            for place, client in enumerate(second.clients)
            if client in again
            for batch in second.batches[place]
            for example in batch
        }
        assert again
        assert trained & uploaded
        assert (trained <= uploaded) == all_of_it
    sizes = {len(batch) for batches in first.batches for batch in batches}
    assert len(sizes) > 1


@pytest.mark.slow
def test_without_weight_every_client_trains_alone():
    """On cross-entropy, from where it was, whatever the server says."""
    setup = make_setup(CASES["no weight"])
    x, labels = examples_of(setup)
    alone = clients_of(first_state(setup).clients)
    for draws in drawn("no weight"):
        for place, client in enumerate(draws.clients):
            for batch in draws.batches[place]:
                trace = forward(alone[client], x[batch])
                _, gradient = cross_entropy(trace[-1], labels[batch])
                grads, _ = backward(alone[client], trace, gradient / len(batch))
                buffer = zeros_like(alone[client])
                alone[client], _ = sgd_step(alone[client], buffer, grads, Sgd(0.05))
    for client, layers in clients_of(outcomes("no weight")[-1][0].clients).items():
        assert_close(layers, alone[client], CLOSE)


@pytest.mark.parametrize("case", [pytest.param("epochs", marks=pytest.mark.slow), "steps"])
def test_test_images_are_shared_out_over_the_clients(case):
    """Image i is scored by client i mod N with the server, or with its own model."""
    setup, (state, chunk) = make_setup(CASES[case]), outcomes(case)[-1]
    dataset, clients = world.make_dataset(), clients_of(state.clients)
    x = features_of(dataset.test_images, setup.spec.data.normalization)
    logits = {"": [], "client_": []}
    for i, image in enumerate(x):
        *_, features, own = forward(clients[i % len(clients)], image[None])
        logits["client_"].append(own[0])
        logits[""].append(forward(replay.layers(state.server), features)[-1][0])
    assert chunk.scores.keys() == logits.keys()
    for name, rows in logits.items():
        losses, _ = cross_entropy(np.stack(rows), dataset.test_labels)
        hits = np.stack(rows).argmax(1) == dataset.test_labels
        assert_close(chunk.scores[name].loss, losses.mean(), 1e-4)
        assert_close(chunk.scores[name].accuracy, hits.mean(), 0, atol=1e-6)


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("count", [4, 11, 30])
def test_predictors_find_each_image_its_client(first, count):
    """Fewer images than clients, as many, and more; from any image on."""
    start, predict = predictors()
    rng = np.random.default_rng(count)
    images = rng.normal(size=(count, 8, 8, 1)).astype(np.float32)
    state = start._replace(
        clients=jax.tree.map(
            lambda x: rng.normal(scale=0.1, size=x.shape).astype(np.float32), start.clients
        )
    )
    made = predict(state, images, first + np.arange(count))
    clients = clients_of(state.clients)
    for i, image in enumerate(images):
        layers = clients[(first + i) % 11]
        own = forward(layers, image.reshape(1, -1))[-1]
        assert_close(made["client_"][i], own[0], 1e-4)


@pytest.mark.slow
def test_two_devices_give_the_same_bits():
    jax.tree.map(np.testing.assert_array_equal, moving_outcomes(2), moving_outcomes())


def test_who_leaves_learns_nothing_and_tells_nothing():
    setup = moving_setup()
    decisions, ledgers = world.decide_rounds(setup)
    before, left = first_state(setup), 0
    for index, (state, chunk) in enumerate(moving_outcomes()):
        plan = world.row_of(decisions.plan, index)
        counts = world.row_of(decisions.schedule.counts, index)
        there = plan.clients < len(setup.partition)
        left += (there & ~counts).sum()
        sampled, counted = chunk.metrics.sampled.item(), chunk.metrics.counted.item()
        assert (sampled, counted) == (there.sum(), counts.sum())
        moved = {
            n
            for n, layers in clients_of(state.clients).items()
            if (layers[0][0] != clients_of(before.clients)[n][0][0]).any()
        }
        assert moved == set(plan.clients[counts].tolist())
        told = np.flatnonzero((state.told.logits != before.told.logits).any(1))
        owners = {n for n, part in enumerate(setup.partition) if set(part) & set(told.tolist())}
        assert owners == moved
        assert_close(state.ledger, world.row_of(ledgers, index), 1e-6)
        before = state
    assert 0 < left < sum(chunk.metrics.sampled.item() for _, chunk in moving_outcomes())


@pytest.mark.slow
def test_every_byte_of_two_passes():
    """Features, label and logits of every example of a sampled client up; logits down."""
    setup, (state, _) = make_setup(CASES["epochs"]), outcomes("epochs")[-1]
    clients = [client for draws in drawn("epochs") for client in draws.clients]
    samples = sum(len(setup.partition[client]) for client in clients)
    up, down = 4 * (200 + 1 + 4) * samples, 4 * 4 * samples
    assert state.ledger.link_bytes.sum(1).tolist() == [up, down, up, down]


def test_all_clients_start_alike_with_the_front_half_of_other_methods():
    setup = make_setup()
    halves, cloud = quick_jit(world.make_setup().model.init)(
        purpose_key(jax.random.key(setup.spec.seed), Purpose.MODEL)
    )
    state = first_state(setup)
    assert_close(replay.layers(state.server), replay.layers(cloud))
    for layers in clients_of(state.clients).values():
        assert_close(layers[:1], replay.layers(halves.front))
        assert_close(layers[1:], clients_of(state.clients)[0][1:], rtol=0)
        assert layers[1][0].shape == (200, 4)


def test_a_run_finishes_without_a_timeline(tmp_path, monkeypatch):
    """Through the door's own conductor; the compiled program's results are at hand already."""
    chunks = iter(moving_outcomes())
    made = None, lambda *_: next(chunks), (), 0.0
    monkeypatch.setattr(experiment, "compile_program", lambda *_: made)
    experiment.conduct(moving_setup(), workdir.open_workdir(tmp_path / "run"))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not names & {"timeline.json", "gantt.png", "map.png"}
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["round"]) == ("finished", 3)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all("test/client_accuracy" in json.loads(line) for line in lines)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("network.deadline_s", "2"),
        ("network.late", "keep"),
        ("cefl.compression.smashed", "int8"),
        ("cefl.privacy.noise_std", "0.1"),
        ("cefl.distill.epochs", "2"),
    ],
)
def test_what_it_cannot_honour_is_refused(field, text):
    chosen = config.default_config()
    config.set_field(chosen, "method.name", "fedgkt")
    config.set_field(chosen, "network.dynamics", "markov")
    config.to_spec(chosen)
    config.set_field(chosen, field, text)
    with pytest.raises(config.SettingError, match=rf"^{field}=.*'fedgkt'.*; set "):
        config.to_spec(chosen)
