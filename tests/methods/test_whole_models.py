"""FedAvg, FedProx, SCAFFOLD, FedOpt and FedNova against oracles from their papers, batch by batch.

And where they, or methods that split models alone, come to the same, they do.
"""

import jax
import numpy as np
import pytest

from cefl_jax.methods.fednova import local_lengths
from cefl_jax.methods.fedopt import FedoptSpec, Moments, server_update
from cefl_jax.types import Purpose, round_key
from tests.compare import assert_close
from tests.methods.replay import sample_clients
from tests.methods.whole_rounds import clients_of, layers, planned_steps, play, sgd_of
from tests.oracles import whole_model
from tests.oracles.dense_net import (
    backward,
    cross_entropy,
    drawn_network,
    each,
    forward,
    zeros_like,
)

CLOSE = 1e-4
EVERYTHING = {  # for the client's optimizer
    "train.local_steps": 5,  # more than a pass for some clients, less for others
    "train.optimizer.momentum": 0.9,
    "train.optimizer.weight_decay": 1e-2,
    "train.optimizer.clip_norm": 0.7,
    "run.client_chunk": 3,
}
ALONE = {  # a cluster for each client, at servers of its own, and nothing is distilled
    "cefl.clustering.rule": "singleton",
    "cefl.distill.rule": "none",
    "network.num_edges": 7,
}
OPTIMIZERS = "adam", "yogi", "adagrad", "sgd"


def follow_fedavg(run):
    expected = layers(run.states[0].params)
    for index, metrics in enumerate(run.metrics):
        expected, loss = whole_model.fedavg(
            expected, clients_of(run, index), sgd_of(run.setup.spec)
        )
        check(run, index, expected, loss, metrics)


def follow_fedprox(run, mu):
    expected = layers(run.states[0].params)
    for index, metrics in enumerate(run.metrics):
        expected, loss = whole_model.fedprox(
            expected, clients_of(run, index), sgd_of(run.setup.spec), mu
        )
        check(run, index, expected, loss, metrics)


def follow_scaffold(run, server_rate):
    x, sgd = layers(run.states[0].params), sgd_of(run.setup.spec)
    c, c_of = zeros_like(x), [zeros_like(x) for _ in run.setup.partition]
    for index, metrics in enumerate(run.metrics):
        x, c, c_of, loss = whole_model.scaffold(
            x, c, c_of, clients_of(run, index), sgd, server_rate
        )
        check(run, index, x, loss, metrics)
        controls = run.states[index + 1].memory
        assert_close(layers(controls.server), c, CLOSE)
        for client, expected in enumerate(c_of):
            own = jax.tree.map(lambda leaf: leaf[client], controls.clients)  # noqa: B023
            assert_close(layers(own), expected, CLOSE)
    return c_of


def follow_fedopt(run):
    spec, x = run.setup.spec.fedopt, layers(run.states[0].params)
    server = whole_model.Server(
        spec.optimizer, spec.server_learning_rate, spec.beta1, spec.beta2, spec.tau
    )
    moments = server.start(x)
    for index, metrics in enumerate(run.metrics):
        clients = clients_of(run, index)
        x, moments, loss = whole_model.fedopt(x, moments, clients, sgd_of(run.setup.spec), server)
        check(run, index, x, loss, metrics)
        first, second = moments
        assert_close(layers(run.states[index + 1].memory.first), first, CLOSE)
        assert_close(layers(run.states[index + 1].memory.second), second, CLOSE)


def follow_fednova(run, momentum):
    x = layers(run.states[0].params)
    u = zeros_like(x)
    for index, metrics in enumerate(run.metrics):
        clients = [  # weighted by all their examples
            client._replace(weight=(client.weight > 0) * len(run.setup.partition[client.index]))
            for client in clients_of(run, index)
        ]
        x, u, loss = whole_model.fednova(x, u, clients, sgd_of(run.setup.spec), momentum)
        check(run, index, x, loss, metrics)
        assert_close(layers(run.states[index + 1].memory), u, CLOSE)


def check(run, index, expected, loss, metrics):
    state = run.states[index + 1]
    assert state.round == index + 1
    assert_close(layers(state.params), expected, CLOSE)
    assert_close(metrics.train_loss, loss.mean(), 1e-4)


def everybody_finishes(run):
    """On a network that stands still the clients are those sampled, and make all their steps."""
    for index, metrics in enumerate(run.metrics):
        key = round_key(run.states[0].key, index, Purpose.SAMPLING)
        sampled = sample_clients(key, len(run.setup.partition), 7).tolist()
        clients = clients_of(run, index)
        assert [client.index for client in clients] == sampled
        for client in clients:
            size = len(run.setup.partition[client.index])
            assert client.weight == size
            assert len(client.batches) == planned_steps(run.setup, size)
        assert (metrics.sampled, metrics.finished, metrics.counted) == (7, 7, 7)


