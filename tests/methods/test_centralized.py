"""Centralized training against plain SGD through shuffled epochs, and what it costs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax import build
from cefl_jax.data.federated import batch_examples, permute
from cefl_jax.types import Purpose, purpose_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.methods.costs import assert_same_ledger
from tests.oracles.mlp import train, zeros_like
from tests.oracles.split_cost import Cost
from tests.quick import quick_jit

BATCH = 7
CASES = {  # changed settings, and steps of a round
    "steps": ({}, 7 * 3),
    "epochs": (
        {"train.local_steps": None, "train.local_epochs": 2},
        math.ceil(2 * 7 * 23 / 11),  # of a pass of 23 batches over 160 examples
    ),
}

shuffle = quick_jit(permute)


@pytest.mark.parametrize("case", ["steps", pytest.param("epochs", marks=pytest.mark.slow)])
def test_rounds_are_pieces_of_one_run_of_plain_sgd(case):
    changes, steps = CASES[case]
    common = {
        "method.name": "centralized",
        "network.preset": "device_zoo",
        "train.batch_size": BATCH,
        "train.optimizer.momentum": 0.9,
        "train.optimizer.weight_decay": 0.01,
    }
    setup = world.make_setup(common | changes)
    state, step, arrays = world.compile_round(setup)
    x, labels = replay.pixels_of(setup), setup.data.labels
    batches = [rows for epoch in range(5) for rows in epoch_batches(setup, epoch)]
    model = replay.layers(state.params)
    buffer, costs = zeros_like(model), []
    for index in range(3):
        state, metrics = step(state, *arrays)
        made = [(x[rows], labels[rows]) for rows in batches[index * steps : (index + 1) * steps]]
        model, buffer, losses = train(model, made, replay.sgd_of(setup.spec), buffer)
        assert_close(replay.layers(state.params), model, 2e-5)
        assert_close(metrics.train_loss, np.mean(losses), 1e-4)
        costs.append(cost(setup, len(losses), uploads=index == 0))
        assert_same_ledger(jax.device_get(state.ledger), costs)
    assert build.archive_bytes(setup) == 0


def epoch_batches(setup, epoch):
    """The batches of an epoch over everybody's examples, the last one smaller."""
    key = purpose_key(jax.random.key(setup.spec.seed), Purpose.BATCHES)
    pooled = np.concatenate(setup.partition)
    places = shuffle(jax.random.fold_in(key, epoch), jnp.arange(len(pooled)), len(pooled))
    order = pooled[np.asarray(places)]
    assert sorted(order.tolist()) == sorted(pooled.tolist())
    return [order[at : at + BATCH] for at in range(0, len(order), BATCH)]


def cost(setup, samples, uploads):
    """The Cost of a round that trains on so many samples."""
    network, work, cloud = setup.network, setup.planner.work, setup.network.cloud
    flop = samples * (work.front_forward_flop + work.front_backward_flop)
    train_s = flop / float(cloud.flop_per_s)
    joules = [0.0] * len(setup.device_names)
    joules[int(cloud.kind)] += float(cloud.busy_w) * train_s
    slowest_s, sent = 0.0, {}
    for client, examples in enumerate(setup.partition) if uploads else ():
        size = {"examples": len(examples) * 8 * 8, "labels": len(examples) * 4}
        for link in ("client_up", "edge_up"):
            for message, count in size.items():
                sent[link, message] = sent.get((link, message), 0) + count
        bits, snr = 8 * sum(size.values()), float(network.up_snr[client, -1])
        radio_s = bits / (float(network.bandwidth_hz[client]) * math.log2(1 + snr))
        whole_s = radio_s + bits / float(network.backhaul_bps[-1])
        slowest_s = max(slowest_s, whole_s)
        _, idle_w, _, transmit_w, kind = (float(leaf[client]) for leaf in network.clients)
        joules[int(kind)] += idle_w * whole_s + transmit_w * radio_s
    return Cost({"back_training": train_s, "examples_upload": slowest_s}, sent, joules)


@pytest.mark.slow
def test_with_one_client_it_is_that_clients_own_sgd():
    """Through its shuffled epochs, as its own batches are drawn where it trains alone."""
    spec = world.make_spec(
        {"method.name": "centralized", "train.clients_per_round": 1, "train.local_steps": 50}
    )
    setup = build.build(spec, world.make_dataset(), [np.arange(160)])
    state, step, arrays = world.compile_round(setup)
    model = replay.layers(state.params)
    key = purpose_key(jax.random.key(spec.seed), Purpose.BATCHES)
    data = jax.tree.map(jnp.asarray, setup.data)
    draw = jax.vmap(lambda step: batch_examples(data, key, 0, step, spec.train.batch_size))
    examples = np.asarray(draw(jnp.arange(100)))  # of 40 an epoch
    x, labels = replay.pixels_of(setup), setup.data.labels
    for _ in range(2):
        state, _ = step(state, *arrays)
    model, *_ = train(model, [(x[rows], labels[rows]) for rows in examples], replay.sgd_of(spec))
    assert_close(replay.layers(state.params), model, 2e-5)
