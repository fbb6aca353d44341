"""Rounds that never were, for the pictures of a round."""

import numpy as np

STEP = ["compute", "send", "wait", "receive", "compute"]  # of a client


def make_timeline(
    num_clients=8, num_clusters=3, steps=4, dropped=(), deadline_s=None, seed=0, in_cloud=()
):
    """A timeline of this many clients; clusters share nodes from the fifth on.

    Args:
      dropped: places of clients, in the order of the timeline, that leave half-way.
      in_cloud: clusters that the cloud serves, as node 4.
    """
    rng = np.random.default_rng(seed)
    node_of = [4 if number in in_cloud else number % 4 for number in range(num_clusters)]
    clusters = sorted(k % num_clusters if num_clusters else -1 for k in range(num_clients))
    clients = [
        {
            "client": 3 * k,
            "device": ("phone", "laptop", "raspberry_pi")[k % 3],
            "cluster": cluster,
            "node": node_of[cluster] if num_clusters else -1,
            "finished": k not in dropped,
            "position_km": rng.uniform(-0.5, 0.5, 2).tolist(),
            "bars": _bars(rng, ["receive", *steps * STEP, "send"]),
        }
        for k, cluster in enumerate(clusters)
    ]
    close_s = max(client["bars"][-1][2] for client in clients)
    for client in clients:
        own = client["bars"]
        if not client["finished"]:
            client["bars"] = own[: len(own) // 2]
        elif own[-1][2] < close_s:
            own.append(["wait", own[-1][2], close_s])
    serves = ["receive", *steps * ["wait", "compute"]]
    nodes = [
        {
            "node": number,
            "device": "edge_server" if number < 4 else "cloud_server",
            "position_km": rng.uniform(-0.4, 0.4, 2).tolist() if number < 4 else None,
            "clusters": [at for at, node in enumerate(node_of) if node == number],
            "bars": _bars(rng, serves if number in node_of else []),
        }
        for number in range(5 if in_cloud else 4)
    ]
    average = ["average", close_s + 0.1, close_s + 0.2]
    distil = ["distil", close_s + 0.2, close_s + 1.0]
    front = {"device": "edge_server", "position_km": [0.0, 0.0]}
    return {
        "round": 50,
        "round_s": close_s + 1.0,
        "deadline_s": deadline_s,
        "clients": clients,
        "nodes": nodes,
        "front": {**front, "bars": [["average", close_s, close_s + 0.1]]},
        "cloud": {"device": "cloud_server", "bars": [average, distil]},
    }


def devices(timeline):
    """All clients and servers."""
    return [*timeline["clients"], *timeline["nodes"], timeline["front"], timeline["cloud"]]


def _bars(rng, activities):
    """Bars of activities, one after the other."""
    ends = np.cumsum(rng.uniform(0.05, 0.3, len(activities))).tolist()
    return [list(bar) for bar in zip(activities, [0.0, *ends], ends, strict=False)]