def some_leave(run):
    """Some leave after a part of their steps; in the end nobody is there."""
    steps, counts = (
        np.stack([getattr(metrics.round_trace.schedule, name) for metrics in run.metrics])
        for name in ("steps", "counts")
    )
    assert [int(metrics.sampled) for metrics in run.metrics] == [7, 4, 0]
    finished = np.stack([metrics.round_trace.schedule.finished for metrics in run.metrics])
    partly = (steps > 0) & ~finished
    assert partly.sum() > 4
    assert finished.any()
    keeps = run.setup.spec.network.late == "keep"
    np.testing.assert_array_equal(counts, finished | (partly & keeps))


def test_fedavg():
    run = play("fedavg", EVERYTHING)
    everybody_finishes(run)
    follow_fedavg(run)


def test_fedavg_of_clients_that_leave():
    run = play("fedavg", emptying=True, rounds=3)
    some_leave(run)
    follow_fedavg(run)


@pytest.mark.parametrize("mu", [pytest.param(0.01, marks=pytest.mark.slow), 1.5])
def test_fedprox(mu):
    run = play("fedprox", emptying=True, rounds=3, mu=mu)
    some_leave(run)
    follow_fedprox(run, mu)


@pytest.mark.slow
def test_fedprox_with_every_option_of_the_optimizer():
    run = play("fedprox", EVERYTHING, mu=0.8)
    everybody_finishes(run)
    follow_fedprox(run, 0.8)


@pytest.mark.parametrize("server_rate", [pytest.param(1.0, marks=pytest.mark.slow), 0.6])
def test_scaffold(server_rate):
    run = play("scaffold", EVERYTHING, rounds=3, server_learning_rate=server_rate)
    everybody_finishes(run)
    follow_scaffold(run, server_rate)


@pytest.mark.slow
def test_scaffold_learns_with_momentum():
    """Were gradients corrected and not steps, the loss would be 1e32 after 30 rounds."""
    changes = {
        "train.optimizer.momentum": 0.9,
        "train.optimizer.learning_rate": 0.01,
        "train.local_steps": 5,
    }
    run = play("scaffold", changes, rounds=30)
    assert run.metrics[-1].train_loss < 0.1 * run.metrics[0].train_loss


def test_scaffold_of_clients_that_leave():
    """Unfinished work is lost, and its client's control variate stays as it was.

    Who has made its steps stands still while others go on, momentum or not.
    """
    changes = {
        "network.late": "drop",
        "train.optimizer.momentum": 0.5,
        "train.optimizer.weight_decay": 1e-2,
    }
    run = play("scaffold", changes, emptying=True, rounds=3)
    some_leave(run)
    c_of = follow_scaffold(run, 1.0)
    renewed = [any(leaf.any() for layer in c_i for leaf in layer) for c_i in c_of]
    assert 0 < sum(renewed) < len(renewed)


def test_fedopt():
    """With the start of the second moment visible: tau is large."""
    run = play("fedopt", {"fedopt.tau": 0.02}, emptying=True, rounds=3)
    some_leave(run)
    follow_fedopt(run)


@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "sgd")) for name in OPTIMIZERS],
)
def test_fedopt_with_every_option_of_the_optimizer(optimizer):
    changes = {"fedopt.optimizer": optimizer, "fedopt.server_learning_rate": 0.05}
    if optimizer == "yogi":
        changes["seed"] = 1  # with 0 a change is so near the root of v that rounding decides
    run = play("fedopt", EVERYTHING | changes)
    everybody_finishes(run)
    follow_fedopt(run)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.9999, 1.0])
def test_lengths_of_local_steps(momentum):
    """Of t steps, gradient k counts in each of the steps k to t."""
    expected = [
        sum(momentum ** (step - k) for k in range(t) for step in range(k, t)) for t in range(9)
    ]
    assert_close(local_lengths(8, momentum), expected, 1e-6, each=True)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_fednova_of_clients_with_unequal_steps(momentum):
    passes = EVERYTHING | {"train.local_steps": None, "train.local_epochs": 2}
    run = play("fednova", passes, emptying=True, rounds=3, server_momentum=momentum)
    steps = [len(client.batches) for client in clients_of(run, 0) if client.weight]
    assert len(set(steps)) > 2
    follow_fednova(run, momentum)


