"""SplitFed V2 and sequential split learning against slow readings of their papers and ledgers."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax import config, experiment, program
from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES
from cefl_jax.runtime import workdir
from cefl_jax.types import Purpose, round_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.methods.test_equivalences import CLOSE, train_alone
from tests.oracles import turns
from tests.oracles.dense_net import Sgd
from tests.oracles.split_round import features_of
from tests.quick import once_jit, quick_jit

METHODS = ("splitfed_v2", "sequential_split")
EPOCHS = {"train.local_steps": None, "train.local_epochs": 2}
# Of 7 places all are taken, then 5, then 1; who is not there in the next round leaves in this one.
AVAILABLE = np.arange(11) >= np.array([0, 6, 10, 4])[:, None]


def make_setup(method, devices=1):
    """Three rounds on a network that empties, with all that an optimizer has."""
    setup = world.make_setup(
        {
            "method.name": method,
            **EPOCHS,
            "train.rounds": 3,
            "train.optimizer.momentum": 0.9,
            "train.optimizer.weight_decay": 0.01,
            "train.optimizer.clip_norm": 0.5,
            "run.eval_every": 1,
            "run.devices": devices,
        }
    )
    return world.follow(setup, world.make_trace(setup, AVAILABLE))


@functools.cache
def outcomes(method, devices=1, jit=quick_jit):
    """The state and the Chunk after every round, as NumPy arrays."""
    return world.run_whole(make_setup(method, devices), jit)


@functools.cache
def decisions():
    """The Decisions of all rounds, which are alike for both methods but for their schedules."""
    return world.decide_rounds(make_setup("sequential_split"))[0]


def drawn_clients(setup, index, available):
    """The clients of a round in the order in which they were sampled, without empty places."""
    key = round_key(jax.random.key(setup.spec.seed), index, Purpose.SAMPLING)
    places = setup.spec.train.clients_per_round
    clients = replay.sample_clients(key, len(setup.partition), places, available)
    return [client for client in clients.tolist() if client < len(setup.partition)]


def oracle_clients(setup, index, stays):
    """turns.Client of each client of a round, of which some leave; `stays` {client: steps}."""
    key = round_key(jax.random.key(setup.spec.seed), index, Purpose.BATCHES)
    size, dataset = setup.spec.train.batch_size, world.make_dataset()
    scale = setup.spec.data.normalization
    for client in drawn_clients(setup, index, jnp.asarray(AVAILABLE[index])):
        planned = 2 * -(-len(setup.partition[client]) // size)
        made, batches = min(planned, stays[client]), []
        for step in range(made):
            examples, valid = replay.draw_batch(setup.data, key, client, step, size)
            examples = np.asarray(examples)[np.asarray(valid)]
            x = features_of(dataset.train_images[examples], scale)
            batches.append((x, dataset.train_labels[examples]))
        counts = made == planned
        yield turns.Client(batches, len(setup.partition[client]), counts)


def layers(state):
    return replay.layers(state.halves.front + state.halves.back)


@pytest.mark.parametrize("method", METHODS)
def test_three_rounds_equal_the_slow_reading(method):
    setup = make_setup(method)
    optimizer, cut = setup.spec.train.optimizer, setup.spec.model.cut
    sgd = Sgd(
        optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay, optimizer.clip_norm
    )
    halves, _ = quick_jit(setup.model.init)(program_key(setup))
    expected, counted, parts = replay.layers(halves.front + halves.back), [], 0
    for index, (state, chunk) in enumerate(outcomes(method)):
        plan, task = (world.row_of(x, index) for x in (decisions().plan, decisions().task))
        stays = dict(zip(plan.clients.tolist(), task.stays.tolist(), strict=True))
        clients = list(oracle_clients(setup, index, stays))
        if method == "splitfed_v2":
            expected, loss = turns.splitfed_v2(expected[:cut], expected[cut:], clients, sgd)
        else:
            expected, loss = turns.sequential(expected, clients, sgd)
        assert_close(layers(state), expected, 2e-5)
        assert_close(chunk.metrics.train_loss, [loss], 1e-4)
        counted.append((len(clients), sum(client.counts for client in clients)))
        parts += sum(bool(client.batches) and not client.counts for client in clients)
        seen = chunk.metrics.sampled.item(), chunk.metrics.counted.item()
        assert seen == counted[-1]
    # Some leave after some of their steps, and there are empty places.
    assert parts > 0
    assert [sampled for sampled, _ in counted] == [7, 5, 1]
    assert all(count > 0 for _, count in counted)


def program_key(setup):
    return jax.random.fold_in(jax.random.key(setup.spec.seed), int(Purpose.MODEL))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_devices_give_the_same_bits(method):
    on_two, on_one = (outcomes(method, devices, once_jit) for devices in (2, 1))
    jax.tree.map(np.testing.assert_array_equal, on_two, on_one)


@pytest.mark.slow
def test_a_round_of_one_client_is_centralised_sgd_by_either_method():
    ends = []
    for method in METHODS:
        setup = world.make_setup({"method.name": method, **EPOCHS, "train.clients_per_round": 1})
        start, _, arrays = world.compile_round(setup)

        def step(state, hparams, data, network, setup=setup):
            return program.make_method(setup, data, network).round(state, hparams)

        state, _ = quick_jit(step)(start, *arrays)
        ends.append(state.halves)
    (client,) = drawn_clients(setup, 0, None)
    steps = 2 * -(-len(setup.partition[client]) // setup.spec.train.batch_size)
    alone = train_alone(setup, start.halves.front + start.halves.back, client, 0.05, steps)
    for front, back in ends:
        assert_close(front + back, alone, CLOSE)


@pytest.mark.parametrize("late", ["drop", "keep"])
def test_the_ledger_of_turns_is_their_sum(late):
    setup = world.make_setup(
        {
            "method.name": "sequential_split",
            "train.rounds": 6,
            "train.local_steps": None,
            "train.local_epochs": 1,
            "network.preset": "device_zoo",
            "network.dynamics": "markov",
            "network.leave_probability": 0.4,
            "network.late": late,
        }
    )
    decided, ledgers = world.decide_rounds(setup)
    network, size = setup.network, setup.spec.train.batch_size
    width = setup.planner.work.feature_bytes // turns.NUMBER
    spent_s, sent, joules, left = {}, {}, np.zeros(len(setup.device_names)), []
    for index in range(setup.spec.train.rounds):
        decision, ledger = world.row_of(decided, index), world.row_of(ledgers, index)
        clients = decision.plan.clients[: decision.sampled]
        own = []
        for k, client in enumerate(clients.tolist()):
            device = [float(leaf[client]) for leaf in network.clients]
            batches, rest = divmod(len(setup.partition[client]), size)
            own.append(
                turns.Turn(
                    [size] * batches + [rest] * (rest > 0),
                    int(decision.task.stays[k]),
                    device[0],
                    tuple(device[1:4]),
                    int(device[4]),
                    float(decision.network.front_up_bps[k]),
                    float(decision.network.front_down_bps[k]),
                )
            )
        phase_s, bytes_sent, energy_j, counted = turns.charge(
            own, setup.planner.work, network, width, late == "keep", len(joules)
        )
        left += [len(turn.samples) > turn.stays for turn in own]
        assert decision.schedule.counts.ravel().tolist() == counted + [False] * (7 - len(own))
        finished = [turn.stays >= len(turn.samples) for turn in own]
        assert decision.schedule.finished.sum() == sum(finished)
        spent_s = {name: spent_s.get(name, 0) + s for name, s in phase_s.items()}
        sent = {key: sent.get(key, 0) + bytes_sent.get(key, 0) for key in {*sent, *bytes_sent}}
        joules += energy_j
        expected_s = [spent_s.get(name, 0.0) for name in PHASES]
        assert_close(ledger.phase_s, expected_s, 2e-5, atol=1e-6 * sum(expected_s), each=True)
        for (i, link), (j, message) in itertools.product(enumerate(LINKS), enumerate(MESSAGES)):
            assert int(ledger.link_bytes[i, j]) == sent.get((link, message), 0), (link, message)
        assert_close(ledger.energy_j, joules, 2e-5, each=True)
    assert 0 < sum(left) < len(left) < 7 * setup.spec.train.rounds


def test_one_server_takes_all_samples_of_a_step():
    """The cloud trains on the clients' samples one after another, and they wait for each other."""
    setup = make_setup("splitfed_v2")
    decision = world.row_of(world.decide_rounds(setup)[0], 0)
    schedule, samples = decision.schedule, decision.task.samples
    made = np.arange(samples.shape[1]) < schedule.steps[:, None]
    served_s = (
        (samples * made).sum(0)
        * setup.planner.work.back_train_flop
        / setup.network.cloud.flop_per_s
    )
    assert schedule.served_s.shape[0] == 1
    got_s = np.float64(schedule.served_s - schedule.arrived_s)[0]
    assert_close(got_s, served_s, 1e-2)


