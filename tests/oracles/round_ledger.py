"""What one round of split_round.py costs on a simulated network, from its draws.

Clusters are matched to servers by brute force or SciPy; the course of the round is that of
round_course.py, its bill that of round_bill.py. Of distillation is charged, per uploaded sample,
each pass of each model and one prediction of each teacher. FLOPs of one sample are given.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from cefl_jax.network.messages import Payload, Sizes
from cefl_jax.network.step_times import Task
from tests.oracles import round_bill, round_course

NUMBER = 4  # bytes of an f32, and of the i32 label


class Terms(NamedTuple):
    """What a round is charged by."""

    network: object  # topology.RoundNetwork of the round's clients, in the order of the draws
    work: object  # cefl_jax.models.cost.Workload
    num_kinds: int  # device classes
    objective: str  # of the matching: "sum" or "bottleneck"
    edge_capacity: int
    distill: str  # the rule of distillation
    epochs: int  # of distillation
    time_weight: float = 1.0  # of a second in the matching
    energy_weight: float = 0.0  # of a joule
    deadline_s: float | None = None
    keep: bool = False  # what a client has done that did not finish
    stays: list | None = None  # [K] local steps after which a client leaves; None: nobody does


class Cost(NamedTuple):
    """One round's own cost, and who made how much of it."""

    client_up_bytes: int
    client_down_bytes: int
    edge_cloud_bytes: int
    time_s: float
    offload_cost: float  # the objective's value
    bill: round_bill.Bill
    steps: list  # [K] local steps made
    counts: list  # [K] whether the client's contribution counts


def sizes_of(model, cut):
    """messages.Sizes, without compression, of a network of [(W, b)] cut after `cut` layers."""
    front, back = (sum(w.size + b.size for w, b in half) for half in (model[:cut], model[cut:]))
    features = Payload(NUMBER * model[cut - 1][0].shape[1], 0)
    return Sizes(features, features, NUMBER, NUMBER * front, NUMBER * back)


def one_round(draws, cluster, sizes, terms):
    """The Cost of a round of round_types.Draws in which position k is in cluster[k]; -1: in none.

    The batches and uploads of the draws are those that are planned; who drops out makes fewer.
    """
    samples = [[len(batch) for batch in batches] for batches in draws.batches]
    formed = sorted({*cluster} - {-1})
    groups = {m: [k for k, own in enumerate(cluster) if own == m] for m in formed}
    uploads = [sum(k == own for own, _ in draws.uploads) for k in range(len(samples))]
    place, value = _match(groups, samples, uploads, sizes, terms)
    num_clusters, num_steps = max(groups, default=-1) + 1, max(map(len, samples))
    task = Task(
        np.array([row + [0] * (num_steps - len(row)) for row in samples]),
        [num_clusters if m < 0 else m for m in cluster],
        [place.get(m, -1) for m in range(num_clusters)],
        [num_steps] * len(samples) if terms.stays is None else terms.stays,
        uploads,
    )
    network, work = terms.network, terms.work
    course = round_course.run(task, network, work, sizes, terms.deadline_s, terms.keep)
    uploaded = sum(sum(client.uploaded()) for client in course.clients.values())
    flop = uploaded * _sample_flop(terms)
    bill = round_bill.bill(course, network, work, sizes, flop, terms.num_kinds)
    link_bytes = [
        sum(size for (link, _), size in bill.link_bytes.items() if link in links)
        for links in (["client_up"], ["client_down"], ["edge_up", "edge_down"])
    ]
    of = lambda k, name: getattr(course.clients[k], name) if k in course.clients else 0  # noqa: E731
    steps, counts = ([of(k, name) for k in range(len(samples))] for name in ("steps", "counts"))
    seconds = math.fsum(bill.phase_s.values())
    return Cost(*link_bytes, seconds, value, bill, steps, list(map(bool, counts)))


def _match(groups, samples, uploads, sizes, terms):
    """{cluster: server} and the objective's value; a server's j-th copy computes j times slower."""
    slots = list(
        itertools.product(range(len(terms.network.backhaul_bps)), range(1, terms.edge_capacity + 1))
    )
    cost = np.empty((len(groups), len(slots)))
    for (row, members), (column, (e, j)) in itertools.product(
        enumerate(groups.values()), enumerate(slots)
    ):
        pair = round_bill.pair_cost(members, samples, uploads, e, terms.network, terms.work, sizes)
        seconds = pair.clients_s + j * (pair.node_s + pair.backhaul_s)
        joules = pair.active_j + pair.idle_w * seconds
        cost[row, column] = terms.time_weight * seconds + terms.energy_weight * joules
    rows = np.arange(len(groups))
    if terms.objective == "sum":
        _, columns = linear_sum_assignment(cost)
        value = cost[rows, columns].sum()
    else:
        ways = [list(way) for way in itertools.permutations(range(len(slots)), len(groups))]
        columns = min(ways, key=lambda way: (cost[rows, way].max(), cost[rows, way].sum()))
        value = cost[rows, columns].max()
    return {m: slots[c][0] for m, c in zip(groups, columns, strict=True)}, value


def _sample_flop(terms):
    """FLOPs of distillation on one uploaded sample."""
    if terms.distill == "none":
        return 0.0
    flop = terms.epochs * (terms.work.back_distill_flop + terms.work.cloud_train_flop)
    if terms.distill in ("mutual", "cloud_to_edge"):
        flop += terms.work.cloud_forward_flop
    if terms.distill in ("mutual", "edge_to_cloud"):
        flop += terms.work.back_forward_flop
    return flop
