"""Partitions: every example once, for every request that can be met, and as skewed as asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.data import partition
from tests.compare import assert_close
from tests.data.examples import (
    TEN_LABELS,
    alphas,
    check_partition,
    label_counts,
    label_lists,
    quick,
    seeds,
)

BUILDERS = {
    "iid": lambda labels, seed: partition.iid(labels, 20, seed),
    "dirichlet": lambda labels, seed: partition.dirichlet(labels, 20, 0.3, seed),
    "shards": lambda labels, seed: partition.shards(labels, 20, 2, seed),
    "extended": lambda labels, seed: partition.extended_dirichlet(labels, 20, 3, 0.5, seed),
    "quantity": lambda labels, seed: partition.quantity_skew(labels, 20, 0.5, seed),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_partitions_follow_from_the_seed_and_nothing_else(build):
    np.random.seed(1)  # noqa: NPY002, the global stream must not matter
    first = partition.to_json(build(TEN_LABELS, 7))
    np.random.seed(2)  # noqa: NPY002
    assert partition.to_json(build(TEN_LABELS.astype(np.uint8), 7)) == first
    assert partition.to_json(build(TEN_LABELS, 8)) != first


@quick
@given(label_lists, st.data(), seeds)
def test_iid_is_even(labels, data, seed):
    num_clients = data.draw(st.integers(1, len(labels)))
    clients = partition.iid(labels, num_clients, seed)
    check_partition(clients, len(labels), num_clients)
    sizes = [len(indices) for indices in clients]
    assert max(sizes) - min(sizes) <= 1


@quick
@given(label_lists, st.data(), alphas, seeds)
@pytest.mark.parametrize("build", [partition.dirichlet, partition.quantity_skew])
def test_dirichlet_and_quantity_skew_end_for_every_alpha_with_clients_large_enough(
    build, labels, data, alpha, seed
):
    num_clients = data.draw(st.integers(1, len(labels)))
    min_size = data.draw(st.integers(1, len(labels) // num_clients))
    clients = build(labels, num_clients, alpha, seed, min_size)
    check_partition(clients, len(labels), num_clients, min_size)


@quick
@given(label_lists, st.data(), seeds)
def test_shards_are_even_and_hold_few_labels(labels, data, seed):
    num_labels = len(set(labels))
    per_client = data.draw(st.integers(1, num_labels))
    num_clients = data.draw(st.integers(1, len(labels) // per_client))
    clients = partition.shards(labels, num_clients, per_client, seed)
    check_partition(clients, len(labels), num_clients)
    sizes = [len(indices) for indices in clients]
    assert max(sizes) - min(sizes) <= per_client
    # Y - 1 borders between labels, each within at most one shard.
    places = (label_counts(clients, labels) > 0).sum()
    assert places <= num_clients * per_client + num_labels - 1


def test_shards_that_divide_the_labels_hold_one_label_each():
    clients = partition.shards(TEN_LABELS, 50, 2, seed=3)  # 100 shards of 20, 10 a label
    assert {len(indices) for indices in clients} == {40}
    counts = label_counts(clients, TEN_LABELS)
    assert set(np.unique(counts)) == {0, 20, 40}
    assert (counts > 0).sum(axis=1).max() == 2


@settings(max_examples=150, deadline=None)
@given(label_lists, st.data(), alphas, seeds)
def test_extended_dirichlet_gives_exactly_so_many_labels_or_cannot(labels, data, alpha, seed):
    available = np.unique(labels, return_counts=True)[1]
    per_client = data.draw(st.integers(1, len(available)))
    num_clients = data.draw(st.integers(1, len(labels)))
    min_size = data.draw(st.integers(1, max(1, len(labels) // num_clients)))
    # Label y can serve up to n_y // least clients, at most all; it must serve one.
    least = int(np.ceil(min_size / per_client))
    most = np.minimum(available // least, num_clients)
    places = num_clients * per_client
    possible = most.min() >= 1 and len(available) <= places <= most.sum()
    arguments = (labels, num_clients, per_client, alpha, seed, min_size)
    if not possible:
        with pytest.raises(ValueError, match="num_clients"):
            partition.extended_dirichlet(*arguments)
        return
    clients = partition.extended_dirichlet(*arguments)
    check_partition(clients, len(labels), num_clients, min_size)
    counts = label_counts(clients, labels)
    assert ((counts > 0).sum(axis=1) == per_client).all()
    assert counts[counts > 0].min() >= least


@pytest.mark.parametrize("name", ["iid", "quantity"])
def test_iid_and_quantity_skew_mix_labels(name):
    labels = np.sort(TEN_LABELS)
    counts = label_counts(BUILDERS[name](labels, 0), labels)
    assert stats.chi2_contingency(counts).pvalue > 1e-3


@pytest.mark.parametrize("name", ["dirichlet", "extended"])
def test_dirichlet_takes_a_clients_examples_of_a_label_from_anywhere(name):
    labels = np.sort(TEN_LABELS)
    place = np.concatenate(
        [indices % 200 - (indices % 200).mean() for indices in BUILDERS[name](labels, 0)]
    )
    # Shuffled, places spread as 0..199 do; cut in runs, each client would hold neighbours.
    assert_close(place.std(), 200 / np.sqrt(12), 0.1)


def test_dirichlet_of_a_tiny_alpha_gives_each_label_to_one_client_all_equally_likely():
    winners = []
    for seed in range(200):
        counts = label_counts(partition.dirichlet(TEN_LABELS, 4, 1e-6, seed, 1), TEN_LABELS)
        assert (counts.max(axis=0) >= 200 - 3).all()  # 3: the most that repair takes
        winners.extend(counts.argmax(axis=0))
    assert stats.chisquare(np.bincount(winners)).pvalue > 1e-3


def test_dirichlet_fills_a_needy_client_with_few_labels():
    counts = label_counts(partition.dirichlet(TEN_LABELS, 100, 1e-6, 0, 10), TEN_LABELS)
    assert counts.sum(axis=1).min() == 10
    assert (counts > 0).sum(axis=1).max() <= 3


@pytest.mark.parametrize("alpha", [1e6, 1e300])
def test_dirichlet_of_a_huge_alpha_splits_each_label_evenly(alpha):
    counts = label_counts(partition.dirichlet(TEN_LABELS, 8, alpha, seed=0), TEN_LABELS)
    assert abs(counts - 25).max() <= 1


LOPSIDED = [0] * 99 + [1]
IMPOSSIBLE = [
    (partition.iid, (TEN_LABELS, 0, 0), "num_clients is 0"),
    (partition.iid, (TEN_LABELS, 2.5, 0), "num_clients is 2.5"),
    (partition.iid, (TEN_LABELS, True, 0), "num_clients is True"),
    (partition.iid, (TEN_LABELS, 2001, 0), "at most 2000"),
    (partition.iid, (TEN_LABELS, 5, -1), "seed is -1"),
    (partition.iid, (np.zeros(10), 5, 0), "float64"),
    (partition.iid, (np.zeros((5, 2), int), 5, 0), r"\[5, 2\]"),
    (partition.iid, (np.ma.array([0, 1], mask=[0, 1]), 1, 0), "labels are masked in places; leav"),
    (partition.dirichlet, (TEN_LABELS, 201, 1.0, 0), "at most 200 "),
    (partition.dirichlet, (TEN_LABELS, 5, 1.0, 0, 0), "min_size is 0"),
    (partition.dirichlet, (TEN_LABELS, 5, 0.0, 0), "alpha is 0.0"),
    (partition.dirichlet, (TEN_LABELS, 5, "1", 0), "alpha is '1'"),
    (partition.quantity_skew, (TEN_LABELS, 5, np.nan, 0), "alpha is nan"),
    (partition.shards, (TEN_LABELS, 5, 11, 0), "labels_per_client is 11"),
    (partition.shards, (TEN_LABELS, 300, 7, 0), "300 x 7 shards"),
    (partition.extended_dirichlet, (TEN_LABELS, 5, 11, 1.0, 0), "labels_per_client is 11"),
    (partition.extended_dirichlet, (TEN_LABELS, 3, 3, 1.0, 0), "to nobody"),
    (partition.extended_dirichlet, (LOPSIDED, 2, 2, 1.0, 0), "rarest"),
]


@pytest.mark.parametrize(("build", "arguments", "message"), IMPOSSIBLE)
def test_partitions_that_cannot_be_are_refused_in_one_line(build, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        build(*arguments)
    assert "\n" not in str(error.value)
