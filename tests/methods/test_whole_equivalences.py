"""Where methods that train whole models, or split them alone, come to the same, they do."""

import jax
import numpy as np
import pytest

from tests.compare import assert_close
from tests.methods.whole_rounds import clients_of, layers, play
from tests.oracles.dense_net import backward, cross_entropy, each, forward

ALONE = {  # a cluster for each client, at servers of its own, and nothing is distilled
    "cefl.clustering.rule": "singleton",
    "cefl.distill.rule": "none",
    "network.num_edges": 7,
}


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
            first, second = (_at(metrics.course, name) for metrics in (got, wanted))
            np.testing.assert_array_equal(first, second)
        assert_close(got.train_loss, wanted.train_loss)


def _at(course, name):
    for part in name.split("."):
        course = getattr(course, part)
    return course


def test_fedprox_without_its_term_is_fedavg(fedavg):
    run = play("fedprox", emptying=True, rounds=3, proximal=0)
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
