"""Averages of both halves against NumPy, however the clusters lie on the devices."""

import jax
import numpy as np
import pytest

from cefl_jax import parallel
from cefl_jax.stages.aggregation import aggregate
from cefl_jax.stages.round_plan import Plan
from cefl_jax.types import Halves
from tests.compare import assert_close
from tests.quick import quick_jit

NUM_CLUSTERS = 5  # on four devices one device has two, the others one and padding
CLUSTER = np.array([0, 0, 1, 2, 2, 2, 4, 5, 5], np.int32)  # 3 did not form; the last two: of none
WEIGHT = np.array([7, 1, 30, 12, 4.5, 0, 2, 0, 0], np.float32)  # the sixth does not count
PLAN = Plan(*[None] * 4, WEIGHT, CLUSTER, np.zeros(NUM_CLUSTERS, np.int32), None)
MODES = [(1, True), (4, True), (1, False), (4, False)]  # devices, deterministic


def drawn():
    """Front halves [K, ...] and back halves [M, ...], two leaves each, zero where nobody trains."""
    rng = np.random.default_rng(0)

    def tree(taking_part):
        leaves = [rng.normal(2, 1, (len(taking_part), *shape)) for shape in ((3, 2), (4,))]
        there = [taking_part.reshape(-1, *[1] * (leaf.ndim - 1)) for leaf in leaves]
        return [np.float32(leaf * mask) for leaf, mask in zip(leaves, there, strict=True)]

    return tree(CLUSTER < NUM_CLUSTERS), tree(np.bincount(CLUSTER, minlength=6)[:5] > 0)


BEFORE = Halves(
    *([np.full((3, 2), start, np.float32), np.full(4, start, np.float32)] for start in (7.0, 9.0))
)


def averaged(devices, deterministic, shared_plan=PLAN):
    """What comes out of the devices, each of which holds only its own clusters."""
    mesh = parallel.make_mesh(devices, deterministic)

    def on_device(front_sums, backs, plan):
        halves = parallel.take_local((front_sums, backs), NUM_CLUSTERS)
        return aggregate(BEFORE, *halves, plan, mesh)

    fronts, backs = drawn()
    sums = [np.zeros((NUM_CLUSTERS, *leaf.shape[1:]), np.float32) for leaf in fronts]
    for k, m in enumerate(CLUSTER):
        for total, leaf in zip(sums, fronts, strict=True):
            if m < NUM_CLUSTERS:
                total[m] += shared_plan.weight[k] * leaf[k]
    arrays = jax.device_put((sums, backs, shared_plan), mesh.everywhere)
    return jax.device_get(quick_jit(mesh.spread(on_device))(*arrays))


@pytest.fixture(scope="module")
def outcomes():
    return {mode: averaged(*mode) for mode in MODES}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_halves_are_averages_by_weight(outcomes, mode):
    fronts, backs = drawn()
    present = [k for k in range(len(CLUSTER)) if CLUSTER[k] < NUM_CLUSTERS]
    by_client = [float(WEIGHT[k]) for k in present]
    by_cluster = [
        float(sum(WEIGHT[k] for k in present if CLUSTER[k] == m)) for m in range(NUM_CLUSTERS)
    ]
    wanted = Halves(
        [np.average(leaf[present].astype(np.float64), 0, by_client) for leaf in fronts],
        [np.average(leaf.astype(np.float64), 0, by_cluster) for leaf in backs],
    )
    assert_close(outcomes[mode], wanted)


@pytest.mark.parametrize("mode", [(4, True), (4, False)], ids=str)
def test_a_round_in_which_nothing_counts_changes_nothing(mode):
    nobody = PLAN._replace(weight=np.zeros_like(WEIGHT))
    halves = averaged(*mode, nobody)
    jax.tree.map(np.testing.assert_array_equal, halves, BEFORE)


def test_the_number_of_devices_changes_no_bit_in_deterministic_mode(outcomes):
    jax.tree.map(np.testing.assert_array_equal, outcomes[1, True], outcomes[4, True])
