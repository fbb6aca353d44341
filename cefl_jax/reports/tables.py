"""The tables of a report: what a run came to in each metric, and its mean over seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from scipy import stats

from cefl_jax.reports.formats import PERCENT, Column, Estimate, Table, Unit
from cefl_jax.reports.groups import Section, by_section
from cefl_jax.reports.runs import ALL_BYTES, Run
from cefl_jax.runtime import units

ACCURACY = "test/accuracy"
CLOUD_ACCURACY = "test/cloud_accuracy"
CLUSTER = "cluster/"
FINAL_EVALUATIONS = 10
NAMES = {
    "round": "round",
    "test/accuracy": "test accuracy",
    "test/loss": "test loss",
    "test/cloud_accuracy": "test accuracy, cloud model",
    "test/cloud_loss": "test loss, cloud model",
    "train/loss": "training loss",
    "sim/time_s": "simulated time",
    "sim/energy_j": "energy",
    ALL_BYTES: "bytes over all links",
    "cluster/count": "clusters",
    "cluster/kl_mean": "mean KL of the clusters (nats)",
    "cluster/kl_max": "largest KL of a cluster (nats)",
    "cluster/size_min": "smallest cluster (clients)",
    "cluster/size_max": "largest cluster (clients)",
    "offload/cost": "cost of offloading",
}
AXES = ("round", "sim/time_s", "sim/energy_j", ALL_BYTES)
SCALES = {
    "sim/time_s": units.TIME_UNITS,
    "sim/energy_j": units.ENERGY_UNITS,
    ALL_BYTES: units.BYTE_UNITS,
}


LEVEL = 0.95
INTERVAL = "Mean over seeds ± half of the 95% interval (Student's t)."


COSTS = {
    "round": ("rounds", "rounds"),
    "sim/time_s": ("time_s", "simulated time"),
    "sim/energy_j": ("energy_j", "energy"),
    ALL_BYTES: ("bytes", "bytes"),
}
"""Key and title of what is spent until the target."""


def name(metric: str) -> str:
    """Returns what a reader calls a metric; its key where there is no better name."""
    return NAMES.get(metric, metric)


def is_share(metric: str) -> bool:
    """Returns whether a metric is best read in percent."""
    return metric.endswith("accuracy")


def unit(metric: str, values: Iterable[float]) -> Unit:
    """Returns the largest unit of which the largest of some values holds at least two."""
    scale = SCALES.get(metric, ())
    most = max((value for value in values if math.isfinite(value)), default=0.0)
    fitting = [Unit(*each) for each in scale if most >= 2.0 * each[1]]
    return fitting[-1] if fitting else Unit(*scale[0]) if scale else Unit()


def final(run: Run, metric: str, evaluations: int = FINAL_EVALUATIONS) -> float:
    """Returns the mean of a run's last values of a metric, nan without a finite one."""
    return mean(run.metrics.get(metric, np.zeros(0))[-evaluations:])


def last(run: Run, metric: str) -> float:
    """Returns the value of the last evaluation, nan where it is missing or was not finite."""
    return float(run.metrics[metric][-1]) if metric in run.metrics else math.nan


def mean(values: Float[np.ndarray, "T"]) -> float:
    """Returns the mean of the finite values, nan without any."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else math.nan


def at_target(run: Run, target: float) -> dict[str, float] | None:
    """{axis: value} at the first evaluation with an accuracy of at least the target.

    None when there is no such evaluation; an axis that the run lacks is absent.
    """
    accuracy = run.metrics.get(ACCURACY, np.zeros(0))
    reached = np.flatnonzero(accuracy >= target)  # nan never is
    if not reached.size:
        return None
    return {axis: float(run.metrics[axis][reached[0]]) for axis in AXES if axis in run.metrics}


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
    evaluations: int = FINAL_EVALUATIONS,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Returns the `summary_table` of a section.

    Args:
      section: Section.
      target: accuracy in (0, 1].
      evaluations: at the end of a run, whose mean is its final value.
      more: titles of further columns, the final values of these metrics.
    """

    def at_end(run, metric):
        return final(run, metric, evaluations)

    groups = section.groups
    hits = [[at_target(run, target) for run in group.runs] for group in groups]
    to_target = f"to {100.0 * target:.4g}%"
    columns = [
        _column("final_accuracy", "final accuracy", groups, at_end, ACCURACY),
        _column("last_accuracy", "last accuracy", groups, last, ACCURACY),
        _column(
            "final_cloud_accuracy",
            "final accuracy, cloud model",
            groups,
            at_end,
            CLOUD_ACCURACY,
        ),
        (Column("reached", f"reached {100.0 * target:.4g}%"), [_share(group) for group in hits]),
        *(_cost_column(axis, to_target, hits) for axis in COSTS),
        *(_column(metric, title, groups, at_end, metric) for metric, title in more.items()),
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
    "count": mean,
    "kl_mean": mean,
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

        key = CLUSTER + metric
        columns.append(_column(f"cluster_{metric}", name(key), section.groups, take_known, key))
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
    shown_in = PERCENT if is_share(metric) else Unit()
    return Column(key, title, shown_in, 1 if metric in COUNTS else 6), cells


def _cost_column(axis, to_target, hits):
    cells = [
        estimate([hit.get(axis, math.nan) if hit else math.nan for hit in group]) for group in hits
    ]
    key, title = COSTS[axis]
    decimals = 1 if axis == "round" else 6
    fitting = unit(axis, [cell.mean for cell in cells if cell])
    return Column(f"{key}_to_target", f"{title} {to_target}", fitting, decimals), cells


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
