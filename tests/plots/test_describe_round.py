"""The timeline of a round: readable, and every second of it accounted for."""

import itertools
import json

import jax
import numpy as np
import pytest

from cefl_jax.network import schedule, topology
from cefl_jax.network.costs import split
from cefl_jax.network.messages import Payload, Sizes
from cefl_jax.network.step_times import Task
from cefl_jax.plots.timeline import describe_round, read_timeline
from cefl_jax.types import RoundTrace
from tests import world
from tests.compare import assert_close
from tests.plots.timelines import devices
from tests.quick import quick_jit

STEPS = 4
SAMPLES = np.array(
    [[4, 4, 4, 1], [4, 4, 0, 0], [3, 0, 0, 0], [4, 4, 4, 4], [4, 4, 2, 0], [4, 0, 0, 0]], np.int32
)  # [K, S]: uneven batches, and clients with fewer steps
CLIENTS = np.array([5, 2, 8, 0, 9, 3], np.int32)
CLUSTER = np.array([0, 0, 0, 1, 1, 2], np.int32)
STAYS = np.full(6, STEPS, np.int32)
LEAVING = np.array([2, 4, 4, 0, 1, 4], np.int32)  # after so many local steps
APART, SHARED, ON_CLOUD = [2, 0, 3], [1, 1, 1], [4, 0, 4]
ROUNDS = {
    "plain": {"placement": APART},
    "leaving": {"placement": APART, "stays": LEAVING},
    "on the cloud": {"placement": ON_CLOUD, "stays": LEAVING},
    "shared nodes": {"placement": SHARED},
    "a late client": {"placement": APART, "slow": 5, "deadline_s": 40.0},
    "nobody in time": {"placement": APART, "slow": slice(None), "deadline_s": 10.0},
    "nobody at all": {"placement": [-1, -1, -1], "empty": True, "deadline_s": 10.0},
}
FINISHED = {"leaving": 3, "on the cloud": 3, "a late client": 5}
FINISHED |= {"nobody in time": 0, "nobody at all": 0}


@pytest.fixture(scope="module")
def setup():
    """A network on which every activity takes a share of the round that can be seen."""
    setup = world.make_setup({"network.preset": "device_zoo"})
    network = setup.network
    slower = {
        name: getattr(network, name)._replace(flop_per_s=getattr(network, name).flop_per_s / times)
        for name, times in {"clients": 1e3, "edges": 1e5, "front": 1e5, "cloud": 1e6}.items()
    }
    return setup._replace(network=network._replace(**slower))


@pytest.fixture(scope="module")
def simulate(setup):
    """A function from the entries of ROUNDS to the RoundTrace and the Schedule."""
    sizes = Sizes(Payload(800, 0), Payload(800, 0), 4, 52_000, 164_016)

    @quick_jit
    def run(network, conditions, clients, task, deadline_s):
        now = topology.of_clients(network, conditions, clients, include_cloud=True)
        made = schedule.simulate(task, now, setup.planner.work, sizes, deadline_s, keep=True)
        cost = split.split_cost(
            task, made, now, setup.planner.work, sizes, 1e8, len(setup.device_names)
        )
        return RoundTrace(clients, task, made, cost.phase_s)

    def simulate(placement, stays=STAYS, slow=(), deadline_s=1e6, empty=False):
        network = setup.network
        clients, cluster, samples = CLIENTS, CLUSTER, SAMPLES
        if empty:
            clients, cluster, samples = np.full(6, 11), np.full(6, 3), np.zeros((6, STEPS))
        bandwidth = network.bandwidth_hz.copy()
        bandwidth[CLIENTS[slow] if slow != () else []] *= 1e-6
        conditions = topology.Conditions(
            np.zeros((11, 5), np.float32), np.zeros(4, np.float32), np.ones(11, bool)
        )
        task = Task(
            np.int32(samples), np.int32(cluster), np.int32(placement), stays, np.int32(stays > 0)
        )
        network = network._replace(bandwidth_hz=bandwidth)
        clients = np.int32(clients)
        return jax.device_get(run(network, conditions, clients, task, np.float32(deadline_s)))

    return simulate


@pytest.fixture
def describe(setup, simulate):
    def describe(name):
        made = simulate(**ROUNDS[name])
        deadline_s = ROUNDS[name].get("deadline_s")
        names = setup.device_names
        return describe_round(made, setup.network, setup.planner.work, names, 7, deadline_s), made

    return describe


def spent(bars, *activities):
    return sum(end - start for activity, start, end in bars if activity in activities)


@pytest.mark.parametrize("name", ROUNDS)
def test_describe_round_is_read_back(describe, tmp_path, name):
    written, made = describe(name)
    file = tmp_path / "timeline.json"
    file.write_text(json.dumps(written, allow_nan=False))
    assert read_timeline(file) == written
    assert written["round"] == 7
    assert written["deadline_s"] == ROUNDS[name].get("deadline_s")
    assert_close(written["round_s"], made.phase_s.sum(), 1e-6)
    ends = [bar[2] for one in devices(written) for bar in one["bars"]]
    assert max(ends, default=0) <= written["round_s"] * (1 + 1e-6)


