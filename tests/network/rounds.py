"""Random rounds of one shape, run by the library and by the reference."""

import functools
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from cefl_jax.models.cost import Workload
from cefl_jax.network.costs.pair_costs import client_seconds, pair_costs
from cefl_jax.network.costs.split import split_cost
from cefl_jax.network.messages import LINKS, MESSAGES, Payload, Sizes
from cefl_jax.network.schedule import PHASES, simulate
from cefl_jax.network.step_times import Task
from cefl_jax.network.topology import Devices, RoundNetwork
from tests.compare import assert_close
from tests.oracles import split_cost as oracle
from tests.quick import quick_jit

CLIENTS, CLUSTERS, SERVERS, STEPS = 8, 3, 3, 3  # of every round: one program for all
KINDS = CLIENTS + SERVERS + 2
WORK = Workload(
    front_forward_flop=0.3,
    front_backward_flop=0.5,
    back_forward_flop=1e9,  # part of training, and never to be added to it
    back_train_flop=0.4,
    cloud_forward_flop=1e9,
    cloud_train_flop=1e9,
    back_distill_flop=1e9,
    feature_bytes=10**9,  # messages have the Sizes below
    front_bytes=48,
    back_bytes=80,
    cloud_bytes=10**9,
)
SIZES = Sizes(smashed=Payload(13, 5), gradient=Payload(7, 3), label=4, front=48, back=80)
TOO_CLOSE = 1e-4  # two numbers whose order f32 may see otherwise


class Round(NamedTuple):
    """What a round depends on."""

    task: Task
    network: RoundNetwork
    deadline_s: float | None
    keep: bool
    distill_flop: float


def make_network(rng, cloud_serves, num_kinds=KINDS):
    """A RoundNetwork of uneven devices and links; the last server may be the cloud."""
    k, e = CLIENTS, SERVERS

    def devices(*shape):
        powers = [rng.uniform(low, high, shape) for low, high in ((1, 3), (4, 9), (1, 5))]
        leaves = [np.exp(rng.normal(0, 0.7, shape)), *powers]
        kind = rng.integers(0, num_kinds, shape).astype(np.int32)
        return Devices(*(np.float32(leaf) for leaf in leaves), kind)

    rate = lambda *shape: np.float32(100 * np.exp(rng.normal(0, 0.7, shape)))  # noqa: E731
    clients, servers, front, cloud = devices(k), devices(e), devices(), devices()
    backhaul = rate(e)
    if cloud_serves:
        backhaul[-1] = np.inf
        for leaf, value in zip(servers, cloud, strict=True):
            leaf[-1] = value
    distance = np.zeros((k, e), np.float32)
    links = rate(k, e), rate(k, e)
    radio = [link.copy() for link in links]
    if cloud_serves:
        for link in radio:
            link[:, -1] *= np.float32(1) + rate(k)  # and a wire after it
    front_links = rate(k) ** 1.5 / 10, rate(k)
    return RoundNetwork(
        clients, servers, front, cloud, distance, *links, *radio, *front_links, backhaul
    )


def make_task(rng, leaving):
    """A Task; clusters may be empty, share a server or have none, and clients be of none."""
    cluster = rng.integers(0, CLUSTERS + 1, CLIENTS)
    placement = np.where(rng.random(CLUSTERS) < 0.1, -1, rng.integers(0, SERVERS, CLUSTERS))
    planned = rng.integers(1, STEPS + 1, CLIENTS) * (rng.random(CLIENTS) < 0.9)
    samples = rng.integers(1, 6, (CLIENTS, STEPS)) * (np.arange(STEPS) < planned[:, None])
    stays = rng.integers(0, STEPS + 1, CLIENTS) if leaving else np.full(CLIENTS, STEPS)
    uploads = rng.integers(0, STEPS + 1, CLIENTS)
    return Task(*(np.int32(leaf) for leaf in (samples, cluster, placement, stays, uploads)))


@st.composite
def rounds(draw, deadline=None, leaving=None):
    """A Round; `deadline` and `leaving` say whether it has a deadline and clients that leave."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    network = make_network(rng, draw(st.booleans()))
    task = make_task(rng, draw(st.booleans()) if leaving is None else leaving)
    deadline_s, keep = None, draw(st.booleans())
    if draw(st.booleans()) if deadline is None else deadline:
        free = oracle.simulate(task, network, WORK, SIZES)
        length = sum(free.phase_s.values()) or 1.0
        deadline_s = float(np.float32(length * draw(st.floats(0.4, 1.1))))
    return Round(task, network, deadline_s, keep, float(draw(st.integers(0, 3))))


def expect(case, sizes=SIZES):
    """The reference's Course and RoundCost."""
    course = oracle.simulate(case.task, case.network, WORK, sizes, case.deadline_s, case.keep)
    return course, oracle.cost(course, case.network, WORK, sizes, case.distill_flop, KINDS)


def compute(case, sizes=SIZES):
    """The library's Schedule and RoundCost."""
    run = _program(case.deadline_s is not None, case.keep, sizes)
    return run(case.task, case.network, case.distill_flop, case.deadline_s)


@functools.cache
def _program(has_deadline, keep, sizes):
    """One for all deadlines, which the library takes for a number of its program."""

    def run(task, network, distill_flop, deadline_s):
        deadline_s = deadline_s if has_deadline else None
        schedule = simulate(task, network, WORK, sizes, deadline_s, keep)
        return schedule, split_cost(task, schedule, network, WORK, sizes, distill_flop, KINDS)

    return quick_jit(run)


@quick_jit
def compute_pairs(task, network):
    """The library's PairCost of every pair, and the seconds of every client and server."""
    pairs = pair_costs(task.samples, task.uploads, task.cluster, network, WORK, SIZES, CLUSTERS)
    return pairs, client_seconds(task.samples, task.uploads, network, WORK, SIZES)


def phases(phase_s):
    """{phase: seconds} of the library's array, without the phases of no length."""
    return {name: float(s) for name, s in zip(PHASES, phase_s, strict=True) if s != 0}


def messages(link_bytes):
    """{(link, message): bytes} of the library's array, without those that were not sent."""
    table = np.asarray(link_bytes)
    return {
        (LINKS[i], MESSAGES[j]): int(table[i, j]) for i, j in zip(*table.nonzero(), strict=True)
    }


def assert_same_cost(cost, expected):
    """A RoundCost of the library against phase_s, link_bytes and energy_j of a reference."""
    seconds = [expected.phase_s.get(name, 0.0) for name in PHASES]
    assert_close(cost.phase_s, seconds, 2e-5, atol=1e-5 * sum(seconds), each=True)
    assert messages(cost.link_bytes) == {k: n for k, n in expected.link_bytes.items() if n}
    assert_close(cost.energy_j, expected.energy_j, 2e-5, each=True)
