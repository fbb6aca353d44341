"""HierFAVG against a slow reading of its algorithm and of what its rounds cost."""

import functools
import json

import jax
import numpy as np
import pytest

from cefl_jax import config, experiment
from cefl_jax.runtime import workdir
from cefl_jax.stages.round_plan import draw_batches
from cefl_jax.types import Purpose, round_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.methods.test_whole_round import assert_same_ledger
from tests.oracles import edge_rounds
from tests.oracles.dense_net import Sgd
from tests.oracles.split_round import features_of
from tests.quick import once_jit, quick_jit

ROUNDS = 3
# Of 7 places all are taken, then 6, then 4; who is not there in the next round leaves in this one.
AVAILABLE = np.ones((ROUNDS + 1, 11), bool)
AVAILABLE[1, [1, 2, 3, 4, 6]] = AVAILABLE[2, [0, 5, 6, 7, 8, 9, 10]] = AVAILABLE[3, [1, 3]] = False
EPOCHS = {"train.local_steps": None, "train.local_epochs": 2, "hierfavg.edge_rounds": 3}
CASES = {
    "epochs, clients leave": EPOCHS
    | {
        "network.preset": "device_zoo",
        "train.optimizer.momentum": 0.9,
        "train.optimizer.weight_decay": 0.01,
        "train.optimizer.clip_norm": 0.8,
        "run.client_chunk": 3,
    },
    "steps": {"train.local_steps": 4, "hierfavg.edge_rounds": 2, "train.optimizer.momentum": 0.5},
}


@functools.cache
def make_setup(case, devices=1):
    """Three rounds with an edge node that nobody is near; in the first case the network empties."""
    setup = world.make_setup(
        CASES[case]
        | {
            "method.name": "hierfavg",
            "train.rounds": ROUNDS,
            "run.eval_every": 1,
            "run.devices": devices,
        }
    )
    edge_km = setup.network.edge_km.copy()
    edge_km[2] += 100
    setup = setup._replace(network=setup.network._replace(edge_km=edge_km))
    if "leave" in case:
        setup = world.follow(setup, world.make_trace(setup, AVAILABLE, edge_load=0.3))
    return setup


@functools.cache
def outcomes(case, devices=1, jit=quick_jit):
    """The state and the Chunk after every round, as NumPy arrays."""
    return world.run_whole(make_setup(case, devices), jit)


