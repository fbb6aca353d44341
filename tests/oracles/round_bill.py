"""Costs of a round in float64 and whole bytes: each message sent, each device's joules."""

import math
from typing import NamedTuple

from tests.oracles.round_course import gradient_bytes, smashed_bytes


class Bill(NamedTuple):
    """What a round cost."""

    phase_s: dict  # {phase: seconds}, which add up to the round's length
    link_bytes: dict  # {(link, message): bytes}
    energy_j: list  # of each device class


class PairCost(NamedTuple):
    """What a server would take to train a cluster."""

    clients_s: float
    node_s: float
    backhaul_s: float
    active_j: float
    idle_w: float


def bill(course, network, work, sizes, distill_flop, num_kinds):
    """The Bill of a round_course.Course."""
    counting = [client for client in course.clients.values() if client.counts]
    backs = len({client.cluster for client in counting})
    front_s = 2 * len(counting) * work.front_params / float(network.front.flop_per_s)
    back_s = 2 * backs * work.back_params / float(network.cloud.flop_per_s)
    distill_s = float(distill_flop) / float(network.cloud.flop_per_s)
    phase_s = course.phase_s | {"averaging": front_s + back_s, "distillation": distill_s}
    energy_j = [0.0] * num_kinds
    for kind, joules in _joules(course, sum(phase_s.values()), network):
        energy_j[kind] += joules
    energy_j[int(network.front.kind)] += float(network.front.busy_w) * front_s
    energy_j[int(network.cloud.kind)] += float(network.cloud.busy_w) * (back_s + distill_s)
    return Bill(phase_s, count_bytes(messages(course, network, sizes)), energy_j)


def _joules(course, round_s, network):
    """(device class, joules) of clients, servers, and the front server's sending."""
    of = lambda devices, i: [float(leaf[i]) for leaf in devices]  # noqa: E731
    for k, client in course.clients.items():
        if client.started:
            _, idle_w, busy_w, transmit_w, kind = of(network.clients, k)
            present_s = client.out_s + client.deliver_s * client.counts
            present_s = round_s if client.finished else present_s
            made = slice(client.steps)
            computing_s = sum(client.forward_s[made]) + sum(client.backward_s[made])
            # By radio alone: what is for the cloud goes on by wire.
            radio = float(network.up_bps[k, client.server]) / float(
                network.radio_up_bps[k, client.server]
            )
            sending_s = sum(client.send_s[made]) * radio + client.deliver_s * client.counts
            joules = idle_w * present_s + (busy_w - idle_w) * computing_s + transmit_w * sending_s
            yield int(kind), joules
            yield int(network.front.kind), float(network.front.transmit_w) * client.load_s
    for e in {cluster.server for cluster in course.clusters.values()}:
        _, idle_w, busy_w, transmit_w, kind = of(network.servers, e)
        here = [cluster for cluster in course.clusters.values() if cluster.server == e]
        clients = [client for cluster in here for client in cluster.clients]
        joules = idle_w * max(cluster.closed_s for cluster in here)
        for client in clients:
            served_s = sum(client.serve_s[: client.steps]) / course.clusters[client.cluster].tenants
            joules += (busy_w - idle_w) * served_s
        yield int(kind), joules
        radio = network.front if math.isinf(network.backhaul_bps[e]) else None
        for k, client in course.clients.items():
            if client.server == e:
                share = float(network.down_bps[k, e]) / float(network.radio_down_bps[k, e])
                sent_s = share * sum(client.receive_s[: client.steps])
                if radio is None:
                    yield int(kind), transmit_w * sent_s
                else:
                    yield int(radio.kind), float(radio.transmit_w) * sent_s


def messages(course, network, sizes):
    """Each message that crosses a link: (link, message, bytes)."""
    for cluster in course.clusters.values():
        in_cloud = math.isinf(network.backhaul_bps[cluster.server])
        started = [client for client in cluster.clients if client.started]
        if started and not in_cloud:
            yield "edge_down", "back_half", sizes.back
        for client in started:
            yield "client_down", "front_half", sizes.front
            for samples in client.samples[: client.steps]:
                for link in ("client_up", "edge_up") if in_cloud else ("client_up",):
                    yield from _smashed(link, samples, sizes)
                for link in ("edge_down", "client_down") if in_cloud else ("client_down",):
                    yield link, "cut_gradient", gradient_bytes(samples, sizes)
        for client in started:
            if client.counts:
                yield "client_up", "front_half", sizes.front
        if not in_cloud:
            for client in started:
                for samples in client.uploaded():
                    yield from _smashed("edge_up", samples, sizes)
            if any(client.counts for client in started):
                yield "edge_up", "back_half", sizes.back


def _smashed(link, samples, sizes):
    labels = samples * sizes.label
    yield link, "smashed_data", smashed_bytes(samples, sizes) - labels
    yield link, "labels", labels


def count_bytes(sent):
    """{(link, message): bytes} of messages."""
    total = {}
    for link, message, size in sent:
        total[link, message] = total.get((link, message), 0) + size
    return total


def pair_cost(members, samples, uploads, e, network, work, sizes):
    """The PairCost of clients at these places, which make steps of samples[k], with server e."""
    f_e = float(network.servers.flop_per_s[e])
    idle_w = float(network.servers.idle_w[e])
    clients_s = node_s = active_j = 0.0
    for s in range(max(len(samples[k]) for k in members)):
        ups, downs = [0.0], [0.0]
        for k in members:
            n = samples[k][s] if s < len(samples[k]) else 0
            if n == 0:
                continue
            device = network.clients
            f_k = float(device.flop_per_s[k])
            forward_s, backward_s = (
                n * flop / f_k for flop in (work.front_forward_flop, work.front_backward_flop)
            )
            send_s = 8 * smashed_bytes(n, sizes) / float(network.up_bps[k, e])
            receive_s = 8 * gradient_bytes(n, sizes) / float(network.down_bps[k, e])
            ups.append(forward_s + send_s)
            downs.append(receive_s + backward_s)
            node_s += n * work.back_train_flop / f_e
            more_w = float(device.busy_w[k]) - float(device.idle_w[k])
            active_j += more_w * (forward_s + backward_s)
            radio = network.front.transmit_w
            if math.isfinite(network.backhaul_bps[e]):
                radio = network.servers.transmit_w[e]
            bits_up, bits_down = 8 * smashed_bytes(n, sizes), 8 * gradient_bytes(n, sizes)
            active_j += float(device.transmit_w[k]) * bits_up / float(network.radio_up_bps[k, e])
            active_j += float(radio) * bits_down / float(network.radio_down_bps[k, e])
        clients_s += max(ups) + max(downs)
    active_j += (float(network.servers.busy_w[e]) - idle_w) * node_s
    idle_w += sum(float(network.clients.idle_w[k]) for k in members)
    onward = 2 * sizes.back
    for k in members:
        made = [n for n in samples[k] if n > 0]
        sent = made[max(len(made) - int(uploads[k]), 0) :]
        onward += sum(smashed_bytes(n, sizes) for n in sent)
    backhaul_s = 8 * onward / float(network.backhaul_bps[e])
    return PairCost(clients_s, node_s, backhaul_s, active_j, idle_w)
