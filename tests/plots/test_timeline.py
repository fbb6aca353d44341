"""The timeline file is read whole, and a wrong one is refused in one line that says where."""

import json

import pytest

from cefl_jax.plots.gantt import draw_gantt
from cefl_jax.plots.network_map import draw_map
from cefl_jax.plots.timeline import read_timeline
from tests.plots.timelines import devices, make_timeline

SMALL = make_timeline(num_clients=3, num_clusters=2, steps=1)
IDLE = {"device": "", "position_km": [0.0, 0.0], "bars": []}
DROP = object()  # in place of a value: there is none


def write(folder, timeline):
    file = folder / "timeline.json"
    file.write_text(json.dumps(timeline))
    return file


def refusal_of(path):
    """The one line with which a path is refused."""
    with pytest.raises(ValueError, match=": ") as refusal:
        read_timeline(path)
    line = str(refusal.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize(
    "options",
    [{"num_clients": 1, "num_clusters": 0}, {"in_cloud": (0,), "dropped": (1,), "deadline_s": 7}],
)
def test_read_timeline_returns_what_was_written(tmp_path, options):
    timeline = {**make_timeline(**options), "comment": "mine"}
    assert read_timeline(write(tmp_path, timeline)) == timeline


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("clients", DROP, "the timeline has no 'clients'"),
        ("round", 10**4000, "'round' of the timeline is 1000"),
        ("round_s", 10**400, "'round_s' of the timeline is 1000"),
        ("round_s", 1e300, "'round_s' of the timeline is 1e+300; it must be a time, s"),
        ("round_s", float("nan"), "'round_s' of the timeline is nan"),
        ("deadline_s", -1.0, "'deadline_s' of the timeline is -1.0"),
        ("nodes", [3], "nodes[0] is 3; it must be an object"),
        ("nodes.1.node", 0, "two nodes have one number, or one has -1: [0, 0, 2, 3]"),
        ("nodes.1.node", -1, "two nodes have one number, or one has -1: [0, -1, 2, 3]"),
        ("nodes.1.clusters", ["a"], "'clusters' of nodes[1] is ['a']"),
        ("front.device", "a\nb", r"'device' of front is 'a\nb'; it must be a text in"),
        ("front.device", "x" * 2000, "'device' of front is 'xxx"),
        ("front.position_km", [0, 1e7], "'position_km' of front is"),
        ("front.position_km", None, "'position_km' of front is None"),
        ("clients.0.position_km", [1.0], "'position_km' of clients[0] is [1.0]; it must be [x, y]"),
        ("clients.2.finished", DROP, "clients[2] has no 'finished'"),
        ("clients.2.cluster", 0.5, "'cluster' of clients[2] is 0.5"),
        ("clients.2.node", 9, "clients[2].node=9 is not among the nodes"),
        ("cloud.bars", None, "'bars' of cloud is None"),
        ("cloud.bars", [["distil", 0, 10**400]], "cloud.bars[0] is"),
        ("cloud.bars", [["distil", 1.0]], "cloud.bars[0] is ['distil', 1.0]; it must be [act"),
        ("cloud.bars", [["sleep", 0, 1]], "cloud.bars[0] is of unknown activity 'sleep'; known: c"),
        ("cloud.bars", [[["x"], 0, 1]], "cloud.bars[0] is of unknown activity"),
        ("cloud.bars", [["distil", 2, 1]], "cloud.bars[0] ends at 1 s, before its begin 2 s"),
        (
            "cloud.bars",
            [["distil", 0, 2], ["wait", 1, 3]],
            "cloud.bars[1] begins at 1 s, before the",
        ),
    ],
)
def test_read_timeline_refuses_a_wrong_value_in_one_line(tmp_path, place, value, message):
    timeline = make_timeline()
    *path, last = place.split(".")
    group = timeline
    for key in path:
        group = group[int(key) if key.isdigit() else key]
    group[last] = value
    if value is DROP:
        del group[last]
    file = write(tmp_path, timeline)
    refusal = refusal_of(file)
    assert refusal.startswith(f"{file}: {message}")
    assert refusal.endswith("; give a finished run's")


def test_read_timeline_lets_bars_overlap_by_rounding_and_by_no_more(tmp_path):
    timeline = make_timeline()
    round_s = timeline["round_s"]
    timeline["cloud"]["bars"] = [["average", 0.0, 1.0], ["distil", 1.0 - 5e-6 * round_s, 2.0]]
    read_timeline(write(tmp_path, timeline))
    timeline["cloud"]["bars"][1][1] = 1.0 - 5e-5 * round_s
    assert "cloud.bars[1] begins" in refusal_of(write(tmp_path, timeline))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read as JSON"),
        (b"[]", "the timeline is []; it must be an object; give a finished run's"),
    ],
)
def test_read_timeline_refuses_what_is_no_timeline(tmp_path, content, message):
    file = tmp_path / "timeline.json"
    file.write_bytes(content)
    assert refusal_of(file).startswith(f"{file}: {message}")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "changes",
    [
        {"round_s": 0.0},
        {"round_s": 1e40},
        {"round_s": 5e-324, "deadline_s": 5e-324},
        {"round": 2**31, "clients": []},
        {"round_s": 0.0, "clients": [], "nodes": [], "front": IDLE, "cloud": IDLE},
        {"clients": [], "nodes": [], "front": IDLE, "cloud": IDLE},
        {"front": IDLE | {"position_km": [1e6, -1e6]}},
        {"cloud": {"device": "", "bars": [["wait", 0, 1e40]]}},
    ],
)
def test_whatever_is_read_can_be_drawn(tmp_path, changes):
    """Names are not set as mathematics, which would raise."""
    timeline = read_timeline(write(tmp_path, SMALL | changes))
    for one in devices(timeline):
        one["device"] = r"$\no$such"
    draw_gantt(timeline).savefig(tmp_path / "gantt.png")
    draw_map(timeline).savefig(tmp_path / "map.png")