def clients_of(setup, index, decision):
    """Batches of example indices [edge round][step] of each client of a round, where it is."""
    key = round_key(jax.random.key(setup.spec.seed), index, Purpose.BATCHES)
    train, times = setup.spec.train, setup.spec.hierfavg.edge_rounds
    examples = np.asarray(draw(setup.data, key, decision.plan.clients, 4, 48))
    for k, client in enumerate(decision.plan.clients.tolist()):
        if client == len(setup.partition):
            continue
        size = len(setup.partition[client])
        block = train.local_steps or train.local_epochs * -(-size // train.batch_size)
        batches = [row[row < setup.data.num_examples] for row in examples[k]]
        yield k, client, [batches[r * block : (r + 1) * block] for r in range(times)]


draw = quick_jit(draw_batches, static_argnums=(3, 4))


def as_trained(setup, batches, stays):
    """The batches that a client makes before it leaves, as (x, labels)."""
    dataset, scale = world.make_dataset(), setup.spec.data.normalization
    made, done = [], 0
    for steps in batches:
        made.append(
            [
                (features_of(dataset.train_images[rows], scale), dataset.train_labels[rows])
                for rows in steps[: max(stays - done, 0)]
            ]
        )
        done += len(steps)
    return made


@functools.cache
def references(case):
    """Of each round: the model, its mean loss, its Cost, and [node, leaves, steps] of clients."""
    setup, rounds = make_setup(case), []
    decisions, _ = world.decide_rounds(setup)
    optimizer, times = setup.spec.train.optimizer, setup.spec.hierfavg.edge_rounds
    sgd = Sgd(
        optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay, optimizer.clip_norm
    )
    halves, _ = quick_jit(setup.model.init)(
        jax.random.fold_in(jax.random.key(setup.spec.seed), int(Purpose.MODEL))
    )
    model, work = replay.layers(halves.front + halves.back), setup.planner.work
    params = sum(w.size + b.size for w, b in model)
    for index in range(ROUNDS):
        decision, training, charged = world.row_of(decisions, index), [], []
        for k, client, batches in clients_of(setup, index, decision):
            offset = setup.network.client_km[client] - setup.network.edge_km
            node = edge_rounds.nearest((offset**2).sum(1).tolist())
            stays = int(decision.task.stays[k])
            samples = [[len(rows) for rows in steps] for steps in batches]
            charged.append(edge_rounds.Client(k, samples, stays))
            training.append(
                (
                    node,
                    len(setup.partition[client]),
                    not charged[-1].leaves,
                    as_trained(setup, batches, stays),
                )
            )
        model, loss = edge_rounds.one_round(model, training, times, sgd)
        flops = work.front_forward_flop, work.front_backward_flop
        cost = edge_rounds.cost(
            charged, decision.network, flops, params, times, len(setup.device_names)
        )
        rounds.append((model, loss, cost, training))
    return rounds


@pytest.mark.parametrize(
    "case", ["epochs, clients leave", pytest.param("steps", marks=pytest.mark.slow)]
)
def test_three_rounds_equal_the_slow_reading(case):
    costs = []
    for (state, chunk), (model, loss, cost, clients) in zip(
        outcomes(case), references(case), strict=True
    ):
        assert_close(replay.layers(state.params), model, 2e-5)
        assert_close(chunk.metrics.train_loss, [loss], 1e-4)
        costs.append(cost)
        assert_same_ledger(state.ledger, costs)
        seen = chunk.metrics.sampled.item(), chunk.metrics.counted.item()
        assert seen == (len(clients), sum(stays for _, _, stays, _ in clients))


def test_the_cases_have_what_they_are_for():
    """Some edge nodes have no clients, or all leave; some leave after an edge round."""
    rounds = [clients for *_, clients in references("epochs, clients leave")]
    assert [len(clients) for clients in rounds] == [7, 6, 4]
    for clients in rounds:
        assert 2 not in {node for node, *_ in clients}
        assert len({len(batches[0]) for *_, batches in clients}) > 1
    gone = [client for clients in rounds for client in clients if not client[2]]
    assert any(batches[1] for *_, batches in gone)
    assert any(not batches[1] for *_, batches in gone)
    staying = [{node for node, _, stays, _ in clients if stays} for clients in rounds]
    assert any(
        node not in there
        for there, clients in zip(staying, rounds, strict=True)
        for node, *_ in clients
    )


@pytest.mark.slow
def test_two_devices_give_the_same_bits():
    case = "epochs, clients leave"
    on_two, on_one = (outcomes(case, devices, once_jit) for devices in (2, 1))
    jax.tree.map(np.testing.assert_array_equal, on_two, on_one)


@pytest.mark.slow
def test_one_edge_node_and_one_edge_round_are_fedavg():
    ends = []
    for changes in (
        {"method.name": "fedavg"},
        {"method.name": "hierfavg", "hierfavg.edge_rounds": 1},
    ):
        setup = world.make_setup(
            {"network.num_edges": 1, "train.optimizer.momentum": 0.9} | changes
        )
        *_, (state, chunk) = world.run_whole(setup)
        ends.append((state.params, chunk.metrics._replace(round_trace=None)))
    assert_close(*ends, 1e-4)


@pytest.mark.slow
def test_a_run_leaves_no_timeline_and_no_metrics_of_clusters(tmp_path, monkeypatch):
    chunks = iter(outcomes("steps"))
    made = None, lambda *_: next(chunks), (), 0.0
    monkeypatch.setattr(experiment, "compile_program", lambda *_: made)
    experiment.conduct(make_setup("steps"), workdir.open_workdir(tmp_path / "run"))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not names & {"timeline.json", "gantt.png", "map.png"}
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["clients/counted"] for record in records] == [7] * ROUNDS
    absent = ("cluster/", "offload/", "privacy/", "test/cloud")
    assert not [key for record in records for key in record if key.startswith(absent)]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"network.deadline_s": "2"},
            "network.deadline_s=2.0: not read with method.name='hierfavg'",
        ),
        (
            {"network.dynamics": "markov", "network.late": "keep"},
            "network.late='keep': not read with",
        ),
        (
            {"hierfavg.edge_rounds": "20000"},
            "hierfavg.edge_rounds=20000: with train.local_steps=10 a",
        ),
    ],
)
def test_what_it_cannot_honour_is_refused(fields, line):
    chosen = config.default_config()
    config.set_field(chosen, "method.name", "hierfavg")
    config.to_spec(chosen)
    for field, text in fields.items():
        config.set_field(chosen, field, text)
    with pytest.raises(config.SettingError) as caught:
        config.to_spec(chosen)
    assert str(caught.value).startswith(line)
    assert "; set that to " in str(caught.value) or "; lower one of" in str(caught.value)
