"""The draws behind skewed partitions: as published, and repaired no more than needed."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.data import partition, skew
from tests.compare import assert_close
from tests.data.examples import TEN_LABELS, label_counts, quick, seeds


def shares_of_labels(build, alpha, num_seeds=100, num_clients=5):
    """f64[seeds * 10, N]: each row one label's shares over the clients."""
    counts = [label_counts(build(alpha, seed), TEN_LABELS).T / 200 for seed in range(num_seeds)]
    return np.concatenate(counts)


def extended_with_all_labels(alpha, seed):
    return partition.extended_dirichlet(TEN_LABELS, 5, 10, alpha, seed)


def plain_dirichlet(alpha, seed):
    return partition.dirichlet(TEN_LABELS, 5, alpha, seed, min_size=1)


@pytest.mark.parametrize("build", [plain_dirichlet, extended_with_all_labels])
@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_deal_gives_shares_with_the_moments_of_a_dirichlet(build, alpha):
    # Dirichlet(alpha, ..., alpha) over N: mean 1/N, variance (1/N)(1 - 1/N) / (N alpha + 1), and
    # independent from label to label. Twice or half the alpha is off by 30 % or more in variance.
    shares = shares_of_labels(build, alpha)
    variance = 0.2 * 0.8 / (5 * alpha + 1)
    standard_error = np.sqrt(variance / len(shares))
    assert_close(shares.mean(axis=0), 0.2, 0, atol=4.5 * standard_error)
    assert_close(((shares - 0.2) ** 2).mean(), variance, 0.12)
    neighbours = ((shares[:-1] - 0.2) * (shares[1:] - 0.2)).mean(axis=0)
    assert_close(neighbours, 0.0, 0, atol=4.5 * variance / np.sqrt(len(shares)))


def test_quantity_skew_gives_sizes_of_a_beta_distribution():
    # One of N shares ~ Dirichlet(alpha) is Beta(alpha, (N - 1) alpha); here N = 4, alpha = 2.
    labels = np.zeros(1000, int)
    share = [
        len(partition.quantity_skew(labels, 4, 2.0, seed, min_size=1)[1]) / 1000
        for seed in range(2000)
    ]
    assert stats.kstest(share, stats.beta(2, 6).cdf).pvalue > 1e-3
    assert stats.kstest(share, stats.beta(3, 9).cdf).pvalue < 1e-6


def sizes_after_repair_one_by_one(sizes, min_size):
    """Sizes when each example is moved on its own, from the first of the largest."""
    sizes = list(sizes)
    needed = sum(max(min_size - size, 0) for size in sizes)
    after = [max(size, min_size) for size in sizes]
    for _ in range(needed):
        after[sizes.index(max(sizes))] -= 1
        sizes[sizes.index(max(sizes))] -= 1
    return after


@quick
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.data(), seeds)
def test_raise_to_min_size_takes_from_the_largest_and_only_what_is_missing(sizes, data, seed):
    min_size = data.draw(st.integers(0, sum(sizes) // len(sizes)))
    owner = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    repaired = skew.raise_to_min_size(np.random.default_rng(seed), owner, len(sizes), min_size)
    after = sizes_after_repair_one_by_one(sizes, min_size)
    assert np.bincount(repaired, minlength=len(sizes)).tolist() == after
    assert (repaired != owner).sum() == sum(max(min_size - size, 0) for size in sizes)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.data(), seeds)
def test_allocate_labels_meets_every_bound_that_can_be_met(num_clients, num_labels, data, seed):
    per_client = data.draw(st.integers(1, num_labels))
    bounds = [
        data.draw(st.lists(st.integers(0, num_clients), min_size=num_labels, max_size=num_labels))
        for _ in range(2)
    ]
    fewest, most = np.minimum(*bounds), np.maximum(*bounds)
    assume(fewest.sum() <= num_clients * per_client <= most.sum())
    holds = skew.allocate_labels(np.random.default_rng(seed), num_clients, per_client, fewest, most)
    assert (holds.sum(axis=1) == per_client).all()
    assert (fewest <= holds.sum(axis=0)).all()
    assert (holds.sum(axis=0) <= most).all()


def test_allocate_labels_is_uniform_when_nothing_binds():
    num_clients, num_labels, per_client = 3000, 6, 2
    holds = skew.allocate_labels(
        np.random.default_rng(5),
        num_clients,
        per_client,
        np.zeros(num_labels, int),
        np.full(num_labels, num_clients),
    )
    pairs = np.unique(holds, axis=0, return_counts=True)[1]
    assert len(pairs) == 15  # 6 choose 2
    assert stats.chisquare(pairs).pvalue > 1e-3
