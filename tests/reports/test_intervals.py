"""Intervals are SciPy's, and say nothing where there is nothing to say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.reports.tables import band, interval

NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))


@given(st.lists(NUMBERS, min_size=2, max_size=8))
def test_the_interval_is_students(values):
    mean, half = interval(values)
    spread = np.std(values, ddof=1) / math.sqrt(len(values))
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-6)
    if spread > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=spread)
        assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-6, abs=1e-6)
    else:
        assert half == pytest.approx(0.0, abs=1e-6)


def test_three_values_by_hand():
    # Standard deviation 1, t of 2 degrees at 97.5% is 4.302653 (any table of Student's t).
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.302653 / math.sqrt(3)))


def test_values_that_are_not_finite_do_not_count():
    assert interval([1.0, math.nan, 2.0, math.inf, 3.0]) == interval([1.0, 2.0, 3.0])


def test_one_value_has_no_interval_and_none_has_no_mean():
    mean, half = interval([0.25, math.nan])
    assert mean == 0.25
    assert math.isnan(half)
    assert all(map(math.isnan, interval([math.nan])))
    assert all(map(math.isnan, interval([])))


@given(st.integers(1, 5), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_band_is_an_interval_at_each_point(seeds, points, random):
    values = np.array([[random.uniform(0, 1) for _ in range(points)] for _ in range(seeds)])
    for mean, half, column in zip(*band(values), values.T, strict=True):
        assert (mean, half) == pytest.approx(interval(column), nan_ok=True)
