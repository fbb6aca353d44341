"""The chart's bars are the timeline's, and what is too short to draw keeps its share of the time.

Expected lengths are added up from the timeline in plain Python.
"""

import collections

import numpy as np
import pytest

from cefl_jax.plots.gantt import draw_gantt, rectangles
from cefl_jax.plots.timeline import ACTIVITIES
from tests.compare import assert_close
from tests.plots.timelines import make_timeline

pytestmark = pytest.mark.filterwarnings("error")


def devices(timeline):
    return [*timeline["clients"], *timeline["nodes"], timeline["front"], timeline["cloud"]]


def drawn(axes):
    """Extents [left, right, top, bottom] of the bars of each activity."""
    found = {}
    for collection in (each for each in axes.collections if each.get_gid()):
        boxes = [path.get_extents() for path in collection.get_paths()]
        found[collection.get_gid()] = sorted((box.x0, box.x1, box.y0, box.y1) for box in boxes)
    return found


def with_gid(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


def joined(bars):
    """[activity, from, to] with neighbours of one activity as one."""
    whole = []
    for what, start, end in bars:
        if whole and whole[-1][0] == what and start - whole[-1][2] < 1e-4:
            whole[-1][2] = end
        elif end - start > 1e-4:
            whole.append([what, start, end])
    return whole


@pytest.mark.parametrize(
    "options",
    [
        {"num_clients": 1, "num_clusters": 1},
        {},
        {"num_clusters": 0},
        {"in_cloud": (1,)},
        {"num_clients": 100, "num_clusters": 7, "dropped": (5,)},
    ],
)
def test_the_bars_are_those_of_the_timeline(options):
    timeline = make_timeline(**options)
    axes = draw_gantt(timeline).axes[0]
    for name in ACTIVITIES:
        wanted = sorted(
            (start, end)
            for one in devices(timeline)
            for what, start, end in joined(one["bars"])
            if what == name
        )
        found = [box[:2] for box in drawn(axes)[name]]
        assert_close(np.reshape(found, (-1, 2)), np.reshape(wanted, (-1, 2)), 0, atol=1e-3)
    left, right = axes.get_xlim()
    assert left == 0.0
    assert right == pytest.approx(timeline["round_s"])


def test_bars_are_beside_their_names():
    axes = draw_gantt(make_timeline()).axes[0]
    ticks = axes.get_yticks()
    for boxes in drawn(axes).values():
        for *_, top, bottom in boxes:
            assert np.abs(ticks - (top + bottom) / 2.0).min() < 1e-6
    (distil,) = drawn(axes)["distil"]
    assert distil[2] < ticks[-1] < distil[3]
    assert all(box[3] < ticks[-2] for box in drawn(axes)["compute"])


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({"num_clients": 1, "num_clusters": 1}, "1 client"),
        ({}, "8 clients"),
        ({"dropped": (0, 2, 3)}, "8 clients, 3 dropped out"),
    ],
)
def test_the_title_counts(options, title):
    timeline = {**make_timeline(**options), "round_s": 12.34}
    assert draw_gantt(timeline).get_suptitle() == f"Round 50: 12.3 s, {title}"


def test_a_long_round_is_in_minutes():
    timeline = make_timeline(num_clients=2, num_clusters=1, steps=1)
    for one in devices(timeline):
        one["bars"] = [[what, 100 * start, 100 * end] for what, start, end in one["bars"]]
    timeline["round_s"] *= 100
    axes = draw_gantt(timeline).axes[0]
    assert "(min)" in axes.get_xlabel()
    (distil,) = drawn(axes)["distil"]
    assert distil[1] == pytest.approx(timeline["cloud"]["bars"][-1][2] / 60.0, rel=1e-5)


def test_clients_stand_below_the_node_of_their_cluster():
    timeline = make_timeline(num_clients=12, num_clusters=6, in_cloud=(2,))
    axes = draw_gantt(timeline).axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert list(axes.get_yticks()) == sorted(axes.get_yticks())
    assert names[-2:] == ["front · edge server", "cloud · cloud server"]
    cluster_of = {str(client["client"]): client["cluster"] for client in timeline["clients"]}
    below, node = collections.defaultdict(list), None
    for name in names[:-2]:
        if "node" in name:
            node = int(name.split("node ")[1].split(" ")[0].rstrip(")"))
        else:
            below[node].append(cluster_of[name.split(" ")[0]])
    assert list(below.items()) == [(0, [0, 0, 4, 4]), (1, [1, 1, 5, 5]), (4, [2, 2]), (3, [3, 3])]
    assert any(name.startswith("cloud (node 4)") for name in names)


@pytest.mark.parametrize(("num_clients", "named"), [(1, True), (60, True), (61, False)])
def test_clients_are_named_while_there_is_room(num_clients, named):
    figure = draw_gantt(make_timeline(num_clients=num_clients, num_clusters=1, steps=1))
    rows = num_clients if named else 0
    assert len(figure.axes[0].get_yticks()) == rows + 3  # node, front and cloud
    assert figure.get_figheight() < 15.0


def test_a_cross_is_where_a_client_dropped_out():
    timeline = make_timeline(dropped=(2, 5))
    timeline["clients"][5]["bars"] = []
    axes = draw_gantt(timeline).axes[0]
    (crosses,) = with_gid(axes, "dropped")
    assert list(crosses.get_xdata()) == [timeline["clients"][2]["bars"][-1][2], 0.0]
    ticks = {
        text.get_text().split(" ")[0]: at
        for text, at in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
    }
    assert list(crosses.get_ydata()) == [ticks["6"], ticks["15"]]
    assert not with_gid(draw_gantt(make_timeline()).axes[0], "dropped")


