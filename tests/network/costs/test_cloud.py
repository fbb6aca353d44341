"""What an exchange of logits costs: random rounds against the slow reference, and one by hand.

`centralized_cost` is tested with its method, in tests/methods/test_centralized.py.
"""

import dataclasses

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.network.costs.cloud import logit_exchange_cost
from cefl_jax.network.messages import Knowledge, Payload, Sizes
from cefl_jax.network.schedule import simulate
from cefl_jax.network.step_times import Task
from tests.compare import assert_close
from tests.network import rounds
from tests.oracles import logit_cost
from tests.quick import quick_jit

WIDTH, CLASSES, SERVER_FLOP = 5, 3, 0.7
NOTHING = Payload(0, 0)
SIZES = Sizes(NOTHING, NOTHING, 0, 0, 0, knowledge=Knowledge(4 * WIDTH, 4, 4 * CLASSES))
WORK = dataclasses.replace(
    rounds.WORK, back_train_flop=0, back_forward_flop=0, front_bytes=0, back_bytes=0
)


def make_task(task, there):
    """The Task in which every client that is there has a cluster of its own on the cloud."""
    count = rounds.CLIENTS
    cluster = np.where(there, np.arange(count), count).astype(np.int32)
    placement = np.where(there, rounds.SERVERS - 1, -1).astype(np.int32)
    return task._replace(cluster=cluster, placement=placement)


@st.composite
def cases(draw):
    """A Task, of at least one client, and a network."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    network, task = rounds.make_network(rng, True), rounds.make_task(rng, leaving=True)
    there = rng.random(rounds.CLIENTS) < 0.8
    there[rng.integers(rounds.CLIENTS)] = True
    task.samples[there, 0] = np.maximum(task.samples[there, 0], 1)
    return make_task(task, there), network


@quick_jit
def compute(task, network):
    schedule = simulate(task, network, WORK, SIZES)
    step, steps = np.arange(rounds.STEPS)[None], schedule.steps[:, None]
    sent = (step >= steps - task.uploads[:, None]) & (step < steps) & schedule.counts[:, None]
    flop = SERVER_FLOP * (sent * task.samples).sum()
    return logit_exchange_cost(task, schedule, network, WORK, SIZES, flop, rounds.KINDS)


@settings(deadline=None, max_examples=150)
@given(cases())
def test_logit_exchange_cost_equals_the_reference(case):
    expected = logit_cost.cost(*case, WORK, WIDTH, CLASSES, SERVER_FLOP, rounds.KINDS)
    rounds.assert_same_cost(compute(*case), expected)


def test_logit_exchange_cost_of_a_round_worked_by_hand():
    """One client: 2 + 1 samples, of which the last step's is uploaded."""
    count, rng = rounds.CLIENTS, np.random.default_rng(0)
    network = jax.tree.map(np.ones_like, rounds.make_network(rng, True))
    rate, watts = np.ones_like(network.up_bps), np.ones(count, np.float32)
    network = network._replace(
        up_bps=64 * rate,
        radio_up_bps=128 * rate,
        down_bps=32 * rate,
        radio_down_bps=96 * rate,
        clients=network.clients._replace(
            idle_w=2 * watts, busy_w=10 * watts, kind=np.zeros(count, np.int32)
        ),
        front=network.front._replace(kind=np.int32(1)),
        cloud=network.cloud._replace(busy_w=np.float32(100), kind=np.int32(2)),
    )
    samples = np.zeros((count, rounds.STEPS), np.int32)
    samples[0, :2] = 2, 1
    nobody = np.full(count, count, np.int32)
    task = Task(samples, None, None, nobody, np.ones(count, np.int32))
    cost = compute(make_task(task, np.arange(count) == 0), network)
    seconds = {
        "front_forward": 4 * 0.3,  # three samples, and one of them again
        "front_backward": 3 * 0.5,
        "smashed_upload": 8 * (20 + 4 + 12) / 64,
        "distillation": 0.7,
        "gradient_download": 8 * 12 / 32,
    }
    assert_close(rounds.phases(cost.phase_s), seconds, 1e-6)
    up, down = {"smashed_data": 20, "labels": 4, "logits": 12}, {"logits": 12}
    links = {"client_up": up, "edge_up": up, "client_down": down, "edge_down": down}
    assert rounds.messages(cost.link_bytes) == {
        (link, name): size for link, row in links.items() for name, size in row.items()
    }
    client_j = 2 * sum(seconds.values()) + 8 * (1.2 + 1.5) + 4.5 / 2
    assert_close(cost.energy_j[:3], [client_j, 3.0 / 3, 70.0], 1e-6, each=True)
