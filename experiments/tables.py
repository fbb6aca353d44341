"""Tables and pictures of the offloading experiment, from what its rounds cost."""

import numpy as np
from matplotlib.figure import Figure

from cefl_jax.reports.formats import Column, Table, Unit
from cefl_jax.reports.tables import INTERVAL, estimate, interval

COSTS = {
    "time_s": Column("time_s", "time", Unit("s")),
    "energy_j": Column("energy_j", "energy", Unit("kJ", 1e3)),
    "client_bytes": Column("client_bytes", "clients' links", Unit("MB", 1e6)),
    "edge_cloud_bytes": Column("edge_cloud_bytes", "edge-cloud", Unit("MB", 1e6)),
}
RATIOS = {  # column: cost, offload rule over offload rule
    "sum / random": ("time_s", "sum", "random"),
    "sum / random, joules": ("energy_j", "sum", "random"),
    "sum / nearest": ("time_s", "sum", "nearest"),
    "sum / greedy": ("time_s", "sum", "greedy"),
    "bottleneck / sum": ("time_s", "bottleneck", "sum"),
    "energy / sum": ("time_s", "energy", "sum"),
    "energy / sum, joules": ("energy_j", "energy", "sum"),
}
COLOURS = ("#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#AA4499")


def costs_to_target(paid, reached, target):
    """Table of what each clustering and offload rule paid until the target."""
    rows = []
    for (clustering, _), costs in paid.items():
        rounds = [np.nan if found is None else found for found in reached[clustering]]
        rows.append([estimate(values) for values in (rounds, *(costs[cost] for cost in COSTS))])
    columns = (Column("rounds", "rounds", most_decimals=1), *COSTS.values())
    notes = [f"Until {target:.0%} test accuracy.", INTERVAL]
    return Table("costs", columns, [", ".join(names) for names in paid], rows, notes)


def ratios(paid, reference="balanced"):
    """Table of ratios of what was paid, seed by seed: no difference between seeds is in them."""
    rows, clusterings = [], [*dict.fromkeys(clustering for clustering, _ in paid)]
    for clustering in clusterings:
        pairs = [
            (paid[clustering, over][cost], paid[clustering, under][cost])
            for cost, over, under in RATIOS.values()
        ]
        pairs.append(
            (paid[clustering, "bottleneck"]["time_s"], paid[reference, "bottleneck"]["time_s"])
        )
        rows.append([estimate(np.divide(over, under)) for over, under in pairs])
    columns = tuple(Column(name, name) for name in (*RATIOS, f"bottleneck / {reference}'s"))
    notes = ["Ratios of time, or joules where said, seed by seed.", INTERVAL]
    return Table("ratios", columns, clusterings, rows, notes)


def frontier(weights, kl, seconds):
    """Table of divergence and seconds of a round by weight; arrays [weights, seeds].

    The last column compares seed by seed with the first weight.
    """
    rows = [
        [estimate(values) for values in (kls, times, times / seconds[0])]
        for kls, times in zip(kl, seconds, strict=True)
    ]
    columns = (
        Column("kl", "mean KL", Unit("nats")),
        Column("round_s", "time of a round", Unit("s")),
        Column("ratio", f"over that with {weights[0]:g}"),
    )
    labels = [f"network_weight {weight:g} nats/s" for weight in weights]
    return Table("frontier", columns, labels, rows, [INTERVAL])


def draw_costs(path, paid):
    """Time and energy to the target, a group of bars a clustering, a bar an offload rule."""
    clusterings = list(dict.fromkeys(clustering for clustering, _ in paid))
    offloads = list(dict.fromkeys(offload for _, offload in paid))
    figure = Figure(figsize=(11, 4), dpi=150, layout="constrained")
    for axes, cost in zip(figure.subplots(1, 2), ("time_s", "energy_j"), strict=True):
        unit = COSTS[cost].unit
        for i, offload in enumerate(offloads):
            means, halves = np.transpose(
                [interval(paid[clustering, offload][cost]) for clustering in clusterings]
            )
            x = np.arange(len(clusterings)) + (i - (len(offloads) - 1) / 2) * 0.13
            axes.bar(
                x,
                means / unit.size,
                0.12,
                yerr=np.nan_to_num(halves) / unit.size,
                capsize=2,
                color=COLOURS[i],
                label=offload,
            )
        axes.set_xticks(range(len(clusterings)), clusterings)
        axes.set_ylabel(f"{COSTS[cost].title} to target ({unit.name})")
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
