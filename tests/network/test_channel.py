"""Rates, times and energies of the computing power network against their equations."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.network import channel, ledger
from tests.compare import assert_close
from tests.oracles import network as oracle
from tests.quick import quick_jit

compiled = functools.cache(quick_jit)
MODEL_BITS = 32 * 21_840  # of Liu et al., whose table I the design cites


def decades(low, high):
    """Numbers spread evenly over 10**low to 10**high, as float32 holds them."""
    return st.floats(low, high).map(lambda exponent: float(np.float32(10**exponent)))


bandwidths_hz, powers_w = decades(5, 9), decades(-2, 2)
computing = decades(0, 10), decades(0, 3), decades(7, 11)
FORMULAS = {  # function, and its arguments and tolerance: 10^(-PL/10) loses 5e-6 in float32
    "shannon_rate": (
        channel.shannon_rate,
        (decades(-2, 2), bandwidths_hz, powers_w, decades(-21, -18)),
        2e-5,
    ),
    "communication_time": (
        ledger.communication_time,
        (decades(0, 10), bandwidths_hz, decades(-14, -6), powers_w, decades(-14, -8)),
        5e-6,
    ),
    "computation_time": (ledger.computation_time, computing, 1e-6),
    "computation_energy": (ledger.computation_energy, (*computing, decades(-29, -26)), 1e-6),
}


@pytest.mark.parametrize("name", FORMULAS)
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_formulas_equal_their_equations(name, data):
    """A faint link loses no more than any other, which log2(1 + x) would and log1p does not."""
    compute, arguments, tolerance = FORMULAS[name]
    drawn = data.draw(st.tuples(*arguments))
    wanted = getattr(oracle, name)(*drawn)
    assert_close(compiled(compute)(*drawn), wanted, tolerance)


@pytest.mark.parametrize(
    ("got", "wanted", "atol"),
    [
        (oracle.shannon_rate(0.6083754840266261, 10e6, 0.2, 3.981e-21), 25948858.23931885, 1e-4),
        (oracle.communication_time(MODEL_BITS, 1e6, 1e-8, 0.5, 1e-10), 0.1233, 1e-4),
        (oracle.communication_time(MODEL_BITS, 1e6, 1e-8, 0.5, 1e-10) * 0.5, 0.0616, 5e-5),
        (oracle.computation_energy(1e6, 20.0, 1e9, 2e-28), 2e-3, 1e-9),  # 1e-28 * 20 * 1e6 * 1e18
    ],
)
def test_the_equations_give_the_designs_numbers(got, wanted, atol):
    """The design prints 0.1233 s where the equation gives 0.12321."""
    assert_close(got, wanted, 0, atol=atol)


def test_nothing_to_send_or_to_compute_takes_no_time():
    assert float(ledger.communication_time(0.0, 1e6, 1e-8, 0.5, 1e-10)) == 0.0
    assert float(ledger.computation_time(0.0, 20.0, 1e9)) == 0.0
