"""The chart's bars are the timeline's, and what is too short to draw keeps its share of the time.

Expected lengths are added up from the timeline in plain Python.
"""

import collections

import numpy as np
import pytest

from cefl_jax.plots.gantt import draw_gantt, rectangles
from cefl_jax.plots.timeline import ACTIVITIES
from tests.compare import assert_close
from tests.plots.timelines import devices, make_timeline

pytestmark = pytest.mark.filterwarnings("error")


def drawn(axes):
    """Extents [left, right, top, bottom] of the bars of each activity."""
    found = {}
    for collection in axes.collections:
        boxes = [path.get_extents() for path in collection.get_paths()]
        found[collection.get_gid()] = sorted((box.x0, box.x1, box.y0, box.y1) for box in boxes)
    return {name: found[name] for name in ACTIVITIES}


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


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize(
    "options",
    [
        {"num_clients": 1, "num_clusters": 1},
        {},
        {"num_clusters": 0},
        {"in_cloud": (1,)},
        {"num_clients": 60, "num_clusters": 7, "dropped": (5,)},
    ],
)
def test_draw_gantt_draws_the_bars_of_the_timeline_beside_their_names(options, scale):
    """A long round is in minutes."""
    timeline = make_timeline(**options)
    timeline["round_s"] *= scale
    for one in devices(timeline):
        one["bars"] = [[what, scale * start, scale * end] for what, start, end in one["bars"]]
    axes = draw_gantt(timeline).axes[0]
    unit_s = 60.0 if "(min)" in axes.get_xlabel() else 1.0
    assert (unit_s == 60.0) == (timeline["round_s"] >= 120.0)
    for name, boxes in drawn(axes).items():
        wanted = sorted(
            (start / unit_s, end / unit_s)
            for one in devices(timeline)
            for what, start, end in joined(one["bars"])
            if what == name
        )
        found = [box[:2] for box in boxes]
        assert_close(np.reshape(found, (-1, 2)), np.reshape(wanted, (-1, 2)), 0, atol=1e-3)
        for *_, top, bottom in boxes:
            assert np.abs(axes.get_yticks() - (top + bottom) / 2.0).min() < 1e-6
    (distil,) = drawn(axes)["distil"]
    assert distil[2] < axes.get_yticks()[-1] < distil[3]
    assert axes.get_xlim() == pytest.approx((0.0, timeline["round_s"] / unit_s))


def test_draw_gantt_puts_clients_below_the_node_of_their_cluster():
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


@pytest.mark.parametrize(("num_clients", "named"), [(1, 1), (60, 60), (61, 0)])
def test_draw_gantt_names_clients_while_there_is_room(num_clients, named):
    figure = draw_gantt(make_timeline(num_clients=num_clients, num_clusters=1, steps=1))
    assert len(figure.axes[0].get_yticks()) == named + 3  # node, front and cloud
    assert figure.get_figheight() < 15.0


def test_draw_gantt_crosses_out_and_counts_who_dropped_out():
    timeline = {**make_timeline(dropped=(2, 5)), "round_s": 12.34}
    timeline["clients"][5]["bars"] = []
    figure = draw_gantt(timeline)
    axes = figure.axes[0]
    (crosses,) = with_gid(axes, "dropped")
    assert list(crosses.get_xdata()) == [timeline["clients"][2]["bars"][-1][2], 0.0]
    labelled = zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
    ticks = {text.get_text().split(" ")[0]: at for text, at in labelled}
    assert list(crosses.get_ydata()) == [ticks["6"], ticks["15"]]
    assert figure.get_suptitle() == "Round 50: 12.3 s, 8 clients, 2 dropped out"
    figure = draw_gantt({**make_timeline(num_clients=1, num_clusters=1), "round_s": 12.34})
    assert not with_gid(figure.axes[0], "dropped")
    assert figure.get_suptitle() == "Round 50: 12.3 s, 1 client"


