"""Means over seeds with 95% intervals (Student's t): of single values, and along learning curves.

Seeds pass a point at different times, and may be evaluated at different rounds. So each seed's
curve is read, between its evaluations linearly, at common places, where all seeds of the group
have begun and none has ended.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from cefl_jax.reports.runs import Run

LEVEL = 0.95
MAX_PLACES = 200


class Curve(NamedTuple):
    """A metric of one group against one axis, in basic units."""

    x: np.ndarray  # f64[P]
    mean: np.ndarray  # f64[P]
    half: np.ndarray  # f64[P] half of the 95% interval, nan for a single seed
    count: int  # type: ignore[assignment]  # for tuple.count; seeds that have the metric


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Returns the mean and half the width of its 95% interval (Student's t) of the finite values.

    Args:
      values: one a seed.
    Returns:
      The mean, nan without a finite value; the half width, nan with fewer than two.
    """
    values = np.asarray([value for value in values if math.isfinite(value)])
    if not values.size:
        return math.nan, math.nan
    mean, half = band(values[:, None])
    return float(mean[0]), float(half[0])


def band(
    values: Float[np.ndarray, "S P"],
) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    """`interval` at every point of a curve at once.

    Args:
      values: finite values of S seeds, at least one, at P points.
    Returns:
      Means, and half widths, nan for a single seed.
    """
    seeds = len(values)
    if seeds == 1:
        return values[0], np.full(values.shape[1], math.nan)
    scale = stats.t.ppf(0.5 + LEVEL / 2.0, seeds - 1) / math.sqrt(seeds)
    return values.mean(0), scale * values.std(0, ddof=1)


def trace(runs: Sequence[Run], metric: str, axis: str) -> Curve | None:
    """Returns the curve of a group.

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
    number = min(max(map(len, all_x)), MAX_PLACES)
    union = np.unique(np.concatenate(all_x))
    if axis == "round" or len(all_x) == 1:
        union = union[(begin <= union) & (union <= end)]
        if len(union) <= MAX_PLACES:
            return union
    return np.unique(np.linspace(begin, end, number))
