"""Tables and pictures of experiments: means over seeds with 95% confidence intervals."""

import math

import numpy as np
from matplotlib.figure import Figure

from cefl_jax.reports.curves import interval

COLUMNS = {
    "time_s": ("time (s)", 1.0),
    "energy_j": ("energy (kJ)", 1e3),
    "client_bytes": ("clients' links (MB)", 1e6),
    "edge_cloud_bytes": ("edge-cloud (MB)", 1e6),
}
COLOURS = ("#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#AA4499")


def costs_to_target(paid, reached, target):
    """Markdown: what each clustering and offload rule paid until the target."""
    lines = [
        f"Until {target:.0%} test accuracy; mean over seeds ± half of the 95% interval.",
        "",
        "| clustering | rounds | offload | " + " | ".join(c for c, _ in COLUMNS.values()) + " |",
        "|---|---|---|" + "---:|" * len(COLUMNS),
    ]
    for (clustering, offload), costs in paid.items():
        rounds = [r for r in reached[clustering] if r]
        share = f"{len(rounds)} of {len(reached[clustering])} seeds: "
        share = "" if len(rounds) == len(reached[clustering]) else share
        cells = [clustering, share + _number(*interval(rounds)), offload]
        cells += [
            _number(*(x / unit for x in interval(costs[c]))) for c, (_, unit) in COLUMNS.items()
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


RATIOS = {  # column: cost, offload rule over offload rule
    "sum / random": ("time_s", "sum", "random"),
    "sum / random, joules": ("energy_j", "sum", "random"),
    "sum / nearest": ("time_s", "sum", "nearest"),
    "sum / greedy": ("time_s", "sum", "greedy"),
    "bottleneck / sum": ("time_s", "bottleneck", "sum"),
    "energy / sum": ("time_s", "energy", "sum"),
    "energy / sum, joules": ("energy_j", "energy", "sum"),
}


def ratios(paid, reference="balanced"):
    """Markdown: ratios of what was paid, seed by seed, which takes out what the seeds differ by."""
    last = f"bottleneck / {reference}'s"
    lines = [
        "Ratios of time, or joules where said, seed by seed; mean ± half of the 95% interval.",
        "",
        "| clustering | " + " | ".join([*RATIOS, last]) + " |",
        "|---|" + "---:|" * (len(RATIOS) + 1),
    ]
    for clustering in dict.fromkeys(clustering for clustering, _ in paid):
        pairs = [
            (paid[clustering, over][cost], paid[clustering, under][cost])
            for cost, over, under in RATIOS.values()
        ]
        pairs.append(
            (paid[clustering, "bottleneck"]["time_s"], paid[reference, "bottleneck"]["time_s"])
        )
        cells = [_number(*interval(np.divide(over, under))) for over, under in pairs]
        lines.append(f"| {clustering} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def frontier(weights, kl, seconds):
    """Markdown: divergence and seconds of a round for each weight; arrays [weights, seeds].

    The last column compares seed by seed with the first weight.
    """
    heads = "network_weight (nats/s)", "mean KL (nats)", "seconds a round", f"over {weights[0]:g}'s"
    lines = ["| " + " | ".join(heads) + " |", "|---:|---:|---:|---:|"]
    for weight, kls, times in zip(weights, kl, seconds, strict=True):
        cells = [_number(*interval(x)) for x in (kls, times, times / seconds[0])]
        lines.append(f"| {weight:g} | " + " | ".join(cells) + " |")
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
            axes.bar(
                x,
                means / unit,
                0.12,
                yerr=np.nan_to_num(halves) / unit,
                capsize=2,
                color=COLOURS[i],
                label=offload,
            )
        axes.set_xticks(range(len(clusterings)), clusterings)
        axes.set_ylabel(f"{name} to target")
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, title="offload", frameon=False, loc="outside right center")
    figure.savefig(path)


def draw_frontier(path, weights, kl, seconds):
    """Divergence against a round's time over that of the first weight, seed by seed."""
    figure = Figure(figsize=(5.5, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    shares = seconds / seconds[0]
    points = np.array([[*interval(k), *interval(s)] for k, s in zip(kl, shares, strict=True)])
    points = np.nan_to_num(points)
    axes.errorbar(
        points[:, 2],
        points[:, 0],
        xerr=points[:, 3],
        yerr=points[:, 1],
        fmt="o-",
        color=COLOURS[0],
        ecolor="#BBBBBB",
        capsize=2,
    )
    for weight, point in zip(weights, points, strict=True):
        axes.annotate(
            f"{weight:g}",
            (point[2], point[0]),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xlabel(f"simulated time of a round, over that with weight {weights[0]:g}")
    axes.set_ylabel("mean KL of the clusters (nats)")
    axes.set_title("network_weight (nats/s): balance against time", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _number(mean, half):
    if not math.isfinite(mean):
        return "not reached"
    digits = 3 if abs(mean) < 1.5 else 2 if abs(mean) < 10 else 1 if abs(mean) < 1000 else 0
    spread = f" ± {half:.{digits}f}" if math.isfinite(half) else ""
    return f"{mean:.{digits}f}{spread}"
