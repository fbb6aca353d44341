"""The permutation that is never stored: a bijection, and as random as chi-square can tell."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from cefl_jax.data.federated import permute
from tests.quick import quick_jit

LONGEST = 70
DRAWS = 40_000
MIN_P = 1e-4  # keys are fixed: an even shuffle fails no line below, nor most other keys'


@functools.cache
def drawn(size):
    """Where `DRAWS` permutations send every index below size, [DRAWS, size]."""
    return np.asarray(permute_all(jax.random.split(jax.random.key(0), DRAWS), size))[:, :size]


@quick_jit
def permute_all(keys, size):
    """One program for every size: indices past the end are folded back."""
    return jax.vmap(lambda key: permute(key, np.arange(16) % size, size))(keys)


def evenness(values, count):
    """p of the hypothesis that values are uniform below count."""
    return stats.chisquare(np.bincount(values, minlength=count)).pvalue


def p_values(permutations):
    """p that permutations [n, size] send every index, and pairs of indices, anywhere alike."""
    size = permutations.shape[1]
    p = [evenness(permutations[:, i], size) for i in range(size)]
    for i, j in {(0, 1), (0, size - 1), (size // 2, 0), (1, size // 2)}:
        if i != j:
            first, second = permutations[:, i], permutations[:, j]
            later = second - (second > first)  # of the size - 1 places that are left
            p.append(evenness(first * (size - 1) + later, size * (size - 1)))
    return p


def test_permute_is_a_bijection_for_every_size():
    sizes, index = np.arange(1, LONGEST + 1), np.arange(LONGEST)
    every = quick_jit(jax.vmap(lambda n: permute(jax.random.key(n), index % n, n)))(sizes)
    for size, row in zip(sizes, np.asarray(every), strict=True):
        assert sorted(row[:size].tolist()) == [*range(size)]
    large = np.asarray(quick_jit(permute)(jax.random.key(1), np.arange(60_000), 60_000))
    np.testing.assert_array_equal(np.sort(large), np.arange(60_000))
    assert (large != np.arange(60_000)).mean() > 0.99


def test_permute_is_the_same_where_its_rounds_are_unrolled(monkeypatch):
    """As on all platforms but CPUs; of the two programs JAX would take that of a CPU here."""
    keys, size = jax.random.split(jax.random.key(2), 5), 37
    looped = permute_all(keys, size)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    unrolled = quick_jit(lambda keys: permute_all.__wrapped__(keys, size))(keys)
    np.testing.assert_array_equal(unrolled, looped)


def test_permute_of_a_constant_size_of_one_compiles():
    """It once sent the compiler for CPUs into an endless simplification."""
    keys = jax.random.split(jax.random.key(0), 3)
    assert not np.any(quick_jit(jax.vmap(lambda key: permute(key, np.arange(1), 1)))(keys))


@pytest.mark.parametrize("size", [2, 3, 5, 8, 11, 16])
def test_permute_sends_every_pair_of_places_anywhere_alike(size):
    assert min(p_values(drawn(size))) > MIN_P


@pytest.mark.parametrize("size", [3, 4, 5])
def test_permute_makes_every_permutation_alike(size):
    code = drawn(size) @ size ** np.arange(size)
    _, code = np.unique(code, return_inverse=True)
    assert evenness(code, np.prod(np.arange(1, size + 1))) > MIN_P


def test_p_values_find_out_what_is_not_random():
    rng = np.random.default_rng(0)
    start = rng.integers(0, 16, (DRAWS, 1))
    rotation = (start + np.arange(16)) % 16
    affine = (start + (2 * rng.integers(0, 8, (DRAWS, 1)) + 1) * np.arange(16)) % 16
    for shuffles in (rotation, affine, np.tile(np.arange(16), (DRAWS, 1))):
        assert min(p_values(shuffles)) < 1e-30
    even = rng.permuted(np.tile(np.arange(16), (DRAWS, 1)), axis=1)
    assert min(p_values(even)) > MIN_P
