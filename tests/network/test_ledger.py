"""What a run has cost: the sum of its rounds, to the last byte."""

import math

import jax
import numpy as np
import pytest

from cefl_jax.network import ledger
from cefl_jax.network.ledger import RoundCost
from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES
from tests.compare import assert_close
from tests.quick import quick_jit

KINDS = 3


def make_bills(num_rounds, seed=0):
    """Bills of some rounds, leaves [rounds, ...]: short and long ones, of few bytes and of many."""
    rng = np.random.default_rng(seed)

    def spread(width):
        return np.float32(10 ** rng.uniform(-6, 6, (num_rounds, width)))

    size = rng.integers(0, 40, (num_rounds, len(LINKS), len(MESSAGES)))
    return RoundCost(spread(len(PHASES)), 2**size + rng.integers(0, 2, size.shape), spread(KINDS))


def run(start, bills):
    """The Ledger after all rounds, in one compiled loop as in a run."""

    def one(so_far, bill):
        return ledger.add_cost(so_far, bill), None

    with jax.enable_x64(True):
        bills = jax.tree.map(jax.numpy.asarray, bills)
    return quick_jit(lambda start, bills: jax.lax.scan(one, start, bills)[0])(start, bills)


def test_a_run_costs_the_sum_of_its_rounds():
    bills = make_bills(150)
    got = run(ledger.empty_ledger(KINDS), bills)
    for name in ("phase_s", "energy_j"):
        sums = [math.fsum(column) for column in getattr(bills, name).T.tolist()]
        assert_close(getattr(got, name), sums, 1e-13, each=True)
    np.testing.assert_array_equal(got.link_bytes, bills.link_bytes.sum(0))
    assert bills.link_bytes.sum(0).min() > 2**31


def test_bytes_stay_exact_next_to_two_to_the_fiftythree():
    """Where float64 begins to skip odd numbers."""
    empty = ledger.empty_ledger(KINDS)
    bills = make_bills(5)
    with jax.enable_x64(True):
        start = empty._replace(link_bytes=empty.link_bytes + 2**53)
    got = np.asarray(run(start, bills).link_bytes)
    np.testing.assert_array_equal(got - 2**53, bills.link_bytes.sum(0))


@pytest.mark.parametrize("num_kinds", [1, 4])
def test_before_the_first_round_nothing_is_spent(num_kinds):
    empty = ledger.empty_ledger(num_kinds)
    shapes = [(len(PHASES),), (len(LINKS), len(MESSAGES)), (num_kinds,)]
    for leaf, shape, dtype in zip(empty, shapes, ("float64", "int64", "float64"), strict=True):
        assert leaf.shape == shape
        assert leaf.dtype == dtype
        assert not np.any(leaf)
