"""Pictures exist, have their size, show the data, and draw every shape of run."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes

from cefl_jax.plots import curves
from cefl_jax.plots.curves import _apart, draw_learning_curve, draw_partition
from tests.compare import assert_close
from tests.runtime.examples import make_record, make_records, without

pytestmark = pytest.mark.filterwarnings("error")
# As mathematics this cannot be set, and matplotlib would raise.
NOT_MATH = r"$\no_such_macro$"
BLUE, VERMILLION = "#0072B2", "#D55E00"
NONE = {"test/accuracy": None, "sim/time_s": None}


def shape_of(file):
    return matplotlib.image.imread(file).shape[:2]


def area_of(file, colour):
    """Pixels of exactly this colour: inside lines and bars, not at their softened edges."""
    pixels = np.round(255 * matplotlib.image.imread(file)[..., :3]).astype(int)
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int((pixels == wanted).all(-1).sum())


def curve(folder, records, name="curve.png"):
    draw_learning_curve(folder / name, records, NOT_MATH)
    return folder / name


def partition(folder, label_counts, name="partition.png", **options):
    draw_partition(folder / name, label_counts, **options)
    return folder / name


def skewed(num_clients, num_labels=10, seed=0):
    """Label counts with empty clients and clients of one label among them."""
    rng = np.random.default_rng(seed)
    is_held = rng.random((num_clients, num_labels)) < 0.3
    counts = rng.geometric(0.05, (num_clients, num_labels)) * is_held
    counts[0] = 0
    counts[-1] = np.eye(num_labels, dtype=int)[-1] * 40
    return counts


@pytest.mark.parametrize(
    ("records", "width", "is_blue", "is_vermillion"),
    [
        (make_records(12), 1440, True, True),
        ([without(record, "sim/") for record in make_records(12)], 810, True, True),
        ([without(record, "test/cloud") for record in make_records(12)], 1440, True, False),
        (make_records(1), 1440, True, True),
        (make_records(400), 1440, True, True),
        ([make_record(0, **{"sim/time_s": 0.0})], 1440, True, True),
        ([make_record(1, **{"test/accuracy": 1.0, "test/cloud_accuracy": 0})], 1440, True, True),
        ([make_record(5, **NONE), make_record(10)], 1440, True, True),
        ([make_record(1, **NONE, **{"test/cloud_accuracy": np.nan})], 810, False, False),
    ],
)
def test_draw_learning_curve_of_every_shape_of_run(
    tmp_path, records, width, is_blue, is_vermillion
):
    """Two panels where there is a simulated time, and two curves where there is a cloud model."""
    file = curve(tmp_path, records)
    assert shape_of(file) == (540, width)
    assert (area_of(file, BLUE) > 0, area_of(file, VERMILLION) > 0) == (is_blue, is_vermillion)


def test_draw_learning_curve_refuses_a_run_without_records(tmp_path):
    with pytest.raises(ValueError, match="at least one record"):
        curve(tmp_path, [])
    assert not (tmp_path / "curve.png").exists()


def test_draw_learning_curve_differs_with_the_data_and_only_with_it(tmp_path):
    records = make_records(5)
    better = [*records[:-1], make_record(50, **{"test/accuracy": 0.99})]
    made = {"a.png": records, "b.png": records, "c.png": better}
    one, again, other = (curve(tmp_path, data, name).read_bytes() for name, data in made.items())
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    "counts",
    [
        *(skewed(*size) for size in ((1, 1), (2, 10), (60, 10), (61, 10), (1, 100), (60, 11))),
        skewed(2000, 100),
        np.zeros((3, 1), int),
        np.zeros((100, 3), int),
    ],
    ids=lambda counts: str(counts.shape),
)
def test_draw_partition_of_every_size_of_population(tmp_path, counts):
    names = [f"{NOT_MATH} {label}" for label in range(counts.shape[1])]
    file = partition(tmp_path, counts, label_names=names, title=NOT_MATH)
    assert shape_of(file) == (690, 1440)


def test_draw_partition_gives_a_label_the_area_of_its_share(tmp_path):
    # 90 against 10 examples at each client; the legend's own patch blurs the factor of 9.
    many = partition(tmp_path, np.tile([90, 10], (8, 1)), "many.png")
    few = partition(tmp_path, np.tile([10, 90], (8, 1)), "few.png")
    for colour, large, small in (("#332288", many, few), ("#88CCEE", few, many)):
        assert 8.0 < area_of(large, colour) / area_of(small, colour) < 9.5


def test_draw_partition_sorts_clients_by_their_largest_label_and_its_share(tmp_path, monkeypatch):
    counts = np.zeros((5, 11), int)
    counts[:, :3] = [[0, 9, 1], [5, 4, 1], [0, 0, 7], [80, 10, 10], [0, 1, 0]]
    drawn, imshow = [], Axes.imshow
    see = lambda axes, image, **look: drawn.append(image.T) or imshow(axes, image, **look)  # noqa: E731
    monkeypatch.setattr(Axes, "imshow", see)
    partition(tmp_path, counts)
    in_order = counts[[3, 1, 4, 0, 2]]
    assert_close(drawn[0], 100.0 * in_order / in_order.sum(axis=1, keepdims=True))


def test_draw_partition_averages_neighbours_of_a_large_population(tmp_path, monkeypatch):
    """Clients of label 0, then of label 1: a column with both has the share of each."""
    drawn, imshow = [], Axes.imshow
    see = lambda axes, image, **look: drawn.append(image.T) or imshow(axes, image, **look)  # noqa: E731
    monkeypatch.setattr(Axes, "imshow", see)
    monkeypatch.setattr(curves, "MAX_COLUMNS", 3)
    partition(tmp_path, np.repeat([[2, 0], [0, 5]], [40, 60], axis=0))
    assert_close(drawn[0], 100.0 * np.array([[1, 0], [7 / 33, 26 / 33], [0, 1]]))


@pytest.mark.parametrize(
    ("label_counts", "names", "reason"),
    [
        (np.ones(3), None, "shape"),
        (np.ones((0, 3)), None, "shape"),
        (np.ones((3, 2)), ["a"], "1 label names for 2 labels"),
    ],
)
def test_draw_partition_refuses_what_does_not_fit(tmp_path, label_counts, names, reason):
    with pytest.raises(ValueError, match=reason):
        partition(tmp_path, label_counts, label_names=names)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("heights", [(50.0, 50.0), (51.0, 50.0), (99.0, 100.0), (0.0, 1.0)])
def test_apart_keeps_labels_in_order_and_inside(heights):
    moved = _apart(list(heights), 0.0, 100.0, part=0.1)
    low, high = sorted(moved)
    assert high - low == pytest.approx(10.0)
    assert low >= 5.0
    assert high <= 95.0
    if heights[0] != heights[1]:
        assert (moved[0] > moved[1]) == (heights[0] > heights[1])
