"""The decisions of a round: who is there, who stays, what counts, whatever models have learned."""

import functools

import jax
import numpy as np
import pytest

from cefl_jax.network.schedule import PHASES
from cefl_jax.stages.clustering import balanced_clusters, joint_clusters
from cefl_jax.stages.sampling import sample_clients
from cefl_jax.types import Purpose, round_key
from tests import world
from tests.compare import assert_close
from tests.quick import once_jit, quick_jit

BASE = {
    "train.rounds": 4,
    "train.local_steps": None,
    "train.local_epochs": 1,
    "cefl.offload.rule": "greedy",
}
MORE = {  # so that, with few programs, much is seen together
    "balanced": {  # that of world.dropping_setup
        "network.deadline_s": 0.5,
        "network.late": "keep",
        "run.eval_every": 1,
    },
    "patent": {"cefl.offload.rule": "nearest"},
    "joint": {"network.late": "keep"},
    "astraea": {"cefl.offload.include_cloud": True},
    "random": {"cefl.offload.rule": "random"},
    "single": {"cefl.compression.smashed": "int8"},
    "singleton": {},
}
SLOW = ("astraea", "random", "single", "singleton")
RULES = [pytest.param(rule, marks=[pytest.mark.slow] * (rule in SLOW)) for rule in world.RULES]
PRESENT = (11, 4, 1, 0, 11)  # clients available in each row of the trace
SAMPLED = [7, 4, 1, 0]  # of at most 7 a round


@functools.cache
def decide(rule):
    """The setup of a rule on a network that empties, its Trace, its Decisions and Ledgers."""
    setup = world.make_setup(BASE | world.RULES[rule] | MORE[rule])
    order = np.random.default_rng(0).permutation(len(setup.partition))
    available = [order < count for count in PRESENT]
    fading = np.random.default_rng(3).normal(0, 8, (len(PRESENT), 11, 5))
    trace = world.make_trace(setup, available, shadow_db=fading, edge_load=0.3)
    setup = world.follow(setup, trace)
    return setup, trace, *world.decide_rounds(setup)


@pytest.mark.parametrize("rule", RULES)
def test_decide_takes_all_where_fewer_are_available_than_wanted(rule):
    """Nobody else takes part, and every number stays finite."""
    setup, trace, decisions, ledgers = decide(rule)
    nobody, num_clusters = len(setup.partition), decisions.task.placement.shape[1]
    assert decisions.sampled.tolist() == SAMPLED
    for r in range(4):
        plan, task = world.row_of((decisions.plan, decisions.task), r)
        there = plan.clients[plan.clients < nobody]
        assert len(set(there.tolist())) == SAMPLED[r]
        assert trace.available[r][there].all()
        assert ((plan.cluster < num_clusters) == (plan.clients < nobody)).all()
        count = np.bincount(plan.cluster, minlength=num_clusters + 1)[:num_clusters]
        np.testing.assert_array_equal(plan.members, count)
        assert decisions.clusters.count[r] == (count > 0).sum()
        np.testing.assert_array_equal(task.placement >= 0, count > 0)
        np.testing.assert_array_equal(task.samples.sum(1) > 0, plan.clients < nobody)
        taken = np.bincount(task.placement[count > 0])
        assert taken.max(initial=0) <= setup.spec.cefl.offload.edge_capacity
        # What the next round begins with is the next row.
        np.testing.assert_array_equal(decisions.conditions.available[r], trace.available[r + 1])
        np.testing.assert_array_equal(decisions.conditions.shadow_db[r], trace.shadow_db[r + 1])
    servers = 4 + setup.spec.cefl.offload.include_cloud
    assert decisions.network.up_bps.shape == (4, 7, servers)
    unbounded = decisions.network._replace(distance_km=None, backhaul_bps=None)  # of the cloud
    for leaf in jax.tree.leaves((decisions._replace(network=unbounded), ledgers)):
        assert np.isfinite(leaf).all()
    waiting = np.zeros(len(PHASES))
    waiting[PHASES.index("waiting")] = setup.spec.network.deadline_s or 0  # nobody: for nothing
    assert_close(ledgers.phase_s[3], ledgers.phase_s[2] + waiting, 1e-12)
    assert (ledgers.link_bytes[3] == ledgers.link_bytes[2]).all()


