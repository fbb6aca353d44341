"""What rounds of every method cost, against the oracles, from decisions without any training."""

import dataclasses

import jax
import numpy as np
import pytest

from cefl_jax.network import dynamics, topology
from cefl_jax.network.messages import Payload, Sizes
from cefl_jax.network.step_times import Task
from cefl_jax.types import Purpose, purpose_key, round_key
from tests import world
from tests.methods.costs import assert_same_ledger
from tests.methods.replay import planned_steps
from tests.oracles import hierarchical_cost, logit_cost, split_cost
from tests.quick import quick_jit

MARKOV = {
    "network.dynamics": "markov",
    "network.leave_probability": 0.3,
    "network.return_probability": 0.4,
}
LATE = {"network.deadline_s": 0.5}
KEEP = {"network.late": "keep"}
CASES = {
    "scaffold, deadline": ("scaffold", LATE),
    "scaffold, markov": ("scaffold", MARKOV),
    "fedavg, markov, deadline": ("fedavg", MARKOV | LATE),
    "fedavg, markov, deadline, keep": ("fedavg", MARKOV | LATE | KEEP),
    "splitfed_v1, markov": ("splitfed_v1", MARKOV),
    "splitfed_v2, keep": ("splitfed_v2", MARKOV | KEEP),
    "sequential_split": ("sequential_split", MARKOV),
    "sequential_split, keep": ("sequential_split", MARKOV | KEEP),
    "hierfavg": ("hierfavg", MARKOV),
    "fedgkt": ("fedgkt", MARKOV),
}
SLOW = {"fedavg, markov, deadline", "splitfed_v1, markov"}
ROUNDS = 4


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES]
)
def test_ledgers_equal_the_oracles(case):
    method, changes = CASES[case]
    common = {
        "method.name": method,
        "network.preset": "device_zoo",  # devices of several classes
        "train.rounds": ROUNDS,
        "train.local_steps": None,
        "train.local_epochs": 1,
    }
    setup = slowed(world.make_setup(common | changes))
    decisions, ledgers = world.decide_rounds(setup)
    key = purpose_key(jax.random.key(setup.spec.seed), Purpose.NETWORK)
    now = jax.device_get(dynamics.start(key, setup.network, setup.spec.network))
    costs, seen = [], []
    for index in range(ROUNDS):
        decision, ledger = world.row_of((decisions, ledgers), index)
        clients = [c for c in decision.plan.clients.tolist() if c < len(setup.partition)]
        task = task_of(setup, index, clients, now, decision.conditions)
        network = jax.device_get(see_network(setup.network, now, np.array(clients), True))
        cost, outcomes = cost_of(setup, task, network)
        costs.append(cost)
        assert_same_ledger(ledger, costs)
        for name in ("started", "steps", "finished", "counts"):
            got = getattr(decision.schedule, name).ravel()[: len(clients)]
            np.testing.assert_array_equal(got, [getattr(c, name) for c in outcomes], name)
        now, seen = decision.conditions, seen + outcomes
    assert_says_something(setup, seen)


see_network = quick_jit(topology.of_clients, static_argnums=3)
draw_moment = quick_jit(lambda key, client: jax.random.uniform(jax.random.fold_in(key, client)))


def slowed(setup):
    """The run with devices so slow that each phase takes a share that a test can see."""
    network = setup.network
    slow = {"clients": 20, "edges": 50, "front": 500, "cloud": 500}
    devices = {
        role: (old := getattr(network, role))._replace(flop_per_s=old.flop_per_s / factor)
        for role, factor in slow.items()
    }
    return setup._replace(network=network._replace(**devices))


