"""The file timeline.json: who did what, and when, in one simulated round of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cefl_jax.network.schedule import PHASES
from cefl_jax.network.topology import Network
from cefl_jax.safe_read import InputFileError, one_line, read_json, show
from cefl_jax.types import RoundTrace

MAX_BYTES = 2**28
MAX_TIME_S = 1e40  # more than 32 bits hold
MAX_KM = 1e6  # of a coordinate, as in a network's file
MAX_INDEX = 2**31
MAX_TEXT = 1000
ACTIVITIES = ("compute", "send", "receive", "wait", "average", "distil")
DIGITS = 7  # significant ones of a time, about what float32 has
ROUNDING = 1e-5  # share of the round by which bars may overlap: times were rounded when written


def describe_round(
    round_trace: RoundTrace,
    network: Network,
    work: Any,
    device_names: Sequence[str],
    round_number: int,
    deadline_s: float | None = None,
) -> dict[str, Any]:
    """Returns who did what, and when, in one round.

    Args:
      round_trace: types.RoundTrace of NumPy arrays.
      network: Network.
      work: Workload.
      device_names: that `kind` indexes.
      round_number: counted from 1.
      deadline_s: of a round, or None.
    Returns:
      Plain values: `round`, `round_s`, `deadline_s`, `clients`, `nodes`, `front`, `cloud`;
      whoever acts has `bars`, ascending [activity, from_s, to_s].
    """
    work_s = dict(zip(PHASES, map(float, round_trace.phase_s), strict=True))
    round_s = float(round_trace.phase_s.sum())
    averaged_s = round_s - work_s["distillation"]
    start_s = averaged_s - work_s["averaging"]
    front_flop = 2.0 * round_trace.schedule.counts.sum() * work.front_params
    fronts_s = min(float(front_flop / network.front.flop_per_s), work_s["averaging"])
    backs = ("average", start_s + fronts_s, averaged_s)
    name = lambda kind: device_names[int(kind)]  # noqa: E731
    return {
        "round": round_number,
        "round_s": _rounded(round_s),
        "deadline_s": deadline_s,
        "clients": _clients(round_trace, network, name, round_s),
        "nodes": _nodes(round_trace, network, name),
        "front": {
            "device": name(network.front.kind),
            "position_km": _place(network.front_km),
            "bars": _bars([("average", start_s, start_s + fronts_s)]),
        },
        "cloud": {
            "device": name(network.cloud.kind),
            "bars": _bars([backs, ("distil", averaged_s, round_s)]),
        },
    }


def _clients(round_trace, network, name, round_s):
    """The clients of the round; empty places are left out."""
    task, schedule = round_trace.task, round_trace.schedule
    found = []
    for k, client in enumerate(round_trace.clients):
        if client < len(network.bandwidth_hz):
            m = int(task.cluster[k])
            is_served = m < len(task.placement)
            found.append(
                {
                    "client": int(client),
                    "device": name(network.clients.kind[client]),
                    "cluster": m if is_served else -1,
                    "node": int(task.placement[m]) if is_served else -1,
                    "finished": bool(schedule.finished[k]),
                    "position_km": _place(network.client_km[client]),
                    "bars": _client_bars(task, schedule, k, round_s),
                }
            )
    return found


def _nodes(round_trace, network, name):
    """All edge nodes, and the cloud where it has a cluster."""
    placement, num_edges = round_trace.task.placement, len(network.edge_km)
    nodes = []
    for e in range(max(num_edges, int(placement.max(initial=0)) + 1)):
        at_edge, clusters = e < num_edges, np.flatnonzero(placement == e)
        nodes.append(
            {
                "node": e,
                "device": name(network.edges.kind[e] if at_edge else network.cloud.kind),
                "position_km": _place(network.edge_km[e]) if at_edge else None,
                "clusters": clusters.tolist(),
                "bars": _node_bars(round_trace.schedule, clusters),
            }
        )
    return nodes


def _client_bars(task, schedule, k, round_s):
    """Bars of client k: loading, its local steps, delivering, and waiting in between."""
    pace, m = schedule.pace, int(task.cluster[k])
    if not schedule.started[k]:
        return []
    spans = [("receive", 0.0, pace.load[k])]
    for s in range(int(schedule.steps[k])):
        begin_s, served_s = schedule.begin_s[m, s], schedule.served_s[m, s]
        sends_s, gets_s = begin_s + pace.forward[k, s], served_s + pace.receive[k, s]
        spans += [
            ("compute", begin_s, sends_s),
            ("send", sends_s, sends_s + pace.send[k, s]),
            ("receive", served_s, gets_s),
            ("compute", gets_s, gets_s + pace.backward[k, s]),
        ]
    end_s = schedule.out_s[k]
    if schedule.counts[k]:
        spans.append(("send", end_s, end_s + pace.deliver[k]))
        end_s += pace.deliver[k]
    return _bars(spans, until_s=round_s if schedule.finished[k] else end_s)


def _node_bars(schedule, clusters):
    """A server's loading of back halves, training for its clusters, and sending to the cloud."""
    began = schedule.end_s[clusters] > 0
    spans = np.stack([schedule.arrived_s[clusters][began], schedule.served_s[clusters][began]], -1)
    merged: list[tuple[str, float, float]] = []
    for start_s, end_s in sorted(spans.tolist()):
        if merged and start_s <= merged[-1][2]:
            merged[-1] = ("compute", merged[-1][1], max(end_s, merged[-1][2]))
        else:
            merged.append(("compute", start_s, end_s))
    merged.append(("receive", 0.0, schedule.loaded_s[clusters].max(initial=0.0)))
    merged += [("send", schedule.trained_s[m], schedule.uploaded_s[m]) for m in clusters]
    return _bars(sorted(merged, key=lambda span: span[1]))


