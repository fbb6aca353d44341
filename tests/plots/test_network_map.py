"""The map shows everybody at their place, and each client's line ends at its node."""

import json
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_hex

from cefl_jax.plots.curves import LABEL_COLOURS
from cefl_jax.plots.network_map import _look, draw_map, draw_round
from tests.plots.timelines import make_timeline

pytestmark = pytest.mark.filterwarnings("error")


def places(axes, gid):
    """Points f64[.., 2] of the markers of this name, sorted."""
    lines = [line.get_xydata() for line in axes.lines if line.get_gid() == gid]
    return as_sorted(np.concatenate([np.empty((0, 2)), *lines]))


def as_sorted(points):
    points = np.reshape(np.array(points, float), (-1, 2))
    return points[np.lexsort(points.T)]


def links(axes):
    (found,) = [one for one in axes.collections if one.get_gid() == "links"]
    return found


def names(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize(
    "options",
    [
        {"num_clients": 1, "num_clusters": 1},
        {},
        {"num_clients": 200, "num_clusters": 45},
        {"num_clients": 30, "num_clusters": 0},
        {"dropped": (1, 4)},
        {"num_clients": 9, "num_clusters": 5, "in_cloud": (1,)},
    ],
)
def test_draw_map_shows_everybody_and_their_links(options):
    timeline = make_timeline(**options)
    clients, figure = timeline["clients"], draw_map(timeline)
    axes = figure.axes[0]
    for cluster in {client["cluster"] for client in clients}:
        wanted = [one["position_km"] for one in clients if one["cluster"] == cluster]
        np.testing.assert_array_equal(places(axes, f"cluster {cluster}"), as_sorted(wanted))
    dropped = [one["position_km"] for one in clients if not one["finished"]]
    np.testing.assert_array_equal(places(axes, "dropped"), as_sorted(dropped))
    assert ("dropped out" in names(figure)) == bool(dropped)
    where = {node["node"]: node["position_km"] or [0.0, 0.0] for node in timeline["nodes"]}
    for node in timeline["nodes"]:
        wanted = [node["position_km"]] if node["position_km"] else []
        np.testing.assert_array_equal(places(axes, f"node {node['node']}"), as_sorted(wanted))
    np.testing.assert_array_equal(places(axes, "front"), [[0.0, 0.0]])
    linked = [client for client in clients if client["node"] >= 0]
    segments, colours = links(axes).get_segments(), links(axes).get_colors()
    for client, segment, colour in zip(linked, segments, colours, strict=True):
        np.testing.assert_array_equal(segment, [client["position_km"], where[client["node"]]])
        assert to_hex(colour) == LABEL_COLOURS[client["cluster"] % len(LABEL_COLOURS)].lower()
    assert (axes.get_aspect(), axes.get_xlabel()) == (1.0, "km")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "1 at node 1"),
        ({"in_cloud": (1,)}, "1 at the cloud"),
        ({"num_clusters": 0}, "idle node"),
    ],
)
def test_draw_map_says_where_clusters_are(options, said):
    figure = draw_map(make_timeline(**options))
    to_cloud = [line for line in figure.axes[0].lines if line.get_gid() == "to cloud"]
    assert said in names(figure)
    assert bool([name for name in names(figure) if " at " in name]) == (said != "idle node")
    assert [line.get_xydata()[0].tolist() for line in to_cloud] == (
        [[0.0, 0.0]] if "in_cloud" in options else []
    )


def test_draw_map_gives_a_device_class_one_marker_and_a_name():
    timeline = make_timeline(num_clients=12, num_clusters=2)
    figure = draw_map(timeline)
    (legend,) = [one for one in figure.legends if not one.get_title().get_text()]
    labelled = zip(legend.get_texts(), legend.legend_handles, strict=True)
    marker_of = {text.get_text(): handle.get_marker() for text, handle in labelled}
    drawn = {
        tuple(point): line.get_marker()
        for line in figure.axes[0].lines
        for point in line.get_xydata().tolist()
    }
    for client in timeline["clients"]:
        name = client["device"].replace("_", " ")
        assert drawn[tuple(client["position_km"])] == marker_of[name]
    assert len({marker_of[name] for name in ("phone", "laptop", "raspberry pi")}) == 3


def test_look_of_forty_clusters_differs():
    assert len({(look["color"], look["fillstyle"]) for look in map(_look, range(40))}) == 40


@pytest.mark.parametrize("options", [{}, {"num_clusters": 0}, {"in_cloud": (0, 2)}])
def test_draw_map_draws_clients_at_one_place_apart(tmp_path, options):
    timeline = make_timeline(num_clients=20, **options)
    for one in timeline["clients"]:
        one["position_km"] = [0.25, 0.0]
    for one in timeline["nodes"]:
        one["position_km"] = one["position_km"] and [0.0, 0.0]
    figure = draw_map(timeline)
    axes = figure.axes[0]
    points = np.concatenate([one.get_xydata() for one in axes.lines if one.get_gid() != "to cloud"])
    apart = np.linalg.norm(points[:, None] - points, axis=-1) + np.eye(len(points))
    assert len(points) == 20 + 4 + 1
    assert apart.min() > 0.1
    assert "not to scale" in axes.get_xlabel()
    assert len(links(axes).get_segments()) == (0 if options == {"num_clusters": 0} else 20)
    figure.savefig(tmp_path / "map.png")


def run_of(folder, **options):
    folder.mkdir(exist_ok=True)
    (folder / "timeline.json").write_text(json.dumps(make_timeline(**options)))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"num_clients": 1, "num_clusters": 1, "steps": 1},
        {"num_clients": 100, "num_clusters": 10, "steps": 100, "dropped": (50,), "in_cloud": (1,)},
    ],
)
def test_draw_round_draws_both_pictures_of_sane_size(tmp_path, options):
    draw_round(run_of(tmp_path, **options))
    height, width = matplotlib.image.imread(tmp_path / "gantt.png").shape[:2]
    assert width == 1440
    assert 300 < height < 2400
    assert matplotlib.image.imread(tmp_path / "map.png").shape[:2] == (840, 1140)
    assert len(list(tmp_path.iterdir())) == 3
    made = {file: file.read_bytes() for file in tmp_path.iterdir()}
    draw_round(tmp_path)
    assert made == {file: file.read_bytes() for file in tmp_path.iterdir()}


def test_draw_round_writes_nothing_without_a_timeline(tmp_path):
    with pytest.raises(ValueError, match=r"timeline\.json: there is no such file"):
        draw_round(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_pyplot_alone(tmp_path):
    # In a process of its own: here another test may have imported it.
    program = """
import sys
from cefl_jax.plots import curves, network_map
curves.draw_learning_curve(sys.argv[1] + "/a.png", [{"round": 1, "test/accuracy": 0.5}])
curves.draw_partition(sys.argv[1] + "/b.png", [[1]] * 100)
network_map.draw_round(sys.argv[1])
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, str(run_of(tmp_path))], check=True)
