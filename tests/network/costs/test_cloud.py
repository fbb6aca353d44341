"""What an exchange of logits costs: random rounds against the slow reference.

`centralized_cost` is tested with its method, in tests/methods/test_centralized.py.
"""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.network.costs.cloud import logit_exchange_cost
from cefl_jax.network.messages import Knowledge, Payload, Sizes
from cefl_jax.network.schedule import simulate
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
