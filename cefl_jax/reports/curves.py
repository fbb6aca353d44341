"""Learning curves over seeds, and their pictures: one Vega-Lite specification for page and PDF.

Seeds pass a point at different times, and may be evaluated at different rounds. So each seed's
curve is read, between its evaluations linearly, at common places, where all seeds of the group
have begun and none has ended.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import vl_convert

from cefl_jax.reports.formats import Unit
from cefl_jax.reports.groups import Section
from cefl_jax.reports.runs import Run
from cefl_jax.reports.tables import ACCURACY, AXES, CLUSTER, NAMES, band, is_share, unit

MAX_PLACES = 200
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))
NUMBERS, PERCENTS = ".6~g", ".4~%"  # formats of Vega
UNDRAWN = ("sim/", "comm/", "wall/", "round")
"""Beginnings of metrics that are axes, or of no interest over the rounds."""

FIGURES = (
    *((ACCURACY, axis) for axis in AXES),
    ("test/cloud_accuracy", "round"),
    (f"{CLUSTER}kl_mean", "round"),
)
"""Metric and axis of what is drawn for print, where there is any."""


class Curve(NamedTuple):
    """A metric of one group against one axis, in basic units."""

    x: np.ndarray  # f64[P]
    mean: np.ndarray  # f64[P]
    half: np.ndarray  # f64[P] half of the 95% interval, nan for a single seed


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
    return Curve(places, *band(values))


def _points(run, metric, axis):
    """Where a run has finite values of both."""
    if not {axis, metric} <= run.metrics.keys():
        return np.zeros(0), np.zeros(0)
    x, y = run.metrics[axis], run.metrics[metric]
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _places(all_x, begin, end, axis):
    """All evaluations where they can be common to the seeds, else as many places evenly."""
    if axis == "round" or len(all_x) == 1:
        union = np.unique(np.concatenate(all_x))
        union = union[(begin <= union) & (union <= end)]
        if len(union) <= MAX_PLACES:
            return union
    return np.unique(np.linspace(begin, end, min(max(map(len, all_x)), MAX_PLACES)))


class Look(NamedTuple):
    """How a group is drawn."""

    label: str
    method: str
    settings: tuple
    colour: str
    dash: tuple


class Axis(NamedTuple):
    """One thing that curves can be drawn against, or one that they can show."""

    key: str
    title: str
    unit: Unit
    format: str  # of Vega's numbers


def looks(section: Section) -> list[Look]:
    """Returns the Look of each group: colours first, then dashes, in the order of the groups."""
    styles = itertools.cycle(itertools.product(DASHES, COLOURS))
    return [
        Look(group.label, group.method, group.settings, colour, dash)
        for group, (dash, colour) in zip(section.groups, styles, strict=False)
    ]


def metrics_of(section: Section) -> list[Axis]:
    """Returns the Axis of each metric of the runs that a curve can show, accuracy first."""
    keys = dict.fromkeys(key for run in section.runs for key in run.metrics)
    in_order = dict.fromkeys([*(key for key in NAMES if key in keys), *keys])
    return [
        Axis(key, NAMES.get(key, key), Unit(), PERCENTS if is_share(key) else NUMBERS)
        for key in in_order
        if not key.startswith(UNDRAWN)
    ]


def axes_of(section: Section) -> list[Axis]:
    """Returns the Axis of rounds, time, energy and bytes, in units that fit the longest run."""
    axes = []
    for key in AXES:
        values = [run.metrics[key] for run in section.runs if key in run.metrics]
        if values:
            fitting = unit(key, np.concatenate(values))
            title = NAMES[key] + (f" ({fitting.name})" if fitting.name else "")
            axes.append(Axis(key, title, fitting, NUMBERS))
    return axes


def points(section: Section, metric: Axis, axis: Axis) -> list[tuple]:
    """Returns the curves of all groups as tuples of the group's place, x, mean, low end, high end.

    In the unit of the axis, with as many digits as a screen shows. Ends of a share are cut to what
    a share can be.
    """
    found: list[tuple] = []
    for place, group in enumerate(section.groups):
        curve = trace(group.runs, metric.key, axis.key)
        if curve is not None:
            half = np.nan_to_num(curve.half)
            low, high = curve.mean - half, curve.mean + half
            if is_share(metric.key):
                low, high = np.maximum(low, 0.0), np.minimum(high, 1.0)
            rows = np.transpose([curve.x / axis.unit.size, curve.mean, low, high])
            found += [(place, *(float(f"{value:.6g}") for value in row)) for row in rows]
    return found


def specification(all_looks: list[Look], metric: Axis, axis: Axis, target: float) -> dict[str, Any]:
    """Returns the Vega-Lite specification of curves with bands, without its data set `rows`.

    Its layers are bands, lines, points with tooltips, and, for accuracy, the target.

    Args:
      all_looks: of the groups.
      metric: Axis of what is shown.
      axis: Axis of what it is shown against.
      target: accuracy that is marked.
    """
    colour = _by_label(alt.Color, all_looks, "colour")
    x = alt.X("x:Q", title=axis.title, axis=alt.Axis(format=axis.format, tickCount=8))
    y_axis, y_scale = alt.Axis(format=metric.format, tickCount=8), alt.Scale(zero=False)
    low = alt.Y("low:Q", title=metric.title, scale=y_scale, axis=y_axis)
    y = alt.Y("y:Q", title=metric.title, scale=y_scale, axis=y_axis)
    shown = {"x": axis.title, "y": metric.title, "low": "low end of 95%", "high": "high end of 95%"}
    tooltip = [
        alt.Tooltip("label:N", title="group"),
        *(alt.Tooltip(f"{key}:Q", title=name, format=".4~g") for key, name in shown.items()),
    ]
    base = alt.Chart(alt.NamedData("rows"))
    layers = [
        base.mark_area(opacity=0.18).encode(x, low, alt.Y2("high"), colour),
        base.mark_line(strokeWidth=2).encode(
            x, y, colour, _by_label(alt.StrokeDash, all_looks, "dash")
        ),
        base.mark_point(filled=True, size=18).encode(x, y, colour, tooltip=tooltip),
    ]
    if metric.key == ACCURACY:
        rule = alt.Chart(alt.InlineData([{"target": target}])).mark_rule(
            strokeDash=[2, 3], color="#888888"
        )
        layers.append(rule.encode(alt.Y("target:Q", title=metric.title)))
    return alt.layer(*layers).properties(width=560, height=340).to_dict()


def _by_label(channel, all_looks, part):
    labels = [look.label for look in all_looks]
    scale = alt.Scale(domain=labels, range=[getattr(look, part) for look in all_looks])
    return channel("label:N", title=None, sort=labels, scale=scale)


PRINT = {
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "gridColor": "#e4e4e4",
    },
    "legend": {
        "orient": "bottom",
        "columns": 2,
        "labelFontSize": 12,
        "labelLimit": 600,
        "symbolOpacity": 1.0,
    },
}


def figures(section: Section, target: float) -> dict[str, bytes]:
    """Draws the curves for print: {name: bytes of a PDF}."""
    metrics = {metric.key: metric for metric in metrics_of(section)}
    axes = {axis.key: axis for axis in axes_of(section)}
    all_looks, drawn = looks(section), {}
    for metric, axis in FIGURES:
        if metric in metrics and axis in axes:
            rows = [
                {"label": all_looks[place].label, "x": x, "y": y, "low": low, "high": high}
                for place, x, y, low, high in points(section, metrics[metric], axes[axis])
            ]
            spec = specification(all_looks, metrics[metric], axes[axis], target)
            spec |= {"datasets": {**spec.get("datasets", {}), "rows": rows}, "config": PRINT}
            name = f"{metric}-by-{axis}".replace("/", "_")
            drawn[name] = vl_convert.vegalite_to_pdf(spec)
    return drawn


def chart_data(section: Section, target: float) -> dict[str, Any]:
    """Returns what the script of the page draws a section's charts from, as JSON can hold it.

    Returns:
      The looks of the groups, the metrics and axes to choose from, the points of each
      pair of them, and a specification for Vega-Lite, or {} for a section without curves.
    """
    axes = axes_of(section)
    drawn = {
        metric: {axis.key: points(section, metric, axis) for axis in axes}
        for metric in metrics_of(section)
    }
    shown = [metric for metric, by_axis in drawn.items() if any(by_axis.values())]
    if not shown:
        return {}
    accuracy = Axis(ACCURACY, NAMES[ACCURACY], Unit(), PERCENTS)
    return {
        "looks": [look._asdict() for look in looks(section)],
        "axes": [{"key": axis.key, "title": axis.title} for axis in axes],
        "metrics": [
            {
                "key": metric.key,
                "title": metric.title,
                "format": metric.format,
                "clusters": metric.key.startswith(CLUSTER),
            }
            for metric in shown
        ],
        "points": {metric.key: by_axis for metric, by_axis in drawn.items()},
        "target": ACCURACY,
        "spec": specification(looks(section), accuracy, axes[0], target),
    }
