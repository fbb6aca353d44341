"""What the runs of an experiment came to: final accuracy, and costs until a target accuracy."""

import math

import numpy as np

from experiments.tables import interval

COSTS = {
    "round": ("rounds", 1.0, "{:.0f}"),
    "sim/time_s": ("time (s)", 1.0, "{:.3g}"),
    "sim/energy_j": ("energy (kJ)", 1e3, "{:.3g}"),
    "bytes": ("bytes (MB)", 1e6, "{:.4g}"),
}
LINKS = ("comm/client_up_bytes", "comm/client_down_bytes", "comm/edge_cloud_bytes")


def final(records, key="test/accuracy", tail=10):
    """Mean of a metric over the last `tail` evaluations of a run; nan where it has none."""
    values = [record[key] for record in records[-tail:] if record.get(key) is not None]
    return float(np.mean(values)) if values else math.nan


def cost_to(records, target, key="test/accuracy"):
    """{cost: value} at the first evaluation at or above the target; None where there is none."""
    for record in records:
        if (record.get(key) or 0.0) >= target:
            costs = {cost: record[cost] for cost in COSTS if cost in record}
            return costs | {"bytes": sum(record[link] for link in LINKS)}
    return None


def percent(values):
    """Mean ± half of the 95% interval of shares, as percent."""
    mean, half = interval(values)
    if math.isnan(mean):
        return "-"
    return f"{100 * mean:.2f}" + ("" if math.isnan(half) else f" ± {100 * half:.2f}")


def table(runs, target, tail=10, more=None):
    """Markdown: a row a cell; final accuracies, and what it cost to reach the target.

    Args:
      runs: {cell: [records of each seed]}.
      target: test accuracy.
      tail: evaluations at the end whose mean is the final accuracy.
      more: {metric: heading} of further columns, means over the same evaluations.
    """
    more = more or {}
    heads = [
        "",
        f"accuracy (%), mean of last {tail}",
        "with cloud model (%)",
        f"seeds that reach {target:.0%}",
        *(name for name, _, _ in COSTS.values()),
        *more.values(),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for cell, seeds in runs.items():
        found = [cost_to(records, target) for records in seeds]
        reached = [costs for costs in found if costs]
        cells = [
            percent([final(records, key, tail) for records in seeds])
            for key in ("test/accuracy", "test/cloud_accuracy")
        ]
        cells.append(f"{len(reached)} of {len(seeds)}")
        for cost, (_, unit, form) in COSTS.items():
            mean, half = interval([costs[cost] / unit for costs in reached])
            text = "-" if math.isnan(mean) else form.format(mean)
            cells.append(text + ("" if math.isnan(half) else f" ± {form.format(half)}"))
        for key in more:
            mean, half = interval([final(records, key, tail) for records in seeds])
            cells.append(
                "-"
                if math.isnan(mean)
                else f"{mean:.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")
            )
        lines.append("| " + " | ".join([cell, *cells]) + " |")
    return "\n".join(lines) + "\n"


def tell(runs, of, scale):
    """The table of an experiment at a scale, with how it was made."""
    seeds = max(map(len, runs.values()))
    return (
        f"`{of.name}` at scale `{scale}`, {seeds} seeds, mean ± half of the 95% interval; costs "
        f"are those until the first evaluation at {of.target[scale]:.0%} or more, of the seeds "
        f"that reach it.\n\n{table(runs, of.target[scale], of.tail, of.more)}"
    )