def test_what_is_done_in_turn_is_for_one_device_and_one_client_at_once():
    for method in METHODS:
        changes = {"method.name": method, "run.devices": None, "run.client_chunk": None}
        run = world.make_setup(changes).spec.run
        assert (run.devices, run.client_chunk) == (1, None)


def test_a_run_of_turns_leaves_no_timeline(tmp_path, monkeypatch):
    """And everything else, through the door's own conductor."""
    setup = make_setup("sequential_split")
    chunks = iter(outcomes("sequential_split"))
    made = None, lambda *_: next(chunks), (), 0.0
    monkeypatch.setattr(experiment, "compile_program", lambda *_: made)
    experiment.conduct(setup, workdir.open_workdir(tmp_path / "run"))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not names & {"timeline.json", "gantt.png", "map.png"}
    assert {"config.json", "metrics.jsonl", "summary.json", "learning_curve.png"} <= names
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["round"]) == ("finished", 3)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["clients/sampled"] for line in lines] == [7, 5, 1]


@pytest.mark.parametrize(
    ("field", "text", "line"),
    [
        (
            "network.deadline_s",
            "2",
            "network.deadline_s=2.0: not read with method.name='sequential_sp",
        ),
        (
            "cefl.compression.smashed",
            "int8",
            "cefl.compression.smashed='int8': not read with method.",
        ),
        (
            "cefl.privacy.noise_std",
            "0.1",
            "cefl.privacy.noise_std=0.1: not read with method.name='se",
        ),
    ],
)
def test_what_turns_cannot_honour_is_refused(field, text, line):
    chosen = config.default_config()
    config.set_field(chosen, "method.name", "splitfed_v2")
    config.set_field(chosen, field, text)
    config.to_spec(chosen)
    config.set_field(chosen, "method.name", "sequential_split")
    with pytest.raises(config.SettingError) as caught:
        config.to_spec(chosen)
    assert str(caught.value).startswith(line)
    assert "; set " in str(caught.value)
