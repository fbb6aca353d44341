"""A whole round, all stages on, against the slow plain references, draw for draw."""

import itertools

import jax
import numpy as np
import pytest

from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.oracles import clustering, round_ledger, split_round
from tests.oracles.round_types import State
from tests.quick import quick_jit

TWO_ROUNDS = {
    "patent, epochs": {
        "cefl.clustering.rule": "patent",
        "train.local_steps": None,
        "train.local_epochs": 2,
        "train.optimizer.momentum": 0.9,
        "train.optimizer.weight_decay": 1e-3,
        "cefl.distill.optimizer_state": "persist",
        "run.client_chunk": 1,
    },
    "balanced, steps, deep cut, shared nodes": {
        "cefl.clustering.rule": "balanced",
        "cefl.offload.edge_capacity": 2,
        "cefl.offload.include_cloud": True,
        "network.num_edges": 2,
        "network.preset": "device_zoo",
        "model.cut": 2,
        "train.local_steps": 5,
        "train.optimizer.clip_norm": 0.7,
        "cefl.distill.upload_steps": 2,
        "cefl.distill.epochs": 2,
        "cefl.distill.temperature_cloud": 1.0,
        "cefl.distill.lambda_warmup_rounds": 2,
        "run.client_chunk": 3,
    },
    "one cluster, cloud teaches": {
        "cefl.clustering.rule": "single",
        "cefl.distill.rule": "cloud_to_edge",
        "run.client_chunk": 7,
    },
}
ONE_ROUND = {
    "edge teaches, bottleneck": {
        "cefl.clustering.rule": "patent",
        "cefl.offload.objective": "bottleneck",
        "cefl.offload.energy_weight": 0.1,
        "cefl.distill.rule": "edge_to_cloud",
        "cefl.distill.lambda_cloud": 0.8,
    },
    "hard labels": {"cefl.clustering.rule": "patent", "cefl.distill.rule": "hard_labels"},
    "no hard labels for the cloud": {
        "cefl.clustering.rule": "patent",
        "cefl.distill.cloud_hard_labels": False,
        "cefl.distill.lambda_edge": 0.3,
    },
    "no distillation": {"cefl.clustering.rule": "patent", "cefl.distill.rule": "none"},
}


LONG = {
    "patent, epochs",
    "one cluster, cloud teaches",
    "no hard labels for the cloud",
    "edge teaches, bottleneck",
    "hard labels",
}


def cases(names):
    """Names of cases; those of `LONG` are slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in names]


@pytest.mark.parametrize("case", cases(TWO_ROUNDS))
def test_two_rounds_equal_the_references(case):
    setup = make_setup(TWO_ROUNDS[case])
    state, step, arrays = world.compile_round(setup)
    follow(setup, state, lambda state: step(state, *arrays), 2)


@pytest.mark.parametrize("case", cases(ONE_ROUND))
def test_one_round_by_another_rule_equals_the_references(case):
    setup = make_setup(ONE_ROUND[case])
    state, step, arrays = world.compile_round(setup, quick_jit)
    after = follow(setup, state, lambda state: step(state, *arrays), 1)
    if setup.spec.cefl.distill.rule == "none":
        for name in ("cloud", "edge_optimizer", "cloud_optimizer"):
            pair = getattr(after, name), getattr(state, name)
            jax.tree.map(np.testing.assert_array_equal, *pair)


def make_setup(changes):
    """A run on a network where each phase takes a share of the round that a test can see."""
    setup = world.make_setup(changes)
    network = setup.network
    uneven = np.linspace(1, 2, len(network.backhaul_bps), dtype=np.float32)
    slow = {"clients": 50, "edges": 500, "front": 5000, "cloud": 1000}
    devices = {role: getattr(network, role) for role in slow}
    devices = {
        role: devices[role]._replace(flop_per_s=devices[role].flop_per_s / slow[role])
        for role in slow
    }
    network = network._replace(backhaul_bps=network.backhaul_bps * uneven / 20, **devices)
    return setup._replace(network=network)


def follow(setup, state, step, rounds):
    """Steps the library and the references side by side; the library's last state."""
    expected = State(model(state), replay.layers(state.cloud))
    sizes = round_ledger.sizes_of(expected.model, setup.spec.model.cut)
    dataset, spent = world.make_dataset(), []
    for index in range(rounds):
        draws = replay.draws(setup, state, index)
        if setup.spec.cefl.distill.optimizer_state == "reset":
            expected = expected._replace(edge_buffer=None, cloud_buffer=None)
        reference = split_round.one_round(
            expected,
            dataset.train_images,
            dataset.train_labels,
            setup.partition,
            draws,
            replay.settings(setup.spec, index),
        )
        before = state
        state, metrics = step(state)
        expected = reference.state
        assert_same_models(state, expected, setup.spec.cefl.distill.optimizer_state)
        assert_close(metrics.train_loss, reference.train_loss, 1e-4)
        assert_same_clusters(metrics.clusters, setup, draws.clients, reference.cluster)
        terms = replay.terms(setup, before, draws.clients)
        spent.append(round_ledger.one_round(draws, reference.cluster, sizes, terms))
        assert_same_ledger(state.ledger, [cost.bill for cost in spent])
        assert_close(metrics.offload_cost, spent[-1].offload_cost, 1e-4)
    return state


def model(state):
    return replay.layers(state.halves.front + state.halves.back)


def assert_same_models(state, expected, optimizer_state):
    assert_close(model(state), expected.model, 2e-5)
    assert_close(replay.layers(state.cloud), expected.cloud, 2e-5)
    if optimizer_state == "reset":
        assert state.edge_optimizer == state.cloud_optimizer == ()
        return
    assert_close(replay.momentum(state.edge_optimizer), expected.edge_buffer, 2e-5)
    assert_close(replay.momentum(state.cloud_optimizer), expected.cloud_buffer, 2e-5)


def assert_same_clusters(quality, setup, clients, cluster):
    counts = setup.data.label_counts[clients].tolist()
    formed = sorted(set(cluster))
    number = {m: i for i, m in enumerate(formed)}
    target = clustering.pooled_target(counts)
    kl = clustering.cluster_kl(counts, [number[m] for m in cluster], len(formed), target)
    members = [cluster.count(m) for m in formed]
    assert quality.count == len(formed)
    assert_close(quality.kl_mean, np.mean(kl), 1e-4, atol=1e-6)
    assert_close(quality.kl_max, max(kl), 1e-4, atol=1e-6)
    assert [quality.size_min, quality.size_max] == [min(members), max(members)]


def assert_same_ledger(ledger, bills):
    """`bills` are the round_bill.Bill of the rounds so far."""
    seconds = [sum(bill.phase_s.get(phase, 0.0) for bill in bills) for phase in PHASES]
    assert_close(ledger.phase_s, seconds, 1e-4, atol=1e-6 * sum(seconds), each=True)
    for (i, link), (j, message) in itertools.product(enumerate(LINKS), enumerate(MESSAGES)):
        sent = sum(bill.link_bytes.get((link, message), 0) for bill in bills)
        assert int(ledger.link_bytes[i, j]) == sent, (link, message)
    joules = np.sum([bill.energy_j for bill in bills], 0)
    assert_close(ledger.energy_j, joules, 1e-4, each=True)
