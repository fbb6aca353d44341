"""A simulated round of split training in float64, one client, message and local step at a time.

A client is at the server of its cluster, and clusters placed at one server share its computing and
its link to the cloud evenly. A cluster is ready when its server has the back halves and its clients
that start have their front halves. A local step lasts until the last smashed data is there, until
the server has trained on all of it, and until the last client has finished its backward pass.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass
class Client:
    """What a client's own work takes at its server, seconds, and what became of it."""

    cluster: int
    server: int
    samples: list  # of its planned local steps
    uploads: int
    stays: int
    load_s: float
    deliver_s: float
    forward_s: list
    send_s: list
    serve_s: list  # the server's training on this client's samples, as the server is shared
    receive_s: list
    backward_s: list
    started: bool = False
    steps: int = 0
    out_s: float = 0.0
    finished: bool = False
    counts: bool = False

    @property
    def arrives_s(self):
        """When its front half is at the front aggregation server."""
        return self.out_s + self.deliver_s

    def ahead_s(self, step, keep):
        """To the end of this local step, or of all from it on, and delivering, unless held up."""
        parts = self.forward_s, self.send_s, self.serve_s, self.receive_s, self.backward_s
        last = step + 1 if keep else len(self.samples)
        return sum(sum(part[step:last]) for part in parts) + self.deliver_s

    def uploaded(self):
        """Samples of each local step whose smashed data goes on to the cloud."""
        return self.samples[max(self.steps - self.uploads, 0) : self.steps] if self.counts else []


class Step(NamedTuple):
    """One local step of a cluster: when it began, and so on, and who was last."""

    begin_s: float
    arrived_s: float
    served_s: float
    end_s: float
    last_up: tuple  # (forward, send) seconds of the client whose smashed data came last
    last_down: tuple  # (receive, backward)


@dataclasses.dataclass
class Cluster:
    """A cluster at a server, which it shares with its tenants, itself among them."""

    server: int
    tenants: int
    back_load_s: float
    clients: list
    steps: list = dataclasses.field(default_factory=list)
    ready_s: float = 0.0
    trained_s: float = 0.0
    closed_s: float = 0.0


class Outcome(NamedTuple):
    """What became of a round."""

    clients: dict  # {place: Client} of those in a cluster that has a server
    clusters: dict  # {number: Cluster} of those that have a server and members
    phase_s: dict  # seconds until the slowest cluster closed
    margin: float  # least relative distance of two numbers on whose order the outcome depends


class Cost(NamedTuple):
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


def simulate(task, network, work, sizes, deadline_s=None, keep=False):
    """The Outcome of a step_times.Task on a RoundNetwork."""
    deadline = math.inf if deadline_s is None else float(deadline_s)
    margins = [math.inf]

    def within(time_s):
        """Whether a time is within the deadline; how close a call it was goes to `margins`."""
        if math.isfinite(deadline):
            margins.append(abs(time_s - deadline) / max(time_s, deadline))
        return time_s <= deadline

    placement = [int(e) for e in task.placement]
    clients, clusters = {}, {}
    for k, m in enumerate(np.asarray(task.cluster).tolist()):
        if 0 <= m < len(placement) and placement[m] >= 0:
            clients[k] = _client(k, m, placement, task, network, work, sizes)
    for m, e in enumerate(placement):
        members = [client for client in clients.values() if client.cluster == m]
        if members:
            tenants = placement.count(e)
            back_load_s = tenants * 8 * sizes.back / float(network.backhaul_bps[e])
            clusters[m] = Cluster(e, tenants, back_load_s, members)
    for cluster in clusters.values():
        _start(cluster, within, keep)
        _train(cluster, within, margins, keep)
        for client in cluster.clients:
            in_time = client.steps > 0 and within(client.arrives_s)
            client.finished = in_time and client.steps == len(client.samples)
            client.counts = in_time and (keep or client.finished)
    _close(clusters, network, sizes)
    return Outcome(clients, clusters, _phases(clusters, deadline, margins), min(margins))


def smashed_bytes(samples, sizes):
    """Bytes of the smashed data and labels of one client's local step."""
    return sizes.smashed.per_sample * samples + sizes.smashed.per_message + sizes.label * samples


def gradient_bytes(samples, sizes):
    """Bytes of the gradient at the cut that answers them."""
    return sizes.gradient.per_sample * samples + sizes.gradient.per_message


def _client(k, m, placement, task, network, work, sizes):
    e = placement[m]
    flop_per_s = float(network.clients.flop_per_s[k])
    served_flop_per_s = float(network.servers.flop_per_s[e]) / placement.count(e)
    samples = [n for n in np.asarray(task.samples)[k].tolist() if n > 0]
    return Client(
        m,
        e,
        samples,
        int(task.uploads[k]),
        int(task.stays[k]),
        8 * sizes.front / float(network.front_down_bps[k]),
        8 * sizes.front / float(network.front_up_bps[k]),
        [n * work.front_forward_flop / flop_per_s for n in samples],
        [8 * smashed_bytes(n, sizes) / float(network.up_bps[k, e]) for n in samples],
        [n * work.back_train_flop / served_flop_per_s for n in samples],
        [8 * gradient_bytes(n, sizes) / float(network.down_bps[k, e]) for n in samples],
        [n * work.front_backward_flop / flop_per_s for n in samples],
    )


