"""The tables of a report: what a run came to in each metric, and its mean over seeds."""

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from scipy import stats

from cefl_jax.reports.formats import PERCENT, Column, Estimate, Table, Unit
from cefl_jax.reports.groups import Section
from cefl_jax.reports.runs import ALL_BYTES, Run
from cefl_jax.runtime import units

ACCURACY = "test/accuracy"
CLOUD_ACCURACY = "test/cloud_accuracy"
CLUSTER = "cluster/"
FINAL_EVALUATIONS = 10
LEVEL = 0.95
INTERVAL = "Mean over seeds ± half of the 95% interval (Student's t)."
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
"""What a reader calls a metric; others are called by their keys."""

AXES: dict[str, tuple[str, str, tuple]] = {
    "round": ("rounds", "rounds", ()),
    "sim/time_s": ("time_s", "simulated time", units.TIME_UNITS),
    "sim/energy_j": ("energy_j", "energy", units.ENERGY_UNITS),
    ALL_BYTES: ("bytes", "bytes", units.BYTE_UNITS),
}
"""What is spent until the target: key in files, title, and its units, small to large."""

CLUSTERING: dict[str, Callable] = {
    "count": np.nanmean,
    "kl_mean": np.nanmean,
    "kl_max": np.nanmax,
    "size_min": np.nanmin,
    "size_max": np.nanmax,
}
"""What is taken of a run's values of each metric of its clusters."""

COUNTS = ("cluster/count", "cluster/size_min", "cluster/size_max")


def is_share(metric: str) -> bool:
    """Returns whether a metric is best read in percent."""
    return metric.endswith("accuracy")


def unit(axis: str, values: Iterable[float]) -> Unit:
    """Returns the largest unit of which the largest of some values holds at least two."""
    known = [Unit(*each) for each in AXES[axis][2]] or [Unit()]
    most = max((value for value in values if math.isfinite(value)), default=0.0)
    return ([each for each in known if most >= 2.0 * each.size] or known[:1])[-1]


def final(run: Run, metric: str, evaluations: int = FINAL_EVALUATIONS) -> float:
    """Returns the mean of a run's last values of a metric, nan without a finite one."""
    values = run.metrics.get(metric, np.zeros(0))[-evaluations:]
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def last(run: Run, metric: str) -> float:
    """Returns the value of the last evaluation, nan where it is missing or was not finite."""
    return float(run.metrics[metric][-1]) if metric in run.metrics else math.nan


def at_target(run: Run, target: float) -> dict[str, float]:
    """Returns {axis: value} at the first evaluation with an accuracy of at least the target.

    Empty when there is no such evaluation; an axis that the run lacks is absent.
    """
    reached = np.flatnonzero(run.metrics.get(ACCURACY, np.zeros(0)) >= target)  # nan never is
    if not reached.size:
        return {}
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
    """Computes `interval` at every point of a curve at once.

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


def estimate(values: Iterable[float]) -> Estimate | None:
    """Returns the Estimate over seeds, None when no seed has a finite value.

    Args:
      values: one a seed, nan where a seed has none.
    """
    values = list(values)
    count = sum(map(math.isfinite, values))
    return Estimate(*interval(values), count, len(values)) if count else None


def summarize(
    section: Section,
    target: float,
    evaluations: int = FINAL_EVALUATIONS,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Tabulates accuracy, and rounds, seconds, joules and bytes to a target, over seeds.

    Args:
      section: Section.
      target: accuracy in (0, 1].
      evaluations: at the end of a run, whose mean is its final value.
      more: titles of further columns, the final values of these metrics.
    Returns:
      Table, a row a group.
    """

    def at_end(run, metric):
        return final(run, metric, evaluations)

    groups, percent = section.groups, f"{100.0 * target:.4g}%"
    hits = [[at_target(run, target) for run in group.runs] for group in groups]
    cloud = "final accuracy, cloud model"
    columns = [
        _column("final_accuracy", "final accuracy", groups, at_end, ACCURACY),
        _column("last_accuracy", "last accuracy", groups, last, ACCURACY),
        _column("final_cloud_accuracy", cloud, groups, at_end, CLOUD_ACCURACY),
        (Column("reached", f"reached {percent}"), [_share(group) for group in hits]),
        *(_cost_column(axis, f"to {percent}", hits) for axis in AXES),
        *(_column(metric, title, groups, at_end, metric) for metric, title in more.items()),
    ]
    notes = [
        INTERVAL,
        f"Final is the mean of a run's last {evaluations} evaluations, last the "
        "last one; neither is the best.",
        f"Costs are those until the first evaluation at or above {percent} test "
        "accuracy, averaged over the seeds that reached it.",
        *_warnings(groups, evaluations),
    ]
    return _make_table("summary", groups, columns, notes)


def clustering_table(section: Section) -> Table | None:
    """Returns how good the clusters of each group were; None when no group has clusters."""

    def over_all(run, metric):
        values = run.metrics.get(metric, np.zeros(0))
        take = CLUSTERING[metric.removeprefix(CLUSTER)]
        return float(take(values)) if np.isfinite(values).any() else math.nan

    keys = {f"cluster_{name}": CLUSTER + name for name in CLUSTERING}
    columns = [
        _column(key, NAMES[metric], section.groups, over_all, metric)
        for key, metric in keys.items()
    ]
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
    cells = [estimate(take(run, metric) for run in group.runs) for group in groups]
    shown_in = PERCENT if is_share(metric) else Unit()
    return Column(key, title, shown_in, 1 if metric in COUNTS else 6), cells


def _cost_column(axis, to_target, hits):
    cells = [estimate(hit.get(axis, math.nan) for hit in group) for group in hits]
    key, title, _ = AXES[axis]
    fitting = unit(axis, [cell.mean for cell in cells if cell])
    decimals = 1 if axis == "round" else 6
    return Column(f"{key}_to_target", f"{title} {to_target}", fitting, decimals), cells


def _make_table(name, groups, columns, notes):
    """A table without the columns in which there is nothing."""
    kept, cells = zip(*(each for each in columns if any(each[1])), strict=True)
    rows = [list(row) for row in zip(*cells, strict=True)]
    return Table(name, kept, [group.label for group in groups], rows, notes)


def _share(hits):
    """How many seeds reached the target."""
    return f"{sum(map(bool, hits))} of {len(hits)} seed{'s' if len(hits) > 1 else ''}"


def _warnings(groups, evaluations):
    """Notes on what makes the runs hard to compare."""
    runs = [(group.label, run) for group in groups for run in group.runs]
    fewest = min(run.metrics["round"].size for _, run in runs)
    if fewest < evaluations:
        yield (
            f"The shortest run has {fewest} evaluations only, and its final accuracy is their "
            "mean: that of most of its training."
        )
    spacings = sorted({run.config["run.eval_every"] for _, run in runs})
    if len(spacings) > 1:
        yield (
            f"Runs were evaluated every {', '.join(map(str, spacings))} rounds: final accuracies "
            "average over, and costs to the target are rounded up to, unequal spans."
        )
    for label, run in runs:
        if run.skipped:
            listed = ", ".join(f"{metric} ({count})" for metric, count in run.skipped.items())
            yield (f"{label}, seed {run.seed}: values that were not finite are left out: {listed}.")
