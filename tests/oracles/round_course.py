"""The course of a simulated round in float64, one client, message and local step at a time.

A client is at the server of its cluster, and clusters placed at one server share its computing and
its link to the cloud evenly. A cluster is ready when its server has the back halves and its clients
that start have their front halves. A local step lasts until the last smashed data is there, until
the server has trained on all of it, and until the last client has finished its backward pass.
"""

import math

import numpy as np

from tests.oracles.round_actors import Client, Cluster, Course, Step


def run(task, network, work, sizes, deadline_s=None, keep=False):
    """The Course of a schedule.Task."""
    deadline = math.inf if deadline_s is None else float(deadline_s)
    margins = [math.inf]
    within = _within(deadline, margins)
    placement = [int(e) for e in task.placement]
    clients, clusters = {}, {}
    for k, m in enumerate(np.asarray(task.cluster).tolist()):
        if m < len(placement) and placement[m] >= 0:
            clients[k] = _client(k, m, placement, task, network, work, sizes)
    for m, e in enumerate(placement):
        members = [client for client in clients.values() if client.cluster == m]
        if e >= 0 and members:
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
    return Course(clients, clusters, _phases(clusters, deadline, margins), min(margins))


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


def _within(deadline, margins):
    """Whether a time is within the deadline; how close a call it was goes to `margins`."""

    def within(time_s):
        if math.isfinite(deadline):
            margins.append(abs(time_s - deadline) / max(time_s, deadline))
        return time_s <= deadline

    return within


def _first_largest(values, margins):
    """Index of the largest value, the first of equal ones."""
    best = max(range(len(values)), key=lambda i: values[i])
    others = [v for i, v in enumerate(values) if i != best]
    margins.extend((values[best] - v) / values[best] for v in others if values[best] > 0)
    return best


def _start(cluster, within, keep):
    for client in cluster.clients:
        loaded_s = max(client.load_s, cluster.back_load_s)
        if client.samples:
            need_s = client.step_s(0) if keep else client.rest_s(0)
            client.started = within(loaded_s + need_s)
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
            if s < len(client.samples)
            and s < client.stays
            and within(clock + (client.step_s(s) if keep else client.rest_s(s)))
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
