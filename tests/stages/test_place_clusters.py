"""Clusters on edge nodes with several places each, by every rule."""

import collections
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.specs import OffloadSpec
from cefl_jax.stages.offload import place_clusters
from tests.compare import assert_close
from tests.oracles import offload as oracle
from tests.quick import quick_jit

place = quick_jit(place_clusters, static_argnames="spec")
drawn = settings(deadline=None, max_examples=100)
PROGRAMS = [(3, 2, 2), (2, 3, 1), (4, 2, 3)]  # M, E, capacity
RULES = ("optimal", "greedy", "random", "nearest")
OBJECTIVES = ("sum", "bottleneck")


def by_spec(rule, objective, capacity):
    return OffloadSpec(rule, objective=objective, edge_capacity=capacity)


@st.composite
def costs(draw, programs=PROGRAMS, *, forbidden=False):
    """Costs of clients and of nodes f32[M, E], the clusters that formed, and the capacity."""
    num_clusters, num_edges, capacity = draw(st.sampled_from(programs))
    shape = num_clusters, num_edges
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    whole = draw(st.booleans())  # whole costs tie
    clients, node = (
        np.float32(rng.integers(0, 6, shape) if whole else rng.gamma(1, 5, shape)) for _ in "ab"
    )
    if forbidden:
        clients[rng.uniform(size=shape) < draw(st.sampled_from([0.0, 0.3, 0.8]))] = np.inf
    formed = np.array(draw(st.lists(st.booleans(), min_size=num_clusters, max_size=num_clusters)))
    return clients, node, formed, capacity


def paid_for(placed, pair_costs, objective):
    paid = [pair_costs[m][s] for m, s in placed.items()]
    return sum(paid) if objective == "sum" else max(paid, default=0.0)


def all_placements(formed, num_slots):
    clusters = np.flatnonzero(formed).tolist()
    for chosen in itertools.permutations(range(num_slots), len(clusters)):
        yield dict(zip(clusters, chosen, strict=True))


def values_by_nodes(case, objective):
    """What the clusters that formed can pay on these nodes, in every order on them."""
    clients, node, formed, capacity = case
    pair_costs, nodes = oracle.slot_costs(clients, node, capacity)
    values = collections.defaultdict(list)
    for placed in all_placements(formed, len(nodes)):
        chosen = tuple(nodes[s] for s in placed.values())
        values[chosen].append(paid_for(placed, pair_costs, objective))
    return values


CLOSE = {"atol": 1e-5}


@drawn
@given(costs(), st.sampled_from(OBJECTIVES))
def test_the_objective_is_the_least_that_any_placement_reaches(case, objective):
    clients, cost_node, formed, capacity = case
    node, value = place(clients, cost_node, formed, by_spec("optimal", objective, capacity))
    node = np.asarray(node)
    assert ((node == -1) == ~formed).all()
    assert (node < clients.shape[1]).all()
    assert max(np.bincount(node[formed], minlength=1)) <= capacity
    values = values_by_nodes(case, objective)
    assert_close(value, min(map(min, values.values())), **CLOSE)
    # And the nodes that it names reach it, in some order of the clusters that share one.
    assert_close(min(values[tuple(node[formed].tolist())]), value, **CLOSE)


def check_placed(got, placed, pair_costs, nodes, objective):
    node, value = got
    assert node.dtype == np.int32
    expected = [nodes[placed[m]] if m in placed else -1 for m in range(len(pair_costs))]
    assert node.tolist() == expected
    assert_close(value, paid_for(placed, pair_costs, objective), **CLOSE)


@pytest.mark.parametrize("objective", OBJECTIVES)
@drawn
@given(case=costs([(3, 2, 2), (2, 3, 1)], forbidden=True))
def test_greedy_takes_the_cheapest_pair_left(objective, case):
    clients, node, formed, capacity = case
    pair_costs, nodes = oracle.slot_costs(clients, node, capacity)
    got = place(clients, node, formed, by_spec("greedy", objective, capacity))
    check_placed(got, oracle.greedy(pair_costs, formed), pair_costs, nodes, objective)


@drawn
@given(case=costs(forbidden=True), seed=st.integers(0, 2**32 - 1))
def test_nearest_lets_clusters_in_turn_take_the_nearest_free_node(case, seed):
    clients, node, formed, capacity = case
    distance = np.random.default_rng(seed).choice([0.5, 1, 2, np.inf], clients.shape)
    pair_costs, nodes = oracle.slot_costs(clients, node, capacity)
    distance = distance.astype(np.float32)
    got = place(clients, node, formed, by_spec("nearest", "sum", capacity), distance)
    placed = oracle.nearest(pair_costs, nodes, formed, distance)
    check_placed(got, placed, pair_costs, nodes, "sum")


