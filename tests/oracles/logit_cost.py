"""What a round of FedGKT costs in float64 and whole bytes, client by client."""

from tests.oracles.split_cost import Cost

NUMBER = 4  # bytes of an f32, and of the i32 label


def cost(task, network, work, width, num_classes, server_flop_per_sample, num_kinds):
    """The Cost of a step_times.Task in which client k is cluster k, or has no place at all.

    `width` numbers are the features of a sample; the cloud is the last server.
    """
    here, energy_j, samples = {}, [0.0] * num_kinds, 0
    for k, m in enumerate(task.cluster):
        planned = [n for n in task.samples[k].tolist() if n]
        if m != k or not planned:
            continue
        made = planned[: int(task.stays[k])]
        finishes = len(made) == len(planned)
        uploaded = sum(made[max(0, len(made) - int(task.uploads[k])) :]) if finishes else 0
        flop_per_s, samples = float(network.clients.flop_per_s[k]), samples + uploaded
        up_bits = 8 * NUMBER * uploaded * (width + 1 + num_classes)
        forward_s = (sum(made) + uploaded) * work.front_forward_flop / flop_per_s
        backward_s = sum(made) * work.front_backward_flop / flop_per_s
        send_s = up_bits / float(network.up_bps[k, -1])
        receive_s = 8 * NUMBER * uploaded * num_classes / float(network.down_bps[k, -1])
        here[k] = forward_s, backward_s, send_s, receive_s, finishes
    cloud_s = samples * server_flop_per_sample / float(network.cloud.flop_per_s)
    forward_s, backward_s, send_s, *_ = max(here.values(), key=lambda spent: sum(spent[:3]))
    phase_s = {
        "front_forward": forward_s,
        "front_backward": backward_s,
        "smashed_upload": send_s,
        "distillation": cloud_s,
        "gradient_download": max(receive_s for *_, receive_s, _ in here.values()),
    }
    for k, (forward_s, backward_s, send_s, receive_s, finishes) in here.items():
        _, idle_w, busy_w, transmit_w, kind = (float(leaf[k]) for leaf in network.clients)
        computes_s = forward_s + backward_s
        waits_s = sum(phase_s.values()) - computes_s if finishes else 0.0
        # Of the seconds of a whole way, those of its radio.
        by_radio_s = send_s * float(network.up_bps[k, -1] / network.radio_up_bps[k, -1])
        energy_j[int(kind)] += idle_w * waits_s + busy_w * computes_s + transmit_w * by_radio_s
        by_radio_s = receive_s * float(network.down_bps[k, -1] / network.radio_down_bps[k, -1])
        energy_j[int(network.front.kind)] += float(network.front.transmit_w) * by_radio_s
    energy_j[int(network.cloud.kind)] += float(network.cloud.busy_w) * cloud_s
    messages = {"smashed_data": width, "labels": 1, "logits": num_classes}
    up = {(link, m): n for link in ("client_up", "edge_up") for m, n in messages.items()}
    down = {(link, "logits"): num_classes for link in ("client_down", "edge_down")}
    sent = {key: NUMBER * numbers * samples for key, numbers in (up | down).items() if samples}
    return Cost(phase_s, sent, energy_j)
