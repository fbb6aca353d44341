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
def make_sampler(population, sample):
    return quick_jit(lambda key, here: sample_clients(key, population, sample, here))


@functools.cache
def walk(population, seed):
    """The keyed permutation from its first position to its last."""
    return np.asarray(permute(jax.random.key(seed), jnp.arange(population), population)).tolist()


@st.composite
def availabilities(draw):
    """A population, how many to sample, and who is available: anybody, one, nobody or all."""
    population, sample = draw(st.sampled_from(SIZES))
    some = st.lists(st.booleans(), min_size=population, max_size=population).map(np.array)
    one = st.integers(0, population - 1).map(lambda k: np.arange(population) == k)
    alike = st.booleans().map(lambda here: np.full(population, here))
    return population, sample, draw(some | one | alike)


@settings(deadline=None, max_examples=100)
@given(availabilities(), st.integers(0, 2))
def test_sample_clients_takes_the_first_available_of_the_walk(case, seed):
    population, sample, here = case
    found = [client for client in walk(population, seed) if here[client]][:sample]
    clients = make_sampler(population, sample)(jax.random.key(seed), here)
    assert clients.dtype == np.int32
    assert clients.tolist() == found + [population] * (sample - len(found))


@pytest.mark.parametrize(("population", "sample"), [*SIZES, (100_000, 50)])
def test_sample_clients_with_everybody_available_needs_no_availability(population, sample):
    key = jax.random.key(1)
    clients = np.asarray(sample_clients(key, population, sample))
    assert clients.dtype == np.int32
    assert len(set(clients.tolist())) == sample
    assert set(clients.tolist()) <= set(range(population))
    available = make_sampler(population, sample)(key, np.ones(population, bool))
    np.testing.assert_array_equal(available, clients)


@pytest.mark.parametrize(
    ("population", "sample", "present"),
    [(6, 3, None), (9, 2, [0, 2, 3, 7, 8]), (9, 3, [0, 2, 3, 7, 8])],
)
def test_sample_clients_draws_clients_and_ordered_pairs_as_often(population, sample, present):
    """With five of nine available, the walk often needs more than a block of positions."""
    here = None if present is None else jnp.zeros(population, bool).at[jnp.array(present)].set(True)
    keys = jax.random.split(jax.random.key(1), 20_000)
    draw = jax.vmap(lambda key: sample_clients(key, population, sample, here))
    draws, clients = np.asarray(quick_jit(draw)(keys)), np.array(present or range(population))
    assert np.isin(draws, clients).all()
    draws, count = np.searchsorted(clients, draws), len(clients)
    assert stats.chisquare(np.bincount(draws.ravel(), minlength=count)).pvalue > 1e-4
    pairs = np.bincount(draws[:, 0] * count + draws[:, 1], minlength=count**2)
    distinct = pairs.reshape(count, count)[~np.eye(count, dtype=bool)]
    assert distinct.sum() == len(keys)
    assert stats.chisquare(distinct).pvalue > 1e-4
