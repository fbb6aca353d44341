"""The timeline file is read whole, and a wrong one is refused in one line that says where."""

import copy
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.plots.gantt import draw_gantt
from cefl_jax.plots.network_map import draw_map
from cefl_jax.plots.timeline import read_timeline
from tests.plots.timelines import make_timeline


def write(folder, timeline):
    file = folder / "timeline.json"
    file.write_text(json.dumps(timeline))
    return file


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_clients": 1, "num_clusters": 0},
        {"in_cloud": (0,), "dropped": (1,)},
        {"deadline_s": 6.5},
        {"deadline_s": 7},
    ],
)
def test_what_was_written_is_read(tmp_path, options):
    timeline = make_timeline(**options)
    assert read_timeline(write(tmp_path, timeline)) == timeline


def test_more_than_is_needed_is_left_alone(tmp_path):
    timeline = {**make_timeline(), "comment": "mine"}
    assert read_timeline(write(tmp_path, timeline))["comment"] == "mine"


def drop(key):
    return lambda where: where.pop(key)


def put(**values):
    return lambda where: where.update(values)


@pytest.mark.parametrize(
    ("path", "change", "reason"),
    [
        ((), drop("clients"), "the timeline has no 'clients'"),
        ((), drop("deadline_s"), "the timeline has no 'deadline_s'"),
        ((), put(round=10**4000), "'round' of the timeline is 1000"),
        ((), put(round_s=10**400), "'round_s' of the timeline is 1000"),
        ((), put(round_s=1e300), r"'round_s' of the timeline is 1e\+300"),
        ((), put(round_s=True), "'round_s' of the timeline is True"),
        (("front",), put(device="a\nb"), r"'device' of front is 'a\\nb'; it must be a text in"),
        (("front",), put(device="x" * 2000), "'device' of front is 'xxx"),
        (("front",), put(position_km=[0, 1e7]), "'position_km' of front is"),
        (("cloud",), put(bars=[["distil", 0, 10**400]]), r"cloud.bars\[0\] is"),
        (("nodes", 1), put(node=0), r"two nodes have one number, .*: \[0, 0, 2, 3\]"),
        (("nodes", 1), put(node=-1), r"two nodes have one number, .*: \[0, -1, 2, 3\]"),
        ((), put(round_s="long"), "'round_s' of the timeline is 'long'"),
        ((), put(round=True), "'round' of the timeline is True"),
        ((), put(round_s=float("nan")), "'round_s' of the timeline is nan"),
        ((), put(round_s=float("inf")), "'round_s' of the timeline is inf"),
        (("front",), put(position_km=[0.0, float("nan")]), "'position_km' of front is"),
        ((), put(deadline_s=-1.0), "'deadline_s' of the timeline is -1.0"),
        ((), put(nodes={}), "'nodes' of the timeline is {}"),
        ((), put(nodes=[3]), r"nodes\[0\] is 3; it must be an object"),
        (("clients", 2), drop("finished"), r"clients\[2\] has no 'finished'"),
        (("clients", 2), put(cluster=0.5), r"'cluster' of clients\[2\] is 0.5"),
        (("clients", 2), put(node=9), r"clients\[2\].node=9 is not among the nodes"),
        (("clients", 0), put(position_km=None), r"'position_km' of clients\[0\] is None"),
        (("clients", 0), put(position_km=[1.0]), r"'position_km' of clients\[0\] is \[1.0\]"),
        (("nodes", 1), drop("clusters"), r"nodes\[1\] has no 'clusters'"),
        (("nodes", 1), put(clusters=["a"]), r"'clusters' of nodes\[1\] is \['a'\]"),
        (("front",), put(position_km=None), "'position_km' of front is None"),
        (("cloud",), put(bars=None), "'bars' of cloud is None"),
        (("cloud",), put(bars=[["distil", 1.0]]), r"cloud.bars\[0\] is \['distil', 1.0\]"),
        (("cloud",), put(bars=[["distil", 1.0, "2"]]), r"cloud.bars\[0\] is"),
        (
            ("cloud",),
            put(bars=[["sleep", 0, 1]]),
            r"cloud.bars\[0\] is of unknown activity 'sleep'",
        ),
        (("cloud",), put(bars=[[["x"], 0, 1]]), r"cloud.bars\[0\] is of unknown activity"),
        (("cloud",), put(bars=[["distil", 2, 1]]), r"cloud.bars\[0\] ends at 1 s, before"),
        (
            ("clients", 3),
            put(bars=[["send", 0, 2], ["wait", 1, 3]]),
            r"clients\[3\].bars\[1\] begins at 1 s, before the end 2 s",
        ),
        (
            ("nodes", 0),
            put(bars=[["compute", 5, 6], ["compute", 1, 2]]),
            r"nodes\[0\].bars\[1\] begins at 1 s, before the end 6 s",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(tmp_path, path, change, reason):
    timeline = make_timeline()
    where = timeline
    for key in path:
        where = where[key]
    change(where)
    file = write(tmp_path, timeline)
    with pytest.raises(ValueError, match=reason) as refusal:
        read_timeline(file)
    assert str(refusal.value).startswith(f"{file}: ")
    assert "\n" not in str(refusal.value)


def test_bars_may_overlap_by_rounding_and_by_no_more(tmp_path):
    timeline = make_timeline()
    round_s = timeline["round_s"]
    timeline["cloud"]["bars"] = [["average", 0.0, 1.0], ["distil", 1.0 - 5e-6 * round_s, 2.0]]
    read_timeline(write(tmp_path, timeline))
    timeline["cloud"]["bars"][1][1] = 1.0 - 5e-5 * round_s
    with pytest.raises(ValueError, match=r"cloud.bars\[1\] begins"):
        read_timeline(write(tmp_path, timeline))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no such file"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"round": 1, "round": 2}', "the key 'round' is given twice"),
        (b"[]", r"the timeline is \[\]; it must be an object; give a finished run's"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, content, reason):
    file = tmp_path / "timeline.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as refusal:
        read_timeline(file)
    assert str(refusal.value).startswith(f"{file}: ")


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, told in (
        ("", "is a folder"),
        ("pipe", "is a pipe or a device"),
        ("a\nb", "there is no such file"),
    ):
        with pytest.raises(ValueError, match=told) as refusal:
            read_timeline(tmp_path / name)
        assert str(refusal.value).isprintable()


def places(tree, path=()):
    """Paths of all values in a tree."""
    yield path
    if isinstance(tree, dict | list):
        for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(inner, (*path, key))


SMALL = make_timeline(num_clients=3, num_clusters=2, steps=1)
others = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just(10**400),
    st.sampled_from([[], {}, [["send", 0, 1]], [0.0, 1e300], SMALL["nodes"][0]]),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([*places(SMALL)][1:]), others), max_size=3))
