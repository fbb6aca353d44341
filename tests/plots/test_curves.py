"""Pictures exist, have their size, show the data, and draw every shape of run."""

import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from cefl_jax.plots.curves import _apart, _by_largest_label, draw_learning_curve, draw_partition
from tests.runtime.examples import make_record, make_records, without

pytestmark = pytest.mark.filterwarnings("error")
# As mathematics this cannot be set, and matplotlib would raise.
NOT_MATH = r"$\no_such_macro$"
BLUE, VERMILLION = "#0072B2", "#D55E00"


def shape_of(file):
    return matplotlib.image.imread(file).shape[:2]


def area_of(file, colour):
    """Pixels of exactly this colour: inside lines and bars, not at their softened edges."""
    pixels = np.round(255 * matplotlib.image.imread(file)[..., :3]).astype(int)
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int((pixels == wanted).all(-1).sum())


def has_colour(file, colour):
    return area_of(file, colour) > 0


def curve(folder, records, name="curve.png", title="a run"):
    draw_learning_curve(folder / name, records, title)
    return folder / name


def partition(folder, label_counts, name="partition.png", **options):
    draw_partition(folder / name, label_counts, **options)
    return folder / name


def skewed(num_clients, num_labels=10, seed=0):
    """Label counts with empty clients and clients of one label among them."""
    rng = np.random.default_rng(seed)
    counts = rng.geometric(0.05, (num_clients, num_labels)) * (
        rng.random((num_clients, num_labels)) < 0.3
    )
    counts[0] = 0
    counts[-1] = np.eye(num_labels, dtype=int)[-1] * 40
    return counts


def test_the_curve_has_two_panels_and_both_models(tmp_path):
    file = curve(tmp_path, make_records(12))
    assert shape_of(file) == (540, 1440)
    assert has_colour(file, BLUE)
    assert has_colour(file, VERMILLION)


def test_without_simulated_time_there_is_one_panel(tmp_path):
    records = [without(record, "sim/") for record in make_records(12)]
    assert shape_of(curve(tmp_path, records)) == (540, 810)


def test_without_a_cloud_model_there_is_no_curve_of_it(tmp_path):
    records = [without(record, "test/cloud") for record in make_records(12)]
    file = curve(tmp_path, records)
    assert has_colour(file, BLUE)
    assert not has_colour(file, VERMILLION)


@pytest.mark.parametrize(
    "records",
    [
        make_records(1),
        [make_record(0, **{"sim/time_s": 0.0})],
        [make_record(1, **{"test/accuracy": 1.0, "test/cloud_accuracy": 0.0})],
        [make_record(5, **{"test/accuracy": None, "sim/time_s": None}), make_record(10)],
        make_records(400),
    ],
)
def test_every_shape_of_run_is_drawn(tmp_path, records):
    assert has_colour(curve(tmp_path, records, title=NOT_MATH), BLUE)


def test_a_run_without_one_finite_value_is_drawn_empty(tmp_path):
    record = make_record(1, **{"test/accuracy": float("nan"), "test/cloud_accuracy": None})
    assert not has_colour(curve(tmp_path, [record]), BLUE)


def test_a_run_without_records_has_no_curve(tmp_path):
    with pytest.raises(ValueError, match="at least one record"):
        curve(tmp_path, [])
    assert not (tmp_path / "curve.png").exists()


def test_curves_differ_with_their_data_and_only_with_it(tmp_path):
    records = make_records(5)
    better = [*records[:-1], make_record(50, **{"test/accuracy": 0.99})]
    one, again, other = (
        curve(tmp_path, data, name).read_bytes()
        for name, data in [("a.png", records), ("b.png", records), ("c.png", better)]
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    ("num_clients", "num_labels"),
    [
        (1, 1),
        (1, 10),
        (2, 10),
        (60, 10),
        (61, 10),
        (500, 10),
        (1, 100),
        (60, 11),
        (2000, 100),
    ],
)
def test_every_size_of_population_is_drawn(tmp_path, num_clients, num_labels):
    names = [f"{NOT_MATH} {label}" for label in range(num_labels)]
    file = partition(tmp_path, skewed(num_clients, num_labels), label_names=names, title=NOT_MATH)
    assert shape_of(file) == (690, 1440)


def test_the_area_of_a_label_in_the_bars_is_its_share(tmp_path):
    # 90 against 10 examples at each client; the legend's own patch blurs the factor of 9.
    many = partition(tmp_path, np.tile([90, 10], (8, 1)), "many.png")
    few = partition(tmp_path, np.tile([10, 90], (8, 1)), "few.png")
    for colour, large, small in (("#332288", many, few), ("#88CCEE", few, many)):
        assert 8.0 < area_of(large, colour) / area_of(small, colour) < 9.5


def test_clients_without_any_example_are_drawn(tmp_path):
    assert shape_of(partition(tmp_path, np.zeros((3, 1), int))) == (690, 1440)
    assert shape_of(partition(tmp_path, np.zeros((100, 3), int))) == (690, 1440)


@pytest.mark.parametrize("num_clients", [20, 200])
def test_partitions_differ_with_their_data(tmp_path, num_clients):
    one = partition(tmp_path, skewed(num_clients, seed=1), "a.png")
    other = partition(tmp_path, skewed(num_clients, seed=2), "b.png")
    assert one.read_bytes() != other.read_bytes()


def test_the_heat_map_does_not_depend_on_the_order_of_the_clients(tmp_path):
    counts = 1 + np.arange(100)[:, None] + 200 * np.eye(10, dtype=int)[np.arange(100) % 10]
    shuffled = counts[np.random.default_rng(0).permutation(100)]
    one, other = partition(tmp_path, counts, "a.png"), partition(tmp_path, shuffled, "b.png")
    assert one.read_bytes() == other.read_bytes()


def test_clients_are_sorted_by_their_largest_label_and_the_share_of_it():
    label_counts = np.array([[0, 9, 1], [5, 4, 1], [0, 0, 7], [80, 10, 10], [0, 1, 0]])
    assert _by_largest_label(label_counts).tolist() == [3, 1, 4, 0, 2]


@pytest.mark.parametrize(
    ("label_counts", "names", "reason"),
    [
        (np.ones(3), None, "shape"),
        (np.ones((0, 3)), None, "shape"),
        (np.ones((3, 2)), ["a"], "1 label names for 2 labels"),
    ],
)
def test_counts_and_names_that_do_not_fit_are_refused(tmp_path, label_counts, names, reason):
    with pytest.raises(ValueError, match=reason):
        partition(tmp_path, label_counts, label_names=names)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("heights", [(50.0, 50.0), (51.0, 50.0), (99.0, 100.0), (0.0, 1.0)])
def test_labels_at_the_ends_are_apart_in_order_and_inside(heights):
    moved = _apart(list(heights), 0.0, 100.0, part=0.1)
    low, high = sorted(moved)
    assert high - low == pytest.approx(10.0)
    assert low >= 5.0
    assert high <= 95.0
    if heights[0] != heights[1]:
        assert (moved[0] > moved[1]) == (heights[0] > heights[1])


def test_drawing_leaves_pyplot_alone(tmp_path):
    # In a process of its own: here another test may have imported it.
    program = (
        "import sys; from cefl_jax.plots.curves import draw_learning_curve, draw_partition\n"
        "draw_learning_curve(sys.argv[1], [{'round': 1, 'test/accuracy': 0.5}])\n"
        "draw_partition(sys.argv[1], [[1]] * 100)\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.png")], check=True)
