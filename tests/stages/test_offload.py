"""Matchings against SciPy, and the placement of clusters by every rule against plain Python."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from cefl_jax.specs import OffloadSpec
from cefl_jax.stages import offload
from tests.compare import assert_close
from tests.oracles import offload as oracle
from tests.quick import quick_jit

drawn = settings(deadline=None, max_examples=100)
match = quick_jit(offload.match, static_argnames="objective")
place = quick_jit(offload.place_clusters, static_argnames="spec")

SMALL = [(1, 1), (1, 4), (3, 3), (3, 5), (5, 5)]
LARGE = [(8, 12), (12, 12)]
BY_SCIPY = {"sum": oracle.by_scipy_sum, "bottleneck": oracle.by_scipy_bottleneck}
each_objective = pytest.mark.parametrize("objective", BY_SCIPY)
INF, NAN = np.inf, np.nan


@st.composite
def costs(draw, shapes):
    """f32[M, E]; whole numbers tie often, the scale tries how large a penalty may be."""
    shape = draw(st.sampled_from(shapes))
    ties, quarters = st.integers(0, 4).map(float), st.integers(-8, 8).map(lambda n: n / 4)
    elements = draw(st.sampled_from([ties, quarters, st.floats(0, 100, width=32)]))
    cost = draw(hnp.arrays(np.float32, shape, elements=elements, fill=st.nothing()))
    cost = cost * np.float32(draw(st.sampled_from([1.0, 2.0**-12, 2.0**15])))
    forbidden = draw(st.none() | hnp.arrays(np.bool_, shape))
    if forbidden is not None:
        cost = np.where(forbidden, np.float32(draw(st.sampled_from([INF, -INF, NAN]))), cost)
    return cost


@each_objective
@drawn
@given(cost=costs(SMALL + LARGE))
def test_match_is_as_good_as_scipys(cost, objective):
    """Among the matchings that leave out no more rows than they must."""
    column = np.asarray(match(cost, objective=objective))
    assert column.dtype == np.int32
    assert column.shape == cost.shape[:1]
    assert ((column >= -1) & (column < cost.shape[1])).all()
    assert np.bincount(column + 1)[1:].max(initial=0) <= 1
    left_out, worst, total = oracle.score(cost, column.tolist())
    best_left_out, best_worst, best_total = BY_SCIPY[objective](cost)
    assert left_out == best_left_out
    assert objective == "sum" or worst == best_worst
    scale = float(np.abs(cost[np.isfinite(cost)]).max(initial=0.0))
    assert_close(total, best_total, 0, atol=2e-6 * cost.shape[0] * scale)


@each_objective
@drawn
@given(cost=costs(SMALL))
def test_scipys_matching_is_as_good_as_any(cost, objective):
    ours, scipys = oracle.by_trying_all(cost, objective), BY_SCIPY[objective](cost)
    assert ours[0] == scipys[0]
    assert objective == "sum" or ours[1] == scipys[1]
    assert_close(ours[2], scipys[2])


@pytest.mark.parametrize(
    ("cost", "by_sum", "by_bottleneck"),
    [
        ([[0, 4], [4, 6]], [0, 1], [1, 0]),  # total 6 with worst 6, total 8 with worst 4
        ([[INF, NAN, INF], [3, 1, 2], [1, 2, 3]], [-1, 1, 0], [-1, 1, 0]),
        # One row has to be left out: without row 2 the pairs are 91 and 0, without row 0 90 and 2.
        ([[91, INF, INF], [2, 0, INF], [INF, 90, INF]], [0, 1, -1], [-1, 0, 1]),
    ],
)
def test_match_worked_by_hand(cost, by_sum, by_bottleneck):
    assert match(np.float32(cost), objective="sum").tolist() == by_sum
    assert match(np.float32(cost), objective="bottleneck").tolist() == by_bottleneck


@each_objective
def test_match_is_the_same_under_vmap_and_without_jit(objective):
    rng = np.random.default_rng(7)
    cost = rng.uniform(0, 10, (6, 3, 5)).astype(np.float32)
    cost[rng.uniform(size=cost.shape) < 0.3] = INF
    mapped = quick_jit(jax.vmap(lambda c: offload.match(c, objective=objective)))(cost)
    one_by_one = [match(c, objective=objective).tolist() for c in cost]
    assert mapped.tolist() == one_by_one
    assert offload.match(cost[0], objective=objective).tolist() == one_by_one[0]


PROGRAMS = [(3, 2, 2), (2, 3, 1), (4, 2, 3)]  # M, E, capacity


@st.composite
def rounds(draw):
    """Costs of clients and of nodes, distances f32[M, E], who formed, and the slots."""
    num_clusters, num_edges, capacity = draw(st.sampled_from(PROGRAMS))
    shape = num_clusters, num_edges
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    whole = draw(st.booleans())  # whole costs tie
    clients, node = (
        np.float32(rng.integers(0, 6, shape) if whole else rng.gamma(1, 5, shape)) for _ in "ab"
    )
    clients[rng.uniform(size=shape) < draw(st.sampled_from([0.0, 0.3, 0.8]))] = INF
    distance = np.float32(rng.choice([0.5, 1, 2, INF], shape))
    formed = np.array(draw(st.lists(st.booleans(), min_size=num_clusters, max_size=num_clusters)))
    pair_costs, nodes = oracle.slot_costs(clients, node, capacity)
    pair_costs = np.where(formed[:, None], pair_costs, INF)
    return (clients, node, formed), capacity, distance, pair_costs, np.array(nodes)


def objective_value(paid, objective):
    return sum(paid) if objective == "sum" else max(paid, default=0.0)


@each_objective
@drawn
@given(case=rounds())
def test_place_clusters_optimal_reaches_the_best_value(case, objective):
    arrays, capacity, _, pair_costs, nodes = case
    spec = OffloadSpec("optimal", objective=objective, edge_capacity=capacity)
    node, value = place(*arrays, spec)
    # And the nodes that it names reach it, in some order of the clusters that share one.
    there = np.where(nodes[None] == np.asarray(node)[:, None], pair_costs, INF)
    for cost in pair_costs, there:
        left_out, worst, total = BY_SCIPY[objective](cost)
        assert (np.asarray(node) < 0).sum() == left_out
        assert_close(value, total if objective == "sum" else max(worst, 0.0), atol=1e-5)


@each_objective
@pytest.mark.parametrize("rule", ["greedy", "nearest"])
@settings(deadline=None, max_examples=60)
@given(case=rounds())
def test_place_clusters_takes_slots_one_after_another(rule, case, objective):
    arrays, capacity, distance, pair_costs, nodes = case
    if rule == "greedy":
        placed = oracle.greedy(pair_costs, arrays[-1])
    else:
        placed = oracle.nearest(pair_costs, nodes, arrays[-1], distance)
    spec = OffloadSpec(rule, objective=objective, edge_capacity=capacity)
    node, value = place(*arrays, spec, distance)
    assert node.dtype == np.int32
    assert node.tolist() == [nodes[placed[m]] if m in placed else -1 for m in range(len(node))]
    paid = [pair_costs[m][s] for m, s in placed.items()]
    assert_close(value, objective_value(paid, objective), atol=1e-5)


def draw_places(clients, node, formed, objective="sum", count=6000):
    """Nodes and values of many random placements on nodes of two slots."""
    spec = OffloadSpec("random", objective=objective, edge_capacity=2)
    draw = jax.vmap(lambda key: offload.place_clusters(clients, node, formed, spec, None, key))
    return map(np.asarray, quick_jit(draw)(jax.random.split(jax.random.key(0), count)))


@each_objective
def test_place_clusters_random_draws_every_placement_as_often(objective):
    """Two clusters of three in four slots: 12 placements, told apart by what they cost."""
    node = np.array([[1, 10], [5, 5], [100, 1000]], np.float32)
    nodes, values = draw_places(np.zeros_like(node), node, np.array([1, 0, 1], bool), objective)
    assert (nodes[:, 1] == -1).all()
    slots = [(1, 10, 2, 20), (100, 1000, 200, 2000)]
    pairs = [(slots[0][a], slots[1][b]) for a, b in itertools.permutations(range(4), 2)]
    found, often = np.unique(values, return_counts=True)
    wanted, share = np.unique([objective_value(p, objective) for p in pairs], return_counts=True)
    assert found.tolist() == wanted.tolist()
    assert stats.chisquare(often, share / 12 * len(values)).pvalue > 1e-4


def test_place_clusters_random_takes_what_is_allowed_to_a_cluster():
    clients = np.array([[INF, 0], [0, 0], [INF, INF]], np.float32)
    nodes, _ = draw_places(clients, np.zeros_like(clients), np.ones(3, bool), count=50)
    assert [set(column.tolist()) for column in nodes.T] == [{1}, {0, 1}, {-1}]


NO_SLOT = (
    r"^3 clusters cannot each have one of 2 server slots; "
    r"raise offload\.edge_capacity or lower clustering\.num_clusters$"
)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        *[(OffloadSpec(rule), NO_SLOT) for rule in offload.RULES],
        (OffloadSpec("best"), r"^cefl\.offload\.rule='best' is unknown; known: optimal, greedy,"),
    ],
)
def test_place_clusters_refuses_what_does_not_fit_or_is_unknown(spec, message):
    cost, formed = np.ones((3, 2), np.float32), np.ones(3, bool)
    with pytest.raises(ValueError, match=message):
        offload.place_clusters(cost, cost, formed, spec)


@pytest.mark.parametrize(
    ("rows", "objective", "message"),
    [
        (3, "sum", NO_SLOT),
        (2, "least", r"^offload\.objective='least' is unknown; known: sum, bottleneck"),
    ],
)
def test_match_refuses_what_does_not_fit_or_is_unknown(rows, objective, message):
    with pytest.raises(ValueError, match=message):
        offload.match(np.zeros((rows, 2), np.float32), objective=objective)
