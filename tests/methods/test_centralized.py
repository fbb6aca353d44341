"""Centralized training against plain SGD through shuffled epochs, and what it costs."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax import build, config, experiment
from cefl_jax.data.federated import batch_examples, permute
from cefl_jax.runtime import workdir
from cefl_jax.types import Purpose
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.methods.test_whole_round import assert_same_ledger
from tests.oracles import edge_rounds
from tests.oracles.dense_net import (
    Sgd,
    backward,
    cross_entropy,
    forward,
    sgd_step,
    zeros_like,
)
from tests.oracles.round_bill import Bill
from tests.oracles.split_round import features_of
from tests.quick import once_jit, quick_jit

ROUNDS, BATCH = 3, 7
CHANGES = {
    "method.name": "centralized",
    "network.preset": "device_zoo",
    "train.rounds": ROUNDS,
    "train.batch_size": BATCH,
    "train.optimizer.momentum": 0.9,
    "train.optimizer.weight_decay": 0.01,
    "run.eval_every": 1,
}
STEPS = {  # of a round
    "steps": 7 * 3,
    "epochs": math.ceil(2 * 7 * 23 / 11),  # of a pass of 23 batches over 160 examples
}


@functools.cache
def make_setup(case, devices=1):
    epochs = {"train.local_steps": None, "train.local_epochs": 2} if case == "epochs" else {}
    return world.make_setup(CHANGES | epochs | {"run.devices": devices})


@functools.cache
def outcomes(case, devices=1, jit=quick_jit):
    """The state and the Chunk after every round, as NumPy arrays."""
    return world.run_whole(make_setup(case, devices), jit)


shuffle = quick_jit(permute)


def epoch_batches(setup, epoch):
    """The batches of an epoch over everybody's examples, the last one smaller."""
    key = jax.random.fold_in(jax.random.key(setup.spec.seed), int(Purpose.BATCHES))
    pooled = np.concatenate(setup.partition)
    places = shuffle(jax.random.fold_in(key, epoch), jnp.arange(len(pooled)), len(pooled))
    order = pooled[np.asarray(places)]
    assert sorted(order.tolist()) == sorted(pooled.tolist())
    return [order[at : at + BATCH] for at in range(0, len(order), BATCH)]


def first_model(setup):
    key = jax.random.fold_in(jax.random.key(setup.spec.seed), int(Purpose.MODEL))
    halves, _ = quick_jit(setup.model.init)(key)
    return replay.layers(halves.front + halves.back)


@pytest.mark.parametrize("case", STEPS)
def test_rounds_are_pieces_of_one_run_of_plain_sgd(case):
    setup, dataset = make_setup(case), world.make_dataset()
    batches = [rows for epoch in range(5) for rows in epoch_batches(setup, epoch)]
    model, sgd = first_model(setup), Sgd(0.05, 0.9, 0.01)
    buffer, bills = zeros_like(model), []
    for index, (state, chunk) in enumerate(outcomes(case)):
        loss, samples = 0.0, 0
        for rows in batches[index * STEPS[case] : (index + 1) * STEPS[case]]:
            labels = dataset.train_labels[rows]
            x = features_of(dataset.train_images[rows], setup.spec.data.normalization)
            trace = forward(model, x)
            losses, d_logits = cross_entropy(trace[-1], labels)
            grads, _ = backward(model, trace, d_logits / len(rows))
            model, buffer = sgd_step(model, buffer, grads, sgd)
            loss, samples = loss + losses.sum(), samples + len(rows)
        assert_close(replay.layers(state.params), model, 2e-5)
        assert_close(chunk.metrics.train_loss, [loss / samples], 1e-4)
        bills.append(bill(setup, samples, uploads=index == 0))
        assert_same_ledger(state.ledger, bills)


def bill(setup, samples, uploads):
    """What a round that trains on so many samples costs."""
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
        snr = float(network.up_snr[client, -1])
        radio_s = (
            8 * sum(size.values()) / (float(network.bandwidth_hz[client]) * math.log2(1 + snr))
        )
        whole_s = radio_s + 8 * sum(size.values()) / float(network.backhaul_bps[-1])
        slowest_s = max(slowest_s, whole_s)
        _, idle_w, _, transmit_w, kind = (leaf[client] for leaf in network.clients)
        joules[int(kind)] += float(idle_w) * whole_s + float(transmit_w) * radio_s
    return Bill({"back_training": train_s, "examples_upload": slowest_s}, sent, joules)


def test_two_devices_give_the_same_bits():
    on_two, on_one = (outcomes("steps", devices, once_jit) for devices in (2, 1))
    jax.tree.map(np.testing.assert_array_equal, on_two, on_one)


@pytest.mark.slow
def test_with_one_client_it_is_that_clients_own_sgd():
    """Through its shuffled epochs, as its own batches are drawn where it trains alone."""
    dataset = world.make_dataset()
    spec = world.make_spec(
        {"method.name": "centralized", "train.clients_per_round": 1, "train.local_steps": 50}
    )
    setup = build.build(spec, dataset, [np.arange(160)])
    state, _ = world.run_whole(setup)[-1]
    key = jax.random.fold_in(jax.random.key(spec.seed), int(Purpose.BATCHES))
    steps = jnp.arange(100)  # of 40 an epoch
    data = jax.tree.map(jnp.asarray, setup.data)

    def draw(step):
        return batch_examples(data, key, 0, step, spec.train.batch_size)

    examples = jax.vmap(draw)(steps)
    assert (examples < data.num_examples).all()
    scale = spec.data.normalization
    batches = [
        (features_of(dataset.train_images[rows], scale), dataset.train_labels[rows])
        for rows in np.asarray(examples)
    ]
    model, *_ = edge_rounds.train(first_model(setup), batches, Sgd(0.05))
    assert_close(replay.layers(state.params), model, 2e-5)


def test_a_run_has_no_metrics_of_what_it_lacks(tmp_path, monkeypatch):
    setup, chunks = make_setup("steps"), iter(outcomes("steps"))
    assert build.archive_bytes(setup) == 0
    made = None, lambda *_: next(chunks), (), 0.0
    monkeypatch.setattr(experiment, "compile_program", lambda *_: made)
    experiment.conduct(setup, workdir.open_workdir(tmp_path / "run"))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not names & {"timeline.json", "gantt.png", "map.png"}
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["round"] for record in records] == [1, 2, 3]
    absent = ("cluster/", "offload/", "clients/", "privacy/", "test/cloud")
    assert not [key for record in records for key in record if key.startswith(absent)]
    assert records[0]["comm/client_up_bytes"] == 160 * 68 == records[-1]["comm/client_up_bytes"]


@pytest.mark.parametrize(
    ("field", "text", "line"),
    [
        (
            "network.deadline_s",
            "2",
            "network.deadline_s=2.0: not read with method.name='centralize",
        ),
        (
            "hierfavg.edge_rounds",
            "3",
            "hierfavg.edge_rounds=3: not read with method.name='centralize",
        ),
    ],
)
def test_what_it_cannot_honour_is_refused(field, text, line):
    chosen = config.default_config()
    config.set_field(chosen, "method.name", "centralized")
    config.to_spec(chosen)
    config.set_field(chosen, field, text)
    with pytest.raises(config.SettingError) as caught:
        config.to_spec(chosen)
    assert str(caught.value).startswith(line)
    assert "; set " in str(caught.value)
