"""Curves over seeds against linear interpolation by hand, where seeds pass places unequally."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax.reports.curves import MAX_PLACES, trace
from cefl_jax.reports.tables import interval
from tests.reports.folders import make_run

METRIC, TIME = "test/accuracy", "sim/time_s"


def run(seed, points, time=()):
    rounds, values = zip(*points, strict=True) if points else ((), ())
    times = {TIME: time} if time else {}
    return make_run(seed, rounds, **{METRIC: values}, **times)


def between(points, place):
    """The value at a place on the line through points, which has none outside."""
    for (x, y), (next_x, next_y) in itertools.pairwise(points):
        if x <= place <= next_x:
            return y + (next_y - y) * (place - x) / (next_x - x)
    assert points[0][0] == place == points[-1][0]
    return points[0][1]


POINTS = st.dictionaries(st.integers(1, 30), st.floats(0.0, 1.0), min_size=1, max_size=8).map(
    lambda points: sorted(points.items())
)


@given(st.lists(POINTS, min_size=1, max_size=4))
def test_at_every_round_it_is_the_interval_of_the_seeds(seeds):
    curve = trace([run(seed, points) for seed, points in enumerate(seeds)], METRIC, "round")
    begin = max(points[0][0] for points in seeds)
    end = min(points[-1][0] for points in seeds)
    evaluated = {x for points in seeds for x, _ in points if begin <= x <= end}
    if not evaluated:
        assert curve is None
        return
    assert curve.x.tolist() == sorted(evaluated)
    for x, mean, half in zip(*curve, strict=True):
        expected = interval([between(points, x) for points in seeds])
        assert (mean, half) == pytest.approx(expected, nan_ok=True, abs=1e-9)


def test_seeds_that_take_unequal_times_are_compared_at_equal_times():
    fast, slow = run(0, [(1, 0.2), (2, 0.4)], [10, 20]), run(1, [(1, 0.2), (2, 0.4)], [12, 32])
    curve = trace([fast, slow], METRIC, TIME)
    assert curve.x.tolist() == [12.0, 20.0]  # both have begun at 12, and one has ended at 20
    assert curve.mean == pytest.approx([(0.24 + 0.2) / 2, (0.4 + 0.28) / 2])


def test_one_seed_is_its_own_curve_and_has_no_band():
    curve = trace([run(0, [(1, 0.2), (2, 0.4)], [10, 20])], METRIC, TIME)
    assert curve.x.tolist() == [10, 20]
    assert curve.mean.tolist() == [0.2, 0.4]
    assert np.isnan(curve.half).all()


def test_values_that_are_missing_are_passed_over():
    curve = trace([run(0, [(1, 0.2), (2, math.nan), (3, 0.4)])], METRIC, "round")
    assert curve.x.tolist() == [1, 3]
    both = [run(0, [(1, 0.2), (3, 0.4)]), run(1, [(1, math.nan), (3, math.nan)])]
    assert np.isnan(trace(both, METRIC, "round").half).all()  # of one seed


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [run(0, [])],
        [run(0, [(1, math.nan)])],
        [make_run(0, [1, 2])],
        [run(0, [(1, 0.1), (2, 0.2)]), run(1, [(3, 0.1), (4, 0.2)])],
    ],
)
def test_what_has_no_common_place_has_no_curve(runs):
    assert trace(runs, METRIC, "round") is None
    assert trace(runs, METRIC, TIME) is None


def test_a_long_run_has_a_bounded_number_of_places():
    curve = trace([run(0, [(x, 0.5) for x in range(1, 5001)])], METRIC, "round")
    assert len(curve.x) == MAX_PLACES
    assert (curve.x[0], curve.x[-1]) == (1, 5000)
