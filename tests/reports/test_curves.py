"""Curves over seeds against linear interpolation by hand, where seeds pass places unequally."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax.reports import curves
from cefl_jax.reports.curves import MAX_PLACES, trace
from cefl_jax.reports.tables import interval
from tests.reports.folders import make_run, section_of

METRIC, TIME = "test/accuracy", "sim/time_s"
POINTS = st.dictionaries(st.integers(1, 30), st.floats(0.0, 1.0), min_size=1, max_size=8).map(
    lambda points: sorted(points.items())
)


def run(seed, points, time=()):
    rounds, values = zip(*points, strict=True) if points else ((), ())
    return make_run(seed, rounds, **{METRIC: values}, **({TIME: time} if time else {}))


def between(points, place):
    """The value at a place on the line through points, which has none outside."""
    for (x, y), (next_x, next_y) in itertools.pairwise(points):
        if x <= place <= next_x:
            return y + (next_y - y) * (place - x) / (next_x - x)
    assert points[0][0] == place == points[-1][0]
    return points[0][1]


@given(st.lists(POINTS, min_size=1, max_size=4))
def test_trace_is_the_interval_of_the_seeds_at_every_round(seeds):
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


def test_trace_compares_seeds_at_equal_times():
    fast, slow = run(0, [(1, 0.2), (2, 0.4)], [10, 20]), run(1, [(1, 0.2), (2, 0.4)], [12, 32])
    curve = trace([fast, slow], METRIC, TIME)
    assert curve.x.tolist() == [12.0, 20.0]  # both have begun at 12, and one has ended at 20
    assert curve.mean == pytest.approx([(0.24 + 0.2) / 2, (0.4 + 0.28) / 2])
    alone = trace([fast], METRIC, TIME)
    assert (alone.x.tolist(), alone.mean.tolist()) == ([10, 20], [0.2, 0.4])
    assert np.isnan(alone.half).all()


def test_trace_passes_over_values_that_are_missing():
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
def test_trace_is_none_without_a_common_place(runs):
    assert trace(runs, METRIC, "round") is None
    assert trace(runs, METRIC, TIME) is None


def test_trace_has_a_bounded_number_of_places():
    curve = trace([run(0, [(x, 0.5) for x in range(1, 5001)])], METRIC, "round")
    assert len(curve.x) == MAX_PLACES
    assert (curve.x[0], curve.x[-1]) == (1, 5000)


def test_looks_of_many_groups_differ():
    section = section_of(*(make_run(0, [1], train__batch_size=size) for size in range(1, 31)))
    assert len({(look.colour, look.dash) for look in curves.looks(section)}) == 30


def test_figures_are_pdf_with_bands_within_what_a_share_can_be():
    metrics = ("sim/time_s", "sim/energy_j", "comm/bytes", "train/loss", "cluster/kl_mean")
    section = section_of(
        *(
            make_run(seed, [2, 4], **{METRIC: [0.2, y]}, **{key: [1.0, 3.0] for key in metrics})
            for seed, y in enumerate((0.5, 0.6))
        )
    )
    drawn = curves.figures(section, 0.6)
    axes = ("comm_bytes", "round", "sim_energy_j", "sim_time_s")
    names = ["cluster_kl_mean-by-round", *(f"test_accuracy-by-{axis}" for axis in axes)]
    assert sorted(drawn) == names
    assert all(content.startswith(b"%PDF") for content in drawn.values())
    metric, axis = curves.metrics_of(section)[0], curves.axes_of(section)[0]
    (*_, first), (*_, low, high) = curves.points(section, metric, axis)
    assert first == 0.2
    assert (low, high) == (0.0, 1.0)  # 0.55 ± 0.64, by t of one degree