@pytest.mark.parametrize("name", ROUNDS)
def test_describe_round_accounts_for_the_seconds_of_clients(describe, setup, name):
    """Computing by its samples, sending and receiving by its messages; the rest is waiting."""
    written, made = describe(name)
    work, task, sched = setup.planner.work, made.task, made.schedule
    clients = setup.network.clients
    finished = 0
    for k, entry in enumerate(written["clients"]):
        bars, steps = entry["bars"], int(sched.steps[k])
        samples = task.samples[k, :steps].sum()
        flop = samples * (work.front_forward_flop + work.front_backward_flop)
        tolerance = {"rtol": 1e-4, "atol": 1e-6 * written["round_s"]}
        assert_close(
            spent(bars, "compute"), flop / clients.flop_per_s[entry["client"]], **tolerance
        )
        sent_s = sched.pace.send[k, :steps].sum() + sched.counts[k] * sched.pace.deliver[k]
        got_s = sched.pace.receive[k, :steps].sum() + sched.started[k] * sched.pace.load[k]
        assert_close(spent(bars, "send"), sent_s, **tolerance)
        assert_close(spent(bars, "receive"), got_s, **tolerance)
        assert entry["finished"] == bool(sched.finished[k])
        if entry["finished"]:
            finished += 1
            everything = spent(bars, "compute", "send", "receive", "wait")
            assert_close(everything, written["round_s"], 1e-6)
        elif bars:  # who has dropped out waits for nothing afterwards
            assert bars[-1][0] != "wait" or not sched.counts[k]
            gone_s = sched.out_s[k] + sched.counts[k] * sched.pace.deliver[k]
            assert_close(bars[-1][2], gone_s)
    assert finished == FINISHED.get(name, 6)


@pytest.mark.parametrize("name", ROUNDS)
def test_describe_round_has_servers_work_while_they_have_to(describe, setup, name):
    """A node computes what its clusters' samples ask for; averaging and distilling come last."""
    written, made = describe(name)
    work, task, sched, network = setup.planner.work, made.task, made.schedule, setup.network
    steps = np.arange(STEPS) < sched.steps[:, None]
    for node in written["nodes"]:
        e, here = node["node"], np.flatnonzero(np.array(task.placement) == node["node"])
        assert node["clusters"] == here.tolist()
        on_cloud = e == 4
        device = network.cloud if on_cloud else world.row_of(network.edges, e)
        assert node["device"] == setup.device_names[device.kind]
        assert node["position_km"] == (
            None if on_cloud else pytest.approx(network.edge_km[e].tolist(), rel=1e-6)
        )
        samples = (steps * task.samples)[np.isin(task.cluster, here)].sum()
        alone_s = samples * work.back_train_flop / device.flop_per_s
        if len(here) <= 1:
            assert_close(spent(node["bars"], "compute"), alone_s, 1e-3)
        pauses = [after[1] - bar[2] for bar, after in itertools.pairwise(node["bars"])]
        assert min(pauses, default=1) > 0  # what two clusters have done at once is one bar
        # Shared evenly, it takes at least as long as alone, and at most as if all were in turns.
        if len(here) > 1 and samples:
            assert alone_s * 0.999 <= spent(node["bars"], "compute") <= len(here) * alone_s * 1.001
    assert len(written["nodes"]) == (5 if name == "on the cloud" else 4)
    counts, clusters = sched.counts.sum(), len(set(task.cluster[sched.counts].tolist()))
    fronts_s = 2 * counts * work.front_params / network.front.flop_per_s
    backs_s = 2 * clusters * work.back_params / network.cloud.flop_per_s
    distil_s = 1e8 / network.cloud.flop_per_s
    front, cloud = written["front"]["bars"], written["cloud"]["bars"]
    assert_close(spent(front, "average"), fronts_s, 1e-3)
    assert_close(spent(cloud, "average"), backs_s, 1e-3)
    assert_close(spent(cloud, "distil"), distil_s, 1e-3)
    assert cloud[-1][2] == written["round_s"]
    if counts:
        assert_close(front[0][1], sched.closed_s.max())
        assert cloud[0][1] == front[0][2]


def test_describe_round_says_who_and_where(describe, setup):
    written, _ = describe("leaving")
    assert [entry["client"] for entry in written["clients"]] == CLIENTS.tolist()
    assert [entry["cluster"] for entry in written["clients"]] == CLUSTER.tolist()
    assert [entry["node"] for entry in written["clients"]] == [2, 2, 2, 0, 0, 3]
    kinds = setup.network.clients.kind[CLIENTS]
    assert len(set(kinds.tolist())) > 1
    assert [entry["device"] for entry in written["clients"]] == [
        setup.device_names[kind] for kind in kinds
    ]
    for entry, client in zip(written["clients"], CLIENTS, strict=True):
        assert_close(np.array(entry["position_km"]), setup.network.client_km[client], 1e-6)
    nobody, _ = describe("nobody at all")
    assert nobody["clients"] == []
    assert nobody["round_s"] > 10
