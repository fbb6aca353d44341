"""Which offload rule, and which clustering, reaches 80% test accuracy soonest, and at what cost?

    python -m cefl_jax.sweep --experiment=experiments/offloading.py --workdir=DIR

Claims under test, on Fashion-MNIST with Dirichlet(0.1) over 100 clients, in the `device_zoo` with
fading links, busy edge nodes and clients that come and go:
1. matching clusters to edge nodes by cost (`sum`, `bottleneck`) saves simulated time, energy or
   neither against `greedy`, `random` and `nearest`;
2. clusters that see the network (`balanced` with `network_weight`) trade data balance for time.

Without a deadline a placement changes when things happen and never what is learned. So each
clustering is trained once for each seed, and every offload rule pays for the same rounds; a test
holds that against whole runs. Rounds are counted until the first evaluation at or above the target.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from cefl_jax import build, compiler, config, program
from cefl_jax.reports.formats import to_markdown
from cefl_jax.reports.tables import ACCURACY
from cefl_jax.sweeps import Sweep
from experiments import tables

CLUSTERINGS = {
    "patent": {"cefl.clustering.rule": "patent"},
    "astraea": {"cefl.clustering.rule": "astraea"},
    "random": {"cefl.clustering.rule": "random"},
    "balanced": {"cefl.clustering.rule": "balanced"},
    "joint 1": {"cefl.clustering.rule": "balanced", "cefl.clustering.network_weight": 1.0},
    "joint 10": {"cefl.clustering.rule": "balanced", "cefl.clustering.network_weight": 10.0},
}
OFFLOADS = {
    "sum": {"cefl.offload.rule": "optimal", "cefl.offload.objective": "sum"},
    "bottleneck": {"cefl.offload.rule": "optimal", "cefl.offload.objective": "bottleneck"},
    "energy": {"cefl.offload.time_weight": 0.0, "cefl.offload.energy_weight": 1.0},
    "greedy": {"cefl.offload.rule": "greedy"},
    "random": {"cefl.offload.rule": "random"},
    "nearest": {"cefl.offload.rule": "nearest"},
}
WEIGHTS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)  # of the frontier, nats a second
COMMON = {
    "data.partition.alpha": 0.1,
    "network.preset": "device_zoo",
    "network.num_edges": 8,
    "network.dynamics": "markov",
    "cefl.clustering.num_clusters": 4,
    "cefl.privacy.probe_size": 0,
    "run.eval_every": 2,
}
SCALES = {
    "smoke": {"data.name": "fashion_mnist_12k", "train.rounds": 8, "train.local_steps": 5},
    "cpu": {"data.name": "fashion_mnist", "train.rounds": 80},
}
EXPERIMENT = Sweep(
    common=COMMON,
    cells=CLUSTERINGS,
    scales=SCALES,
    seeds={"smoke": 2, "cpu": 5},
    target={"smoke": 0.6, "cpu": 0.8},
)


def make_spec(scale, seed, *changes):
    """The settings of a scale and a seed, with dotted fields changed."""
    return config.make_spec(COMMON, SCALES[scale], {"seed": seed}, *changes)


def make_setup(scale, seed, *changes):
    """The checked run of a scale and a seed, with dotted fields changed."""
    return build.prepare(make_spec(scale, seed, *changes))


def rounds_to_target(run, target):
    """Rounds until the first evaluation at or above the target, or None."""
    reached = run.metrics["round"][run.metrics[ACCURACY] >= target]
    return int(reached[0]) if reached.size else None


def pay(setups):
    """What the rounds of runs cost, cumulative, without their training: arrays [runs, rounds].

    The runs differ in their seeds only, and are one vmapped program.
    """
    keys = jnp.stack([jax.random.key(run.spec.seed) for run in setups])
    unread = np.zeros(0, np.uint8)  # decisions look at labels and sizes only
    data = [run.data._replace(images=unread, test_images=unread) for run in setups]
    data, network = (
        jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        for trees in (data, [run.network for run in setups])
    )
    simulate = jax.vmap(program.simulate_rounds(setups[0]))
    decisions, so_far = compiler.jit(simulate)(keys, data, network)
    so_far, clusters = jax.device_get((so_far, decisions.clusters))
    sent = so_far.link_bytes.sum(-1)  # [runs, rounds, LINKS]
    return {
        "time_s": so_far.phase_s.sum(-1),
        "energy_j": so_far.energy_j.sum(-1),
        "client_bytes": sent[..., :2].sum(-1),
        "edge_cloud_bytes": sent[..., 2:].sum(-1),
        "kl_mean": clusters.kl_mean,
    }


def pay_all(scale, reached):
    """{(clustering, offload): {cost: [of each seed that reached the target, else nan]}}."""
    paid = {}
    for clustering, all_rounds in reached.items():
        for offload, change in OFFLOADS.items():
            print(f"paying: {clustering}, {offload}", flush=True)
            both = CLUSTERINGS[clustering], change
            spent = pay([make_setup(scale, seed, *both) for seed in range(len(all_rounds))])
            paid[clustering, offload] = {
                cost: [
                    float(spent[cost][seed, rounds - 1]) if rounds else np.nan
                    for seed, rounds in enumerate(all_rounds)
                ]
                for cost in tables.COSTS
            }
    return paid


def trade(scale, seeds):
    """Mean divergence and seconds of a round for each weight and seed: arrays [WEIGHTS, seeds]."""
    kl, seconds = np.zeros((2, len(WEIGHTS), seeds))
    for i, weight in enumerate(WEIGHTS):
        both = {"cefl.clustering.network_weight": weight}, OFFLOADS["bottleneck"]
        spent = pay([make_setup(scale, seed, *both) for seed in range(seeds)])
        kl[i] = spent["kl_mean"].mean(-1)
        seconds[i] = spent["time_s"][:, -1] / spent["time_s"].shape[-1]
    return kl, seconds


def tabulate(groups, sweep, scale):
    """Tables of what was paid until the target, and of the frontier; pictures beside the runs."""
    folder, target = groups[0].runs[0].folder.parent, sweep.target[scale]
    reached = {
        group.label: [rounds_to_target(run, target) for run in group.runs] for group in groups
    }
    paid = pay_all(scale, reached)
    (folder / "paid.json").write_text(
        json.dumps({" / ".join(cell): costs for cell, costs in paid.items()}, indent=1) + "\n"
    )
    kl, seconds = trade(scale, max(map(len, reached.values())))
    tables.draw_costs(folder / "offloading.png", paid)
    tables.draw_frontier(folder / "frontier.png", WEIGHTS, kl, seconds)
    made = tables.costs_to_target(paid, reached, target), tables.ratios(paid)
    return "\n".join(map(to_markdown, (*made, tables.frontier(WEIGHTS, kl, seconds))))
