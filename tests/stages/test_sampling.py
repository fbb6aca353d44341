"""Sampling is uniform without replacement, among those who are available."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.data.federated import permute
from cefl_jax.stages.sampling import sample_clients
from tests.quick import quick_jit

SIZES = [(1, 1), (7, 7), (30, 4), (30, 30)]


@functools.cache
def sampler(population, sample):
    """One program of each size."""
    return quick_jit(lambda key, here: sample_clients(key, population, sample, here))


@functools.cache
def order(population, seed):
    """The whole walk: the keyed permutation from its first position to its last."""
    return np.asarray(permute(jax.random.key(seed), jnp.arange(population), population)).tolist()


@pytest.mark.parametrize(("population", "sample"), [(1, 1), (7, 7), (30, 4), (100_000, 50)])
def test_clients_are_distinct_and_of_the_population(population, sample):
    clients = np.asarray(sample_clients(jax.random.key(0), population, sample))
    assert clients.dtype == np.int32
    assert len(set(clients.tolist())) == sample
    assert clients.min() >= 0
    assert clients.max() < population


def test_every_client_and_every_ordered_pair_is_as_likely_as_another():
    keys = jax.random.split(jax.random.key(1), 20_000)
    draws = np.asarray(quick_jit(jax.vmap(lambda key: sample_clients(key, 6, 3)))(keys))
    check_even(draws, 6)


@pytest.mark.parametrize("sample", [2, 3])
def test_every_available_client_and_ordered_pair_is_as_likely_as_another(sample):
    """Five of nine are available, more than a round takes: the walk often needs more blocks."""
    present = np.array([0, 2, 3, 7, 8])
    here = jnp.zeros(9, bool).at[present].set(True)
    keys = jax.random.split(jax.random.key(2), 20_000)
    draws = np.asarray(quick_jit(jax.vmap(lambda key: sample_clients(key, 9, sample, here)))(keys))
    assert np.isin(draws, present).all()
    check_even(np.searchsorted(present, draws), len(present))


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(SIZES), st.integers(0, 2))
def test_takes_the_first_available_of_the_walk(data, size, seed):
    population, sample = size
    here = data.draw(st.lists(st.booleans(), min_size=population, max_size=population))
    found = [client for client in order(population, seed) if here[client]][:sample]
    found += [population] * (sample - len(found))
    clients = sampler(population, sample)(jax.random.key(seed), np.array(here))
    assert clients.dtype == np.int32
    assert clients.shape == (sample,)
    assert clients.tolist() == found


@pytest.mark.parametrize(("population", "sample"), [*SIZES, (5000, 64)])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_everybody_available_it_is_the_static_sample(population, sample, seed):
    key = jax.random.key(seed)
    clients = sampler(population, sample)(key, np.ones(population, bool))
    np.testing.assert_array_equal(clients, sample_clients(key, population, sample))


@pytest.mark.parametrize(("population", "sample"), SIZES)
def test_with_nobody_available_every_place_is_empty(population, sample):
    clients = sampler(population, sample)(jax.random.key(0), np.zeros(population, bool))
    assert clients.tolist() == [population] * sample


@pytest.mark.parametrize("last", [0, 17, 29])
def test_a_single_available_client_is_found_wherever_it_is(last):
    for seed in range(5):
        clients = sampler(30, 4)(jax.random.key(seed), np.arange(30) == last)
        assert clients.tolist() == [last, 30, 30, 30]


def check_even(draws, count):
    """Whether values below count, and ordered pairs of the first two columns, are all as likely."""
    assert stats.chisquare(np.bincount(draws.ravel(), minlength=count)).pvalue > 1e-4
    pairs = np.bincount(draws[:, 0] * count + draws[:, 1], minlength=count**2)
    distinct = pairs[np.arange(count**2) // count != np.arange(count**2) % count]
    assert pairs.sum() == distinct.sum()
    assert stats.chisquare(distinct).pvalue > 1e-4