@drawn
@given(case=costs([(3, 2, 2), (2, 3, 1)]), seed=st.integers(0, 2**16))
def test_random_gives_each_cluster_a_slot_of_its_own(case, seed):
    clients, cost_node, formed, capacity = case
    spec, key = by_spec("random", "sum", capacity), jax.random.key(seed)
    node, value = place(clients, cost_node, formed, spec, None, key)
    node = np.asarray(node)
    assert ((node == -1) == ~formed).all()
    # Some distinct slots of these nodes cost this much.
    reached = values_by_nodes(case, "sum")[tuple(node[formed].tolist())]
    assert_close(value, min(reached, key=lambda one: abs(one - float(value))), **CLOSE)


def test_random_draws_every_placement_as_often():
    """Two clusters of three in four slots: 12 placements, told apart by what they cost."""
    clients = np.zeros((3, 2), np.float32)
    node = np.array([[1, 10], [5, 5], [100, 1000]], np.float32)
    formed = np.array([True, False, True])
    spec = by_spec("random", "sum", 2)
    keys = jax.random.split(jax.random.key(0), 6000)
    draw = jax.vmap(lambda key: place_clusters(clients, node, formed, spec, None, key)[1])
    values, often = np.unique(quick_jit(draw)(keys), return_counts=True)
    firsts, seconds = (1, 10, 2, 20), (100, 1000, 200, 2000)
    pairs = itertools.permutations(range(4), 2)
    assert values.tolist() == sorted(firsts[a] + seconds[b] for a, b in pairs)
    assert stats.chisquare(often).pvalue > 1e-4


def test_random_takes_what_is_allowed_to_a_cluster():
    clients = np.array([[np.inf, 0], [0, 0], [np.inf, np.inf]], np.float32)
    spec, formed = by_spec("random", "sum", 2), np.ones(3, bool)
    draw = jax.vmap(lambda key: place_clusters(clients, clients, formed, spec, None, key)[0])
    nodes = np.asarray(quick_jit(draw)(jax.random.split(jax.random.key(0), 50)))
    assert (nodes[:, 0] == 1).all()
    assert set(nodes[:, 1].tolist()) == {0, 1}
    assert (nodes[:, 2] == -1).all()


@quick_jit
def every_rule(clients, node, formed, distance, key):
    """{(rule, objective): (node, value)} on three clusters and two nodes of two places."""
    specs = [by_spec(rule, objective, 2) for rule in RULES for objective in OBJECTIVES]
    return {
        f"{spec.rule} {spec.objective}": place_clusters(clients, node, formed, spec, distance, key)
        for spec in specs
    }


@drawn
@given(costs([(3, 2, 2)], forbidden=True), st.integers(0, 2**16))
def test_no_rule_beats_the_optimal_one_at_its_objective(case, seed):
    clients, node, formed, capacity = case
    distance = np.random.default_rng(seed).gamma(1, 1, clients.shape).astype(np.float32)
    got = every_rule(clients, node, formed, distance, jax.random.key(seed))
    for objective in OBJECTIVES:
        outcomes = {}
        for rule in RULES:
            nodes, value = got[f"{rule} {objective}"]
            nodes = np.asarray(nodes)
            assert (nodes[~formed] == -1).all()
            assert np.bincount(nodes[nodes >= 0], minlength=2).max() <= capacity
            # A rule that leaves a cluster out pays less for it.
            outcomes[rule] = int((nodes[formed] < 0).sum()), float(value)
        left_out, least = outcomes["optimal"]
        for others, value in outcomes.values():
            assert left_out <= others
            assert others > left_out or least <= value * (1 + 1e-5) + 1e-5
    pair_costs = np.array(oracle.slot_costs(clients, node, capacity)[0])
    _, largest, total = oracle.by_scipy_sum(pair_costs[formed])
    assert_close(got["optimal sum"][1], total, **CLOSE)
    assert float(got["optimal bottleneck"][1]) <= max(largest, 0.0) * (1 + 1e-5) + 1e-5


def test_a_second_place_is_taken_only_when_it_pays():
    """Node 0 saves cluster 1 nine of the clients' costs and costs it one more of its own."""
    clients = np.array([[0, 10], [1, 10]], np.float32)
    cost_node = np.array([[1, 1], [1, 1]], np.float32)
    both = np.array([True, True])
    node, value = place(clients, cost_node, both, by_spec("optimal", "sum", 2))
    assert node.tolist() == [0, 0]
    assert value == (0 + 1) + (1 + 2)
    node, value = place(clients, cost_node, both, by_spec("optimal", "sum", 1))
    assert node.tolist() == [0, 1]
    assert value == (0 + 1) + (10 + 1)


def test_what_does_not_fit_or_is_unknown_is_refused():
    cost, formed = np.ones((3, 2), np.float32), np.ones(3, bool)
    for rule in RULES:
        with pytest.raises(ValueError, match=r"3 clusters .* 2 server slots"):
            place_clusters(cost, cost, formed, by_spec(rule, "sum", 1))
    with pytest.raises(ValueError, match=r"cefl\.offload\.rule='best' is unknown; known: optimal"):
        place_clusters(cost, cost, formed, by_spec("best", "sum", 2))
