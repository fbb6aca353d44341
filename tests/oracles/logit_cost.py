"""What a round of FedGKT costs in float64 and whole bytes, client by client."""

from typing import NamedTuple

from tests.oracles.split_cost import Cost

NUMBER = 4  # bytes of an f32, and of the i32 label


class Way(NamedTuple):
    """What one client does in a round."""

    forward_s: float
    backward_s: float
    send_s: float
    receive_s: float
    uploaded: int  # samples
    finishes: bool


def cost(task, network, work, width, num_classes, server_flop_per_sample, num_kinds):
    """The Cost of a step_times.Task in which client k is cluster k, or has no place at all.

    `width` numbers are the features of a sample; the cloud is the last server.
    """
    ways = {
        k: _way(k, task, network, work, width, num_classes)
        for k, m in enumerate(task.cluster)
        if m == k and task.samples[k].any()
    }
    samples = sum(way.uploaded for way in ways.values())
    cloud_s = samples * server_flop_per_sample / float(network.cloud.flop_per_s)
    last = max(ways.values(), key=lambda way: way.forward_s + way.backward_s + way.send_s)
    phase_s = {
        "front_forward": last.forward_s,
        "front_backward": last.backward_s,
        "smashed_upload": last.send_s,
        "distillation": cloud_s,
        "gradient_download": max(way.receive_s for way in ways.values()),
    }
    energy_j = [0.0] * num_kinds
    for k, way in ways.items():
        _, idle_w, busy_w, transmit_w, kind = (float(leaf[k]) for leaf in network.clients)
        computes_s = way.forward_s + way.backward_s
        waits_s = (sum(phase_s.values()) if way.finishes else computes_s) - computes_s
        by_radio_s = way.send_s * _share(network.up_bps, network.radio_up_bps, k)
        energy_j[int(kind)] += idle_w * waits_s + busy_w * computes_s + transmit_w * by_radio_s
        by_radio_s = way.receive_s * _share(network.down_bps, network.radio_down_bps, k)
        energy_j[int(network.front.kind)] += float(network.front.transmit_w) * by_radio_s
    energy_j[int(network.cloud.kind)] += float(network.cloud.busy_w) * cloud_s
    sent = {}
    for link in ("client_up", "edge_up"):
        sent[link, "smashed_data"] = NUMBER * width * samples
        sent[link, "labels"] = NUMBER * samples
    for link in ("client_up", "edge_up", "client_down", "edge_down"):
        sent[link, "logits"] = NUMBER * num_classes * samples
    return Cost(phase_s, {key: size for key, size in sent.items() if size}, energy_j)


def _way(k, task, network, work, width, num_classes):
    planned = [n for n in task.samples[k].tolist() if n]
    made = planned[: int(task.stays[k])]
    finishes = len(made) == len(planned)
    first = max(0, len(made) - int(task.uploads[k]))
    uploaded = sum(made[first:]) if finishes else 0
    flop_per_s = float(network.clients.flop_per_s[k])
    up_bits = 8 * NUMBER * uploaded * (width + 1 + num_classes)
    return Way(
        (sum(made) + uploaded) * work.front_forward_flop / flop_per_s,
        sum(made) * work.front_backward_flop / flop_per_s,
        up_bits / float(network.up_bps[k, -1]),
        8 * NUMBER * uploaded * num_classes / float(network.down_bps[k, -1]),
        uploaded,
        finishes,
    )


def _share(whole_bps, radio_bps, k):
    """Of the seconds of a whole way, those of its radio."""
    return float(whole_bps[k, -1]) / float(radio_bps[k, -1])
