"""The rules that do not look at labels, and how a clustering is judged."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.specs import ClusteringSpec
from cefl_jax.stages import clustering
from tests.compare import assert_close
from tests.oracles import clustering as oracle
from tests.oracles.populations import label_counts
from tests.quick import quick_jit

cluster_clients = quick_jit(clustering.cluster_clients, static_argnames="spec")
measure = quick_jit(clustering.measure_quality, static_argnames="num_clusters")


@pytest.mark.parametrize(("num_clients", "num_clusters"), [(7, 3), (6, 3), (2, 4), (1, 1)])
def test_random_clusters_are_equal_within_one(num_clients, num_clusters):
    spec = ClusteringSpec("random", num_clusters)
    counts = np.ones((num_clients, 2), np.int32)
    cluster = cluster_clients(jax.random.key(0), counts, spec)
    assert cluster.dtype == np.int32
    sizes = sorted(np.bincount(cluster, minlength=num_clusters).tolist())
    each, more = divmod(num_clients, num_clusters)
    assert sizes == [each] * (num_clusters - more) + [each + 1] * more
    assert clustering.count_clusters(spec, num_clients) == num_clusters


def test_random_clusters_put_any_two_clients_together_as_often():
    """Of 6 clients in 3 clusters of 2, a client's companion is each of the others alike."""
    keys = jax.random.split(jax.random.key(1), 6000)
    draws = quick_jit(jax.vmap(lambda key: clustering.random_clusters(key, 6, 3)))(keys)
    together = np.asarray(draws)[:, :, None] == np.asarray(draws)[:, None, :]
    for k in range(6):
        often = np.delete(together[:, k].sum(0), k)
        assert often.sum() == len(keys)
        assert stats.chisquare(often).pvalue > 1e-4


@pytest.mark.parametrize("num_clients", [1, 5])
def test_single_is_one_cluster_and_singleton_one_each(num_clients):
    counts, key = np.ones((num_clients, 2), np.int32), jax.random.key(0)
    single, singleton = ClusteringSpec("single", 3), ClusteringSpec("singleton", 3)
    assert cluster_clients(key, counts, single).tolist() == [0] * num_clients
    assert cluster_clients(key, counts, singleton).tolist() == list(range(num_clients))
    assert clustering.count_clusters(single, num_clients) == 1
    assert clustering.count_clusters(singleton, num_clients) == num_clients


@pytest.mark.parametrize("target", ["global", "uniform"])
def test_each_rule_gets_the_numbers_of_its_settings(target):
    """Rules that look at labels are held to their oracles elsewhere; here, to their arguments."""
    counts = np.random.default_rng(2).integers(1, 30, (8, 3)).astype(np.int32)
    key, rows = jax.random.key(0), counts.tolist()
    goal = oracle.pooled_target(rows) if target == "global" else [1 / 3] * 3

    def by_rule(rule, **settings):
        return cluster_clients(key, counts, ClusteringSpec(rule, 3, target=target, **settings))

    patent, unsure = oracle.patent_clusters(rows, 3, 2, goal, 4)
    assert not unsure
    assert by_rule("patent", min_size=2, max_size=4).tolist() == patent
    for max_size, filled in ((4, 4), (None, 3)):  # by default K / M, rounded up
        astraea, unsure = oracle.astraea_clusters(rows, 3, filled, goal)
        assert not unsure
        assert by_rule("astraea", max_size=max_size).tolist() == astraea
    assert np.bincount(by_rule("balanced"), minlength=3).tolist() == [3, 3, 2]


def test_an_unknown_rule_is_refused():
    key, counts = jax.random.key(0), np.ones((2, 2), np.int32)
    with pytest.raises(ValueError, match=r"cefl\.clustering\.rule='kmeans' is unknown"):
        clustering.cluster_clients(key, counts, ClusteringSpec("kmeans"))


@settings(deadline=None, max_examples=100)
@given(label_counts(6, 4), st.lists(st.integers(-1, 2), min_size=6, max_size=6))
def test_quality_counts_the_clusters_that_formed_only(counts, cluster):
    target = [0.25] * 4
    got = measure(counts, np.array(cluster, np.int32), 3, np.array(target, np.float32))
    formed = sorted(set(cluster) - {-1})
    kl = [oracle.cluster_kl(counts.tolist(), cluster, 3, target)[m] for m in formed]
    sizes = [cluster.count(m) for m in formed]
    assert int(got.count) == len(formed)
    assert int(got.size_min) == min(sizes, default=0)
    assert int(got.size_max) == max(sizes, default=0)
    assert_close(got.kl_mean, sum(kl) / max(len(kl), 1), atol=2e-6)
    assert_close(got.kl_max, max(kl, default=0), atol=2e-6)


def test_balanced_follows_the_target_that_it_is_given():
    """Nine in ten labels are 0: like the whole is not like the uniform distribution."""
    counts = np.array([[90, 0, 0], [90, 0, 0], [90, 10, 0], [90, 0, 10], [5, 10, 0], [5, 0, 10]])
    kl = {}

    @functools.partial(quick_jit, static_argnums=2)
    def total_kl(counts, cluster, target):
        distribution = clustering.target_distribution(counts, target)
        return clustering.cluster_kl(counts, cluster, 2, distribution).sum()

    for rule_target in ("global", "uniform"):
        spec = ClusteringSpec(rule="balanced", num_clusters=2, target=rule_target)
        cluster = cluster_clients(jax.random.key(0), counts, spec)
        for target in ("global", "uniform"):
            kl[rule_target, target] = float(total_kl(counts, cluster, target))
    assert kl["global", "global"] <= kl["uniform", "global"] + 1e-4
    assert kl["uniform", "uniform"] <= kl["global", "uniform"] + 1e-4
    assert kl["global", "uniform"] != kl["uniform", "uniform"]
