"""Whole rounds of `cefl`, all stages on, against the oracles, draw for draw."""

import itertools

import jax
import numpy as np
import pytest

from cefl_jax.network.messages import Payload, Sizes
from cefl_jax.stages.sampling import sample_clients
from cefl_jax.types import Purpose, round_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.methods.costs import assert_same_ledger
from tests.oracles import cefl, clustering, offload, split_cost
from tests.quick import quick_jit

CASES = {  # name: (rounds, changed settings); some name whether clients leave
    "balanced, deep cut, shared nodes": (
        2,
        {
            "cefl.clustering.rule": "balanced",
            "cefl.offload.edge_capacity": 2,
            "cefl.offload.include_cloud": True,
            "network.num_edges": 2,
            "network.preset": "device_zoo",
            "model.cut": 2,
            "train.local_steps": 5,
            "train.optimizer.clip_norm": 0.7,
            "cefl.distill.upload_steps": 2,
            "cefl.distill.epochs": 2,
            "cefl.distill.temperature_cloud": 1.0,
            "cefl.distill.lambda_warmup_rounds": 2,
            "run.client_chunk": 3,
        },
    ),
    "clients leave or are late, no distillation": (
        3,
        {
            "train.local_steps": None,
            "train.local_epochs": 2,
            "train.optimizer.momentum": 0.9,
            "train.optimizer.weight_decay": 1e-3,
            "cefl.distill.rule": "none",
            "network.deadline_s": 60.0,
            "network.late": "keep",
        },
    ),
    "clients leave, mutual distillation": (
        3,
        {"cefl.clustering.rule": "random", "network.late": "drop", "train.local_steps": 4},
    ),
    "patent, edge teaches, bottleneck": (
        2,
        {
            "cefl.clustering.rule": "patent",
            "cefl.offload.objective": "bottleneck",
            "cefl.offload.energy_weight": 0.1,
            "cefl.distill.rule": "edge_to_cloud",
            "cefl.distill.lambda_cloud": 0.8,
            "cefl.distill.optimizer_state": "persist",
            "train.local_steps": None,
            "train.local_epochs": 2,
            "train.optimizer.momentum": 0.9,
            "run.client_chunk": 1,
        },
    ),
    "one cluster, cloud teaches": (
        2,
        {
            "cefl.clustering.rule": "single",
            "cefl.distill.rule": "cloud_to_edge",
            "run.client_chunk": 7,
        },
    ),
    "hard labels": (1, {"cefl.clustering.rule": "patent", "cefl.distill.rule": "hard_labels"}),
    "no hard labels for the cloud": (
        1,
        {"cefl.distill.cloud_hard_labels": False, "cefl.distill.lambda_edge": 0.3},
    ),
}
DEFAULT = ("balanced, deep cut, shared nodes", "clients leave or are late, no distillation")
FLAT = ("clients leave or are late, no distillation", "patent, edge teaches, bottleneck")
PRESENT = (11, 5, 0, 11)  # clients of each round, and of one more


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("case", "layout"),
    [
        *((name, "loop") if name in DEFAULT else slow(name, "loop") for name in CASES),
        *(slow(name, "flat") for name in FLAT),
    ],
)
def test_cefl_equals_the_oracles(case, layout):
    count, changes = CASES[case]
    setup = make_setup(changes | {"run.layout": layout}, PRESENT if "leave" in case else None)
    compiled, costs = replay.compile_setup(setup), []
    distill = setup.spec.cefl.distill
    persists = distill.rule != "none" and distill.optimizer_state == "persist"
    state = cefl.State(replay.layers(compiled.start.halves), replay.layers(compiled.start.cloud))
    x, labels = replay.pixels_of(setup), setup.data.labels
    for index, played in enumerate(compiled.rounds(count)):
        drawn = replay.draws(played)
        if not persists:
            state = state._replace(edge_buffer=None, cloud_buffer=None)
        state, loss = cefl.one_round(
            state, x, labels, drawn, replay.cefl_settings(setup.spec, index)
        )
        assert_same_state(played.after, state, persists)
        assert_close(played.metrics.train_loss, loss, 1e-4)
        assert_same_clusters(played, drawn)
        costs.append(cost_of(played, drawn))
        assert_same_ledger(played.after.ledger, costs)
    if "leave" in case:
        assert_some_leave(compiled.rounds(count), setup.spec.network)


def make_setup(changes, present):
    """A run on a network where each phase takes a share of the round that a test can see."""
    setup = world.make_setup(changes)
    network = setup.network
    uneven = np.linspace(1, 2, len(network.backhaul_bps), dtype=np.float32)
    slow = {"clients": 50, "edges": 500, "front": 5000, "cloud": 1000}
    devices = {
        role: (old := getattr(network, role))._replace(flop_per_s=old.flop_per_s / factor)
        for role, factor in slow.items()
    }
    network = network._replace(backhaul_bps=network.backhaul_bps * uneven / 20, **devices)
    setup = setup._replace(network=network)
    if present is None:
        return setup
    available = [np.arange(11) >= 11 - count for count in present]
    return world.follow(setup, world.make_trace(setup, available))


def assert_same_state(state, expected, persists):
    assert_close(replay.layers(state.halves), expected.model, 2e-5)
    assert_close(replay.layers(state.cloud), expected.cloud, 2e-5)
    optimizers = state.edge_optimizer, state.cloud_optimizer
    if persists:
        buffers = [replay.momentum(optimizer) for optimizer in optimizers]
        assert_close(buffers, [expected.edge_buffer, expected.cloud_buffer], 2e-5)
    else:
        assert optimizers == ((), ())


