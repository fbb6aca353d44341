"""Whole runs whose clients leave or are late: what a user sees of rounds that nobody finishes.

All scenarios are one compiled program: who is there, and how fast, is data. What is learned, and
what it costs, test_cefl.py holds to the oracles.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax import experiment, program
from cefl_jax.network import dynamics
from cefl_jax.plots.timeline import read_timeline
from cefl_jax.runtime import workdir
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
    """A function that conducts a run: the states after each round, its records, and its output."""

    def conduct(setup):
        start, advance = compiled
        arrays = program.make_hparams(setup.spec), setup.data, setup.network
        states = [start(jax.random.key(setup.spec.seed), *arrays[1:])]

        def remember(*args):
            state, chunk = advance(*args)
            states.append(state)
            return state, chunk

        made = states[0], remember, arrays, 0.0
        run = workdir.open_workdir(tmp_path / "run")
        experiment.conduct(setup, run, compiler=lambda *_: made)
        text = (tmp_path / "run" / "metrics.jsonl").read_text()
        assert "NaN" not in text
        status = json.loads((tmp_path / "run" / "status.json").read_text())
        assert (status["state"], status["round"]) == ("finished", ROUNDS)
        read_timeline(tmp_path / "run" / "timeline.json")
        states = jax.device_get([state._replace(key=None) for state in states])
        return states, [json.loads(line) for line in text.splitlines()], capsys.readouterr().out

    return conduct


def assert_nothing_learned(before, after):
    for name in ("halves", "cloud", "edge_optimizer", "cloud_optimizer"):
        pair = getattr(before, name), getattr(after, name)
        jax.tree.map(np.testing.assert_array_equal, *pair)


def unknown(record):
    return [key for key, value in record.items() if value is None]


def test_a_deadline_that_nobody_can_meet_changes_nothing_but_the_time(conduct):
    few = np.arange(11) % 2 == 0  # of the seven places of a round, one stays empty
    setup = world.dropping_setup(EVERYBODY & few)
    narrow = setup.network._replace(bandwidth_hz=1e-6 * setup.network.bandwidth_hz)
    setup = setup._replace(network=narrow)
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


@pytest.mark.parametrize("present", [(7, 0, 0, 0), (0, 0, 0, 0), (7, 3, 3, 3), (7, 7, 7, 7)])
def test_rounds_without_clients_say_so_and_do_not_warn_of_a_deadline(conduct, present):
    """Who leaves for good does so within the first round, with part of the steps made."""
    available = EVERYBODY & (np.arange(11) < np.array([*present, present[-1]])[:, None])
    states, records, output = conduct(world.dropping_setup(available))
    assert "warning" not in output
    assert [record["clients/sampled"] for record in records] == list(present)
    assert [record["clients/empty_rounds"] for record in records] == [n == 0 for n in present]
    spent_s = np.diff([0.0] + [record["sim/time_s"] for record in records])
    for index, (count, record) in enumerate(zip(present, records, strict=True)):
        before, after = states[index : index + 2]
        if count:
            assert unknown(record) == []
            stays = present[min(index + 1, 3)] == count
            assert (record["clients/finished"] == count) == stays
            assert not np.array_equal(
                before.halves.back[0]["Dense_0"]["bias"], after.halves.back[0]["Dense_0"]["bias"]
            )
        else:
            assert unknown(record) == ["train/loss"]
            assert record["clients/finished"] == record["cluster/count"] == 0
            assert record["offload/cost"] == 0
            assert_close(spent_s[index], DEADLINE_S, 1e-6)
            assert_nothing_learned(before, after)


def test_a_network_that_empties_for_ever():
    """leave_probability=1, return_probability=0: nobody is there in any round."""
    changes = {"leave_probability": 1.0, "return_probability": 0.0, "dynamics": "markov"}
    setup = world.make_setup({f"network.{name}": value for name, value in changes.items()})
    key, settings = jax.random.key(0), setup.spec.network
    now = dynamics.start(key, setup.network, settings)
    for conditions in (now, now._replace(available=jnp.ones(11, bool))):
        assert not dynamics.step(key, 0, conditions, setup.network, settings).available.any()
    assert not now.available.any()