def task_of(setup, index, clients, now, after):
    """The Task of clients each in a cluster of its own on the last server.

    Who is not there in the next round leaves in this one, at a random moment.
    """
    key = round_key(jax.random.key(setup.spec.seed), index, Purpose.DEPARTURE)
    width, rows, stays = setup.spec.train.batch_size, [], []
    for client in clients:
        size = len(setup.partition[client])
        one_pass = [min(width, size - begin) for begin in range(0, size, width)]
        rows.append([one_pass[s % len(one_pass)] for s in range(planned_steps(setup, size))])
        stays.append(len(rows[-1]))
        if now.available[client] and not after.available[client]:
            moment = np.float32(draw_moment(key, client))
            stays[-1] = int(moment * np.float32(len(rows[-1])))
    samples = np.zeros((len(clients), max(map(len, rows))), int)
    for row, own in zip(samples, rows, strict=True):
        row[: len(own)] = own
    count = np.arange(len(clients))
    uploads = [-(-len(setup.partition[client]) // width) for client in clients]
    return Task(samples, count, 0 * count - 1, stays, uploads)


def cost_of(setup, task, network):
    """What a round costs, with phase_s, link_bytes and energy_j; and the Client of each row."""
    method, spec, kinds = setup.spec.method.name, setup.spec.network, len(setup.device_names)
    work, cloud = setup.planner.work, len(network.backhaul_bps) - 1
    late = spec.deadline_s, spec.late == "keep"
    every, nothing = np.arange(len(task.cluster)), Payload(0, 0)
    on_cloud = task._replace(placement=np.full(len(every), cloud), uploads=0 * every)
    if method in ("fedavg", "scaffold", "hierfavg"):
        model = 4 * (64 * 200 + 200 + 200 * 200 + 200 + 200 * 4 + 4)  # of the mlp
        control = model * (method == "scaffold")
        sizes = Sizes(nothing, nothing, 0, model + control, 0, whole=True, control=control)
        alone = free_server(network)
        outcome = split_cost.simulate(
            on_cloud._replace(placement=0 * every), alone, work, sizes, *late
        )
        clients = list(outcome.clients.values())
        if method == "hierfavg":
            times = setup.spec.hierfavg.edge_rounds
            flops = work.front_forward_flop, work.front_backward_flop
            own = [
                hierarchical_cost.Client(k, np.reshape(client.samples, (times, -1)).tolist(), stay)
                for (k, client), stay in zip(outcome.clients.items(), task.stays, strict=True)
            ]
            edges = topology.RoundNetwork(*network)._replace(
                distance_km=network.distance_km[:, :-1], backhaul_bps=network.backhaul_bps[:-1]
            )
            return hierarchical_cost.cost(own, edges, flops, model // 4, times, kinds), clients
        return split_cost.cost(outcome, alone, work, sizes, 0, kinds), clients
    features = Payload(work.feature_bytes, 0)
    sizes = Sizes(features, features, 4, work.front_bytes, work.back_bytes)
    if method == "splitfed_v2":
        on_cloud = on_cloud._replace(cluster=0 * every, placement=[cloud])
    if method == "fedgkt":
        sizes = Sizes(nothing, nothing, 0, 0, 0)
        free = dataclasses.replace(work, back_train_flop=0)
        outcome = split_cost.simulate(on_cloud, network, free, sizes)
        spec = setup.spec.fedgkt
        flop = spec.server_epochs * work.cloud_train_flop + work.cloud_forward_flop
        task = on_cloud._replace(uploads=task.uploads)
        cost = logit_cost.cost(task, network, work, work.feature_bytes // 4, 4, flop, kinds)
        return cost, list(outcome.clients.values())
    if method != "sequential_split":
        outcome = split_cost.simulate(on_cloud, network, work, sizes, *late)
        cost = split_cost.cost(outcome, network, work, sizes, 0, kinds)
        return cost, list(outcome.clients.values())
    clients, turns = [], []
    for k in every:  # one after another: each alone, and nothing is averaged
        cluster = np.where(every == k, 0, -1)
        alone = on_cloud._replace(cluster=cluster, placement=[cloud])
        outcome = split_cost.simulate(alone, network, work, sizes, keep=late[1])
        clients += outcome.clients.values()
        turns.append(split_cost.cost(outcome, network, work, sizes, 0, kinds, averages=False))
    return add(turns), clients


def add(costs):
    """The sum of split_cost.Costs."""
    phase_s, link_bytes = {}, {}
    for cost in costs:
        for total, parts in ((phase_s, cost.phase_s), (link_bytes, cost.link_bytes)):
            for name, part in parts.items():
                total[name] = total.get(name, 0) + part
    return split_cost.Cost(phase_s, link_bytes, np.sum([cost.energy_j for cost in costs], 0))


def free_server(network):
    """The RoundNetwork whose one server costs nothing: clients train on their own."""
    links, one = np.ones((len(network.front_up_bps), 1)), np.ones(1)
    return network._replace(
        servers=network.servers._make([one, 0 * one, 0 * one, 0 * one, 0 * one]),
        **dict.fromkeys(("up_bps", "down_bps", "radio_up_bps", "radio_down_bps"), links),
        backhaul_bps=one * np.inf,
    )


def assert_says_something(setup, clients):
    """Or the case would leave something untried."""
    network = setup.spec.network
    late = [client for client in clients if not client.finished]
    assert late
    assert any(client.finished for client in clients)
    if network.dynamics == "markov":
        assert any(0 < client.steps < len(client.samples) for client in late)
    if network.deadline_s is not None:
        assert not all(client.started for client in clients)
    if setup.planner.traits.takes_parts:
        assert any(client.counts for client in late) == (network.late == "keep")
