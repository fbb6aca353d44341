"""The bars of one row of a Gantt chart as rectangles, few enough to draw and to see."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from cefl_jax.runtime.timeline import ACTIVITIES

NOISE = 2e-6  # share of the chart; what is shorter is a difference of rounded times
SHORT_BARS = 8  # that follow each other within SHORT_PIXELS are drawn as shares of the time
SHORT_PIXELS = 12
CELL_PIXELS = 6  # at least, of what shares are taken over
CELL_BARS = 60  # a multiple of the 2 to 6 bars of a local step, so that shares do not flicker
GAP = -1  # the activity of a gap between two bars


def rectangles(
    bars: Sequence[Sequence[Any]], span_s: float, pixel_s: float
) -> tuple[Float64[np.ndarray, "R 5"], bool]:
    """What to draw of one row: a rectangle a bar, or the shares of the time of many short ones.

    Neighbours of one activity are joined. A run of bars too short to be told apart becomes cells,
    in each of which the activities are stacked by their shares of the time.

    Args:
      bars: [activity, from_s, to_s] each, ascending.
      span_s: time that the chart spans.
      pixel_s: time that a pixel spans.
    Returns:
      Of each, activity (an index into ACTIVITIES), from s, to s, and from which to which share of
      the row's height; whether any are shares.
    """
    activity, start, end = _segments(bars, NOISE * span_s)
    if not activity.size:
        return np.empty((0, 5)), False
    short = np.zeros(activity.size, bool)
    if activity.size >= SHORT_BARS:
        quick = end[SHORT_BARS - 1:] - start[:1 - SHORT_BARS] < SHORT_PIXELS * pixel_s
        short = np.convolve(quick, np.ones(SHORT_BARS)) > 0.5  # those in any quick run
    whole = np.column_stack([activity, start, end, np.zeros(activity.size), np.ones(activity.size)])
    runs = np.flatnonzero(np.diff(np.concatenate([[0], short, [0]]))).reshape(-1, 2)
    shares = [_shares(activity[a:b], start[a:b], end[a:b], pixel_s) for a, b in runs]
    return np.concatenate([whole[~short & (activity != GAP)], *shares]), bool(short.any())


def _segments(bars, noise_s):
    """Bars and the gaps between them in order: activity, start and end."""
    bars = [(ACTIVITIES.index(what), start, end) for what, start, end in bars
            if end - start > noise_s]
    if not bars:
        return np.empty((3, 0))
    activity, start, end = np.array(bars).T
    first = np.concatenate([[True], (np.diff(activity) != 0) | (start[1:] - end[:-1] > noise_s)])
    last = np.concatenate([first[1:], [True]])
    activity, start, end = activity[first], start[first], end[last]
    gaps = np.flatnonzero(start[1:] - end[:-1] > noise_s)
    return (np.insert(activity, gaps + 1, GAP), np.insert(start, gaps + 1, end[gaps]),
            np.insert(end, gaps + 1, start[gaps + 1]))


def _shares(activity, start, end, pixel_s):
    """A run of short bars as rectangles whose heights are shares of the time, f64[R, 5]."""
    cells = max((end[-1] - start[0]) / (CELL_PIXELS * pixel_s), 1.0)
    each = CELL_BARS * int(np.ceil(activity.size / cells / CELL_BARS))
    at = np.arange(0, max(activity.size - each // 2, 1), each)  # a small rest joins the last cell
    edges = np.concatenate([start[at], end[-1:]])
    found, low = [], np.zeros(at.size)
    for number in np.unique(activity[activity != GAP]):
        spent = np.add.reduceat(np.where(activity == number, end - start, 0.0), at)
        high = low + spent / np.diff(edges)
        found.append(np.column_stack([np.full(at.size, number), edges[:-1], edges[1:], low, high]))
        low = high
    parts = np.concatenate(found)
    return parts[parts[:, 4] > parts[:, 3]]
