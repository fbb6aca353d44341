"""Clients that leave or are late, through whole runs: what counts, and rounds in which nobody does.

All scenarios are one compiled program: who is there, and how fast, is data.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax import experiment, program, rounds
from cefl_jax.network import dynamics
from cefl_jax.plots.timeline import read_timeline
from cefl_jax.runtime import workdir
from cefl_jax.types import HParams
from tests import world
from tests.compare import assert_close
from tests.quick import quick_jit

pytestmark = pytest.mark.slow

EVERYBODY = np.ones((5, 11), bool)
ROUNDS, DEADLINE_S = 4, 0.5


@pytest.fixture(scope="module")
def compiled():
    """The two compiled functions of every run of this file."""
    setup = world.dropping_setup(EVERYBODY)
    everywhere = setup.mesh.everywhere
    return [quick_jit(f, out_shardings=everywhere) for f in program.make_program(setup)]


@pytest.fixture
def conduct(compiled, tmp_path, monkeypatch, capsys):
    """A function that conducts a run: the states after each round, what it left, and its output."""

    def conduct(setup, folder="run"):
        start, advance = compiled
        arrays = program.make_hparams(setup.spec), setup.data, setup.network
        states = [start(jax.random.key(setup.spec.seed), *arrays[1:])]

        def remember(*args):
            state, chunk = advance(*args)
            states.append(state)
            return state, chunk

        made = states[0], remember, arrays, 0.0
        monkeypatch.setattr(experiment, "compile_program", lambda *_: made)
        experiment.conduct(setup, workdir.open_workdir(tmp_path / folder))
        text = (tmp_path / folder / "metrics.jsonl").read_text()
        assert "NaN" not in text
        records = [json.loads(line) for line in text.splitlines()]
        assert len(records) == ROUNDS
        status = json.loads((tmp_path / folder / "status.json").read_text())
        assert (status["state"], status["round"]) == ("finished", ROUNDS)
        read_timeline(tmp_path / folder / "timeline.json")
        states = jax.device_get([state._replace(key=None) for state in states])
        return states, records, capsys.readouterr().out

    return conduct


def learned(state):
    return state.halves, state.cloud, state.edge_optimizer, state.cloud_optimizer


def assert_nothing_learned(before, after):
    jax.tree.map(np.testing.assert_array_equal, learned(after), learned(before))


def slowed(setup, clients, factor=1e-6):
    bandwidth = setup.network.bandwidth_hz.copy()
    bandwidth[clients] *= factor
    return setup._replace(network=setup.network._replace(bandwidth_hz=bandwidth))


def unknown(record):
    return [key for key, value in record.items() if value is None]


def test_a_deadline_that_nobody_can_meet_changes_nothing_but_the_time(conduct):
    few = np.arange(11) % 2 == 0  # of the seven places of a round, one stays empty
    setup = slowed(world.dropping_setup(EVERYBODY & few), slice(None))
    states, records, output = conduct(setup)
    for after in states[1:]:
        assert_nothing_learned(states[0], after)
    for done, record in enumerate(records, 1):
        assert unknown(record) == ["train/loss"]
        assert record["clients/sampled"] == 6
        assert record["clients/finished"] == 0
        assert record["clients/empty_rounds"] == 1
        assert record["sim/time_s"] == done * DEADLINE_S
        assert record["comm/client_up_bytes"] == record["comm/client_down_bytes"] == 0
        assert record["comm/edge_cloud_bytes"] == 0
    lines = output.splitlines()
    (warning,) = [i for i, line in enumerate(lines) if "network.deadline_s=0.5" in line]
    first = next(i for i, line in enumerate(lines) if line.startswith("round 1/4"))
    assert warning < first
    assert lines[warning].startswith("warning: ")
    assert "Raise it" in lines[warning]
    soonest_s = float(re.search(r"alone needs (\S+) s", lines[warning])[1])
    assert_close(soonest_s, min(alone_s(setup)), 1e-3)


def alone_s(setup):
    """Seconds of each client of round 0 if nobody held it up, by the terms of a round."""
    decision = world.row_of(world.decide_rounds(setup)[0], 0)
    network, work, placement = decision.network, setup.planner.work, decision.task.placement
    for k, m in enumerate(decision.plan.cluster[: decision.sampled]):
        e, samples = placement[m], int(np.diff(setup.data.offsets)[decision.plan.clients[k]])
        front_flop = samples * (work.front_forward_flop + work.front_backward_flop)
        back_flop = samples * work.back_train_flop * (placement == e).sum()
        yield (
            8 * work.front_bytes / network.front_down_bps[k]
            + front_flop / network.clients.flop_per_s[k]
            + 8 * samples * (work.feature_bytes + 4) / network.up_bps[k, e]
            + back_flop / network.servers.flop_per_s[e]
            + 8 * samples * work.feature_bytes / network.down_bps[k, e]
            + 8 * work.front_bytes / network.front_up_bps[k]
        )


def test_a_deadline_that_everybody_meets_is_none(conduct):
    setup = world.dropping_setup(EVERYBODY)
    states, records, output = conduct(setup)
    assert "warning" not in output
    for record in records:
        assert unknown(record) == []
        assert (record["clients/finished"], record["clients/empty_rounds"]) == (7, 0)
    assert records[-1]["sim/time_s"] < DEADLINE_S
    pair = (jax.tree.leaves(learned(state)) for state in (states[0], states[1]))
    assert not any(np.array_equal(before, after) for before, after in zip(*pair, strict=True))
    # Training and distillation on top of the decisions change nothing of the bill.
    _, ledgers = world.decide_rounds(setup)
    for done, state in enumerate(states[1:]):
        alone = world.row_of(ledgers, done)
        np.testing.assert_array_equal(state.ledger.link_bytes, alone.link_bytes)
        assert_close(state.ledger.phase_s, alone.phase_s, 1e-6)
        assert_close(state.ledger.energy_j, alone.energy_j, 1e-6, each=True)


def test_everybody_leaves_and_nobody_comes_back(conduct):
    """In round 0 all leave, with part of their steps made; after it nothing happens any more."""
    available = EVERYBODY & (np.arange(5) == 0)[:, None]
    states, records, output = conduct(world.dropping_setup(available))
    assert "warning" not in output
    assert [record["clients/sampled"] for record in records] == [7, 0, 0, 0]
    assert records[0]["clients/finished"] < 7
    assert [record["clients/empty_rounds"] for record in records] == [0, 1, 1, 1]
    for after in states[2:]:
        assert_nothing_learned(states[1], after)
    for record in records[1:]:
        assert unknown(record) == ["train/loss"]
        assert record["clients/finished"] == record["cluster/count"] == record["offload/cost"] == 0
    spent_s = [record["sim/time_s"] for record in records]
    assert_close(np.diff(spent_s), DEADLINE_S, 1e-6)


def test_nobody_at_all_is_no_reason_to_warn_of_a_deadline(conduct):
    states, records, output = conduct(world.dropping_setup(~EVERYBODY))
    assert "warning" not in output
    assert records[-1]["sim/time_s"] == ROUNDS * DEADLINE_S
    assert [record["clients/sampled"] for record in records] == [0] * ROUNDS
    assert_nothing_learned(states[0], states[-1])


def test_a_mean_loss_is_that_of_the_rounds_with_somebody(compiled):
    """Two rounds in one evaluation, of which nobody trained in one, or in both."""
    setup = world.dropping_setup(EVERYBODY)
    start, advance = compiled
    arrays = program.make_hparams(setup.spec), setup.data, setup.network
    _, chunk = jax.device_get(advance(start(jax.random.key(0), *arrays[1:]), *arrays))
    twice = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), chunk.metrics)
    for losses, mean in (([np.nan, 2], 2), ([3, 2], 2.5), ([np.nan, np.nan], np.nan)):
        metrics = twice._replace(train_loss=np.float32(losses))
        record = rounds.make_record(chunk._replace(metrics=metrics), 2, 2, 1.0)
        np.testing.assert_equal(record["train/loss"], mean)


def test_a_network_that_empties_for_ever():
    """leave_probability=1, return_probability=0: nobody is there in any round."""
    changes = {"leave_probability": 1.0, "return_probability": 0.0, "dynamics": "markov"}
    setup = world.make_setup({f"network.{name}": value for name, value in changes.items()})
    key, settings = jax.random.key(0), setup.spec.network
    now = dynamics.start(key, setup.network, settings)
    assert not now.available.any()
    assert not dynamics.step(key, 0, now, setup.network, settings).available.any()
    crowded = now._replace(available=jnp.ones(11, bool))
    assert not dynamics.step(key, 0, crowded, setup.network, settings).available.any()


def test_a_few_of_the_wanted_clients_make_a_round(conduct):
    available = EVERYBODY.copy()
    available[1:4, 3:] = False
    states, records, _ = conduct(world.dropping_setup(available))
    assert [record["clients/sampled"] for record in records] == [7, 3, 3, 3]
    assert all(unknown(record) == [] for record in records)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[-1]))
    assert all(record["clients/finished"] == 3 for record in records[1:3])


def test_the_global_model_is_the_average_of_the_clusters_that_are_left(compiled):
    """One cluster is late with everything; the others weigh by their clients' examples."""
    setup = world.dropping_setup(EVERYBODY)
    first = world.row_of(world.decide_rounds(setup)[0].plan, 0)
    assert set(first.cluster.tolist()) == {0, 1, 2}
    late = slowed(setup, first.clients[first.cluster == 1])
    start, advance = compiled
    hparams, train = program.make_hparams(setup.spec), world.trainer(setup)
    state = start(jax.random.key(setup.spec.seed), setup.data, late.network)

    halves, weights = [], []
    for m in (0, 2):
        alone = first._replace(weight=np.where(first.cluster == m, first.weight, 0))
        halves.append(train(state, alone, hparams)[0])
        weights.append(np.diff(setup.data.offsets)[first.clients[first.cluster == m]].sum())
    shares = np.array(weights) / sum(weights)
    expected = jax.tree.map(lambda *leaves: sum(map(np.multiply, shares, leaves)), *halves)

    # Without distillation, which would go on with the back half.
    still = HParams(*hparams)._replace(distill_learning_rate=jnp.float32(0))
    after, chunk = advance(state, still, setup.data, late.network)
    assert chunk.metrics.finished == 7 - (first.cluster == 1).sum()
    assert_close(after.halves, expected, 1e-4)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.halves, state.halves)
    assert min(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("rule", world.RULES)
def test_a_network_that_empties_stops_no_rule(rule):
    """Whole runs; test_orchestration.py has the decisions of every rule without training."""
    setup = world.make_setup(
        world.RULES[rule] | {"train.rounds": 4, "run.eval_every": 1, "cefl.offload.rule": "greedy"}
    )
    available = np.arange(11) < np.array([11, 4, 1, 0, 0])[:, None]
    outcomes = world.run_whole(world.follow(setup, world.make_trace(setup, available)))
    assert [chunk.metrics.sampled.item() for _, chunk in outcomes] == [7, 4, 1, 0]
    for state, chunk in outcomes:
        known = np.isfinite(chunk.metrics.train_loss).all()
        assert known or chunk.metrics.counted.item() == 0
        assert not (known and chunk.metrics.sampled.item() == 0)
        finite = state, chunk._replace(metrics=None)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(finite))
    assert_nothing_learned(*(state for state, _ in outcomes[-2:]))
