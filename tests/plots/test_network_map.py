"""The map shows everybody at their place, and each client's line ends at its node."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from cefl_jax.plots.curves import LABEL_COLOURS
from cefl_jax.plots.network_map import _look, draw_map
from tests.plots.timelines import make_timeline

pytestmark = pytest.mark.filterwarnings("error")


def places(axes, gid):
    """Points f64[.., 2] of the markers of this name, sorted."""
    lines = [line.get_xydata() for line in axes.lines if line.get_gid() == gid]
    points = np.concatenate([np.empty((0, 2)), *lines])
    return points[np.lexsort(points.T)]


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
    ],
)
def test_everybody_is_at_their_place(options):
    timeline = make_timeline(**options)
    axes = draw_map(timeline).axes[0]
    for cluster in {client["cluster"] for client in timeline["clients"]}:
        wanted = [one["position_km"] for one in timeline["clients"] if one["cluster"] == cluster]
        np.testing.assert_array_equal(places(axes, f"cluster {cluster}"), as_sorted(wanted))
    for node in timeline["nodes"]:
        np.testing.assert_array_equal(places(axes, f"node {node['node']}"), [node["position_km"]])
    np.testing.assert_array_equal(places(axes, "front"), [[0.0, 0.0]])
    assert axes.get_aspect() == 1.0
    assert axes.get_xlabel() == "km"


def test_lines_lead_to_the_node_of_the_cluster_in_its_colour():
    timeline = make_timeline(num_clients=9, num_clusters=5, in_cloud=(1,))
    axes = draw_map(timeline).axes[0]
    where = {node["node"]: node["position_km"] or [0.0, 0.0] for node in timeline["nodes"]}
    segments, colours = links(axes).get_segments(), links(axes).get_colors()
    for client, segment, colour in zip(timeline["clients"], segments, colours, strict=True):
        np.testing.assert_array_equal(segment, [client["position_km"], where[client["node"]]])
        assert to_hex(colour) == LABEL_COLOURS[client["cluster"]].lower()


def test_the_cloud_is_drawn_where_it_serves_a_cluster():
    figure = draw_map(make_timeline(in_cloud=(1,)))
    (line,) = [one for one in figure.axes[0].lines if one.get_gid() == "to cloud"]
    assert line.get_xydata()[0].tolist() == [0.0, 0.0]
    assert "1 at the cloud" in names(figure)
    figure = draw_map(make_timeline())
    assert not [one for one in figure.axes[0].lines if one.get_gid() == "to cloud"]
    assert "1 at node 1" in names(figure)


def test_without_clusters_there_are_no_lines():
    figure = draw_map(make_timeline(num_clusters=0))
    assert links(figure.axes[0]).get_segments() == []
    assert not [name for name in names(figure) if " at " in name]
    assert "idle node" in names(figure)


def test_dropped_clients_are_crossed_out():
    timeline = make_timeline(dropped=(1, 4))
    figure = draw_map(timeline)
    wanted = [timeline["clients"][at]["position_km"] for at in (1, 4)]
    np.testing.assert_array_equal(places(figure.axes[0], "dropped"), as_sorted(wanted))
    assert "dropped out" in names(figure)
    assert "dropped out" not in names(draw_map(make_timeline()))


def test_forty_clusters_look_different():
    looks = {(look["color"], look["fillstyle"]) for look in map(_look, range(40))}
    assert len(looks) == 40


def test_a_device_class_has_one_marker_and_a_name():
    timeline = make_timeline(num_clients=12, num_clusters=2)
    figure = draw_map(timeline)
    (legend,) = [one for one in figure.legends if not one.get_title().get_text()]
    marker_of = {
        text.get_text(): handle.get_marker()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    drawn = {
        tuple(point): line.get_marker()
        for line in figure.axes[0].lines
        for point in line.get_xydata().tolist()
    }
    for client in timeline["clients"]:
        name = client["device"].replace("_", " ")
        assert drawn[tuple(client["position_km"])] == marker_of[name]
    assert len({marker_of[name] for name in ("phone", "laptop", "raspberry pi")}) == 3


@pytest.mark.parametrize("place", [[0.0, 0.0], [0.25, 0.0]])
@pytest.mark.parametrize("options", [{}, {"num_clusters": 0}, {"in_cloud": (0, 2)}])
def test_clients_at_one_place_are_drawn_apart(tmp_path, place, options):
    timeline = make_timeline(num_clients=20, **options)
    for one in timeline["clients"]:
        one["position_km"] = place
    for one in timeline["nodes"]:
        one["position_km"] = one["position_km"] and [0.0, 0.0]
    figure = draw_map(timeline)
    axes = figure.axes[0]
    points = np.concatenate(
        [line.get_xydata() for line in axes.lines if line.get_gid() != "to cloud"]
    )
    apart = np.linalg.norm(points[:, None] - points, axis=-1) + np.eye(len(points))
    assert len(points) == 20 + 4 + 1
    assert apart.min() > 0.1
    assert "not to scale" in axes.get_xlabel()
    assert len(links(axes).get_segments()) == (0 if options == {"num_clusters": 0} else 20)
    figure.savefig(tmp_path / "map.png")


@pytest.mark.parametrize("num_clients", [0, 1])
def test_a_single_place_and_nobody_are_drawn(tmp_path, num_clients):
    timeline = make_timeline(num_clients=1, num_clusters=1)
    timeline["clients"] = timeline["clients"][:num_clients]
    for one in [*timeline["clients"], *timeline["nodes"]]:
        one["position_km"] = [0.0, 0.0]
    draw_map(timeline).savefig(tmp_path / "map.png")


def test_names_are_not_read_as_mathematics(tmp_path):
    timeline = make_timeline()
    for one in [*timeline["clients"], *timeline["nodes"]]:
        one["device"] = r"$\no$such"
    draw_map(timeline).savefig(tmp_path / "map.png")
