"""Every number of the tables against a plain reading of the evaluations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.reports.groups import by_section
from cefl_jax.reports.tables import clustering_table, estimate, summarize
from tests.reports.folders import make_run

NAN = math.nan


def curve(seed, accuracies, **more):
    """A run that is evaluated every second round, and pays 3 s, 50 J and 70 bytes a round."""
    rounds = [2 * place + 2 for place in range(len(accuracies))]
    costs = {"sim/time_s": 3.0, "sim/energy_j": 50.0, "comm/bytes": 70.0}
    return make_run(
        seed,
        rounds,
        **{"test/accuracy": accuracies},
        **more,
        **{key: [each * round for round in rounds] for key, each in costs.items()},
    )


def summary_table(runs, target):
    (section,) = by_section(runs)
    return summarize(section, target)


def cells_of(table, row=0):
    """{key of a column: cell} of one row."""
    return dict(zip((column.key for column in table.columns), table.rows[row], strict=True))


ACCURACIES = st.lists(st.floats(0.0, 1.0) | st.just(NAN), min_size=1, max_size=14)


@given(st.lists(ACCURACIES, min_size=1, max_size=4), st.floats(0.01, 1.0))
def test_the_summary_is_that_of_plain_loops(seeds, target):
    runs = [curve(seed, accuracies) for seed, accuracies in enumerate(seeds)]
    cells = cells_of(summary_table(runs, target))
    finals, lasts, hits = [], [], []
    for accuracies in seeds:
        tail = [value for value in accuracies[-10:] if not math.isnan(value)]
        finals += [sum(tail) / len(tail)] if tail else []
        lasts += [accuracies[-1]] if not math.isnan(accuracies[-1]) else []
        for place, value in enumerate(accuracies):
            if value >= target:
                hits.append(2 * place + 2)
                break
    costs = {"rounds": 1, "time_s": 3, "energy_j": 50, "bytes": 70}
    expected = {
        "final_accuracy": finals,
        "last_accuracy": lasts,
        **{f"{key}_to_target": [each * hit for hit in hits] for key, each in costs.items()},
    }
    for key, values in expected.items():
        check(cells.get(key), values, len(seeds))
    assert cells["reached"] == f"{len(hits)} of {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def check(cell, values, seeds):
    """A cell against the values of the seeds that have one."""
    if not values:
        assert cell is None
        return
    assert cell.mean == pytest.approx(np.mean(values))
    assert (cell.count, cell.seeds) == (len(values), seeds)
    if len(values) == 1:
        assert math.isnan(cell.half)
    else:
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        assert cell.half == pytest.approx(half, abs=1e-9)


def test_the_final_accuracy_is_neither_the_best_nor_the_last():
    cells = cells_of(summary_table([curve(0, [0.9] + [0.1] * 9 + [0.5])], 0.8))
    assert cells["final_accuracy"].mean == pytest.approx((9 * 0.1 + 0.5) / 10)
    assert cells["last_accuracy"].mean == 0.5


def test_costs_are_means_over_those_that_reached_the_target_and_say_so():
    table = summary_table(
        [curve(0, [0.5, 0.8, 0.7]), curve(1, [0.8, 0.9, 0.9]), curve(2, [0.1, 0.2, 0.79999])], 0.8
    )
    cells = cells_of(table)
    assert cells["reached"] == "2 of 3 seeds"
    rounds = cells["rounds_to_target"]
    assert (rounds.mean, rounds.count, rounds.seeds) == (3.0, 2, 3)  # after 4 and after 2 rounds
    assert cells["time_s_to_target"].mean == 9.0
    assert any("averaged over the seeds that reached it" in note for note in table.notes)


def test_what_a_method_lacks_is_absent():
    cloud = {"test/cloud_accuracy": [0.6, 0.7]}
    runs = [curve(0, [0.5, 0.6], **cloud), curve(0, [0.4, 0.5], method__name="fedavg")]
    table = summary_table(runs, 0.9)
    assert table.labels == ["cefl", "fedavg"]
    assert cells_of(table, 0)["final_cloud_accuracy"].mean == pytest.approx(0.65)
    assert cells_of(table, 1)["final_cloud_accuracy"] is None
    assert "final_cloud_accuracy" not in cells_of(summary_table(runs[1:], 0.9))


def test_a_run_that_measures_nothing_has_a_row():
    assert cells_of(summary_table([make_run(0, [1, 2])], 0.8)) == {"reached": "0 of 1 seed"}


def test_values_that_were_not_finite_are_flagged():
    table = summary_table(
        [curve(3, [0.5, NAN], skipped={"test/accuracy": 1}), curve(4, [0.5, 0.5])], 0.8
    )
    assert [note for note in table.notes if "not finite" in note] == [
        "cefl, seed 3: values that were not finite are left out: test/accuracy (1)."
    ]


def test_runs_too_short_for_a_final_accuracy_are_flagged():
    def flags(*lengths):
        runs = [curve(seed, [0.5] * length) for seed, length in enumerate(lengths)]
        return [note for note in summary_table(runs, 0.8).notes if "shortest run" in note]

    assert flags(10, 11) == []
    assert "9 evaluations" in flags(11, 9)[0]


def test_unequal_spacings_are_flagged():
    def flags(*spacings):
        runs = [curve(seed, [0.5], run__eval_every=each) for seed, each in enumerate(spacings)]
        return [note for note in summary_table(runs, 0.8).notes if "unequal" in note]

    assert flags(2, 2) == []
    assert len(flags(2, 5)) == 1


def test_units_are_those_of_the_largest_mean():
    table = summary_table([curve(0, [0.1] * 99 + [0.9])], 0.8)  # 600 s, 10 kJ, 14 kB
    units = {column.key: column.unit for column in table.columns}
    assert units["time_s_to_target"] == ("min", 60.0)
    assert units["energy_j_to_target"] == ("kJ", 1e3)
    assert units["bytes_to_target"] == ("kB", 1e3)
    assert cells_of(table)["time_s_to_target"].mean == 600.0  # seconds all the same


def test_clusters_are_averaged_and_their_extremes_kept():
    clusters = {
        "cluster/count": [4, 3],
        "cluster/kl_mean": [0.1, NAN],
        "cluster/kl_max": [0.5, 0.2],
        "cluster/size_min": [3, 2],
        "cluster/size_max": [7, 9],
    }
    runs = [make_run(0, [5, 10], **clusters), make_run(0, [5, 10], method__name="fedavg")]
    (section,) = by_section(runs)
    table = clustering_table(section)
    assert {key: cell.mean for key, cell in cells_of(table).items()} == {
        "cluster_count": 3.5,
        "cluster_kl_mean": 0.1,
        "cluster_kl_max": 0.5,
        "cluster_size_min": 2,
        "cluster_size_max": 9,
    }
    assert set(cells_of(table, 1).values()) == {None}


def test_methods_without_clusters_have_no_table_of_them():
    (section,) = by_section([curve(0, [0.5])])
    assert clustering_table(section) is None


def test_a_mean_of_nothing_is_none():
    assert estimate([NAN, NAN]) is None
