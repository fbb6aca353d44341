"""Split learning one client after another for a multilayer perceptron, in float64 NumPy, and what
turns cost. Networks are lists of (W, b), see dense_net.py; a batch is (x [n, pixels], labels [n]).
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

NUMBER = 4  # bytes of an f32, and of the i32 label


class Client(NamedTuple):
    """A client of a round, in the order of the round."""

    batches: list  # of the local steps that it makes
    examples: int  # that it holds
    counts: bool
    part: float = 1.0  # of its planned steps that it makes


class Turn(NamedTuple):
    """What one client's turn is to be charged by."""

    samples: list  # of its planned local steps
    stays: int  # local steps after which it leaves
    flop_per_s: float
    powers: tuple  # watts: idle, busy, transmitting
    kind: int  # its device class
    up_bps: float  # to the front aggregation server, by radio
    down_bps: float


def splitfed_v2(front, back, clients, sgd):
    """A round of SplitFed V2: the model, and the mean loss of all samples before their steps.

    Thapa et al., algorithm 2: there is one back half, and it takes a step on every client's smashed
    data, one client after another; each client steps its own front half by the gradient that the
    back half gave it; the front halves are averaged in the end.
    """
    fronts = [front for _ in clients]
    front_buffers = [zeros_like(front) for _ in clients]
    buffer, losses = zeros_like(back), []
    for s in range(max(len(client.batches) for client in clients)):
        for k, client in enumerate(clients):
            if s >= len(client.batches):
                continue
            x, labels = client.batches[s]
            smashed = forward(fronts[k], x, relu_last=True)
            logits = forward(back, smashed[-1])
            loss, d_logits = cross_entropy(logits[-1], labels)
            losses += loss.tolist()
            back_grads, d_smashed = backward(back, logits, d_logits / len(labels))
            front_grads, _ = backward(fronts[k], smashed, d_smashed, relu_last=True)
            back, buffer = sgd_step(back, buffer, back_grads, sgd)
            fronts[k], front_buffers[k] = sgd_step(fronts[k], front_buffers[k], front_grads, sgd)
    weights = [client.counts * client.part * client.examples for client in clients]
    return weighted_mean(fronts, weights) + back, sum(losses) / len(losses)


def sequential(model, clients, sgd):
    """A round of sequential federated learning: the model, and the mean loss as above.

    Li and Lyu, algorithm 1: each client makes its steps of SGD from where the one before ended. Who
    does not count hands on what it got.
    """
    losses = []
    for client in clients:
        own, buffer = model, zeros_like(model)
        for x, labels in client.batches:
            trace = forward(own, x)
            loss, d_logits = cross_entropy(trace[-1], labels)
            losses += loss.tolist()
            grads, _ = backward(own, trace, d_logits / len(labels))
            own, buffer = sgd_step(own, buffer, grads, sgd)
        model = own if client.counts else model
    return model, sum(losses) / len(losses)


def charge(turns, work, network, feature_width, keep, num_kinds):
    """What a round of turns costs, one turn after another.

    Args:
      turns: of the clients, Turn each.
      work: its FLOPs of a sample, and bytes of the front half.
      network: topology.Network: its front aggregation server, cloud, and the wire between them.
      feature_width: numbers at the cut.
      keep: whether part of the steps counts.
      num_kinds: device classes.
    Returns:
      seconds {phase: s}, bytes {(link, message): count}, joules of each device class, and of each
      turn whether its client counts.
    """
    phase_s, sent, joules, counted = {}, {}, [0.0] * num_kinds, []

    def add(table, key, value):
        table[key] = table.get(key, 0) + value

    wire_bps = float(network.backhaul_bps[-1])
    cloud_flop_per_s, cloud_idle_w, cloud_busy_w, _, cloud = map(float, network.cloud)
    front_w, front = float(network.front.transmit_w), int(network.front.kind)
    for turn in turns:
        idle_w, busy_w, transmit_w = turn.powers
        turn_s = front_radio_s = client_radio_s = client_busy_s = cloud_busy_s = 0.0

        def spend(phase, seconds):
            add(phase_s, phase, seconds)
            return seconds

        load_s = spend("model_download", 8 * work.front_bytes / turn.down_bps)
        add(sent, ("client_down", "front_half"), work.front_bytes)
        turn_s, front_radio_s = turn_s + load_s, front_radio_s + load_s
        made = turn.samples[: turn.stays]
        for n in made:
            features, labels = n * feature_width * NUMBER, n * NUMBER
            forward_s = n * work.front_forward_flop / turn.flop_per_s
            backward_s = n * work.front_backward_flop / turn.flop_per_s
            served_s = n * work.back_train_flop / cloud_flop_per_s
            up_s = 8 * (features + labels) / turn.up_bps  # to the front server, then by wire
            down_s = 8 * features / turn.down_bps
            onward_s, back_s = 8 * (features + labels) / wire_bps, 8 * features / wire_bps
            turn_s += spend("front_forward", forward_s)
            turn_s += spend("smashed_upload", up_s + onward_s)
            turn_s += spend("back_training", served_s)
            turn_s += spend("gradient_download", back_s + down_s)
            turn_s += spend("front_backward", backward_s)
            for link in ("client_up", "edge_up"):
                add(sent, (link, "smashed_data"), features)
                add(sent, (link, "labels"), labels)
            for link in ("edge_down", "client_down"):
                add(sent, (link, "cut_gradient"), features)
            client_busy_s += forward_s + backward_s
            client_radio_s += up_s
            front_radio_s += down_s
            cloud_busy_s += served_s
        counted.append(len(made) == len(turn.samples) or (keep and len(made) > 0))
        if counted[-1]:
            deliver_s = spend("model_upload", 8 * work.front_bytes / turn.up_bps)
            add(sent, ("client_up", "front_half"), work.front_bytes)
            turn_s, client_radio_s = turn_s + deliver_s, client_radio_s + deliver_s
        joules[turn.kind] += idle_w * turn_s + (busy_w - idle_w) * client_busy_s
        joules[turn.kind] += transmit_w * client_radio_s
        joules[int(cloud)] += cloud_idle_w * turn_s + (cloud_busy_w - cloud_idle_w) * cloud_busy_s
        joules[front] += front_w * front_radio_s
    return {name: math.fsum([s]) for name, s in phase_s.items()}, sent, joules, counted