@pytest.mark.parametrize(
    ("rounds", "lines", "entries"), [(0.5, 1, 1), (1.1, 1, 1), (5, 0, 1), (None, 0, 0)]
)
def test_draw_gantt_draws_the_deadline_unless_it_is_far_away(rounds, lines, entries):
    deadline_s = rounds and rounds * make_timeline()["round_s"]
    figure = draw_gantt(make_timeline(deadline_s=deadline_s))
    drawn_s = [line.get_xdata()[0] for line in with_gid(figure.axes[0], "deadline")]
    assert drawn_s == [deadline_s] * lines
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sum(text.startswith("deadline") for text in texts) == entries
    assert any("after the end" in text for text in texts) == (rounds == 5)


def many_bars(steps, rest=True, first_s=0.0, length=lambda rng: rng.uniform(0.5, 1.5, 4)):
    """Bars of local steps whose parts take `length(rng)` seconds, and when they end."""
    rng, now, bars = np.random.default_rng(0), first_s, []
    for _ in range(steps):
        for what, taken in zip(("compute", "send", "wait", "receive"), length(rng), strict=True):
            if rest or what != "wait":
                bars.append([what, now, now + taken])
            now += taken
    return bars, now


LONG_S = 300.0


@pytest.mark.parametrize(("steps", "rest"), [(2, True), (15, False), (500, True), (500, False)])
def test_rectangles_keep_the_shares_of_short_bars(steps, rest):
    bars, end_s = many_bars(steps, rest, LONG_S)
    bars = [["receive", 0.0, LONG_S], *bars]
    found, merged = rectangles(bars, end_s, pixel_s=10.0)
    assert found[0].tolist() == [ACTIVITIES.index("receive"), 0.0, LONG_S, 0.0, 1.0]  # as it was
    wanted, areas = collections.Counter(), collections.Counter()
    for what, start, end in bars:
        wanted[what] += end - start
    for number, start, end, low, high in found:
        areas[ACTIVITIES[int(number)]] += (end - start) * (high - low)
    assert dict(areas) == pytest.approx(dict(wanted))
    assert merged
    assert len(found) <= 4 * max(end_s / 60.0, 1.0)  # 4 activities, cells of 6 pixels
    for left in np.unique(found[1:, 1]):  # stacked without a gap
        low, high = np.sort(found[found[:, 1] == left, 3:], axis=0).T
        assert_close(low, [0.0, *high[:-1]], 1e-6)
        assert high[-1] == pytest.approx(1.0) if rest else high[-1] < 1.0


@pytest.mark.parametrize("steps", [92, 101, 3000])
@pytest.mark.parametrize("pixel_s", [1.0, 2.0, 20.0])
def test_rectangles_of_steady_steps_have_steady_shares_in_cells_that_can_be_seen(steps, pixel_s):
    bars, end_s = many_bars(steps, length=lambda _: (0.6, 0.2, 0.3, 0.1))
    found, _ = rectangles(bars, end_s, pixel_s)
    heights = found[:, 4] - found[:, 3]
    for what, length in {"compute": 0.6, "send": 0.2, "receive": 0.1, "wait": 0.3}.items():
        assert_close(heights[found[:, 0] == ACTIVITIES.index(what)], length / 1.2, 1e-6)
    assert np.diff(found[:, 1:3]).min() >= min(3.0 * pixel_s, end_s)


@pytest.mark.parametrize(
    ("bars", "spans"),
    [
        ([], []),
        (  # few short ones
            [["compute", 0.0, 0.1], ["send", 0.1, 0.2], ["wait", 0.2, 90.0]],
            [[0.0, 0.1], [0.1, 0.2], [0.2, 90.0]],
        ),
        (  # neighbours, over what rounding left
            [["compute", 0.0, 1.0], ["wait", 1.0, 1.0 + 1e-7], ["compute", 1.0 + 1e-7, 2.0]],
            [[0.0, 2.0]],
        ),
        ([["compute", 0.0, 1.0], ["compute", 3.0, 4.0]], [[0.0, 1.0], [3.0, 4.0]]),
        ([["send", 4.0, 4.0]], []),
    ],
)
def test_rectangles_of_few_bars_are_the_bars(bars, spans):
    found, merged = rectangles(bars, 90.0, pixel_s=1.0)
    assert found[:, 1:3].tolist() == spans
    assert found.shape[1] == 5
    assert not merged