def _bars(spans, until_s=None):
    """Spans as bars, without empty ones; with `until_s` the gaps up to then are waiting."""
    bars, clock = [], 0.0
    for activity, start_s, end_s in spans:
        start_s, end_s = max(_rounded(start_s), clock), _rounded(end_s)
        if end_s <= start_s:
            continue
        if until_s is not None and start_s > clock:
            bars.append(["wait", clock, start_s])
        bars.append([activity, start_s, end_s])
        clock = end_s
    if until_s is not None and _rounded(until_s) > clock:
        bars.append(["wait", clock, _rounded(until_s)])
    return bars


def _place(km):
    return [_rounded(x) for x in km]


def _rounded(x):
    return float(f"{float(x):.{DIGITS}g}")


def read_timeline(path: str | Path) -> dict[str, Any]:
    """Returns the timeline of one round, checked; entries that are not listed below are left alone.

    Args:
      path: JSON file of an object: `round`, counted from 1; `round_s`; `deadline_s`, or null;
        `clients`, each with `client`, `device`, `cluster` and `node` (-1: none), `finished`,
        `position_km`, `bars`; `nodes`, each with `node`, `device`, `position_km` (null: the cloud),
        `clusters`, `bars`; `front`, with `device`, `position_km`, `bars`; `cloud`, with `device`,
        `bars`. A bar is [activity, from_s, to_s]; bars ascend and do not overlap. At most
        `MAX_BYTES` are read.
    Returns:
      The object.
    Raises:
      ValueError: one line, the file and what is wrong with it.
    """
    try:
        timeline = read_json(path, MAX_BYTES)
        _check(timeline)
    except InputFileError as error:
        raise ValueError(one_line(f"{path}: {error}")) from None
    except ValueError as error:
        raise ValueError(one_line(f"{path}: {error}; give a finished run's")) from None
    return timeline


