"""The file timeline.json: who did what, and when, in one simulated round of a run."""

import itertools
from pathlib import Path
from typing import Any

from cefl_jax.safe_read import InputFileError, one_line, read_json, show

MAX_BYTES = 2**28
MAX_TIME_S = 1e40  # more than 32 bits hold
MAX_KM = 1e6  # of a coordinate, as in a network's file
MAX_INDEX = 2**31
MAX_TEXT = 1000
ACTIVITIES = ("compute", "send", "receive", "wait", "average", "distil")
ROUNDING = 1e-5  # share of the round by which bars may overlap: times were rounded when written


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
    for at, bar in enumerate(bars):
        if not (isinstance(bar, list) and len(bar) == 3 and all(map(_is_time, bar[1:]))):
            raise ValueError(
                f"{where}.bars[{at}] is {show(bar)}; it must be [activity, from_s, to_s]"
            )
        if bar[0] not in ACTIVITIES:
            raise ValueError(
                f"{where}.bars[{at}] is of unknown activity {show(bar[0])}; "
                f"known: {', '.join(ACTIVITIES)}"
            )
        if bar[1] > bar[2]:
            raise ValueError(f"{where}.bars[{at}] ends at {bar[2]} s, before its begin {bar[1]} s")
    for at, ((_, _, end), (_, start, _)) in enumerate(itertools.pairwise(bars)):
        if start < end - rounding_s:
            raise ValueError(
                f"{where}.bars[{at + 1}] begins at {start} s, before the end "
                f"{end} s of the bar before it; bars must ascend and not overlap"
            )


def _is_number(value, least, most):
    """Whether it is a number within bounds, which nan is not; true is an int, but no number."""
    return type(value) in (int, float) and least <= value <= most


def _is_time(value):
    return _is_number(value, 0, MAX_TIME_S)


def _is_index(value):
    return type(value) is int and -1 <= value <= MAX_INDEX


def _is_place(value):
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(_is_number(one, -MAX_KM, MAX_KM) for one in value)
    )


def _is_text(value):
    return isinstance(value, str) and value.isprintable() and len(value) <= MAX_TEXT


def _is_a(kind):
    return lambda value: isinstance(value, kind)


INDEX = (_is_index, "a whole number, -1 for none")
PLACE = (_is_place, "[x, y], km")
LIST, TEXT = (_is_a(list), "a list"), (_is_text, "a text in one line")
OBJECT, TRUTH = (_is_a(dict), "an object"), (_is_a(bool), "true or false")

TIMELINE = {
    "round": INDEX,
    "round_s": (_is_time, "a time, s"),
    "deadline_s": (lambda value: value is None or _is_time(value), "a time, s, or null"),
    "clients": LIST,
    "nodes": LIST,
    "front": OBJECT,
    "cloud": OBJECT,
}
CLOUD = {"device": TEXT, "bars": LIST}
FRONT = {**CLOUD, "position_km": PLACE}
CLIENT = {**FRONT, "client": INDEX, "cluster": INDEX, "node": INDEX, "finished": TRUTH}
NODE = {
    **CLOUD,
    "node": INDEX,
    "position_km": (lambda value: value is None or _is_place(value), "[x, y], km, or null"),
    "clusters": (
        lambda value: isinstance(value, list) and all(map(_is_index, value)),
        "a list of whole numbers",
    ),
}
