"""Every number of the tables against a plain reading of the evaluations, and against SciPy's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.reports.tables import clustering_table, estimate, interval, summarize
from tests.reports.folders import make_run, section_of

NAN = math.nan
COSTS = {"sim/time_s": 3.0, "sim/energy_j": 50.0, "comm/bytes": 70.0}  # of a round
ACCURACIES = st.lists(st.floats(0.0, 1.0) | st.just(NAN), min_size=1, max_size=14)
NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))


def curve(seed, accuracies, **more):
    """A run that is evaluated every second round."""
    rounds = [2 * place + 2 for place in range(len(accuracies))]
    costs = {key: [each * round for round in rounds] for key, each in COSTS.items()}
    return make_run(seed, rounds, **{"test/accuracy": accuracies}, **more, **costs)


def cells_of(table, row=0):
    """{key of a column: cell} of one row."""
    return dict(zip((column.key for column in table.columns), table.rows[row], strict=True))


def notes_with(word, *runs):
    """The notes of a summary that have a word in them."""
    return [note for note in summarize(section_of(*runs), 0.8).notes if word in note]


@given(st.lists(ACCURACIES, min_size=1, max_size=4), st.floats(0.01, 1.0))
def test_summarize_is_a_plain_reading_of_the_evaluations(seeds, target):
    runs = [curve(seed, accuracies) for seed, accuracies in enumerate(seeds)]
    cells = cells_of(summarize(section_of(*runs), target))
    finals, lasts, hits = [], [], []
    for accuracies in seeds:
        tail = [value for value in accuracies[-10:] if not math.isnan(value)]
        finals += [sum(tail) / len(tail)] if tail else []
        lasts += [accuracies[-1]] if not math.isnan(accuracies[-1]) else []
        hits += [2 * at + 2 for at, value in enumerate(accuracies) if value >= target][:1]
    costs = {"rounds": 1, "time_s": 3, "energy_j": 50, "bytes": 70}
    expected = {"final_accuracy": finals, "last_accuracy": lasts} | {
        f"{key}_to_target": [each * hit for hit in hits] for key, each in costs.items()
    }
    for key, values in expected.items():
        check(cells.get(key), values, len(seeds))
    assert cells["reached"] == f"{len(hits)} of {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def check(cell, values, seeds):
    """A cell against the values of the seeds that have one."""
    if not values:
        assert cell is None
        return
    half = NAN if len(values) == 1 else stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    assert (cell.count, cell.seeds) == (len(values), seeds)
    assert cell[:2] == pytest.approx((np.mean(values), half), nan_ok=True, abs=1e-9)


def test_summarize_leaves_out_what_a_method_lacks():
    cloud = {"test/cloud_accuracy": [0.6, 0.7]}
    runs = [curve(0, [0.5, 0.6], **cloud), curve(0, [0.4, 0.5], method__name="fedavg")]
    table = summarize(section_of(*runs), 0.9)
    assert table.labels == ["cefl", "fedavg"]
    assert cells_of(table, 0)["final_cloud_accuracy"].mean == pytest.approx(0.65)
    assert cells_of(table, 1)["final_cloud_accuracy"] is None
    assert "final_cloud_accuracy" not in cells_of(summarize(section_of(runs[1]), 0.9))
    nothing = summarize(section_of(make_run(0, [1, 2])), 0.8)
    assert cells_of(nothing) == {"reached": "0 of 1 seed"}


def test_summarize_notes_what_makes_runs_hard_to_compare():
    skipping = curve(3, [0.5, NAN], skipped={"test/accuracy": 1})
    assert notes_with("not finite", skipping, curve(4, [0.5, 0.5])) == [
        "cefl, seed 3: values that were not finite are left out: test/accuracy (1)."
    ]
    ten, eleven, nine = (curve(length, [0.5] * length) for length in (10, 11, 9))
    assert notes_with("shortest run", ten, eleven) == []
    assert "9 evaluations" in notes_with("shortest run", eleven, nine)[0]
    every = [curve(seed, [0.5], run__eval_every=each) for seed, each in enumerate((2, 2, 5))]
    assert notes_with("unequal", *every[:2]) == []
    assert len(notes_with("every 2, 5 rounds", *every)) == 1
    assert len(notes_with("averaged over the seeds that reached it", ten)) == 1


def test_summarize_shows_the_unit_of_the_largest_mean():
    table = summarize(section_of(curve(0, [0.1] * 99 + [0.9])), 0.8)  # 600 s, 10 kJ, 14 kB
    units = {column.key: column.unit for column in table.columns}
    assert units["time_s_to_target"] == ("min", 60.0)
    assert units["energy_j_to_target"] == ("kJ", 1e3)
    assert units["bytes_to_target"] == ("kB", 1e3)
    assert cells_of(table)["time_s_to_target"].mean == 600.0  # seconds all the same


def test_clustering_table_averages_and_keeps_extremes():
    clusters = {"count": [4, 3], "kl_mean": [0.1, NAN], "kl_max": [0.5, 0.2]}
    clusters |= {"size_min": [3, 2], "size_max": [7, 9]}
    metrics = {f"cluster/{name}": values for name, values in clusters.items()}
    fedavg = make_run(0, [5, 10], method__name="fedavg")
    table = clustering_table(section_of(make_run(0, [5, 10], **metrics), fedavg))
    means = [cell.mean for cell in cells_of(table).values()]
    assert [*cells_of(table)] == [f"cluster_{name}" for name in clusters]
    assert means == [3.5, 0.1, 0.5, 2, 9]
    assert set(cells_of(table, 1).values()) == {None}
    assert clustering_table(section_of(fedavg)) is None


def test_interval_of_few_values():
    # Standard deviation 1, t of 2 degrees at 97.5% is 4.302653 (any table of Student's t).
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.302653 / math.sqrt(3)))
    assert interval([0.25, NAN]) == pytest.approx((0.25, NAN), nan_ok=True)
    assert np.isnan([interval([NAN]), interval([])]).all()
    assert estimate([NAN, NAN]) is None