def test_fednova_of_clients_with_equal_steps_is_fedavg():
    runs = [play(method, EVERYTHING) for method in ("fednova", "fedavg")]
    for ours, theirs in zip(*(run.states for run in runs), strict=True):
        assert_close(layers(ours.params), layers(theirs.params), CLOSE)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_of_the_server(optimizer):
    """Four of them, with changes both smaller and larger than the second moment's root."""
    spec = FedoptSpec(optimizer, 0.3, beta1=0.8, beta2=0.7, tau=0.05)
    server = whole_model.Server(optimizer, 0.3, 0.8, 0.7, 0.05)
    x = drawn_network(3, 2)
    first, second = server.start(x)
    moments = Moments(first, second)
    for step, scale in enumerate([1.0, 0.1, 3.0, 0.01]):
        delta = [(scale * w, scale * b) for w, b in drawn_network(3, 2, seed=step)]
        moments, update = server_update(spec, moments, delta)
        after, first, second = server.step(x, first, second, delta)
        moved = [(w + 0.3 * dw, b + 0.3 * db) for (w, b), (dw, db) in zip(x, update, strict=True)]
        assert_close(moved, after)
        assert_close(moments.first, first)
        assert_close(moments.second, second)
        x = after


@pytest.fixture(scope="module")
def fedavg():
    return play("fedavg", emptying=True, rounds=3)


@pytest.fixture(scope="module")
def cefl():
    return play("cefl", ALONE, emptying=True, rounds=3)


def same_course(one, other):
    """Both train the same clients for the same steps, of which the same count."""
    for got, wanted in zip(one.metrics, other.metrics, strict=True):
        for name in ("clients", "schedule.steps", "schedule.counts"):
            first, second = (_at(metrics.round_trace, name) for metrics in (got, wanted))
            np.testing.assert_array_equal(first, second)
        assert_close(got.train_loss, wanted.train_loss)


def _at(course, name):
    for part in name.split("."):
        course = getattr(course, part)
    return course


def test_fedprox_without_its_term_is_fedavg(fedavg):
    run = play("fedprox", emptying=True, rounds=3, mu=0)
    same_course(run, fedavg)
    for state, wanted in zip(run.states, fedavg.states, strict=True):
        jax.tree.map(np.testing.assert_array_equal, state.params, wanted.params)


def test_fedopt_of_a_server_that_takes_the_change_as_it_is_is_fedavg(fedavg):
    changes = {
        "fedopt.optimizer": "sgd",
        "fedopt.beta1": 0.0,
        "fedopt.server_learning_rate": 1.0,
    }
    run = play("fedopt", changes, emptying=True, rounds=3)
    same_course(run, fedavg)
    for state, wanted in zip(run.states, fedavg.states, strict=True):
        assert_close(layers(state.params), layers(wanted.params))


def test_clusters_of_one_without_distillation_are_fedavg(fedavg, cefl):
    same_course(cefl, fedavg)
    for state, wanted in zip(cefl.states, fedavg.states, strict=True):
        model = state.halves.front + state.halves.back
        assert_close(layers(model), layers(wanted.params))


def test_splitfed_v1_is_clusters_of_one_without_distillation(cefl):
    """To the bit: only the servers are others, which nothing that is learned depends on."""
    run = play("splitfed_v1", emptying=True, rounds=3)
    same_course(run, cefl)
    for state, wanted in zip(run.states, cefl.states, strict=True):
        jax.tree.map(np.testing.assert_array_equal, state.halves, wanted.halves)
    assert not np.array_equal(run.states[-1].ledger.energy_j, cefl.states[-1].ledger.energy_j)


@pytest.mark.parametrize("method", ["fedavg", "scaffold"])
def test_one_step_of_all_clients_is_a_gradient_step_on_their_mean(method):
    """With clients of one size.

    In scaffold c is the mean of the c_i as long as everybody takes part, so that over all clients
    the corrections c - c_i add up to nothing; and a client's mean step is its gradient, so that
    c_i is the client's, and c the mean, gradient at the model of the round before.
    """
    changes = {"train.local_steps": 1, "train.clients_per_round": 6, "run.client_chunk": 4}
    run = play(method, changes, rounds=3, sizes=(12,) * 6)
    rate = run.setup.spec.train.optimizer.learning_rate
    for index, (before, after) in enumerate(zip(run.states, run.states[1:], strict=False)):
        model, grads = layers(before.params), {}
        for client in clients_of(run, index):
            ((x, labels),) = client.batches
            trace = forward(model, x)
            _, d_logits = cross_entropy(trace[-1], labels)
            grads[client.index], _ = backward(model, trace, d_logits / len(labels))
        assert sorted(grads) == list(range(6))
        mean = each(lambda *g: sum(g) / 6, *grads.values())
        expected = each(lambda w, g: w - rate * g, model, mean)
        assert_close(layers(after.params), expected)
        if method == "scaffold":
            assert_close(layers(after.memory.server), mean, 2e-4)
            for client, gradient in grads.items():
                own = jax.tree.map(lambda leaf: leaf[client], after.memory.clients)  # noqa: B023
                assert_close(layers(own), gradient, 2e-4)