def test_any_values_are_a_timeline_or_are_refused_in_one_line(tmp_path_factory, changes):
    timeline = copy.deepcopy(SMALL)
    for (*path, last), value in changes:
        place = timeline
        for key in path:
            inside = isinstance(place, dict) and key in place
            inside |= isinstance(place, list) and isinstance(key, int) and key < len(place)
            place = place[key] if inside else {}
        number = isinstance(place, list) and isinstance(last, int) and last < len(place)
        if isinstance(place, dict) or number:
            place[last] = value
    file = write(tmp_path_factory.getbasetemp(), timeline)
    try:
        read = read_timeline(file)
    except ValueError as error:
        line = str(error)
        assert line.startswith(f"{file}: ")
        assert line.isprintable()
    else:
        assert {client["node"] for client in read["clients"]} <= {
            -1,
            *(node["node"] for node in read["nodes"]),
        }


@pytest.mark.parametrize(
    "changes",
    [
        {"round_s": 0.0},
        {"round_s": 1e40},
        {"round_s": 5e-324, "deadline_s": 5e-324},
        {"round": 2**31, "clients": []},
        {"clients": [], "nodes": []},
        {"front": {"device": "$x$\\", "position_km": [1e6, -1e6], "bars": []}},
        {"cloud": {"device": "", "bars": [["wait", 0, 1e40]]}},
    ],
)
def test_whatever_is_read_can_be_drawn(tmp_path, changes):
    timeline = read_timeline(write(tmp_path, SMALL | changes))
    draw_gantt(timeline).savefig(tmp_path / "gantt.png")
    draw_map(timeline).savefig(tmp_path / "map.png")
