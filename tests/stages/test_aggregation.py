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
MEMBER = np.float32(CLUSTER[None] == np.arange(NUM_CLUSTERS)[:, None])  # [M, K]


def draw_leaves(count, seed):
    """Two leaves [count, ...]."""
    rng = np.random.default_rng(seed)
    return [np.float32(rng.normal(2, 1, (count, *shape))) for shape in ((3, 2), (4,))]


FRONTS, BACKS = draw_leaves(len(CLUSTER), 0), draw_leaves(NUM_CLUSTERS, 1)
BEFORE = Halves(*([leaf[0] for leaf in draw_leaves(1, seed)] for seed in (2, 3)))


def average(devices, deterministic, weight):
    """The Halves after a round whose devices each hold only their own clusters."""
    mesh, plan = parallel.make_mesh(devices, deterministic), PLAN._replace(weight=weight)
    front_sums = [np.tensordot(MEMBER * weight[None], leaf, 1) for leaf in FRONTS]
    formed = MEMBER.any(1)
    backs = [leaf * np.expand_dims(formed, (*range(1, leaf.ndim),)) for leaf in BACKS]

    def on_device(front_sums, backs, plan):
        halves = parallel.take_local((front_sums, backs), NUM_CLUSTERS)
        return aggregate(BEFORE, *halves, plan, mesh)

    arrays = jax.device_put((front_sums, backs, plan), mesh.everywhere)
    return jax.device_get(quick_jit(mesh.spread(on_device))(*arrays))


@pytest.mark.parametrize("deterministic", [True, False])
def test_aggregate_averages_halves_by_weight(deterministic):
    of_client = WEIGHT * MEMBER.sum(0)
    wanted = Halves(
        [np.average(leaf.astype(np.float64), 0, of_client) for leaf in FRONTS],
        [np.average(leaf.astype(np.float64), 0, MEMBER @ WEIGHT) for leaf in BACKS],
    )
    one, four = (average(devices, deterministic, WEIGHT) for devices in (1, 4))
    assert_close((one, four), (wanted, wanted))
    if deterministic:
        jax.tree.map(np.testing.assert_array_equal, one, four)


@pytest.mark.parametrize("deterministic", [True, False])
def test_aggregate_without_weight_changes_nothing(deterministic):
    halves = average(4, deterministic, np.zeros_like(WEIGHT))
    jax.tree.map(np.testing.assert_array_equal, halves, BEFORE)
