"""Broken clients of every method: its round is the one in which they do nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax.network.costs.hierarchical import nearest_edges
from cefl_jax.types import Purpose, round_key
from tests import world
from tests.compare import assert_close
from tests.methods import absence, replay
from tests.methods.absence import assert_same_bits, plain
from tests.oracles import edge_rounds, whole_model
from tests.oracles.dense_net import Sgd, weighted_mean, zeros_like
from tests.oracles.split_round import features_of
from tests.quick import once_jit, quick_jit

SAME = once_jit  # on any number of devices
QUICK = ("scaffold", "hierfavg", "fedgkt")
OTHERS = (
    "sequential_split",
    "fedavg",
    "fedprox",
    "fedopt",
    "fednova",
    "splitfed_v1",
    "splitfed_v2",
)
METHODS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
EVERYTHING = {  # for the client's optimizer
    "train.optimizer.momentum": 0.9,
    "train.optimizer.weight_decay": 1e-2,
}


@functools.cache
def program(method, devices=None):
    """A method's compiled round; on a given number of devices for its bits."""
    changes = {"method.name": method, "train.rounds": 1, "run.devices": devices or 1} | EVERYTHING
    if method == "fedgkt":
        changes |= {"train.local_steps": 1}  # or nobody learns to upload what is infinite
    return absence.compile_round(changes, SAME if devices else quick_jit)


def batches(run):
    """{client: example indices of each local step} of the round, in the order of the plan."""
    key, size = round_key(run.start.key, 0, Purpose.BATCHES), run.setup.spec.train.batch_size
    plan, made = absence.decided(run), {}
    for client, steps in zip(plan.clients.tolist(), plan.steps.tolist(), strict=True):
        rows = (replay.draw_batch(run.setup.data, key, client, s, size) for s in range(steps))
        made[client] = [np.asarray(examples)[np.asarray(valid)] for examples, valid in rows]
    return made


def pixels(run, examples):
    """What the reference takes for these examples: (x, labels)."""
    dataset = world.make_dataset()
    x = features_of(dataset.train_images[examples], run.setup.spec.data.normalization)
    return x, dataset.train_labels[examples]


def break_two(run):
    """Two clients of the round, one without pixels and one without labels, and the data."""
    clients = absence.decided(run).clients[[1, 4]].tolist()
    odd, unlabelled = (run.setup.partition[client] for client in clients)
    return clients, run.data(odd, unlabelled)


@pytest.mark.parametrize("method", METHODS)
def test_broken_clients_are_as_if_they_did_nothing(method):
    """To the bit, and the bill is the one of everybody."""
    run = program(method)
    clients, data = break_two(run)
    (got, metrics), (expected, absent) = run.play(data), run.play(gone=clients)
    assert_same_bits(got, expected)
    assert metrics.train_loss == absent.train_loss
    assert (metrics.skipped, absent.skipped, metrics.counted) == (2, 0, 5)
    assert jax.tree.all(metrics.finite)
    whole, healthy = run.play()
    jax.tree.map(np.testing.assert_array_equal, plain(got).ledger, plain(whole).ledger)
    assert healthy.skipped == 0
    assert abs(healthy.train_loss - metrics.train_loss) > 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_a_round_of_broken_clients_changes_nothing(method):
    run = program(method)
    got, metrics = run.play(run.data(range(160)))
    before, after = plain(run.start), plain(got)
    for name in set(before._fields) - {"round", "ledger"}:
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    assert (metrics.skipped, metrics.counted, metrics.finished) == (7, 0, 7)
    assert np.isnan(metrics.train_loss)
    assert jax.tree.all(metrics.finite)


def broken_in(run, client, step):
    """Data in which a client sees a broken example in one local step only."""
    others = batches(run)[client]
    (example, *_) = set(others.pop(step).tolist()) - set(np.concatenate(others).tolist())
    return run.data(unlabelled=[example])


def test_a_client_that_scaffold_leaves_out_keeps_its_control_variate():
    """Where none is zero any more: in the first round again, with those from after it."""
    run = program("scaffold")
    start = run.start._replace(memory=run.play()[0].memory)
    clients, data = break_two(run)
    (got, _), (expected, _) = run.play(data, start=start), run.play(gone=clients, start=start)
    assert_same_bits(got, expected)
    for before, after in zip(*map(jax.tree.leaves, (start.memory, got.memory)), strict=True):
        assert not np.array_equal(before, after)
    leaves = (jax.tree.leaves(jax.device_get(s.memory.clients)) for s in (start, got))
    for before, after in zip(*leaves, strict=True):
        np.testing.assert_array_equal(after[clients], before[clients])


