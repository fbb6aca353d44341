"""What a round of HierFAVG costs in float64 and whole bytes, one edge node and client at a time."""

import math
from typing import NamedTuple


class Client(NamedTuple):
    """A client of a round."""

    place: int  # in the arrays of the network
    samples: list  # [edge round][local step] that it is to train on
    stays: int  # local steps of the round after which it leaves

    @property
    def leaves(self):
        return self.stays < sum(map(len, self.samples))


class Cost(NamedTuple):
    """What a round cost."""

    phase_s: dict  # {phase: seconds}
    link_bytes: dict  # {(link, message): bytes}
    energy_j: list  # of each device class
    margin: float  # least relative distance between who is last and who would be next


def cost(clients, network, flops, num_params, edge_rounds, num_kinds):
    """The Cost of a round of Clients on a RoundNetwork.

    `flops` are those of a sample's forward and backward pass; a parameter has 4 bytes.
    """
    totals = _Totals(num_kinds)
    size, ends, mine, gone_s = 4 * num_params, {}, {}, {}
    for client in clients:
        distances = network.distance_km[client.place].tolist()
        mine.setdefault(distances.index(min(distances)), []).append(client)
    for e, members in mine.items():
        ends[e] = _edge_node(totals, e, members, network, flops, size, edge_rounds, gone_s)
    nodes = sum(any(not client.leaves for client in members) for members in mine.values())
    cloud_s = 2 * num_params * nodes / float(network.cloud.flop_per_s)
    phase_s = {}
    if ends:
        phase_s = dict(totals.largest(ends.values(), lambda spent: sum(spent.values())))
        phase_s["averaging"] += cloud_s
    totals.joules[int(network.cloud.kind)] += float(network.cloud.busy_w) * cloud_s
    for client in clients:
        _, idle_w, _, _, kind = (float(leaf[client.place]) for leaf in network.clients)
        until_s = gone_s.get(client.place, sum(phase_s.values()))
        totals.joules[int(kind)] += idle_w * until_s
    return Cost(phase_s, totals.sent, totals.joules, totals.margin)


class _Totals:
    def __init__(self, num_kinds):
        self.sent, self.joules, self.margin = {}, [0.0] * num_kinds, math.inf

    def send(self, link, size):
        self.sent[link, "model"] = self.sent.get((link, "model"), 0) + size

    def largest(self, items, key):
        first, *rest = sorted(items, key=key, reverse=True)
        if rest:
            self.margin = min(self.margin, 1 - key(rest[0]) / key(first))
        return first


def _edge_node(totals, e, members, network, flops, size, edge_rounds, gone_s):
    """Seconds by phase of an edge node until the cloud has its model; fills in who leaves when."""
    node_flop_per_s, node_idle_w, node_busy_w, node_transmit_w, node = (
        float(leaf[e]) for leaf in network.servers
    )
    through_s = 8 * size / float(network.backhaul_bps[e])
    staying = [client for client in members if not client.leaves]
    spent = dict.fromkeys(
        ("model_download", "front_forward", "front_backward", "model_upload", "averaging"), 0.0
    )
    totals.send("edge_down", size)
    spent["model_download"] += through_s
    average_s = 2 * size / 4 * len(staying) / node_flop_per_s
    here = list(members)
    for r in range(edge_rounds):
        ways = []
        for client in list(here):
            k = client.place
            flop_per_s, idle_w, busy_w, transmit_w, kind = (float(x[k]) for x in network.clients)
            before = sum(len(steps) for steps in client.samples[:r])
            made = client.samples[r][: max(client.stays - before, 0)]
            whole = len(made) == len(client.samples[r])
            way = {"model_download": 8 * size / float(network.down_bps[k, e])}
            totals.send("client_down", size)
            totals.joules[int(node)] += node_transmit_w * way["model_download"]
            for phase, flop in zip(("front_forward", "front_backward"), flops, strict=True):
                way[phase] = sum(made) * flop / flop_per_s
                totals.joules[int(kind)] += (busy_w - idle_w) * way[phase]
            if whole:
                way["model_upload"] = 8 * size / float(network.up_bps[k, e])
                totals.send("client_up", size)
                totals.joules[int(kind)] += transmit_w * way["model_upload"]
            else:
                here.remove(client)
                gone_s[k] = sum(spent.values()) + sum(way.values())
            ways.append(way)
        if ways:
            for phase, s in totals.largest(ways, lambda way: sum(way.values())).items():
                spent[phase] += s
        spent["averaging"] += average_s
        totals.joules[int(node)] += (node_busy_w - node_idle_w) * average_s
    if staying:
        totals.send("edge_up", size)
        spent["model_upload"] += through_s
    totals.joules[int(node)] += node_idle_w * sum(spent.values())
    return spent
