"""What a round costs in which every client trains a whole model: in plain Python, client by client.

A client loads what the server sends, computes its local steps one after another and delivers. No
client waits for another; the round lasts until the last one is through, and then the front
aggregation server averages. It is the client's link to that server that everything goes over.
"""

import dataclasses
import math


@dataclasses.dataclass
class Client:
    """A client of the round, and what becomes of it."""

    device: tuple  # flop/s, idle W, busy W, W radiated, device class
    up_bps: float
    down_bps: float
    samples: list  # of its planned local steps
    stays: int  # local steps after which it leaves
    steps: int = 0  # made
    started: bool = False
    counts: bool = False
    finished: bool = False
    load_s: float = 0.0
    computing_s: float = 0.0
    deliver_s: float = 0.0

    @property
    def out_s(self):
        """When its last step was over."""
        return self.load_s + self.computing_s

    @property
    def through_s(self):
        """When it was through with everything."""
        return self.out_s + self.deliver_s * self.counts


def run(client, size, flop, deadline_s, keep):
    """Lets a client do what it can by the deadline, with messages of so many bytes each way.

    `flop` is that of a sample, forward and backward.
    """
    client.load_s, client.deliver_s = 8 * size / client.down_bps, 8 * size / client.up_bps
    step_s = [n * sum(flop) / client.device[0] for n in client.samples]

    def in_time(step):
        """Whether it can deliver in time: after all steps from this one on, or after this one."""
        ahead = step_s[step : step + 1] if keep else step_s[step:]
        return client.load_s + client.computing_s + sum(ahead) + client.deliver_s <= deadline_s

    client.started = in_time(0)
    while client.started and client.steps < min(client.stays, len(step_s)):
        if not in_time(client.steps):
            break
        client.computing_s += step_s[client.steps]
        client.steps += 1
    all_of_it = client.steps == len(step_s)
    client.counts = client.steps > 0 and (keep or all_of_it) and client.through_s <= deadline_s
    client.finished = client.counts and all_of_it


def bill(clients, front, sizes, flop, num_kinds, deadline_s=None, keep=False):
    """Seconds by phase, bytes by link and message, joules by device class.

    Args:
      clients: list of Client, which will know what became of them.
      front: device of the front aggregation server, like a client's.
      sizes: {message: bytes} of what goes down, and up, with every client.
      flop: forward and backward, of a sample.
      num_kinds: number of device classes.
      deadline_s: or None.
      keep: whether what a client delivers after a part of its steps counts.
    """
    size, limit = sum(sizes.values()), math.inf if deadline_s is None else deadline_s
    for client in clients:
        run(client, size, flop, limit, keep)
    there = [client for client in clients if client.started]
    count = sum(client.counts for client in there)
    phase_s = {"averaging": 2 * count * (size / 4) / front[0]}  # 2 FLOPs for each number
    if count or (there and deadline_s is None):
        last = max(there, key=lambda client: client.counts * client.deliver_s + client.out_s)
        forward_s = last.computing_s * flop[0] / sum(flop)
        phase_s |= {
            "model_download": last.load_s,
            "front_forward": forward_s,
            "front_backward": last.computing_s - forward_s,
            "model_upload": last.deliver_s * last.counts,
        }
    elif deadline_s is not None:
        phase_s["waiting"] = deadline_s
    link_bytes = {}
    for message, of_one in sizes.items():
        link_bytes["client_down", message] = of_one * len(there)
        link_bytes["client_up", message] = of_one * count
    return phase_s, link_bytes, _joules(there, front, phase_s, num_kinds)


def _joules(there, front, phase_s, num_kinds):
    energy_j = [0.0] * num_kinds
    round_s = sum(phase_s.values())
    for client in there:
        _, idle_w, busy_w, radiated_w, kind = client.device
        present_s = round_s if client.finished else client.through_s
        energy_j[kind] += idle_w * (present_s - client.computing_s) + busy_w * client.computing_s
        energy_j[kind] += radiated_w * client.deliver_s * client.counts
    _, _, busy_w, radiated_w, kind = front
    sending_s = sum(client.load_s for client in there)
    energy_j[kind] += radiated_w * sending_s + busy_w * phase_s["averaging"]
    return energy_j
