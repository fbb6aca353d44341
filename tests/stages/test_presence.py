"""Rounds with empty places: the clients present are clustered as if there were no other."""

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.specs import ClusteringSpec
from cefl_jax.stages import clustering
from tests.oracles import clustering as oracle
from tests.oracles.populations import dirichlet_counts, label_counts
from tests.quick import quick_jit

K, Y, M = 9, 4, 3
drawn = settings(deadline=None, max_examples=100)
cluster_clients = quick_jit(clustering.cluster_clients, static_argnames="spec")
start = quick_jit(clustering.balanced_start, static_argnames="num_clusters")
balanced = quick_jit(clustering.balanced_clusters, static_argnames="num_clusters")

PATENT = ClusteringSpec("patent", M, min_size=3)
PATENT_LIMITED = ClusteringSpec("patent", M, min_size=2, max_size=2, target="uniform")
ASTRAEA = ClusteringSpec("astraea", M)
ASTRAEA_LIMITED = ClusteringSpec("astraea", M, max_size=4, target="uniform")
RULES = [
    PATENT,
    ASTRAEA,
    *(ClusteringSpec(rule, M) for rule in ("balanced", "random", "single", "singleton")),
]
NAMES = [spec.rule for spec in RULES]


@st.composite
def rounds(draw):
    """Label counts, also where nobody is and they must not count, and who is present."""
    present = np.array(draw(st.lists(st.booleans(), min_size=K, max_size=K)))
    return draw(label_counts(K, Y)), present


def target_of(spec, rows):
    return [1 / Y] * Y if spec.target == "uniform" else oracle.pooled_target(rows)


def check(got, present, expected, unsure):
    """`expected` for the clients present in their order, -1 elsewhere."""
    assume(not unsure)
    got = np.asarray(got)
    assert got.dtype == np.int32
    assert (got[~present] == -1).all()
    assert got[present].tolist() == expected


def present_rows(counts, present):
    rows = counts[present].tolist()
    assume(rows)  # the oracles need a client; nobody at all has a test of its own
    return rows


@pytest.mark.parametrize("spec", [PATENT, PATENT_LIMITED], ids=["plain", "limited"])
@drawn
@given(case=rounds())
def test_patent_sees_only_who_is_present(spec, case):
    rows, key = present_rows(*case), jax.random.key(0)
    numbers = spec.num_clusters, spec.min_size, target_of(spec, rows), spec.max_size
    expected = oracle.patent_clusters(rows, *numbers)
    check(cluster_clients(key, case[0], spec, case[1]), case[1], *expected)


@pytest.mark.parametrize("spec", [ASTRAEA, ASTRAEA_LIMITED], ids=["even", "limited"])
@drawn
@given(case=rounds())
def test_astraea_sees_only_who_is_present(spec, case):
    rows, key = present_rows(*case), jax.random.key(0)
    most = spec.max_size or -(-len(rows) // M)
    expected = oracle.astraea_clusters(rows, M, most, target_of(spec, rows))
    check(cluster_clients(key, case[0], spec, case[1]), case[1], *expected)


@drawn
@given(rounds())
def test_balanced_starts_from_who_is_present_and_no_swap_helps(case):
    counts, present = case
    rows = present_rows(counts, present)
    swapped = np.asarray(balanced(counts, M, None, present))
    assert (swapped[~present] == -1).all()
    sizes = np.bincount(swapped[present], minlength=M)
    assert sizes.max() - sizes.min() <= 1
    target = oracle.pooled_target(rows)
    assert oracle.best_swap_gain(rows, swapped[present].tolist(), M, target) <= 1e-4
    check(start(counts, M, None, present), present, *oracle.balanced_start(rows, M))


@pytest.mark.parametrize("seed", range(6))
def test_balanced_equals_itself_without_the_empty_places(seed):
    counts = dirichlet_counts(seed, K, num_labels=Y)
    present = np.random.default_rng(seed).permutation(K) < 6
    got = np.asarray(balanced(counts, M, None, present))
    assert got[present].tolist() == balanced(counts[present], M).tolist()


@drawn
@given(st.lists(st.booleans(), min_size=K, max_size=K), st.integers(0, 99))
def test_random_divides_who_is_present_equally(present, seed):
    present, counts = np.array(present), np.ones((K, Y), np.int32)
    key = jax.random.key(seed)
    cluster = np.asarray(cluster_clients(key, counts, ClusteringSpec("random", M), present))
    assert ((cluster == -1) == ~present).all()
    sizes = np.bincount(cluster[present], minlength=M)
    assert sizes.max() - sizes.min() <= 1


def test_random_puts_any_two_of_those_present_together_as_often():
    present = np.array([True, False, True, True, False, True])
    keys = jax.random.split(jax.random.key(1), 6000)
    divide = jax.vmap(lambda key: clustering.random_clusters(key, 6, 2, present))
    draws = np.asarray(quick_jit(divide)(keys))[:, present]
    together = (draws[:, :, None] == draws[:, None]).sum(0)
    for k in range(4):
        often = np.delete(together[k], k)
        assert often.sum() == len(keys)
        assert stats.chisquare(often).pvalue > 1e-4


def test_single_and_singleton_number_who_is_present():
    present, key = np.array([False, True, True, False, True]), jax.random.key(0)
    for rule, expected in (("single", [-1, 0, 0, -1, 0]), ("singleton", [-1, 0, 1, -1, 2])):
        counts = np.ones((5, Y), np.int32)
        assert cluster_clients(key, counts, ClusteringSpec(rule), present).tolist() == expected


@pytest.mark.parametrize("spec", RULES, ids=NAMES)
def test_everybody_is_the_same_as_no_mask_and_nobody_gets_none(spec):
    counts, key = dirichlet_counts(3, K, num_labels=Y), jax.random.key(5)
    everybody = cluster_clients(key, counts, spec, np.ones(K, bool)).tolist()
    assert everybody == cluster_clients(key, counts, spec).tolist()
    nobody = cluster_clients(key, np.zeros_like(counts), spec, np.zeros(K, bool))
    assert nobody.tolist() == [-1] * K
