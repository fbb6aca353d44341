"""Means over seeds with their 95% confidence intervals, by Student's t."""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.95


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean and half the width of its 95% interval (Student's t) of the finite values.

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