@pytest.mark.parametrize("rule", ["balanced", "patent"])
def test_decide_counts_what_a_client_that_leaves_has_done(rule):
    """Kept, it weighs as the share of its steps; dropped, nothing."""
    setup, trace, decisions, _ = decide(rule)
    keep, sizes, partly = setup.spec.network.late == "keep", np.diff(setup.data.offsets), 0
    for r in range(4):
        plan, schedule = world.row_of((decisions.plan, decisions.schedule), r)
        key = round_key(jax.random.key(setup.spec.seed), r, Purpose.DEPARTURE)
        uploaded = 0
        for k, client in enumerate(plan.clients.tolist()):
            if client == len(sizes):
                assert (plan.weight[k], plan.steps[k], plan.uploaded[k]) == (0, 0, 0)
                continue
            planned = made = -(-int(sizes[client]) // 4)
            if not trace.available[r + 1][client]:
                moment = np.float32(jax.random.uniform(jax.random.fold_in(key, client)))
                made = int(moment * np.float32(planned))
            counts = made == planned or (keep and made > 0)
            assert (plan.steps[k], schedule.counts[k]) == (made, counts)
            assert schedule.finished[k] == (made == planned)
            assert_close(plan.weight[k], sizes[client] * made / planned * counts, 1e-6)
            assert plan.uploaded[k] == made * counts  # a pass is all there is
            uploaded += min(int(sizes[client]), 4 * made) * counts
            partly += 0 < made < planned
        assert decisions.uploaded[r] == uploaded
    assert partly > 2


def test_decide_gives_joint_clusters_the_seconds_of_the_round():
    """Computed in plain NumPy from the conditions, client by client in sampling order."""
    setup, trace, decisions, _ = decide("joint")
    key = round_key(jax.random.key(setup.spec.seed), 0, Purpose.SAMPLING)
    clients = np.asarray(sample_clients(key, 11, 7))
    network, work = setup.network, setup.planner.work
    fading, load = 10.0 ** (trace.shadow_db[0] / 10), trace.edge_load[0]
    up, down = (
        (network.bandwidth_hz[:, None] * np.log2(1 + snr * fading))[clients, :-1]
        for snr in (network.up_snr, network.down_snr)
    )
    samples = np.diff(setup.data.offsets)[clients, None]  # one pass, of which all is uploaded
    sent = 8 * samples * (work.feature_bytes + 4)
    flop = samples * (work.front_forward_flop + work.front_backward_flop)
    client_s = flop / network.clients.flop_per_s[clients, None] + sent / up
    client_s += 8 * samples * work.feature_bytes / down
    node_s = samples * work.back_train_flop / (network.edges.flop_per_s * (1 - load))
    node_s += sent / network.backhaul_bps[:-1]

    @quick_jit
    def expect(counts, client_s, node_s):
        weight = setup.spec.cefl.clustering.network_weight
        joint = joint_clusters(counts, 3, client_s, node_s, weight)
        return joint, balanced_clusters(counts, 3)

    counts = setup.data.label_counts[clients]
    joint, balanced = expect(counts, np.float32(client_s), np.float32(node_s))
    assert not np.array_equal(joint, balanced)  # or the seconds would not matter
    plan = world.row_of(decisions.plan, 0)
    got = dict(zip(plan.clients.tolist(), plan.cluster.tolist(), strict=True))
    assert [got[client] for client in clients.tolist()] == joint.tolist()


@pytest.mark.slow
def test_decisions_and_costs_do_not_depend_on_what_is_learned():
    """Decisions alone, without any training, cost what a whole run costs.

    And the trace of a round that is kept is that of the last round, where a chunk is cut short too.
    """
    decisions, ledgers = world.decide_rounds(world.moving_setup())
    outcomes = world.moving_run()
    assert [int(state.round) for state, _ in outcomes] == [2, 4, 5]
    for state, chunk in outcomes:
        last, alone = world.row_of((decisions, ledgers), int(state.round) - 1)
        np.testing.assert_array_equal(chunk.round_trace.clients, last.plan.clients)
        assert_close(chunk.round_trace.schedule.out_s, last.schedule.out_s)
        np.testing.assert_array_equal(alone.link_bytes, chunk.ledger.link_bytes)
        assert_close(alone.phase_s, chunk.ledger.phase_s, 1e-6)
        assert_close(alone.energy_j, chunk.ledger.energy_j, 1e-6, each=True)


@pytest.mark.slow
def test_the_offload_rule_changes_the_cost_and_nothing_that_is_learned():
    random = world.run_whole(world.moving_setup("random"), once_jit)
    for (state, _), (other, _) in zip(world.moving_run(), random, strict=True):
        assert not np.array_equal(state.ledger.energy_j, other.ledger.energy_j)
        learned = (s._replace(ledger=None) for s in (state, other))
        jax.tree.map(np.testing.assert_array_equal, *learned)
