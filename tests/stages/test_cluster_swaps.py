"""The search by swaps against trying every swap in plain Python."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cefl_jax.stages import clustering
from cefl_jax.stages.clustering.swaps import swap_until_none_helps
from tests.oracles import clustering as oracle
from tests.quick import quick_jit

balanced = quick_jit(clustering.balanced_clusters, static_argnames="num_clusters")
start = quick_jit(clustering.balanced_start, static_argnames="num_clusters")
search = quick_jit(swap_until_none_helps, static_argnames="num_clusters")

NUM_LABELS = 4
CLOSE_NATS = 2e-6  # two gains that float32 may put in the other order


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
        if most[0] - most[1] < CLOSE_NATS:
            return cluster, made, True
        cluster = gains[0][1]


# With two clients in a cluster, swapping these or those is alike: clusters of three and more.
@pytest.mark.parametrize(("num_clients", "num_clusters"), [(9, 3), (13, 4), (14, 4)])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), absent=st.booleans())
def test_the_best_swap_is_made_each_time(num_clients, num_clusters, seed, absent):
    rng = np.random.default_rng(seed)
    counts = np.float32(rng.integers(0, 60, (num_clients, NUM_LABELS)) ** 2)
    num_present = num_clients - (absent and num_clients % num_clusters > 0)  # clusters of 3 stay
    counts[num_present:] = 0
    target, rows = oracle.pooled_target(counts.tolist()), counts.tolist()
    began = start(counts, num_clusters, None, num_present).tolist()
    expected, _, unsure = swap_best_first(rows, began, num_clusters, target)
    assume(not unsure)
    assert balanced(counts, num_clusters, None, num_present).tolist() == expected


def test_several_swaps_are_made():
    """Lest the test above compares searches that end before they begin."""
    made = []
    for seed in range(10):
        counts = np.float32(np.random.default_rng(seed).integers(0, 60, (14, NUM_LABELS)) ** 2)
        target = oracle.pooled_target(counts.tolist())
        began = start(counts, 4, None, 14).tolist()
        made.append(swap_best_first(counts.tolist(), began, 4, target)[1])
    assert max(made) >= 3


def test_of_equal_swaps_the_first_client_is_swapped_with_the_first():
    """Clients 1 and 3 are alike, 0 and 2 too, so that all four swaps are: not who sits first."""
    counts = np.float32([[0, 4], [4, 0], [0, 4], [4, 0]])
    target = np.float32([0.5, 0.5])
    assert search(counts, target, np.int32([3, 1, 2, 0]), 2).tolist() == [3, 0, 2, 1]
    assert search(counts, target, np.int32([2, 0, 1, 3]), 2).tolist() == [2, 1, 0, 3]


def test_empty_seats_and_empty_clusters_are_in_no_swap():
    """An empty seat holds no examples: moving a client there would help, but is no swap."""
    counts = np.float32([[4, 0], [4, 0], [0, 4]])
    target = np.float32([0.5, 0.5])
    seats = np.int32([0, 1, 2, 3, 3, 3])
    assert search(counts, target, seats, 3).tolist() == [2, 1, 0, 3, 3, 3]
    assert search(counts, target, np.int32([0, 3, 3]), 3).tolist() == [0, 3, 3]
