"""Matchings of clusters to server slots: by trying all, and with SciPy.

A matching gives each row of cost [M][E] its own column. An entry that is not finite is a forbidden
pair: as many rows as possible are matched first, the rest get -1. Among those matchings `sum` wants
the least total, `bottleneck` the least worst pair and then the least total.
"""

import itertools

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching


def score(cost, column):
    """(rows left out, worst pair, total) of a matching; the worst pair of none is -inf."""
    cost = np.asarray(cost, np.float64)
    pairs = [cost[row, c] for row, c in enumerate(column) if c >= 0]
    return len(column) - len(pairs), max(pairs, default=-np.inf), float(np.sum(pairs))


def _key(scored, objective):
    left_out, worst, total = scored
    return (left_out, total) if objective == "sum" else (left_out, worst, total)


def by_trying_all(cost, objective):
    """The score of the best matching; for a handful of rows and columns.

    A matching with as many rows as possible extends to one of all rows through forbidden pairs
    only, so that trying the injections tries them all.
    """
    cost = np.asarray(cost, np.float64)
    rows, columns = cost.shape
    scores = []
    for chosen in itertools.permutations(range(columns), rows):
        allowed = [c if np.isfinite(cost[r, c]) else -1 for r, c in enumerate(chosen)]
        scores.append(score(cost, allowed))
    return min(scores, key=lambda scored: _key(scored, objective))


def by_scipy_sum(cost):
    """The score of a matching with the least total, through SciPy's assignment."""
    cost = np.asarray(cost, np.float64)
    finite = np.isfinite(cost)
    span = np.abs(cost[finite]).max(initial=1.0)
    penalty = 4 * span * cost.shape[0]  # more than any choice of allowed pairs can save
    _, column = linear_sum_assignment(np.where(finite, cost, penalty))
    allowed = [c if finite[row, c] else -1 for row, c in enumerate(column)]
    return score(cost, allowed)


def _most_rows(allowed):
    return int((maximum_bipartite_matching(csr_matrix(allowed), perm_type="column") >= 0).sum())


def by_scipy_bottleneck(cost):
    """The score of the best matching for `bottleneck`: thresholds, then the least total."""
    cost = np.asarray(cost, np.float64)
    finite = np.isfinite(cost)
    most = _most_rows(finite)
    if not most:
        return score(cost, [-1] * cost.shape[0])
    worst = min(t for t in cost[finite] if _most_rows(finite & (cost <= t)) == most)
    return by_scipy_sum(np.where(finite & (cost <= worst), cost, np.inf))


def slot_costs(cost_clients, cost_node, capacity):
    """Cost of every pair [M][S], and the node of every slot: all first places, then all second."""
    places = [(j, e) for j in range(1, capacity + 1) for e in range(len(cost_clients[0]))]
    rows = zip(cost_clients, cost_node, strict=True)
    costs = [[float(c[e]) + j * float(n[e]) for j, e in places] for c, n in rows]
    return costs, [e for _, e in places]


def greedy(costs, formed):
    """{cluster: slot}: the cheapest pair left, the first of equal ones, until none is finite."""
    placed = {}
    for _ in costs:
        left = [
            (cost, m, s)
            for m, row in enumerate(costs)
            for s, cost in enumerate(row)
            if formed[m] and m not in placed and s not in placed.values() and np.isfinite(cost)
        ]
        if left:
            _, m, s = min(left)
            placed[m] = s
    return placed


def nearest(costs, nodes, formed, distance):
    """{cluster: slot}: each cluster in turn at the nearest node with a place, in its first one."""
    placed = {}
    for m, row in enumerate(costs):
        left = [
            (distance[m][nodes[s]], nodes[s], s)
            for s, cost in enumerate(row)
            if s not in placed.values() and np.isfinite(cost)
        ]
        if formed[m] and left:
            placed[m] = min(left)[2]
    return placed
