"""Tables and pictures of experiments: means over seeds with 95% confidence intervals."""

import math

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

COLUMNS = {
    "time_s": ("time (s)", 1.0),
    "energy_j": ("energy (kJ)", 1e3),
    "client_bytes": ("clients' links (MB)", 1e6),
    "edge_cloud_bytes": ("edge-cloud (MB)", 1e6),
}
COLOURS = ("#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#AA4499")


def interval(values):
    """Mean and half the width of its 95% interval (Student's t) of the finite values."""
    values = np.asarray([value for value in values if math.isfinite(value)])
    if not values.size:
        return math.nan, math.nan
    if values.size == 1:
        return float(values[0]), math.nan
    return values.mean(), stats.sem(values) * stats.t.ppf(0.975, values.size - 1)


def costs_to_target(paid, reached, target):
    """Markdown: what each clustering and offload rule paid until the target.

    `time / random` compares with the offload rule `random` seed by seed, which takes out what the
    seeds differ by.
    """
    lines = [
        f"Until {target:.0%} test accuracy; mean over seeds ± half of the 95% interval.",
        "",
        "| clustering | rounds | offload | " + " | ".join(c for c, _ in COLUMNS.values())
        + " | time / random |",
        "|---|---|---|" + "---:|" * (len(COLUMNS) + 1),
    ]
    for (clustering, offload), costs in paid.items():
        rounds = [r for r in reached[clustering] if r]
        share = f"{len(rounds)} of {len(reached[clustering])} seeds: "
        share = "" if len(rounds) == len(reached[clustering]) else share
        cells = [clustering, share + _number(*interval(rounds)), offload]
        cells += [_number(*(x / unit for x in interval(costs[c]))) for c, (_, unit) in
                  COLUMNS.items()]
        random = np.array(paid[clustering, "random"]["time_s"])
        cells.append(_number(*interval(np.array(costs["time_s"]) / random)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def frontier(weights, kl, seconds):
    """Markdown: divergence and seconds of a round for each weight; arrays [weights, seeds]."""
    lines = ["| network_weight (nats/s) | mean KL (nats) | seconds a round |", "|---:|---:|---:|"]
    for weight, kls, times in zip(weights, kl, seconds, strict=True):
        lines.append(f"| {weight:g} | {_number(*interval(kls))} | {_number(*interval(times))} |")
    return "\n".join(lines) + "\n"


def draw_costs(path, paid):
    """Time and energy to the target, a group of bars a clustering, a bar an offload rule."""
    clusterings = list(dict.fromkeys(clustering for clustering, _ in paid))
    offloads = list(dict.fromkeys(offload for _, offload in paid))
    figure = Figure(figsize=(11, 4), dpi=150, layout="constrained")
    for axes, cost in zip(figure.subplots(1, 2), ("time_s", "energy_j"), strict=True):
        name, unit = COLUMNS[cost]
        for i, offload in enumerate(offloads):
            means, halves = np.transpose(
                [interval(paid[clustering, offload][cost]) for clustering in clusterings]
            )
            x = np.arange(len(clusterings)) + (i - (len(offloads) - 1) / 2) * 0.13
            axes.bar(x, means / unit, 0.12, yerr=np.nan_to_num(halves) / unit, capsize=2,
                     color=COLOURS[i], label=offload)
        axes.set_xticks(range(len(clusterings)), clusterings)
        axes.set_ylabel(f"{name} to target")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="offload", frameon=False, fontsize=8)
    figure.savefig(path)


def draw_frontier(path, weights, kl, seconds):
    """Divergence against seconds of a round, one point a weight, with intervals."""
    figure = Figure(figsize=(5.5, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    points = np.array([[*interval(k), *interval(s)] for k, s in zip(kl, seconds, strict=True)])
    points = np.nan_to_num(points)
    axes.errorbar(points[:, 2], points[:, 0], xerr=points[:, 3], yerr=points[:, 1], fmt="o-",
                  color=COLOURS[0], ecolor="#BBBBBB", capsize=2)
    for weight, point in zip(weights, points, strict=True):
        axes.annotate(f"{weight:g}", (point[2], point[0]), xytext=(5, 5),
                      textcoords="offset points", fontsize=8)
    axes.set_xlabel("simulated seconds a round")
    axes.set_ylabel("mean KL of the clusters (nats)")
    axes.set_title("network_weight (nats/s): balance against time", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _number(mean, half):
    if not math.isfinite(mean):
        return "not reached"
    digits = 3 if abs(mean) < 1 else 2 if abs(mean) < 10 else 1 if abs(mean) < 1000 else 0
    spread = f" ± {half:.{digits}f}" if math.isfinite(half) else ""
    return f"{mean:.{digits}f}{spread}"
