"""The clustering rules against their plain Python oracles, with and without empty places."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.specs import ClusteringSpec
from cefl_jax.stages import clustering
from cefl_jax.stages.clustering.balanced import swap_until_none_helps
from tests.compare import assert_close
from tests.oracles import clustering as oracle
from tests.oracles.populations import dirichlet_counts, label_counts
from tests.quick import quick_jit

drawn = settings(deadline=None, max_examples=150)

cluster_clients = quick_jit(clustering.cluster_clients, static_argnames="spec")
measure = quick_jit(clustering.measure_quality, static_argnames="num_clusters")
balanced = quick_jit(clustering.balanced_clusters, static_argnames="num_clusters")
start = quick_jit(clustering.balanced_start, static_argnames="num_clusters")
kl = quick_jit(clustering.cluster_kl, static_argnames="num_clusters")

KEY = jax.random.key(5)
EVERY_RULE = pytest.mark.parametrize("rule", clustering.RULES)
# Each is one compiled program, so there are few: K, Y, and M with what else the rule reads.
PATENT = [
    (1, 3, (1, 1, None)),
    (2, 3, (4, 1, None)),
    (5, 4, (2, 6, None)),
    (9, 4, (3, 2, None)),
    (9, 4, (3, 2, 4)),
    (12, 5, (4, 3, 3)),
    (8, 3, (9, 1, 1)),
]
ASTRAEA = [(1, 3, (1, 1)), (7, 3, (3, 3)), (9, 4, (2, 9)), (10, 4, (6, 2)), (9, 4, (3, None))]
BALANCED = [(1, 3, (1,)), (2, 3, (4,)), (9, 4, (2,)), (10, 4, (3,)), (6, 3, (6,))]


@st.composite
def rounds(draw, shapes):
    """Label counts, zero in the empty places; how many clients there are; what the rule reads."""
    num_clients, num_labels, reads = draw(st.sampled_from(shapes))
    num_present = draw(st.one_of(st.just(num_clients), st.integers(1, num_clients)))
    counts = draw(label_counts(num_clients, num_labels))
    return np.where(np.arange(num_clients)[:, None] < num_present, counts, 0), num_present, reads


def make_target(rows, target):
    return oracle.pooled_target(rows) if target == "global" else [1 / len(rows[0])] * len(rows[0])


def check(got, expected, unsure):
    """The clusters of the clients, and -1 in the empty places."""
    assume(not unsure)
    assert got.dtype == np.int32
    assert got.tolist() == expected + [-1] * (len(got) - len(expected))


targets = st.sampled_from(["global", "uniform"])


@drawn
@given(rounds(PATENT), targets)
def test_patent_clusters_equal_the_rule_read_aloud(case, target):
    counts, num_present, (num_clusters, min_size, max_size) = case
    rows = counts[:num_present].tolist()
    goal = make_target(rows, target)
    expected = oracle.patent_clusters(rows, num_clusters, min_size, goal, max_size)
    spec = ClusteringSpec("patent", num_clusters, min_size, max_size, target=target)
    check(cluster_clients(KEY, counts, spec, num_present), *expected)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Client 1 repeats client 0 and leaves ln 2 as it was; client 2 brings it to 0.
        ([[4, 0], [4, 0], [0, 4], [0, 4]], [0, 1, 0, 1]),
        ([[4, 0], [0, 4], [2, 0]], [0, 0, 0]),  # left over: a formed cluster before an empty
    ],
)
def test_patent_clusters_worked_by_hand(counts, expected):
    spec = ClusteringSpec("patent", 2, 2, target="uniform")
    assert cluster_clients(KEY, np.float32(counts), spec).tolist() == expected


@pytest.mark.parametrize("seed", [0, 1, 5, 6, 7])  # of 0 to 7, those without a close call
def test_patent_clusters_equal_the_rule_on_a_whole_round(seed):
    counts = dirichlet_counts(seed, 100)
    goal = np.float32(make_target(counts.tolist(), "global")).tolist()
    expected, unsure = oracle.patent_clusters(counts.tolist(), 10, 3, goal)
    assert not unsure
    assert cluster_clients(KEY, counts, ClusteringSpec("patent", 10, 3)).tolist() == expected


@pytest.mark.parametrize(
    ("num_clusters", "min_size", "max_size"), [(0, 1, None), (1, 0, None), (1, 3, 2)]
)
def test_patent_clusters_refuse_sizes_that_cannot_be(num_clusters, min_size, max_size):
    counts, target = np.ones((4, 2), np.float32), np.float32([0.5, 0.5])
    sizes = rf"num_clusters={num_clusters}, min_size={min_size}, max_size={max_size}: need"
    with pytest.raises(ValueError, match=sizes):
        clustering.patent_clusters(counts, num_clusters, min_size, target, max_size)


@drawn
@given(rounds(ASTRAEA), targets)
def test_astraea_clusters_equal_filling_with_the_best_client(case, target):
    counts, num_present, (num_clusters, max_size) = case
    rows = counts[:num_present].tolist()
    most = max_size or -(-num_present // num_clusters)  # by default K / M, rounded up
    expected = oracle.astraea_clusters(rows, num_clusters, most, make_target(rows, target))
    spec = ClusteringSpec("astraea", num_clusters, max_size=max_size, target=target)
    check(cluster_clients(KEY, counts, spec, num_present), *expected)


def test_astraea_clusters_refuse_more_clients_than_they_hold():
    message = r"^3 clusters of at most 2 cannot hold 7 clients; raise clustering\.num_clusters or"
    with pytest.raises(ValueError, match=message):
        clustering.cluster_clients(KEY, np.ones((7, 2)), ClusteringSpec("astraea", 3, max_size=2))


@drawn
@given(rounds(BALANCED))
def test_balanced_start_equals_the_clusters_choosing_one_after_another(case):
    """By the pooled labels of these clients where no target is given."""
    counts, num_present, (num_clusters,) = case
    expected = oracle.balanced_start(counts[:num_present].tolist(), num_clusters)
    check(start(counts, num_clusters, None, num_present), *expected)


@drawn
@given(rounds(BALANCED), targets)
def test_balanced_clusters_are_equal_within_one_and_no_swap_helps(case, target):
    counts, num_present, (num_clusters,) = case
    spec = ClusteringSpec("balanced", num_clusters, target=target)
    got = cluster_clients(KEY, counts, spec, num_present).tolist()
    cluster, rows = got[:num_present], counts[:num_present].tolist()
    assert got[num_present:] == [-1] * (len(got) - num_present)
    sizes = [cluster.count(m) for m in range(num_clusters)]
    assert sum(sizes) == num_present
    assert max(sizes) - min(sizes) <= 1
    goal = make_target(rows, target)
    assert oracle.best_swap_gain(rows, cluster, num_clusters, goal) <= 1e-4


def swap_best_first(rows, cluster, num_clusters, target):
    """The clusters after the swaps, how many there were, and whether two were too close."""

    def total(cluster):
        return sum(oracle.cluster_kl(rows, cluster, num_clusters, target))

    for made in itertools.count():
        now, gains = total(cluster), []
        for i, j in itertools.combinations(range(len(rows)), 2):
            if cluster[i] != cluster[j] and min(cluster[i], cluster[j]) >= 0:
                swapped = list(cluster)
                swapped[i], swapped[j] = cluster[j], cluster[i]
                gains.append((now - total(swapped), swapped))
        gains.sort(key=lambda gain: -gain[0])
        most = [gain for gain, _ in gains[:2]] + [-1.0, -1.0]
        if abs(most[0] - oracle.TIE_NATS) < oracle.BAND_NATS:
            return cluster, made, True
        if most[0] < oracle.TIE_NATS:
            return cluster, made, False
        if most[0] - most[1] < 2e-6:  # float32 may put them in the other order
            return cluster, made, True
        cluster = gains[0][1]


# With two clients in a cluster, swapping these or those is alike: clusters of three and more.
@pytest.mark.parametrize(("num_clients", "num_clusters"), [(9, 3), (13, 4), (14, 4)])
def test_balanced_clusters_make_the_best_swap_each_time(num_clients, num_clusters):
    made = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        counts = np.float32(rng.integers(0, 60, (num_clients, 4)) ** 2)
        num_present = num_clients - (seed % 2 and num_clients % num_clusters > 0)
        counts[num_present:] = 0
        rows, args = counts.tolist(), (counts, num_clusters, None, num_present)
        began, target = start(*args).tolist(), oracle.pooled_target(rows)
        expected, swaps, unsure = swap_best_first(rows, began, num_clusters, target)
        if not unsure:
            assert balanced(*args).tolist() == expected
            made.append(swaps)
    assert len(made) > 20
    assert max(made) >= 3


def test_balanced_clusters_swap_the_first_client_with_the_first_of_equal_ones():
    """Clients 1 and 3 are alike, 0 and 2 too, so that all four swaps are."""
    search = quick_jit(swap_until_none_helps, static_argnames="num_clusters")
    counts, target = np.float32([[0, 4], [4, 0], [0, 4], [4, 0]]), np.float32([0.5, 0.5])
    assert search(counts, target, np.int32([1, 0, 1, 0]), 2).tolist() == [0, 1, 1, 0]
    assert search(counts, target, np.int32([0, 1, 0, 1]), 2).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(("num_clients", "num_clusters", "share"), [(50, 8, 0.6), (100, 10, 0.2)])
def test_balanced_clusters_of_a_whole_round_resemble_the_whole(num_clients, num_clusters, share):
    """Random 0.41 and 0.23 nats, with swaps 0.07 to 0.15 and 0.010 (DESIGN.md section 2)."""
    swapped, dealt = [], []
    for seed in range(4):
        counts = dirichlet_counts(seed, num_clients)
        cluster, rows = balanced(counts, num_clusters).tolist(), counts.tolist()
        problem = num_clusters, oracle.pooled_target(rows)
        assert oracle.best_swap_gain(rows, cluster, *problem) <= 1e-4
        at_random = np.random.default_rng(seed).permutation(num_clients) % num_clusters
        swapped += oracle.cluster_kl(rows, cluster, *problem)
        dealt += oracle.cluster_kl(rows, at_random.tolist(), *problem)
    assert sum(swapped) < share * sum(dealt)


@pytest.mark.parametrize(("num_clients", "num_clusters"), [(7, 3), (6, 3), (2, 4), (1, 1)])
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), data=st.data())
def test_random_clusters_are_equal_in_size_within_one(num_clients, num_clusters, seed, data):
    num_present = data.draw(st.integers(0, num_clients))
    counts, spec = np.ones((num_clients, 2), np.int32), ClusteringSpec("random", num_clusters)
    cluster = cluster_clients(jax.random.key(seed), counts, spec, num_present)
    assert cluster.dtype == np.int32
    assert (cluster[num_present:] == -1).all()
    sizes = np.bincount(cluster[:num_present], minlength=num_clusters)
    assert sizes.sum() == num_present
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("num_present", [None, 4])
def test_random_clusters_put_any_two_clients_together_as_often(num_present):
    """In clusters of two, a client's companion is each of the others alike."""
    keys, num_clients = jax.random.split(jax.random.key(1), 6000), num_present or 6
    divide = functools.partial(clustering.random_clusters, num_present=num_present)
    draws = quick_jit(jax.vmap(lambda key: divide(key, 6, num_clients // 2)))(keys)
    draws = np.asarray(draws)[:, :num_clients]
    together = draws[:, :, None] == draws[:, None, :]
    for k in range(num_clients):
        often = np.delete(together[:, k].sum(0), k)
        assert often.sum() == len(keys)
        assert stats.chisquare(often).pvalue > 1e-4


@EVERY_RULE
def test_cluster_clients_is_the_same_under_vmap_and_for_all_places_taken(rule):
    counts = np.stack([dirichlet_counts(seed, 9, num_labels=4) for seed in range(4)])
    number, spec = np.int32([9, 7, 1, 0]), ClusteringSpec(rule, 3, min_size=2)
    counts = np.where(np.arange(9)[None, :, None] < number[:, None, None], counts, 0)
    mapped = quick_jit(jax.vmap(lambda c, n: clustering.cluster_clients(KEY, c, spec, n)))
    alone = [cluster_clients(KEY, c, spec, n).tolist() for c, n in zip(counts, number, strict=True)]
    assert mapped(counts, number).tolist() == alone
    assert cluster_clients(KEY, counts[0], spec).tolist() == alone[0]
    assert alone[3] == [-1] * 9
    if rule in ("single", "singleton"):
        clients = [0] * 7 if rule == "single" else [*range(7)]
        assert alone[1] == [*clients, -1, -1]


@EVERY_RULE
def test_count_clusters_is_the_most_that_a_rule_forms(rule):
    most = {"single": 1, "singleton": 5}.get(rule, 3)
    assert clustering.count_clusters(ClusteringSpec(rule, 3), 5) == most


def test_cluster_clients_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match=r"cefl\.clustering\.rule='kmeans' is unknown"):
        clustering.cluster_clients(KEY, np.ones((2, 2)), ClusteringSpec("kmeans"))


@drawn
@example(np.zeros((6, 4), np.float32), [-1, 0, 0, 2, 2, -1])
@given(label_counts(6, 4), st.lists(st.integers(-1, 2), min_size=6, max_size=6))
def test_cluster_kl_and_quality_equal_the_sums_over_labels(counts, cluster):
    target = [0.25] * 4
    arrays = counts, np.array(cluster, np.int32), 3, np.array(target, np.float32)
    expected = oracle.cluster_kl(counts.tolist(), cluster, 3, target)
    assert_close(kl(*arrays), expected, atol=2e-6)
    quality, formed = measure(*arrays), sorted(set(cluster) - {-1})
    of_formed, sizes = [expected[m] for m in formed], [cluster.count(m) for m in formed]
    counted = [int(x) for x in (quality.count, quality.size_min, quality.size_max)]
    assert counted == [len(formed), min(sizes, default=0), max(sizes, default=0)]
    assert_close(quality.kl_mean, sum(of_formed) / max(len(formed), 1), atol=2e-6)
    assert_close(quality.kl_max, max(of_formed, default=0), atol=2e-6)