def test_a_client_that_breaks_at_last_has_no_part_in_scaffold():
    """Against the paper's reading without it: model, control variates and loss."""
    run = program("scaffold")
    gone = int(absence.decided(run).clients[5])
    got, metrics = run.play(broken_in(run, gone, -1))
    sgd, model = replay.settings(run.setup.spec, 0).front, replay.layers(run.start.params)
    clients = [
        whole_model.Client(
            client, len(run.setup.partition[client]), [pixels(run, rows) for rows in made]
        )
        for client, made in batches(run).items()
        if client != gone
    ]
    zeros = [zeros_like(model) for _ in run.setup.partition]
    x, c, c_of, loss = whole_model.scaffold(model, zeros[0], zeros, clients, sgd, 1.0)
    assert_close(replay.layers(got.params), x, 2e-5)
    assert_close(metrics.train_loss, loss.mean(), 1e-4)
    assert metrics.skipped == 1
    assert_close(replay.layers(got.memory.server), c, 2e-5)
    for client, expected in enumerate(c_of):
        own = jax.tree.map(lambda leaf, n=client: leaf[n], got.memory.clients)
        assert_close(replay.layers(own), expected, 2e-5)
        trained = any(w.any() for w, _ in replay.layers(own))
        assert trained == (client in batches(run) and client != gone)


@pytest.mark.parametrize("breaks", [0, 1])
def test_a_client_that_breaks_in_an_edge_round_is_out_of_that_and_what_follows(breaks):
    """Against a plain reading, in which its edge node has learned from it before."""
    run = program("hierfavg")
    setup, made = run.setup, batches(run)
    decision = world.row_of(world.decide_rounds(setup)[0], 0)
    plan, kappa = decision.plan, setup.spec.train.local_steps
    there = jax.tree.map(jnp.asarray, (decision.task, decision.network))
    nodes = nearest_edges(*there).tolist()
    gone = max((k for k in range(7) if nodes.count(nodes[k]) > 1), key=lambda k: int(plan.sizes[k]))
    assert len(made[int(plan.clients[gone])]) == 2 * kappa
    got, metrics = run.play(broken_in(run, int(plan.clients[gone]), breaks * kappa + 1))
    optimizer = setup.spec.train.optimizer
    sgd = Sgd(optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay)
    models = dict.fromkeys(nodes, replay.layers(run.start.params))
    losses, samples = 0.0, 0
    for r in range(2):
        left = [k for k in range(7) if k != gone or r < breaks]
        trained = {}
        for k in left:
            rows = made[int(plan.clients[k])][r * kappa : (r + 1) * kappa]
            own = [pixels(run, examples) for examples in rows]
            trained[k], loss, seen = edge_rounds.train(models[nodes[k]], own, sgd)
            losses, samples = losses + loss, samples + seen
        for node in set(nodes):
            own = [k for k in left if nodes[k] == node]
            models[node] = weighted_mean([trained[k] for k in own], [plan.sizes[k] for k in own])
    size = {node: sum(plan.sizes[k] for k in left if nodes[k] == node) for node in models}
    expected = weighted_mean(list(models.values()), list(size.values()))
    assert_close(replay.layers(got.params), expected, 2e-5)
    assert_close(metrics.train_loss, losses / samples, 1e-4)
    assert metrics.skipped == 1


def test_a_client_whose_knowledge_is_not_finite_uploads_nothing():
    """Its loss and its model are finite; what that makes of its examples afterwards is not."""
    run, rates = program("fedgkt"), {"learning_rate": 2e4, "server_learning_rate": 0.0}
    client = int(absence.decided(run).clients[2])
    data = run.data(run.setup.partition[client], pixel=3e12)
    got, metrics = run.play(data, **rates)
    expected, absent = run.play(gone=[client], **rates)
    assert_same_bits(got, expected)
    assert (metrics.skipped, absent.skipped) == (1, 0)
    assert jax.tree.all(metrics.finite)
    assert 1e5 < metrics.train_loss < jnp.inf  # what it has lost until then counts


@pytest.mark.slow
@pytest.mark.parametrize("method", [*QUICK, *OTHERS])
@pytest.mark.parametrize("devices", [2, 4])
def test_any_number_of_devices_leaves_the_same_clients_out(method, devices):
    (one, metrics), (more, others) = (
        run.play(break_two(run)[1]) for run in (program(method, 1), program(method, devices))
    )
    assert_same_bits(one, more)
    jax.tree.map(np.testing.assert_array_equal, metrics, others)
