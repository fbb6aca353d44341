"""Clusters by labels and seconds against an objective in plain Python."""

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cefl_jax.specs import ClusteringSpec
from cefl_jax.stages import clustering
from cefl_jax.stages.clustering import ClientSeconds
from tests.oracles import clustering as labels
from tests.oracles.joint import Objective
from tests.oracles.populations import label_counts
from tests.quick import quick_jit

joint = quick_jit(clustering.joint_clusters, static_argnames="num_clusters")
balanced = quick_jit(clustering.balanced_clusters, static_argnames="num_clusters")

SHAPES = [(1, 1, 1), (6, 3, 4), (7, 3, 2), (8, 4, 1)]  # K, M, E; each is one compiled program
NUM_LABELS = 3


@st.composite
def rounds(draw):
    """Label counts, M, seconds of clients and of nodes [K, E], and how many clients there are."""
    num_clients, num_clusters, num_edges = draw(st.sampled_from(SHAPES))
    counts = draw(label_counts(num_clients, NUM_LABELS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    whole = draw(st.booleans())  # whole seconds tie
    scale = draw(st.sampled_from([1.0, 1e5]))  # float32 holds no 1e-5 of the larger
    client_s, node_s = (
        np.float32(rng.integers(0, 5, shape) if whole else rng.gamma(1, 5, shape) * scale)
        for shape in [(num_clients, num_edges)] * 2
    )
    num_present = draw(st.integers(0, num_clients))
    counts, client_s, node_s = (
        np.where(np.arange(num_clients)[:, None] < num_present, values, nothing)
        for values, nothing in ((counts, 0), (client_s, np.nan), (node_s, np.inf))
    )
    return counts, num_clusters, client_s, node_s, num_present


@settings(deadline=None, max_examples=120)
@given(rounds(), st.sampled_from([0.0, 1e-3, 0.05, 1.0, 30.0]))
def test_joint_clusters_lose_nothing_against_balanced_and_no_swap_helps(case, weight):
    """With weight 0 they are the balanced clusters."""
    counts, num_clusters, client_s, node_s, num_present = case
    weight = np.float32(weight)
    cluster = joint(counts, num_clusters, client_s, node_s, weight, None, num_present)
    assert cluster.dtype == np.int32
    cluster = cluster.tolist()
    start = balanced(counts, num_clusters, None, num_present).tolist()
    if not weight:
        assert cluster == start
        return
    assert [m >= 0 for m in cluster] == [k < num_present for k in range(len(cluster))]
    sizes = [cluster.count(m) for m in range(num_clusters)]
    assert max(sizes) - min(sizes) <= 1

    target = labels.pooled_target(counts.tolist())
    seconds = client_s.tolist(), node_s.tolist()
    objective = Objective(counts.tolist(), num_clusters, *seconds, float(weight), target)
    value, began = objective.matched(cluster), objective.matched(start)
    tolerance = 3e-5 + 2e-6 * began  # TIE_NATS, and float32 on the objective
    assert value <= began + tolerance
    assert objective.least_gain_left(cluster) <= tolerance


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0]))
def test_joint_clusters_equal_the_rule_read_aloud(seed, weight):
    """Drawn without ties, so that the rule has one outcome."""
    rng = np.random.default_rng(seed)
    counts = np.float32(rng.integers(1, 60, (10, NUM_LABELS)) ** 2)
    client_s, node_s = np.float32(rng.gamma(1, 5, (2, 10, 2)))
    target = labels.pooled_target(counts.tolist())
    seconds = client_s.tolist(), node_s.tolist()
    objective = Objective(counts.tolist(), 3, *seconds, weight, target)
    expected, _, unsure = objective.search(balanced(counts, 3).tolist())
    assume(not unsure)
    assert joint(counts, 3, client_s, node_s, np.float32(weight)).tolist() == expected


# Clients 0 and 3 are slow themselves, 1 and 2 have much for the node. Mixed pairs take 10 + 5 s,
# like with like 10 and 1 + 10 s: 4 s less, for 2 ln 2 nats more, or 0.3466 nats a second.
OPPOSED = np.array([[9, 0], [0, 9], [0, 9], [9, 0]], np.float32)
SECONDS = ClientSeconds(
    client_s=np.float32([[10], [1], [1], [10]]) * np.ones(2, np.float32),
    node_s=np.float32([[0], [5], [5], [0]]) * np.ones(2, np.float32),
)


@pytest.mark.parametrize(
    ("weight", "num_present", "together"),
    [(0.0, 4, False), (0.34, 4, False), (0.36, 4, True), (0.36, 3, False)],
)
def test_cluster_clients_weighs_the_seconds_of_the_slowest_against_labels(
    weight, num_present, together
):
    spec = ClusteringSpec("balanced", 2, network_weight=weight)
    cluster_clients = quick_jit(clustering.cluster_clients, static_argnames="spec")
    counts = np.where(np.arange(4)[:, None] < num_present, OPPOSED, 0)
    cluster = cluster_clients(jax.random.key(0), counts, spec, num_present, SECONDS).tolist()
    assert (cluster[0] == cluster[3]) == together
    assert (cluster[3] == -1) == (num_present == 3)


def test_cluster_clients_refuses_a_network_weight_without_seconds():
    spec = ClusteringSpec("balanced", 2, network_weight=0.36)
    with pytest.raises(ValueError, match=r"cefl\.clustering\.network_weight=0\.36 needs"):
        clustering.cluster_clients(jax.random.key(0), OPPOSED, spec)


@pytest.mark.parametrize("missing", [0, 1])
def test_joint_clusters_put_clients_together_that_one_node_cannot_serve(missing):
    """Apart, one of clients 0 and 1 would be in a cluster without a node."""
    client_s, node_s = np.ones((2, 4, 2), np.float32)
    client_s[:2, missing] = np.inf
    counts = np.full((4, 2), 5, np.float32)
    start = balanced(counts, 2).tolist()
    assert start[0] != start[1]
    cluster = joint(counts, 2, client_s, node_s, np.float32(0.1)).tolist()
    assert cluster[0] == cluster[1] != cluster[2] == cluster[3]
    nowhere = joint(counts, 2, np.full_like(client_s, np.inf), node_s, np.float32(0.1))
    assert nowhere.tolist() == start


def test_joint_clusters_do_not_search_on_for_a_gain_that_is_rounding_alone():
    """All alike, no swap helps; but in float32 (c + n) + n is 4 s less than c + (n + n)."""
    c, n = np.float32(10895388), np.float32(15313497)
    assert (c + (n + n)) - ((c + n) + n) == 4
    counts, ones = np.full((4, 2), 5, np.float32), np.ones((4, 2), np.float32)
    got = joint(counts, 2, c * ones, n * ones, np.float32(1))
    assert got.tolist() == balanced(counts, 2).tolist()
