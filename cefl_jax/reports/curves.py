"""Learning curves over seeds: mean and 95% band of a metric against rounds, time, joules or bytes.

Seeds pass a point at different times, and may be evaluated at different rounds. So each seed's
curve is read, between its evaluations linearly, at common places, where all seeds of the group
have begun and none has ended.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cefl_jax.reports.intervals import band
from cefl_jax.reports.runs import Run

MOST_PLACES = 200


class Curve(NamedTuple):
    """A metric of one group against one axis, in basic units."""

    x: np.ndarray  # f64[P]
    mean: np.ndarray  # f64[P]
    half: np.ndarray  # f64[P] half of the 95% interval, nan for a single seed
    count: int  # type: ignore[assignment]  # for tuple.count; seeds that have the metric


def trace(runs: Sequence[Run], metric: str, axis: str) -> Curve | None:
    """The curve of a group.

    Args:
      runs: those that differ in their seed.
      metric: name of a metric.
      axis: name of a metric that never falls, such as round.
    Returns:
      Curve, or None when no run has both, or no place is common to those that have.
    """
    seeds = [points for run in runs if (points := _points(run, metric, axis))[0].size]
    if not seeds:
        return None
    begin = max(x[0] for x, _ in seeds)
    end = min(x[-1] for x, _ in seeds)
    if begin > end:
        return None
    places = _places([x for x, _ in seeds], begin, end, axis)
    values = np.array([np.interp(places, x, y) for x, y in seeds])  # [S, P]
    mean, half = band(values)
    return Curve(places, mean, half, len(seeds))


def _points(run, metric, axis):
    """Where a run has finite values of both."""
    x, y = (run.metrics.get(key, np.zeros(0)) for key in (axis, metric))
    if not x.size or not y.size:
        return np.zeros(0), np.zeros(0)
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _places(all_x, begin, end, axis):
    """All evaluations where they can be common to the seeds, else as many places evenly."""
    number = min(max(map(len, all_x)), MOST_PLACES)
    union = np.unique(np.concatenate(all_x))
    if axis == "round" or len(all_x) == 1:
        union = union[(begin <= union) & (union <= end)]
        if len(union) <= MOST_PLACES:
            return union
    return np.unique(np.linspace(begin, end, number))