def test_the_deadline_is_drawn_unless_it_is_far_away():
    round_s = make_timeline()["round_s"]
    for deadline_s, seen in ((0.5 * round_s, 1), (1.1 * round_s, 1), (5 * round_s, 0), (None, 0)):
        figure = draw_gantt(make_timeline(deadline_s=deadline_s))
        lines = with_gid(figure.axes[0], "deadline")
        assert len(lines) == seen
        assert all(line.get_xdata()[0] == deadline_s for line in lines)
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert sum(text.startswith("deadline") for text in texts) == (deadline_s is not None)


@pytest.mark.parametrize("round_s", [0.0, 3.0])
def test_a_round_in_which_nothing_happens_is_drawn(tmp_path, round_s):
    timeline = {**make_timeline(), "clients": [], "nodes": [], "round_s": round_s}
    timeline["front"]["bars"] = timeline["cloud"]["bars"] = []
    draw_gantt(timeline).savefig(tmp_path / "gantt.png")


def test_names_are_not_read_as_mathematics(tmp_path):
    timeline = make_timeline()
    for one in devices(timeline):
        one["device"] = r"$\no$such"
    draw_gantt(timeline).savefig(tmp_path / "gantt.png")


def areas(rectangles):
    """Time x height of each activity."""
    spent = collections.Counter()
    for number, start, end, low, high in rectangles:
        spent[ACTIVITIES[int(number)]] += (end - start) * (high - low)
    return spent


def many_bars(steps, first_s=0.0, rest=True):
    rng, now, bars = np.random.default_rng(0), first_s, []
    for _ in range(steps):
        for what, length in zip(
            ("compute", "send", "wait", "receive"), rng.uniform(0.5, 1.5, 4), strict=True
        ):
            if rest or what != "wait":
                bars.append([what, now, now + length])
            now += length
    return bars, now


@pytest.mark.parametrize(("steps", "rest"), [(2, True), (15, False), (500, True), (500, False)])
def test_short_bars_keep_their_shares_of_the_time(steps, rest):
    bars, end_s = many_bars(steps, rest=rest)
    found, merged = rectangles(bars, end_s, pixel_s=10.0)
    wanted = collections.Counter()
    for what, start, end in bars:
        wanted[what] += end - start
    spent = areas(found)
    assert set(spent) == set(wanted)
    assert all(spent[what] == pytest.approx(wanted[what]) for what in wanted)
    assert merged
    assert len(found) <= 4 * max(end_s / 60.0, 1.0)  # 4 activities, cells of 6 pixels
    for left in np.unique(found[:, 1]):  # stacked without a gap
        low, high = np.sort(found[found[:, 1] == left, 3:], axis=0).T
        assert_close(low, [0.0, *high[:-1]], 1e-6)
        assert high[-1] == pytest.approx(1.0) if rest else high[-1] < 1.0


@pytest.mark.parametrize("steps", [92, 101, 3000])
@pytest.mark.parametrize("pixel_s", [1.0, 2.0, 20.0])
def test_steady_steps_have_steady_shares_in_cells_that_can_be_seen(steps, pixel_s):
    lengths = {"receive": 0.1, "compute": 0.6, "send": 0.2, "wait": 0.3}
    bars, now = [], 0.0
    for what in list(lengths) * steps:
        bars.append([what, now, now + lengths[what]])
        now += lengths[what]
    found, _ = rectangles(bars, now, pixel_s)
    heights = found[:, 4] - found[:, 3]
    for number, what in enumerate(ACTIVITIES[:4]):
        assert_close(heights[found[:, 0] == number], lengths[what] / 1.2, 1e-6)
    assert np.diff(found[:, 1:3]).min() >= min(3.0 * pixel_s, now)


def test_long_bars_beside_short_ones_stay_as_they_are():
    bars, middle_s = many_bars(100, first_s=300.0)
    bars = [["receive", 0.0, 300.0], *bars, ["send", middle_s, middle_s + 200.0]]
    found, merged = rectangles(bars, middle_s + 200.0, pixel_s=2.0)
    assert merged
    whole = {tuple(row) for row in found if row[3:].tolist() == [0.0, 1.0]}
    assert whole == {
        (ACTIVITIES.index("receive"), 0.0, 300.0, 0.0, 1.0),
        (ACTIVITIES.index("send"), middle_s, middle_s + 200.0, 0.0, 1.0),
    }


def test_few_short_bars_are_drawn_one_by_one():
    bars = [["compute", 0.0, 0.1], ["send", 0.1, 0.2], ["wait", 0.2, 90.0]]
    found, merged = rectangles(bars, 90.0, pixel_s=1.0)
    assert not merged
    assert found[:, 1:3].tolist() == [bar[1:] for bar in bars]


def test_neighbours_of_one_activity_are_joined_over_what_rounding_left():
    bars = [
        ["compute", 0.0, 1.0],
        ["wait", 1.0, 1.0 + 1e-7],
        ["compute", 1.0 + 1e-7, 2.0],
        ["compute", 3.0, 4.0],
        ["send", 4.0, 4.0],
    ]
    found, _ = rectangles(bars, 10.0, pixel_s=0.01)
    assert found[:, 1:3].tolist() == [[0.0, 2.0], [3.0, 4.0]]


def test_a_row_without_bars_is_empty():
    found, merged = rectangles([], 10.0, 0.01)
    assert found.shape == (0, 5)
    assert not merged
