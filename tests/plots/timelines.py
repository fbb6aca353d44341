"""Rounds that never were, for the pictures of a round."""

import json

import numpy as np


def make_timeline(
    num_clients=8, num_clusters=3, steps=4, dropped=(), deadline_s=None, seed=0, in_cloud=()
):
    """A timeline of this many clients; clusters share nodes from the fifth on.

    Args:
      dropped: places of clients, in the order of the timeline, that leave half-way.
      in_cloud: clusters that the cloud serves, as node 4.
    """
    rng = np.random.default_rng(seed)
    cluster = np.sort(np.arange(num_clients) % max(num_clusters, 1))
    node_of = [4 if number in in_cloud else number % 4 for number in range(num_clusters)]
    forward, send = rng.uniform(0.05, 0.2, num_clients), rng.uniform(0.05, 0.3, num_clients)
    clients, served, ends = [], {number: [] for number in range(5)}, []
    for number in range(max(num_clusters, 1)):
        members = np.flatnonzero(cluster == number)
        bars, node_bars, end_s = _work(members, forward, send, steps)
        node = node_of[number] if num_clusters else -1
        if node >= 0 and not served[node]:
            served[node] = node_bars
        ends.append(end_s)
        for member, own in zip(members, bars, strict=True):
            own = own[: len(own) // 2] if member in dropped else own
            clients.append(
                {
                    "client": int(3 * member),
                    "device": ("phone", "laptop", "raspberry_pi")[member % 3],
                    "cluster": number if num_clusters else -1,
                    "node": node,
                    "finished": member not in dropped,
                    "position_km": rng.uniform(-0.5, 0.5, 2).tolist(),
                    "bars": own,
                }
            )
    for client in clients:
        last_s = client["bars"][-1][2]
        if client["finished"] and last_s < max(ends):
            client["bars"].append(["wait", last_s, max(ends)])
    nodes = [
        {
            "node": number,
            "device": "edge_server" if number < 4 else "cloud_server",
            "position_km": rng.uniform(-0.4, 0.4, 2).tolist() if number < 4 else None,
            "clusters": [at for at, node in enumerate(node_of) if node == number],
            "bars": served[number],
        }
        for number in range(5 if in_cloud else 4)
    ]
    close_s = max(ends)
    average = ["average", close_s + 0.1, close_s + 0.2]
    front = {"device": "edge_server", "position_km": [0.0, 0.0]}
    timeline = {
        "round": 50,
        "round_s": close_s + 1.0,
        "deadline_s": deadline_s,
        "clients": clients,
        "nodes": nodes,
        "front": {**front, "bars": [["average", close_s, close_s + 0.1]]},
        "cloud": {
            "device": "cloud_server",
            "bars": [average, ["distil", close_s + 0.2, close_s + 1.0]],
        },
    }
    return json.loads(json.dumps(timeline))  # plain numbers, as a file would hand them over


def devices(timeline):
    """All clients and servers."""
    return [*timeline["clients"], *timeline["nodes"], timeline["front"], timeline["cloud"]]


def _work(members, forward, send, steps):
    """Bars of each member of one cluster and of its node, and when they end."""
    now, bars, node_bars = 0.3, [[["receive", 0.0, 0.3]] for _ in members], [["receive", 0.0, 0.2]]
    for _ in range(steps):
        arrived = now + max(forward[member] + send[member] for member in members)
        trained = arrived + 0.02 * len(members)
        ended = trained + max(send[member] / 3 + forward[member] for member in members)
        for own, member in zip(bars, members, strict=True):
            sends, gets = now + forward[member], trained + send[member] / 3
            whats = ["compute", "send", "wait", "receive", "compute", "wait"]
            times = [now, sends, sends + send[member], trained, gets, gets + forward[member], ended]
            spans = zip(whats, times[:-1], times[1:], strict=True)
            own += [[what, start, end] for what, start, end in spans if end > start]
        node_bars.append(["compute", arrived, trained])
        now = ended
    for own, member in zip(bars, members, strict=True):
        own.append(["send", now, now + send[member]])
    return bars, node_bars, now + max(send[member] for member in members)
