"""Where the clients and servers of one simulated round are, and who trained with whom."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cefl_jax.plots.curves import DPI, GREY, LABEL_COLOURS, _plain
from cefl_jax.plots.gantt import draw_gantt, summary
from cefl_jax.plots.timeline import read_timeline

CLIENT_MARKERS = ("o", "s", "^", "D", "v", "P")  # a device class each
NODE_MARKERS = ("s", "h", "D", "8", "p")
FILLS = ("full", "none", "left", "top")  # a next one for every len(LABEL_COLOURS) clusters
DARK, IDLE = "#222222", "#AAAAAA"
MAX_LISTED = 40
FRONT: dict[str, Any] = {"marker": "*", "markersize": 17, "color": DARK, "markeredgecolor": "white"}
# Larger than a client's marker, which stays visible.
CROSS: dict[str, Any] = {"marker": "x", "markersize": 10, "color": "black", "markeredgewidth": 1.3}
CENTRED: dict[str, Any] = {"horizontalalignment": "center", "color": "white", "zorder": 7}


def draw_round(workdir_path: str | Path) -> None:
    """Writes gantt.png and map.png into the folder of a run, from its timeline.json.

    Args:
      workdir_path: folder of a run.
    Raises:
      ValueError: the timeline is missing or wrong; nothing is written.
    """
    folder = Path(workdir_path)
    timeline = read_timeline(folder / "timeline.json")
    draw_gantt(timeline).savefig(folder / "gantt.png")
    draw_map(timeline).savefig(folder / "map.png")


def draw_map(timeline: dict[str, Any]) -> Figure:
    """Draws clients in the colours of their clusters, each with a line to its node.

    A line to the cloud leads through the front aggregation server, as the client's data does. Where
    all clients are at one place there is no map, and a scheme is drawn instead.

    Args:
      timeline: as read by `read_timeline`.
    """
    clients = timeline["clients"]
    nodes = [node for node in timeline["nodes"] if node["position_km"]]
    client_km, node_km, front_km, to_scale = _places(timeline, nodes)
    figure = Figure(figsize=(7.6, 5.6), dpi=DPI, layout="constrained")
    figure.suptitle(summary(timeline), fontsize=11)
    axes = figure.add_subplot()
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.08)
    _plain(axes)
    axes.set_xlabel("km" if to_scale else "all clients are at one place: a scheme, not to scale")
    axes.set_ylabel("km" if to_scale else "")
    if not to_scale:
        axes.grid(False)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    via_cloud = [node["node"] for node in timeline["nodes"] if not node["position_km"]]
    server_km = {node["node"]: place for node, place in zip(nodes, node_km, strict=True)}
    server_km.update(dict.fromkeys(via_cloud, front_km))
    _draw_lines(axes, clients, client_km, server_km)
    if any(client["node"] in via_cloud for client in clients):
        _draw_cloud(axes, np.concatenate([client_km, node_km, [front_km]]), front_km)
    markers = _draw_clients(axes, clients, client_km)
    node_markers = _draw_nodes(axes, nodes, node_km, {client["node"] for client in clients})
    axes.plot(*front_km, **FRONT, zorder=6, gid="front")
    _draw_legends(figure, timeline, markers, node_markers, via_cloud)
    return figure


def _places(timeline, nodes):
    """Positions of clients, nodes and front server, f64[.., 2], and whether they are true ones."""
    clients = timeline["clients"]
    client_km = np.array([client["position_km"] for client in clients], float).reshape(-1, 2)
    node_km = np.array([node["position_km"] for node in nodes], float).reshape(-1, 2)
    front_km = np.array(timeline["front"]["position_km"], float)
    everywhere = np.concatenate([client_km, node_km, [front_km]])
    many_at_one = len(clients) > 1 and not np.ptp(client_km, axis=0).any()
    if not many_at_one and np.ptp(everywhere, axis=0).any():
        return client_km, node_km, front_km, True
    return *_scheme([client["node"] for client in clients], [node["node"] for node in nodes]), False


def _scheme(node_of_client, nodes):
    """Circles around the front server: clients by node, their nodes within, idle nodes inmost."""
    order = np.argsort([[*nodes, node].index(node) for node in node_of_client], kind="stable")
    client_km = np.empty((len(order), 2))
    client_km[order] = _circle(len(order), 1.0)
    busy = [node for node in nodes if node in node_of_client]
    idle = [node for node in nodes if node not in node_of_client]
    places = dict(
        zip([*busy, *idle], [*_circle(len(busy), 0.55), *_circle(len(idle), 0.25)], strict=True)
    )
    node_km = np.array([places[node] for node in nodes]).reshape(-1, 2)
    return client_km, node_km, np.zeros(2)


def _circle(count, radius):
    angle = np.pi / 2 - 2 * np.pi * (np.arange(count) + 0.5) / max(count, 1)
    return radius * np.column_stack([np.cos(angle), np.sin(angle)])


def _draw_lines(axes, clients, client_km, server_km):
    linked = [at for at, client in enumerate(clients) if client["node"] in server_km]
    lines = LineCollection(
        [(client_km[at], server_km[clients[at]["node"]]) for at in linked],
        colors=[_colour(clients[at]["cluster"]) for at in linked],
        linewidths=1.0 if len(linked) <= 60 else 0.6,
        alpha=0.55,
        zorder=2,
        gid="links",
    )
    axes.add_collection(lines)


def _draw_cloud(axes, places, front_km):
    """Above everything, over the front aggregation server."""
    low, high = places.min(axis=0), places.max(axis=0)
    x, y = front_km[0], high[1] + 0.12 * (max(high - low) or 1.0)
    dotted = {"color": DARK, "linewidth": 1.4, "linestyle": ":", "zorder": 3}
    axes.plot([x, x], [front_km[1], y], **dotted, gid="to cloud")
    box = {"boxstyle": "round,pad=0.4", "facecolor": DARK, "edgecolor": "white"}
    axes.text(x, y, "cloud", fontsize=9, verticalalignment="center", bbox=box, **CENTRED)


def _draw_clients(axes, clients, client_km):
    """Draws the clients; the marker of each device class."""
    markers = _markers(clients, CLIENT_MARKERS)
    size = 7 if len(clients) <= 60 else 5
    looks = [(client["cluster"], client["device"]) for client in clients]
    for cluster, device in dict.fromkeys(looks):
        own = client_km[[look == (cluster, device) for look in looks]]
        look = {"marker": markers[device], "markersize": size, "linestyle": "none"}
        axes.plot(*own.T, **look, **_look(cluster), zorder=4, gid=f"cluster {cluster}")
    left = client_km[[not client["finished"] for client in clients]]
    if len(left):
        axes.plot(*left.T, **CROSS, linestyle="none", zorder=5, gid="dropped")
    return markers


def _draw_nodes(axes, nodes, node_km, in_use):
    """Draws the edge nodes, numbered; the marker of each device class."""
    markers = _markers(nodes, NODE_MARKERS)
    for node, (x, y) in zip(nodes, node_km, strict=True):
        look = {"markersize": 14, "markeredgecolor": "white", "zorder": 6}
        look["color"] = DARK if node["node"] in in_use else IDLE
        axes.plot(x, y, markers[node["device"]], **look, gid=f"node {node['node']}")
        number = {"fontsize": 8, "fontweight": "bold", "verticalalignment": "center_baseline"}
        axes.text(x, y, str(node["node"]), **number, **CENTRED)
    return markers


def _markers(devices, markers):
    """{device class: its marker}."""
    names = dict.fromkeys(device["device"] for device in devices)
    return dict(zip(names, itertools.cycle(markers), strict=False))


def _colour(cluster):
    return LABEL_COLOURS[cluster % len(LABEL_COLOURS)] if cluster >= 0 else GREY


def _look(cluster):
    fill = FILLS[cluster // len(LABEL_COLOURS) % len(FILLS)] if cluster >= 0 else "full"
    whole = fill == "full"
    return {
        "color": _colour(cluster),
        "fillstyle": fill,
        "markerfacecoloralt": "white",
        "markeredgewidth": 0.6 if whole else 1.2,
        "markeredgecolor": "white" if whole else _colour(cluster),
    }


def _draw_legends(figure, timeline, markers, node_markers, via_cloud):
    """Clusters and the nodes that they trained with; below, what the markers are."""
    clients = timeline["clients"]
    node_of = {client["cluster"]: client["node"] for client in clients if client["cluster"] >= 0}
    plain: dict[str, Any] = {"frameon": False, "fontsize": 8}
    if 0 < len(node_of) <= MAX_LISTED:
        columns = {"ncols": math.ceil(len(node_of) / 20), "columnspacing": 1.0}
        handles = [
            _mark(_cluster_name(cluster, node_of[cluster], via_cloud), "o", **_look(cluster))
            for cluster in sorted(node_of)
        ]
        place = {"title": "cluster", "loc": "outside right upper"}
        figure.legend(handles=handles, **place, **columns, **plain)
    handles = [_mark(name.replace("_", " "), *look, color=GREY) for name, *look in markers.items()]
    for name, marker in node_markers.items():
        label = f"node: {name.replace('_', ' ')}"
        handles.append(_mark(label, marker, color=DARK, markersize=10))
    in_use = {client["node"] for client in clients} | set(via_cloud)
    if any(node["node"] not in in_use for node in timeline["nodes"]):
        handles.append(_mark("idle node", "s", color=IDLE, markersize=10))
    handles.append(_mark("front server", **{**FRONT, "markersize": 12}))
    if not all(client["finished"] for client in clients):
        handles.append(_mark("dropped out", **CROSS))
    legend = figure.legend(handles=handles, loc="outside right lower", **plain)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _mark(label, marker, **look):
    """An entry of a legend."""
    return Line2D([], [], linestyle="none", label=label, marker=marker, **look)


def _cluster_name(cluster, node, via_cloud):
    if node < 0:
        return str(cluster)
    return f"{cluster} at the cloud" if node in via_cloud else f"{cluster} at node {node}"
