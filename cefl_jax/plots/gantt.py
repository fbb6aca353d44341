"""One simulated round as a Gantt chart: who computes, sends, receives and waits."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from matplotlib.artist import Artist
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from cefl_jax.plots.curves import DPI, GREY, LABEL_COLOURS, _plain
from cefl_jax.plots.timeline import ACTIVITIES
from cefl_jax.runtime import units

HUES = ("#0072B2", "#D55E00", "#F0B323", "#DADADA", "#009E73", "#CC79A7")
COLOURS = dict(zip(ACTIVITIES, HUES, strict=True))
CROSS: dict[str, Any] = {"marker": "x", "markersize": 5, "markeredgewidth": 1.5, "color": "black"}
CROSS |= {"linestyle": "none", "path_effects": [withStroke(linewidth=3.5, foreground="white")]}
DEADLINE: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2}
WIDTH = 9.6
WIDTH_PIXELS = 1080  # of the axes, about
SERVER_ROW = 0.19  # inches
MIN_ROW, MAX_ROW = 0.035, 0.19
CLIENT_ROWS = 6.6  # inches of all clients, within these two
MIN_NAMED = 0.11  # inches of a row beside which a name fits
GAP = 0.08  # inches between two clusters


class Row(NamedTuple):
    """One client or server."""

    name: str
    bars: list
    top: float  # inches below the top of the axes
    height: float  # inches
    client: dict | None = None  # its entry; None for a server

    @property
    def middle(self) -> float:
        """Inches below the top of the axes."""
        return self.top + self.height / 2

    @property
    def bottom(self) -> float:
        """Inches below the top of the axes."""
        return self.top + self.height


def draw_gantt(timeline: dict[str, Any]) -> Figure:
    """Draws who computed, sent, received and waited when, a row each.

    Clients stand in groups, one a cluster, below the server of their cluster; the front aggregation
    server and the cloud come last. Bars too short to be told apart are drawn as the shares of the
    time that each activity takes, stacked. A cross is where a client dropped out.

    Args:
      timeline: as read by `read_timeline`.
    """
    rows = _rows(timeline)
    total = rows[-1].bottom + GAP
    figure = Figure(figsize=(WIDTH, total + 1.35), dpi=DPI, layout="constrained")
    figure.suptitle(summary(timeline), fontsize=11)
    axes = figure.add_subplot()
    end_s, deadline_s = _end(timeline, rows), timeline["deadline_s"]
    unit, unit_s = units.time_unit(end_s)
    end_s = end_s or unit_s
    axes.set_xlim(0.0, end_s / unit_s)
    axes.set_ylim(total, 0.0)
    _plain(axes, grid="x")
    merged = _draw_bars(axes, rows, end_s, unit_s)
    note = "\nwhere bars are too short to draw, their shares of the time are stacked"
    axes.set_xlabel(f"time in the round ({unit})" + (note if merged else ""))
    _draw_names(axes, rows)
    _draw_clusters(axes, [row for row in rows if row.client and row.client["cluster"] >= 0])
    left = [row for row in rows if row.client and not row.client["finished"]]
    if left:  # an empty line would claim room at the corner of the figure
        left_s = np.array([row.bars[-1][2] if row.bars else 0.0 for row in left])
        middles = [row.middle for row in left]
        axes.plot(left_s / unit_s, middles, **CROSS, zorder=4, clip_on=False, gid="dropped")
    if deadline_s is not None and deadline_s <= end_s:
        axes.axvline(deadline_s / unit_s, **DEADLINE, gid="deadline")
    _draw_legend(figure, rows, left, deadline_s, end_s)
    return figure


def summary(timeline: dict[str, Any]) -> str:
    """Returns one line about a round."""
    clients = timeline["clients"]
    dropped = sum(not client["finished"] for client in clients)
    return (
        f"Round {timeline['round']}: {units.format_time(timeline['round_s'])}, "
        f"{len(clients)} client{'' if len(clients) == 1 else 's'}"
        + (f", {dropped} dropped out" if dropped else "")
    )


def _rows(timeline):
    """Rows from the top: each server, then its clients by cluster; the averaging servers last."""
    clients, nodes = timeline["clients"], {node["node"]: node for node in timeline["nodes"]}
    height = np.clip(CLIENT_ROWS / max(len(clients), 1), MIN_ROW, MAX_ROW)
    rows: list[Row] = []

    def add(name, entry, height, gap, client=None):
        top = rows[-1].bottom + gap if rows else gap
        name = f"{name} · {entry['device'].replace('_', ' ')}"
        rows.append(Row(name, entry["bars"], top, height, client))

    in_use = list(dict.fromkeys(client["node"] for client in clients))
    idle = [number for number, node in nodes.items() if node["bars"] and number not in in_use]
    for number in [*in_use, *idle]:
        if number in nodes:
            place = "node {}" if nodes[number]["position_km"] else "cloud (node {})"
            add(place.format(number), nodes[number], SERVER_ROW, 2 * GAP)
        served = [client for client in clients if client["node"] == number]
        for cluster in dict.fromkeys(client["cluster"] for client in served):
            members = [client for client in served if client["cluster"] == cluster]
            for at, client in enumerate(members):
                add(client["client"], client, height, 0.0 if at else GAP, client)
    add("front", timeline["front"], SERVER_ROW, 2 * GAP)
    add("cloud", timeline["cloud"], SERVER_ROW, 0.0)
    return rows


def _end(timeline, rows):
    """Seconds that the chart spans; a deadline long after the round is left out."""
    end_s = max(timeline["round_s"], *(row.bars[-1][2] for row in rows if row.bars), 0.0)
    deadline_s = timeline["deadline_s"] or 0.0
    return max(end_s, deadline_s if deadline_s <= 1.2 * end_s else 0.0)


def _draw_bars(axes, rows, end_s, unit_s):
    """Draws the bars of all rows, one collection an activity; whether any were merged."""
    found, merged = [np.empty((0, 5))], False
    for row in rows:
        part, short = rectangles(row.bars, end_s, end_s / WIDTH_PIXELS)
        part[:, 1:3] /= unit_s
        part[:, 3:] = row.top + row.height * (0.95 - 0.9 * part[:, 3:])
        found.append(part)
        merged |= short
    parts = np.concatenate(found)  # activity, left, right, low, high
    for number, (name, colour) in enumerate(COLOURS.items()):
        corners = parts[parts[:, 0] == number][:, [[1, 3], [1, 4], [2, 4], [2, 3]]]
        bars = PolyCollection(corners, facecolors=colour, linewidths=0.0, gid=name, zorder=2)
        axes.add_collection(bars, autolim=False)
    return merged


def _draw_names(axes, rows):
    named = [row for row in rows if row.client is None or row.height >= MIN_NAMED]
    axes.set_yticks(
        [row.middle for row in named], [row.name for row in named], fontsize=7, parse_math=False
    )
    axes.tick_params(axis="x", labelsize=9)
    axes.tick_params(axis="y", length=0)
    for row, label in zip(named, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if row.client is None else "normal")
        label.set_color("black" if row.client is None else GREY)


def _draw_clusters(axes, members):
    """A bracket beside the clients of each cluster, in its colour; names where there is room."""
    beside, free = axes.get_yaxis_transform(), 0.0
    for cluster in dict.fromkeys(row.client["cluster"] for row in members):
        own = [row for row in members if row.client["cluster"] == cluster]
        top, bottom = own[0].top, own[-1].bottom
        colour = LABEL_COLOURS[cluster % len(LABEL_COLOURS)]
        axes.vlines(1.012, top, bottom, colour, linewidth=3, transform=beside, clip_on=False)
        middle = (top + bottom) / 2
        if middle >= free:
            name = f"cluster {cluster}"
            axes.text(1.022, middle, name, fontsize=7, verticalalignment="center", transform=beside)
            free = middle + MIN_NAMED


def _draw_legend(figure, rows, left, deadline_s, end_s):
    seen = {bar[0] for row in rows for bar in row.bars}
    handles: list[Artist] = [
        Patch(color=colour, label=name) for name, colour in COLOURS.items() if name in seen
    ]
    if left:
        handles.append(Line2D([], [], **CROSS, label="dropped out"))
    if deadline_s is not None:
        later = ", after the end" if deadline_s > end_s else ""
        text = f"deadline ({units.format_time(deadline_s)}{later})"
        handles.append(Line2D([], [], **DEADLINE, label=text))
    if handles:
        place = {"loc": "outside lower center", "ncols": len(handles)}
        look = {"frameon": False, "fontsize": 8, "handlelength": 1.4, "columnspacing": 1.4}
        figure.legend(handles=handles, **place, **look)


NOISE = 2e-6  # share of the chart; what is shorter is a difference of rounded times
SHORT_BARS = 8  # that follow each other within SHORT_PIXELS are drawn as shares of the time
SHORT_PIXELS = 12
CELL_PIXELS = 6  # at least, of what shares are taken over
CELL_BARS = 60  # a multiple of the 2 to 6 bars of a local step, so that shares do not flicker
NOTHING = -1  # the activity of a gap between two bars


def rectangles(
    bars: Sequence[Sequence[Any]], span_s: float, pixel_s: float
) -> tuple[Float64[np.ndarray, "R 5"], bool]:
    """Returns what to draw of one row: a rectangle a bar, or shares of the time of short ones.

    Neighbours of one activity are joined. A run of bars too short to be told apart becomes cells,
    in each of which the activities are stacked by their shares of the time.

    Args:
      bars: [activity, from_s, to_s] each, ascending.
      span_s: time that the chart spans.
      pixel_s: time that a pixel spans.
    Returns:
      Of each, activity (an index into ACTIVITIES), from s, to s, and from which to which share of
      the row's height; whether any are shares.
    """
    segments = _segments(bars, NOISE * span_s)
    activity, start, end = segments.T
    short = np.zeros(activity.size, bool)
    if activity.size >= SHORT_BARS:
        quick = end[SHORT_BARS - 1 :] - start[: 1 - SHORT_BARS] < SHORT_PIXELS * pixel_s
        short = np.convolve(quick, np.ones(SHORT_BARS)) > 0.5  # those in any quick run
    whole = np.column_stack([segments, np.zeros(activity.size), np.ones(activity.size)])
    runs = np.flatnonzero(np.diff(np.concatenate([[0], short, [0]]))).reshape(-1, 2)
    shares = [_shares(segments[a:b], pixel_s) for a, b in runs]
    return np.concatenate([whole[~short & (activity != NOTHING)], *shares]), bool(short.any())


def _segments(bars, noise_s):
    """Bars and the gaps between them in order, rows of activity, start and end."""
    segments: list[list[float]] = []
    for what, start_s, end_s in bars:
        if end_s - start_s <= noise_s:
            continue
        gap_s = start_s - segments[-1][2] if segments else 0.0
        if gap_s > noise_s:
            segments.append([NOTHING, segments[-1][2], start_s])
        if segments and segments[-1][0] == ACTIVITIES.index(what):
            segments[-1][2] = end_s
        else:
            segments.append([ACTIVITIES.index(what), start_s, end_s])
    return np.reshape(np.array(segments, float), (-1, 3))


def _shares(segments, pixel_s):
    """A run of short bars as rectangles whose heights are shares of the time, f64[R, 5]."""
    activity, start, end = segments.T
    cells = max((end[-1] - start[0]) / (CELL_PIXELS * pixel_s), 1.0)
    each = CELL_BARS * int(np.ceil(activity.size / cells / CELL_BARS))
    at = np.arange(0, max(activity.size - each // 2, 1), each)  # a small rest joins the last cell
    edges = np.concatenate([start[at], end[-1:]])
    found, low = [], np.zeros(at.size)
    for number in np.unique(activity[activity != NOTHING]):
        spent = np.add.reduceat(np.where(activity == number, end - start, 0.0), at)
        high = low + spent / np.diff(edges)
        found.append(np.column_stack([np.full(at.size, number), edges[:-1], edges[1:], low, high]))
        low = high
    parts = np.concatenate(found)
    return parts[parts[:, 4] > parts[:, 3]]