def _first_largest(values, margins):
    """Index of the largest value, the first of equal ones."""
    best = max(range(len(values)), key=lambda i: values[i])
    others = [v for i, v in enumerate(values) if i != best]
    margins.extend((values[best] - v) / values[best] for v in others if values[best] > 0)
    return best


def _start(cluster, within, keep):
    for client in cluster.clients:
        loaded_s = max(client.load_s, cluster.back_load_s)
        client.started = bool(client.samples) and within(loaded_s + client.ahead_s(0, keep))
    loads = [client.load_s for client in cluster.clients if client.started]
    if loads:
        cluster.ready_s = max(cluster.back_load_s, *loads)


def _train(cluster, within, margins, keep):
    clock = cluster.ready_s
    present = [client for client in cluster.clients if client.started]
    for client in present:
        client.out_s = clock
    for s in range(max((len(client.samples) for client in present), default=0)):
        present = [
            client
            for client in present
            if s < min(len(client.samples), client.stays)
            and within(clock + client.ahead_s(s, keep))
        ]
        if keep and present:
            together_s = clock + max(client.forward_s[s] + client.send_s[s] for client in present)
            together_s += sum(client.serve_s[s] for client in present)
            together_s += max(client.receive_s[s] + client.backward_s[s] for client in present)
            present = [c for c in present if within(together_s + c.deliver_s)]
        if not present:
            break
        ups = [client.forward_s[s] + client.send_s[s] for client in present]
        downs = [client.receive_s[s] + client.backward_s[s] for client in present]
        up, down = _first_largest(ups, margins), _first_largest(downs, margins)
        arrived_s = clock + ups[up]
        served_s = arrived_s + sum(client.serve_s[s] for client in present)
        end_s = served_s + downs[down]
        if not within(end_s):
            break
        last_up = present[up].forward_s[s], present[up].send_s[s]
        last_down = present[down].receive_s[s], present[down].backward_s[s]
        cluster.steps.append(Step(clock, arrived_s, served_s, end_s, last_up, last_down))
        clock = end_s
        for client in present:
            client.steps, client.out_s = s + 1, clock
    cluster.trained_s = clock


def _close(clusters, network, sizes):
    up_bits = {}  # of each server
    for cluster in clusters.values():
        counting = [client for client in cluster.clients if client.counts]
        if counting:
            sent = [smashed_bytes(n, sizes) for client in counting for n in client.uploaded()]
            bits = 8 * (sizes.back + sum(sent))
            up_bits[cluster.server] = up_bits.get(cluster.server, 0) + bits
    for cluster in clusters.values():
        arrivals = [client.arrives_s for client in cluster.clients if client.counts]
        cluster.closed_s = cluster.trained_s
        if arrivals:
            back_up_s = up_bits[cluster.server] / float(network.backhaul_bps[cluster.server])
            cluster.closed_s = max(cluster.trained_s + back_up_s, *arrivals)


def _phases(clusters, deadline, margins):
    """Seconds of each phase on the slowest cluster's path; waiting where nothing counts."""
    waits = math.isfinite(deadline) and not any(
        client.counts for cluster in clusters.values() for client in cluster.clients
    )
    if waits or not clusters:
        return {"waiting": deadline} if waits else {}
    every = [clusters[m] for m in sorted(clusters)]
    slowest = every[_first_largest([cluster.closed_s for cluster in every], margins)]
    steps = slowest.steps
    return {
        "model_download": slowest.ready_s,
        "front_forward": sum(step.last_up[0] for step in steps),
        "smashed_upload": sum(step.last_up[1] for step in steps),
        "back_training": sum(step.served_s - step.arrived_s for step in steps),
        "gradient_download": sum(step.last_down[0] for step in steps),
        "front_backward": sum(step.last_down[1] for step in steps),
        "model_upload": slowest.closed_s - slowest.trained_s,
    }


def cost(outcome, network, work, sizes, distill_flop, num_kinds, averages=True):
    """The Cost of an Outcome; averaging takes 2 FLOPs for each parameter of each model, or none."""
    counting = [client for client in outcome.clients.values() if client.counts]
    backs = len({client.cluster for client in counting})
    front_s = 2 * len(counting) * (sizes.front / 4) / float(network.front.flop_per_s) * averages
    back_s = 2 * backs * work.back_params / float(network.cloud.flop_per_s) * averages
    distill_s = float(distill_flop) / float(network.cloud.flop_per_s)
    phase_s = outcome.phase_s | {"averaging": front_s + back_s, "distillation": distill_s}
    energy_j = [0.0] * num_kinds
    for kind, joules in _joules(outcome, sum(phase_s.values()), network):
        energy_j[int(kind)] += joules
    energy_j[int(network.front.kind)] += float(network.front.busy_w) * front_s
    energy_j[int(network.cloud.kind)] += float(network.cloud.busy_w) * (back_s + distill_s)
    return Cost(phase_s, count_bytes(messages(outcome, network, sizes)), energy_j)


