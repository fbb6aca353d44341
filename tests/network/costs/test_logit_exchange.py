"""The bill of knowledge transfer: random rounds against the slow reference, and one by hand."""

import dataclasses

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.network.costs.logit_exchange import logit_exchange_cost
from cefl_jax.network.messages import Knowledge, Payload, Sizes
from cefl_jax.network.schedule import PHASES, simulate
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


@st.composite
def cases(draw, leaving=True):
    """A Task in which every client has a cluster of its own on the cloud or none, and a network."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    network, task = rounds.make_network(rng, True), rounds.make_task(rng, leaving)
    count = rounds.CLIENTS
    there = rng.random(count) < 0.8
    there[rng.integers(count)] = True
    task.samples[there, 0] = np.maximum(task.samples[there, 0], 1)
    cluster = np.where(there, np.arange(count), count).astype(np.int32)
    placement = np.where(there, rounds.SERVERS - 1, -1).astype(np.int32)
    return Task(task.samples, cluster, placement, task.stays, task.uploads), network


@quick_jit
def compute(task, network):
    schedule = simulate(task, network, WORK, SIZES)
    sent = np.arange(rounds.STEPS)[None] >= schedule.steps[:, None] - task.uploads[:, None]
    sent &= (np.arange(rounds.STEPS)[None] < schedule.steps[:, None]) & schedule.counts[:, None]
    flop = SERVER_FLOP * (sent * task.samples).sum()
    return schedule, logit_exchange_cost(task, schedule, network, WORK, SIZES, flop, rounds.KINDS)


@settings(deadline=None, max_examples=150)
@given(cases())
def test_bill_equals_the_reference(case):
    task, network = case
    expected = logit_cost.cost(task, network, WORK, WIDTH, CLASSES, SERVER_FLOP, rounds.KINDS)
    _, bill = compute(task, network)
    seconds = [expected.phase_s.get(name, 0.0) for name in PHASES]
    assert_close(bill.phase_s, seconds, 2e-5, atol=1e-5 * sum(seconds), each=True)
    assert rounds.messages(bill.link_bytes) == expected.link_bytes
    assert_close(bill.energy_j, expected.energy_j, 2e-5, each=True)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_who_leaves_sends_nothing_and_hears_nothing(case):
    """Its round costs what it has computed, as long as it has been there."""
    task, network = case
    leaves = np.append(task.placement, -1)[task.cluster] >= 0
    leaves &= task.stays < (task.samples > 0).sum(1)
    alone = np.where(leaves, task.cluster, rounds.CLIENTS).astype(np.int32)
    placement = np.where(leaves, task.placement, -1).astype(np.int32)
    schedule, bill = compute(task._replace(cluster=alone, placement=placement), network)
    assert not rounds.messages(bill.link_bytes)
    assert_close(rounds.length(bill.phase_s), np.max(schedule.out_s))
    assert set(rounds.phases(bill.phase_s)) <= {"front_forward", "front_backward"}


def test_a_round_worked_by_hand():
    """One client: 2 + 1 samples, of which the last step's is uploaded."""
    count = rounds.CLIENTS
    network = jax.tree.map(np.ones_like, rounds.make_network(np.random.default_rng(0), True))
    kinds = {"clients": np.zeros(count, np.int32), "front": np.int32(1), "cloud": np.int32(2)}
    network = network._replace(
        **{role: getattr(network, role)._replace(kind=kind) for role, kind in kinds.items()}
    )
    network = network._replace(
        up_bps=64 * np.ones_like(network.up_bps),
        radio_up_bps=128 * np.ones_like(network.up_bps),
        down_bps=32 * np.ones_like(network.down_bps),
        radio_down_bps=96 * np.ones_like(network.down_bps),
        clients=network.clients._replace(
            idle_w=np.full(count, 2, np.float32), busy_w=np.full(count, 10, np.float32)
        ),
        cloud=network.cloud._replace(busy_w=np.float32(100)),
    )
    samples = np.zeros((count, rounds.STEPS), np.int32)
    samples[0, :2] = 2, 1
    nobody = np.full(count, count, np.int32)
    cluster, placement = nobody.copy(), np.full(count, -1, np.int32)
    cluster[0], placement[0] = 0, rounds.SERVERS - 1
    task = Task(samples, cluster, placement, nobody, np.ones(count, np.int32))
    _, bill = compute(task, network)
    seconds = {
        "front_forward": 4 * 0.3,  # three samples, and one of them again
        "front_backward": 3 * 0.5,
        "smashed_upload": 8 * (20 + 4 + 12) / 64,
        "distillation": 0.7,
        "gradient_download": 8 * 12 / 32,
    }
    got = rounds.phases(bill.phase_s)
    assert got.keys() == seconds.keys()
    assert_close([got[name] for name in seconds], list(seconds.values()), 1e-6)
    up, down = {"smashed_data": 20, "labels": 4, "logits": 12}, {"logits": 12}
    links = {"client_up": up, "edge_up": up, "client_down": down, "edge_down": down}
    assert rounds.messages(bill.link_bytes) == {
        (link, name): size for link, row in links.items() for name, size in row.items()
    }
    client_j = 2 * sum(seconds.values()) + 8 * (1.2 + 1.5) + 4.5 / 2
    assert_close(bill.energy_j[:3], [client_j, 3.0 / 3, 70.0], 1e-6, each=True)
