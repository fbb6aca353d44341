"""What rounds of edge rounds cost, random ones, against a slow reading event by event."""

from typing import NamedTuple

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cefl_jax.network.costs import hierarchical
from cefl_jax.network.messages import Payload, Sizes
from cefl_jax.network.schedule import Schedule
from cefl_jax.network.step_times import Task
from tests.network import rounds
from tests.oracles import hierarchical_cost
from tests.quick import quick_jit

EDGE_ROUNDS, MOST = 3, 2  # steps of an edge round
NOTHING = Payload(0, 0)
SIZES = Sizes(NOTHING, NOTHING, 0, rounds.SIZES.front, 0, whole=True)
FLOPS = rounds.WORK.front_forward_flop, rounds.WORK.front_backward_flop


class Case(NamedTuple):
    """A round as the library takes it, and its clients as the reference does."""

    task: Task
    schedule: tuple  # started, steps, finished
    network: object
    clients: list


@st.composite
def cases(draw):
    """Rounds with equal distances, empty places, edge nodes without clients, some that leave."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    distance = rng.integers(1, 4, (rounds.CLIENTS, rounds.SERVERS)).astype(np.float32)
    network = rounds.make_network(rng, cloud_serves=False)._replace(distance_km=distance)
    present = rng.random(rounds.CLIENTS) < draw(st.sampled_from([0.0, 0.4, 1.0]))
    block = rng.integers(1, MOST + 1, rounds.CLIENTS)
    planned = np.where(present, EDGE_ROUNDS * block, 0)
    s = np.arange(EDGE_ROUNDS * MOST)
    samples = np.where(s < planned[:, None], rng.integers(1, 6, (rounds.CLIENTS, len(s))), 0)
    leaves = rng.random(rounds.CLIENTS) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    stays = np.where(leaves, rng.random(rounds.CLIENTS) * planned, len(s)).astype(int)
    cluster = np.where(present, np.arange(rounds.CLIENTS), rounds.CLIENTS)
    task = Task(
        *map(np.int32, (samples, cluster, np.zeros(rounds.CLIENTS), stays, np.zeros_like(stays)))
    )
    steps = np.minimum(stays, planned)
    schedule = present, np.int32(steps), present & (steps == planned)
    clients = [
        hierarchical_cost.Client(
            k, samples[k, : planned[k]].reshape(EDGE_ROUNDS, -1).tolist(), int(stays[k])
        )
        for k in np.flatnonzero(present)
    ]
    return Case(task, schedule, network, clients)


@quick_jit
def cost_of(task, schedule, network):
    started, steps, finished = schedule
    unread = Schedule._make([None] * len(Schedule._fields))
    schedule = unread._replace(started=started, steps=steps, finished=finished)
    return hierarchical.hierarchical_cost(
        task, schedule, network, rounds.WORK, SIZES, 0.0, rounds.KINDS, edge_rounds=EDGE_ROUNDS
    )


@settings(deadline=None, max_examples=150)
@given(cases())
def test_hierarchical_cost_equals_the_slow_reading(case):
    params = rounds.WORK.front_params
    expected = hierarchical_cost.cost(
        case.clients, case.network, FLOPS, params, EDGE_ROUNDS, rounds.KINDS
    )
    assume(expected.margin > rounds.TOO_CLOSE)
    rounds.assert_same_cost(cost_of(case.task, case.schedule, case.network), expected)
