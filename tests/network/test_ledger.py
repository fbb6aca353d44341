"""What a run has cost: the sum of its rounds, to the last byte."""

import math

import jax
import numpy as np

from cefl_jax.network import ledger
from cefl_jax.network.ledger import RoundCost
from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES
from tests.compare import assert_close
from tests.quick import quick_jit

KINDS = 3


def test_add_cost_sums_rounds_exactly():
    """Short and long rounds; and bytes from 2^53 on, where float64 begins to skip odd numbers."""
    rng, rounds = np.random.default_rng(0), 150
    spread = lambda width: np.float32(10 ** rng.uniform(-6, 6, (rounds, width)))  # noqa: E731
    size = rng.integers(0, 40, (rounds, len(LINKS), len(MESSAGES)))
    costs = RoundCost(spread(len(PHASES)), 2**size + rng.integers(0, 2, size.shape), spread(KINDS))
    assert costs.link_bytes.sum(0).min() > 2**31
    with jax.enable_x64(True):
        empty = ledger.empty_ledger(KINDS)
        start = empty._replace(link_bytes=empty.link_bytes + 2**53)
        rows = jax.tree.map(jax.numpy.asarray, costs)

    def add(total, cost):
        return ledger.add_cost(total, cost), None

    got = quick_jit(lambda start, rows: jax.lax.scan(add, start, rows)[0])(start, rows)
    for name in ("phase_s", "energy_j"):
        sums = [math.fsum(column) for column in getattr(costs, name).T.tolist()]
        assert_close(getattr(got, name), sums, 1e-13, each=True)
    np.testing.assert_array_equal(np.asarray(got.link_bytes) - 2**53, costs.link_bytes.sum(0))
