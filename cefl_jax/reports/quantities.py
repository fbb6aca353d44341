"""The metrics as a reader knows them: names, units, and what a run came to in each."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cefl_jax.reports.runs import ALL_BYTES, Run
from cefl_jax.runtime import console

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
    "sim/time_s": console.TIME_UNITS,
    "sim/energy_j": console.ENERGY_UNITS,
    ALL_BYTES: console.BYTE_UNITS,
}


class Unit(NamedTuple):
    """What the numbers of a column or an axis are divided by."""

    name: str = ""
    size: float = 1.0


PERCENT = Unit("%", 0.01)


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