def _check(timeline):
    _check_fields("the timeline", timeline, TIMELINE)
    devices = [("front", timeline["front"], FRONT), ("cloud", timeline["cloud"], CLOUD)]
    devices += [(f"nodes[{at}]", node, NODE) for at, node in enumerate(timeline["nodes"])]
    devices += [(f"clients[{at}]", one, CLIENT) for at, one in enumerate(timeline["clients"])]
    for where, device, fields in devices:
        _check_fields(where, device, fields)
        _check_bars(where, device["bars"], ROUNDING * timeline["round_s"])
    nodes = [-1, *(node["node"] for node in timeline["nodes"])]
    known = set(nodes)
    if len(known) < len(nodes):
        raise ValueError(f"two nodes have one number, or one has -1: {show(nodes[1:])}")
    for at, client in enumerate(timeline["clients"]):
        if client["node"] not in known:
            raise ValueError(f"clients[{at}].node={client['node']} is not among the nodes")


def _check_fields(where, entry, fields):
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {show(entry)}; it must be an object")
    for key, (fits, wanted) in fields.items():
        if key not in entry:
            raise ValueError(f"{where} has no {key!r}")
        if not fits(entry[key]):
            raise ValueError(f"{key!r} of {where} is {show(entry[key])}; it must be {wanted}")


def _check_bars(where, bars, rounding_s):
    before_s = 0.0
    for at, bar in enumerate(bars):
        place = f"{where}.bars[{at}]"
        if not (isinstance(bar, list) and len(bar) == 3 and all(map(_is_time, bar[1:]))):
            raise ValueError(f"{place} is {show(bar)}; it must be [activity, from_s, to_s]")
        activity, start_s, end_s = bar
        if activity not in ACTIVITIES:
            known = ", ".join(ACTIVITIES)
            raise ValueError(f"{place} is of unknown activity {show(activity)}; known: {known}")
        if start_s > end_s:
            raise ValueError(f"{place} ends at {end_s} s, before its begin {start_s} s")
        if start_s < before_s - rounding_s:
            raise ValueError(
                f"{place} begins at {start_s} s, before the end {before_s} s of the bar before it; "
                "bars must ascend and not overlap"
            )
        before_s = end_s


def _is_number(value, least, most):
    """Whether it is a number within bounds, which nan is not; true is an int, but no number."""
    return type(value) in (int, float) and least <= value <= most


def _is_time(value):
    return _is_number(value, 0, MAX_TIME_S)


def _is_index(value):
    return type(value) is int and -1 <= value <= MAX_INDEX


def _is_place(value):
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and all(_is_number(one, -MAX_KM, MAX_KM) for one in value)


def _is_text(value):
    return isinstance(value, str) and value.isprintable() and len(value) <= MAX_TEXT


def _is_indices(value):
    return isinstance(value, list) and all(map(_is_index, value))


def _is_a(kind):
    return lambda value: isinstance(value, kind)


def _or_null(field):
    fits, wanted = field
    return lambda value: value is None or fits(value), f"{wanted}, or null"


INDEX, TIME = (_is_index, "a whole number, -1 for none"), (_is_time, "a time, s")
PLACE, INDICES = (_is_place, "[x, y], km"), (_is_indices, "a list of whole numbers")
LIST, TEXT = (_is_a(list), "a list"), (_is_text, "a text in one line")
OBJECT, TRUTH = (_is_a(dict), "an object"), (_is_a(bool), "true or false")

TIMELINE = {"round": INDEX, "round_s": TIME, "deadline_s": _or_null(TIME)}
TIMELINE |= {"clients": LIST, "nodes": LIST, "front": OBJECT, "cloud": OBJECT}
CLOUD = {"device": TEXT, "bars": LIST}
FRONT = {**CLOUD, "position_km": PLACE}
CLIENT = {**FRONT, "client": INDEX, "cluster": INDEX, "node": INDEX, "finished": TRUTH}
NODE = {**CLOUD, "node": INDEX, "position_km": _or_null(PLACE), "clusters": INDICES}