def assert_same_clusters(played, drawn):
    """Quality of the clusters; by the rule of the patent, the clusters themselves."""
    setup, quality, spec = played.setup, played.metrics.clusters, played.setup.spec.cefl.clustering
    counts = setup.data.label_counts[drawn.clients].tolist()
    formed = sorted({*drawn.cluster})
    target = clustering.pooled_target(counts)
    kl = clustering.cluster_kl(
        counts, [formed.index(m) for m in drawn.cluster], len(formed), target
    )
    members = [drawn.cluster.count(m) for m in formed]
    assert quality.count == len(formed)
    if not formed:
        assert tuple(quality) == (0, 0, 0, 0, 0)
        return
    assert_close([quality.kl_mean, quality.kl_max], [np.mean(kl), max(kl)], 1e-4, atol=1e-6)
    assert [quality.size_min, quality.size_max] == [min(members), max(members)]
    if spec.rule == "patent":
        key = round_key(played.before.key, int(played.before.round), Purpose.SAMPLING)
        sampled = sample(key, len(setup.partition), len(drawn.clients)).tolist()
        counts = setup.data.label_counts[sampled].tolist()
        expected, _ = clustering.patent_clusters(
            counts, spec.num_clusters, spec.min_size, target, spec.max_size
        )
        assert dict(zip(drawn.clients, drawn.cluster, strict=True)) == dict(
            zip(sampled, expected, strict=True)
        )


sample = quick_jit(sample_clients, static_argnums=(1, 2))


def cost_of(played, drawn):
    """The split_cost.Cost of a round, its clusters matched by trying all."""
    setup, decision, spec = played.setup, played.decision, played.setup.spec
    task, network, work = decision.task, decision.network, setup.planner.work
    halves = played.before.halves
    front, back = (sum(x.size for x in jax.tree.leaves(half)) for half in halves)
    features = Payload(4 * replay.layers(halves.front)[-1][1].size, 0)
    sizes = Sizes(features, features, 4, 4 * front, 4 * back)
    assert setup.planner.sizes == sizes
    if spec.network.dynamics == "static":
        planned = [[len(batch) for batch in batches] for batches in drawn.batches]
        assert [[n for n in row if n] for row in task.samples.tolist()] == planned
        assert task.uploads.tolist() == [
            sum(own == k for own, _ in drawn.uploads) for k in range(len(planned))
        ]
    placement, value = match(task, network, work, sizes, spec.cefl.offload)
    assert task.placement.tolist() == placement
    assert_close(played.metrics.offload_cost, value, 1e-4)
    keep = spec.network.late == "keep"
    outcome = split_cost.simulate(task, network, work, sizes, spec.network.deadline_s, keep)
    for name in ("started", "steps", "finished", "counts"):
        of = [getattr(outcome.clients[k], name) for k in range(len(drawn.clients))]
        np.testing.assert_array_equal(getattr(decision.schedule, name)[: len(of)], of, name)
    uploaded = sum(sum(client.uploaded()) for client in outcome.clients.values())
    flop = uploaded * sample_flop(work, spec.cefl.distill)
    return split_cost.cost(outcome, network, work, sizes, flop, len(setup.device_names))


def match(task, network, work, sizes, spec):
    """The server of each cluster and the value of the objective, by trying all placements."""
    formed = sorted({m for m in task.cluster.tolist() if m < len(task.placement)})
    places = range(1, spec.edge_capacity + 1)
    slots = list(itertools.product(places, range(len(network.backhaul_bps))))
    cost = np.empty((len(formed), len(slots)))
    for (row, m), (column, (j, e)) in itertools.product(enumerate(formed), enumerate(slots)):
        members = np.flatnonzero(task.cluster == m).tolist()
        pair = split_cost.pair_cost(
            members, task.samples.tolist(), task.uploads, e, network, work, sizes
        )
        seconds = pair.clients_s + j * (pair.node_s + pair.backhaul_s)
        joules = pair.active_j + pair.idle_w * seconds
        cost[row, column] = spec.time_weight * seconds + spec.energy_weight * joules
    score = offload.score
    of_sum = spec.objective == "sum"
    columns = min(
        itertools.permutations(range(len(slots)), len(formed)),
        key=lambda way: score(cost, way)[2:] if of_sum else score(cost, way)[1:],
    )
    placement = [-1] * len(task.placement)
    for m, column in zip(formed, columns, strict=True):
        placement[m] = slots[column][1]
    return placement, score(cost, columns)[2 if of_sum else 1]


def sample_flop(work, distill):
    """FLOPs of distillation on one uploaded sample."""
    if distill.rule == "none":
        return 0.0
    flop = distill.epochs * (work.back_distill_flop + work.cloud_train_flop)
    cloud_teaches, edge_teaches = replay.TEACHES[distill.rule]
    return flop + cloud_teaches * work.cloud_forward_flop + edge_teaches * work.back_forward_flop


def assert_some_leave(rounds, network):
    """Or the case would leave something untried."""
    schedules = [played.decision.schedule for played in rounds]
    assert [int(played.metrics.sampled) for played in rounds] == [7, 5, 0]
    finished, counts, steps = (
        np.concatenate([getattr(schedule, name) for schedule in schedules])
        for name in ("finished", "counts", "steps")
    )
    assert finished.any()
    assert ((steps > 0) & ~finished).any()
    assert (counts & ~finished).any() == (network.late == "keep")
