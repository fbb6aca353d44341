"""Labels and seconds in one objective, in plain Python, every swap and every matching tried.

J = sum of the clusters' divergences + weight * seconds of the slowest cluster on its edge node. A
cluster takes the longest of its members' own seconds plus the sum of what the node computes for
them. Clusters get nodes so that the slowest takes least; with more clusters than nodes, a node
takes as many as M / E rounded up.
"""

import itertools
import math

from tests.oracles.clustering import BAND_NATS, TIE_NATS, cluster_kl


def pair_seconds(cluster, num_clusters, client_s, node_s):
    """Seconds of each cluster on each node [M][E]; 0 for one without members."""
    table = []
    for m in range(num_clusters):
        members = [k for k, own in enumerate(cluster) if own == m]
        table.append(
            [
                max((client_s[k][e] for k in members), default=0.0)
                + math.fsum(node_s[k][e] for k in members)
                for e in range(len(client_s[0]))
            ]
        )
    return table


def slowest(table, nodes):
    return max(row[e] for row, e in zip(table, nodes, strict=True))


def quickest_nodes(table, tolerance):
    """The seconds of the best matching, and all matchings [M] that reach them."""
    num_clusters, num_edges = len(table), len(table[0])
    places = -(-num_clusters // num_edges)
    every = [
        nodes
        for nodes in itertools.product(range(num_edges), repeat=num_clusters)
        if max(nodes.count(e) for e in nodes) <= places
    ]
    best = min(slowest(table, nodes) for nodes in every)
    return best, [n for n in every if slowest(table, n) <= best * (1 + tolerance)]


def exchanges(cluster):
    """(i, j, clusters after) for every two clients of different clusters, i < j."""
    for i, j in itertools.combinations(range(len(cluster)), 2):
        if cluster[i] != cluster[j] and min(cluster[i], cluster[j]) >= 0:
            swapped = list(cluster)
            swapped[i], swapped[j] = cluster[j], cluster[i]
            yield i, j, swapped


class Objective:
    """J of clusters of one round."""

    def __init__(self, counts, num_clusters, client_s, node_s, weight, target):
        self.counts, self.num_clusters, self.target = counts, num_clusters, target
        self.client_s, self.node_s, self.weight = client_s, node_s, weight

    def table(self, cluster):
        return pair_seconds(cluster, self.num_clusters, self.client_s, self.node_s)

    def at(self, cluster, nodes):
        kl = cluster_kl(self.counts, cluster, self.num_clusters, self.target)
        return math.fsum(kl) + self.weight * slowest(self.table(cluster), nodes)

    def matched(self, cluster):
        kl = cluster_kl(self.counts, cluster, self.num_clusters, self.target)
        return math.fsum(kl) + self.weight * quickest_nodes(self.table(cluster), 0.0)[0]

    def gains(self, cluster, nodes):
        """[(gain, clusters after)]: what every exchange lowers J by while clusters keep nodes."""
        now = self.at(cluster, nodes)
        every = [swapped for _, _, swapped in exchanges(cluster)]
        return [(now - self.at(swapped, nodes), swapped) for swapped in every]

    def least_gain_left(self, cluster):
        """The best exchange's gain, at that matching of the least slowest where it is least."""
        _, ties = quickest_nodes(self.table(cluster), 1e-6)
        best = [max((g for g, _ in self.gains(cluster, nodes)), default=0.0) for nodes in ties]
        return min(best)

    def search(self, cluster):
        """The rule from `cluster` on, how many matchings it took, and whether one was close."""
        for matchings in itertools.count(1):
            table = self.table(cluster)
            _, ties = quickest_nodes(table, 0.0)
            totals = sorted((sum(map(list.__getitem__, table, n)), n) for n in ties)
            unsure = len(totals) > 1 and totals[1][0] - totals[0][0] < 1e-4 * totals[0][0]
            swapped, close = self._swap_all(cluster, totals[0][1])
            if unsure or close or swapped == cluster:
                return swapped, matchings, unsure or close
            cluster = swapped

    def _swap_all(self, cluster, nodes):
        band = BAND_NATS + 1e-6 * self.at(cluster, nodes)
        while True:
            gains = sorted(self.gains(cluster, nodes), reverse=True)
            best = [g for g, _ in gains[:2]]
            if not best or best[0] < TIE_NATS - band:
                return cluster, False
            if best[0] < TIE_NATS + band or (len(best) > 1 and best[0] - best[1] < band):
                return cluster, True
            cluster = gains[0][1]
