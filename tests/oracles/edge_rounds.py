"""HierFAVG for a multilayer perceptron in float64 NumPy, and what its rounds cost, event by event.

Liu et al., ICC 2020, algorithm 1. Networks are lists of (W, b), see dense_net.py; a batch is
(x [n, pixels], labels [n]).
"""

import math
from typing import NamedTuple

from tests.oracles.dense_net import (
    backward,
    cross_entropy,
    forward,
    sgd_step,
    weighted_mean,
    zeros_like,
)


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


def nearest(distances):
    """The place of the least distance, the first of equals."""
    best = 0
    for e, distance in enumerate(distances):
        if distance < distances[best]:
            best = e
    return best


def train(model, batches, sgd):
    """Plain SGD from a model with a new buffer: the model after it, summed loss, samples."""
    buffer, loss, samples = zeros_like(model), 0.0, 0
    for x, y in batches:
        trace = forward(model, x)
        losses, d_logits = cross_entropy(trace[-1], y)
        grads, _ = backward(model, trace, d_logits / len(y))
        model, buffer = sgd_step(model, buffer, grads, sgd)
        loss, samples = loss + losses.sum(), samples + len(y)
    return model, loss, samples


def one_round(model, clients, edge_rounds, sgd):
    """The cloud's model after a round, and the mean loss over all samples before each step.

    `clients` are (edge node, examples held, whether it stays, [edge round][step] batches); one that
    does not stay has the batches that it makes, and is in no average.
    """
    nodes = sorted({node for node, *_ in clients})
    edge, loss, samples = dict.fromkeys(nodes, model), 0.0, 0
    size = {e: sum(n for node, n, stays, _ in clients if node == e and stays) for e in nodes}
    for r in range(edge_rounds):
        for e in nodes:
            models, weights = [], []
            for node, examples, stays, batches in clients:
                if node != e:
                    continue
                own, more_loss, more = train(edge[e], batches[r], sgd)
                loss, samples = loss + more_loss, samples + more
                if stays:
                    models.append(own)
                    weights.append(examples)
            if models:
                edge[e] = weighted_mean(models, weights)
    if any(size.values()):
        model = weighted_mean([edge[e] for e in nodes], [size[e] for e in nodes])
    return model, loss / samples


def cost(clients, network, flops, num_params, edge_rounds, num_kinds):
    """The Cost of a round of Clients on a RoundNetwork.

    `flops` are those of a sample's forward and backward pass; a parameter has 4 bytes.
    """
    place = _Books(num_kinds)
    size, ends = 4 * num_params, {}
    mine = {}
    for client in clients:
        mine.setdefault(nearest(network.distance_km[client.place].tolist()), []).append(client)
    gone_s = {}
    for e, members in mine.items():
        ends[e] = _edge_node(place, e, members, network, flops, size, edge_rounds, gone_s)
    nodes = sum(any(not client.leaves for client in members) for members in mine.values())
    cloud_s = 2 * num_params * nodes / float(network.cloud.flop_per_s)
    phase_s = {}
    if ends:
        phase_s = dict(place.largest(ends.values(), lambda spent: sum(spent.values())))
        phase_s["averaging"] += cloud_s
    place.joules[int(network.cloud.kind)] += float(network.cloud.busy_w) * cloud_s
    for client in clients:
        until_s = gone_s.get(client.place, sum(phase_s.values()))
        device = network.clients
        idle_w = float(device.idle_w[client.place])
        place.joules[int(device.kind[client.place])] += idle_w * until_s
    return Cost(phase_s, place.sent, place.joules, place.margin)


class _Books:
    def __init__(self, num_kinds):
        self.sent, self.joules, self.margin = {}, [0.0] * num_kinds, math.inf

    def send(self, link, size):
        self.sent[link, "model"] = self.sent.get((link, "model"), 0) + size

    def largest(self, items, key):
        first, *rest = sorted(items, key=key, reverse=True)
        if rest:
            self.margin = min(self.margin, 1 - key(rest[0]) / key(first))
        return first


def _edge_node(books, e, members, network, flops, size, edge_rounds, gone_s):
    """Seconds by phase of an edge node, until the cloud has its model; who leaves, when."""
    server, device = network.servers, network.clients
    through_s = 8 * size / float(network.backhaul_bps[e])
    staying = [client for client in members if not client.leaves]
    spent = dict.fromkeys(
        ("model_download", "front_forward", "front_backward", "model_upload", "averaging"), 0.0
    )
    books.send("edge_down", size)
    spent["model_download"] += through_s
    average_s = 2 * size / 4 * len(staying) / float(server.flop_per_s[e])
    more_w = float(server.busy_w[e]) - float(server.idle_w[e])
    here = list(members)
    for r in range(edge_rounds):
        ways = []
        for client in list(here):
            k, kind = client.place, int(device.kind[client.place])
            before = sum(len(steps) for steps in client.samples[:r])
            made = client.samples[r][: max(client.stays - before, 0)]
            whole = len(made) == len(client.samples[r])
            way = {"model_download": 8 * size / float(network.down_bps[k, e])}
            books.send("client_down", size)
            sending = float(server.transmit_w[e]) * way["model_download"]
            books.joules[int(server.kind[e])] += sending
            for phase, flop in zip(("front_forward", "front_backward"), flops, strict=True):
                way[phase] = sum(made) * flop / float(device.flop_per_s[k])
                busy_w = float(device.busy_w[k]) - float(device.idle_w[k])
                books.joules[kind] += busy_w * way[phase]
            if whole:
                way["model_upload"] = 8 * size / float(network.up_bps[k, e])
                books.send("client_up", size)
                books.joules[kind] += float(device.transmit_w[k]) * way["model_upload"]
            else:
                here.remove(client)
                gone_s[k] = sum(spent.values()) + sum(way.values())
            ways.append(way)
        if ways:
            for phase, s in books.largest(ways, lambda way: sum(way.values())).items():
                spent[phase] += s
        spent["averaging"] += average_s
        books.joules[int(server.kind[e])] += more_w * average_s
    if staying:
        books.send("edge_up", size)
        spent["model_upload"] += through_s
    books.joules[int(server.kind[e])] += float(server.idle_w[e]) * sum(spent.values())
    return spent
