"""The tables of a report, as data: what is averaged over seeds, and what is said below."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from cefl_jax.reports import quantities
from cefl_jax.reports.curves import interval
from cefl_jax.reports.groups import Section, by_section
from cefl_jax.reports.quantities import ACCURACY, CLOUD_ACCURACY, PERCENT, Unit
from cefl_jax.reports.runs import ALL_BYTES, Run

INTERVAL = "Mean over seeds ± half of the 95% interval (Student's t)."


COSTS = {
    "round": ("rounds", "rounds"),
    "sim/time_s": ("time_s", "simulated time"),
    "sim/energy_j": ("energy_j", "energy"),
    ALL_BYTES: ("bytes", "bytes"),
}
"""Key and title of what is spent until the target."""


class Estimate(NamedTuple):
    """A mean over seeds, in basic units (s, J, B, shares of one)."""

    mean: float
    half: float  # half of the 95% interval; nan for a single seed
    count: int  # type: ignore[assignment]  # for tuple.count; seeds that have the value
    seeds: int  # seeds of the group


class Column(NamedTuple):
    """One column; its cells are Estimate, text, or None for what a method does not have."""

    key: str  # in files
    title: str
    unit: Unit = Unit()
    most_decimals: int = 6


class Table(NamedTuple):
    """What is known of each group of a section."""

    name: str  # in names of files
    columns: tuple
    labels: list  # of the rows
    rows: list  # lists of cells, one a column
    notes: list  # sentences that belong below


def estimate(values: Sequence[float]) -> Estimate | None:
    """Returns the Estimate over seeds, None when no seed has a finite value.

    Args:
      values: one a seed, nan where a seed has none.
    """
    mean, half = interval(values)
    count = sum(map(math.isfinite, values))
    return Estimate(mean, half, count, len(values)) if count else None


def summary_table(runs: Sequence[Run], target: float) -> Table:
    """Accuracy, and rounds, seconds, joules and bytes to a target accuracy, over seeds.

    Args:
      runs: of one section; from `runs.read_runs`.
      target: accuracy in (0, 1].
    Returns:
      Table, a row a group of runs that differ in their seed only.
    Raises:
      ValueError: the runs have several datasets, partitions or models, or there is none.
    """
    sections = by_section(runs)
    if len(sections) != 1:
        titles = "; ".join(section.title for section in sections) or "none"
        raise ValueError(f"a table is of one dataset, partition and model; given: {titles}")
    return summarize(sections[0], target)


def summarize(
    section: Section,
    target: float,
    evaluations: int = quantities.FINAL_EVALUATIONS,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Returns the `summary_table` of a section.

    Args:
      section: Section.
      target: accuracy in (0, 1].
      evaluations: at the end of a run, whose mean is its final value.
      more: titles of further columns, the final values of these metrics.
    """

    def final(run, metric):
        return quantities.final(run, metric, evaluations)

    groups = section.groups
    hits = [[quantities.at_target(run, target) for run in group.runs] for group in groups]
    to_target = f"to {100.0 * target:.4g}%"
    columns = [
        _column("final_accuracy", "final accuracy", groups, final, ACCURACY),
        _column("last_accuracy", "last accuracy", groups, quantities.last, ACCURACY),
        _column(
            "final_cloud_accuracy",
            "final accuracy, cloud model",
            groups,
            final,
            CLOUD_ACCURACY,
        ),
        (Column("reached", f"reached {100.0 * target:.4g}%"), [_share(group) for group in hits]),
        *(_cost_column(axis, to_target, hits) for axis in COSTS),
        *(_column(metric, title, groups, final, metric) for metric, title in more.items()),
    ]
    notes = [
        INTERVAL,
        f"Final is the mean of a run's last {evaluations} evaluations, last the "
        "last one; neither is the best.",
        f"Costs are those until the first evaluation at or above {100.0 * target:.4g}% test "
        "accuracy, averaged over the seeds that reached it.",
        *_short_note(groups, evaluations),
        *_spacing_note(groups),
        *_skipped_notes(groups),
    ]
    return _make_table("summary", groups, columns, notes)


CLUSTERING = {
    "count": quantities.mean,
    "kl_mean": quantities.mean,
    "kl_max": np.nanmax,
    "size_min": np.nanmin,
    "size_max": np.nanmax,
}
"""What is taken of a run's values of each metric of its clusters."""

COUNTS = ("cluster/count", "cluster/size_min", "cluster/size_max")


def clustering_table(section: Section) -> Table | None:
    """Returns how good the clusters of each group were; None when no group has clusters."""
    columns = []
    for metric, take in CLUSTERING.items():

        def take_known(run, metric, take=take):
            values = run.metrics.get(metric, np.zeros(0))
            return take(values) if np.isfinite(values).any() else math.nan

        key = quantities.CLUSTER + metric
        columns.append(
            _column(f"cluster_{metric}", quantities.name(key), section.groups, take_known, key)
        )
    if not any(cell for _, cells in columns for cell in cells):
        return None
    notes = [
        INTERVAL,
        "Number and mean KL are means over all evaluations of a run, largest and "
        "smallest are over its whole length.",
    ]
    return _make_table("clustering", section.groups, columns, notes)


def _column(key, title, groups, take, metric):
    """A column and its cells, from what is taken of each run."""
    cells = [estimate([take(run, metric) for run in group.runs]) for group in groups]
    unit = PERCENT if quantities.is_share(metric) else Unit()
    return Column(key, title, unit, 1 if metric in COUNTS else 6), cells


def _cost_column(axis, to_target, hits):
    cells = [
        estimate([hit.get(axis, math.nan) if hit else math.nan for hit in group]) for group in hits
    ]
    unit = quantities.unit(axis, [cell.mean for cell in cells if cell])
    key, title = COSTS[axis]
    decimals = 1 if axis == "round" else 6
    return Column(f"{key}_to_target", f"{title} {to_target}", unit, decimals), cells


def _make_table(name, groups, columns, notes):
    """A table without the columns in which there is nothing."""
    kept = [(column, cells) for column, cells in columns if any(cells)]
    rows = [list(row) for row in zip(*(cells for _, cells in kept), strict=True)]
    return Table(
        name, tuple(column for column, _ in kept), [group.label for group in groups], rows, notes
    )


def _share(hits):
    count = sum(hit is not None for hit in hits)
    return f"{count} of {len(hits)} seed{'s' if len(hits) > 1 else ''}"


def _short_note(groups, evaluations):
    fewest = min(run.metrics["round"].size for group in groups for run in group.runs)
    if fewest < evaluations:
        yield (
            f"The shortest run has {fewest} evaluations only, and its final accuracy is their "
            "mean: that of most of its training."
        )


def _spacing_note(groups):
    spacings = sorted({run.config["run.eval_every"] for group in groups for run in group.runs})
    if len(spacings) > 1:
        listed = ", ".join(map(str, spacings))
        yield (
            f"Runs were evaluated every {listed} rounds: final accuracies average over, and "
            "costs to the target are rounded up to, unequal spans."
        )


def _skipped_notes(groups):
    for group in groups:
        for run in group.runs:
            if run.skipped:
                listed = ", ".join(f"{metric} ({count})" for metric, count in run.skipped.items())
                yield (
                    f"{group.label}, seed {run.seed}: values that were not finite are left "
                    f"out: {listed}."
                )