def _joules(outcome, round_s, network):
    """(device class, joules) of clients, servers, and the front server's sending."""
    for k, client in outcome.clients.items():
        if not client.started:
            continue
        _, idle_w, busy_w, transmit_w, kind = (float(leaf[k]) for leaf in network.clients)
        present_s = client.out_s + client.deliver_s * client.counts
        present_s = round_s if client.finished else present_s
        made = slice(client.steps)
        computing_s = sum(client.forward_s[made]) + sum(client.backward_s[made])
        # By radio alone: what is for the cloud goes on by wire.
        radio = float(network.up_bps[k, client.server] / network.radio_up_bps[k, client.server])
        sending_s = sum(client.send_s[made]) * radio + client.deliver_s * client.counts
        yield kind, idle_w * present_s + (busy_w - idle_w) * computing_s + transmit_w * sending_s
        yield network.front.kind, float(network.front.transmit_w) * client.load_s
    for e in {cluster.server for cluster in outcome.clusters.values()}:
        _, idle_w, busy_w, transmit_w, kind = (float(leaf[e]) for leaf in network.servers)
        here = [cluster for cluster in outcome.clusters.values() if cluster.server == e]
        joules = idle_w * max(cluster.closed_s for cluster in here)
        for cluster in here:
            for client in cluster.clients:
                served_s = sum(client.serve_s[: client.steps]) / cluster.tenants
                joules += (busy_w - idle_w) * served_s
        yield kind, joules
        if math.isinf(network.backhaul_bps[e]):  # the cloud, for which the front server sends
            transmit_w, kind = float(network.front.transmit_w), network.front.kind
        for k, client in outcome.clients.items():
            if client.server == e:
                share = float(network.down_bps[k, e] / network.radio_down_bps[k, e])
                yield kind, transmit_w * share * sum(client.receive_s[: client.steps])


def messages(outcome, network, sizes):
    """Each message that crosses a link: (link, message, bytes)."""
    of_client = {"model" if sizes.whole else "front_half": sizes.front - sizes.control}
    of_client |= {"control_variate": sizes.control} if sizes.control else {}
    for cluster in outcome.clusters.values():
        in_cloud = math.isinf(network.backhaul_bps[cluster.server])
        started = [client for client in cluster.clients if client.started]
        if started and not in_cloud:
            yield "edge_down", "back_half", sizes.back
        for client in started:
            for link in ("client_down", "client_up")[: 1 + client.counts]:
                yield from ((link, message, size) for message, size in of_client.items())
            for samples in client.samples[: client.steps]:
                for link in ("client_up", "edge_up") if in_cloud else ("client_up",):
                    yield from _smashed(link, samples, sizes)
                for link in ("edge_down", "client_down") if in_cloud else ("client_down",):
                    yield link, "cut_gradient", gradient_bytes(samples, sizes)
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
    in_cloud = math.isinf(network.backhaul_bps[e])
    radiates_w = float(network.front.transmit_w if in_cloud else network.servers.transmit_w[e])
    clients_s = node_s = active_j = 0.0
    for s in range(max(len(samples[k]) for k in members)):
        ups, downs = [0.0], [0.0]
        for k in members:
            n = samples[k][s] if s < len(samples[k]) else 0
            if n == 0:
                continue
            f_k, idle_w, busy_w, transmit_w, _ = (float(leaf[k]) for leaf in network.clients)
            forward_s = n * work.front_forward_flop / f_k
            backward_s = n * work.front_backward_flop / f_k
            bits_up, bits_down = 8 * smashed_bytes(n, sizes), 8 * gradient_bytes(n, sizes)
            ups.append(forward_s + bits_up / float(network.up_bps[k, e]))
            downs.append(bits_down / float(network.down_bps[k, e]) + backward_s)
            node_s += n * work.back_train_flop / f_e
            active_j += (busy_w - idle_w) * (forward_s + backward_s)
            active_j += transmit_w * bits_up / float(network.radio_up_bps[k, e])
            active_j += radiates_w * bits_down / float(network.radio_down_bps[k, e])
        clients_s += max(ups) + max(downs)
    idle_w = float(network.servers.idle_w[e])
    active_j += (float(network.servers.busy_w[e]) - idle_w) * node_s
    idle_w += sum(float(network.clients.idle_w[k]) for k in members)
    onward = 2 * sizes.back
    for k in members:
        made = [n for n in samples[k] if n > 0]
        onward += sum(smashed_bytes(n, sizes) for n in made[max(len(made) - int(uploads[k]), 0) :])
    backhaul_s = 8 * onward / float(network.backhaul_bps[e])
    return PairCost(clients_s, node_s, backhaul_s, active_j, idle_w)
