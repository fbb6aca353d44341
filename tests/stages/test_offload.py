"""The assignment of clusters to server slots against SciPy and against trying all."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cefl_jax.stages import offload
from tests.compare import assert_close
from tests.oracles import offload as oracle
from tests.quick import quick_jit

drawn = settings(deadline=None, max_examples=150)
match = quick_jit(offload.match, static_argnames="objective")

SMALL = [(1, 1), (1, 4), (3, 3), (3, 5), (5, 5)]
LARGE = [(8, 12), (12, 12)]
FORBIDDEN = st.sampled_from([np.inf, -np.inf, np.nan])


@st.composite
def costs(draw, shapes, *, forbidden=False):
    """f32[M, E]; whole numbers tie often, the scale tries how large a penalty may be."""
    shape = draw(st.sampled_from(shapes))
    elements = draw(
        st.sampled_from(
            [
                st.integers(0, 4).map(float),
                st.integers(-8, 8).map(lambda n: n / 4),
                st.floats(0, 100, width=32, allow_subnormal=False),
            ]
        )
    )
    cost = draw(hnp.arrays(np.float32, shape, elements=elements, fill=st.nothing()))
    cost = cost * np.float32(draw(st.sampled_from([1.0, 2.0**-12, 2.0**15])))
    if forbidden:
        closed = draw(hnp.arrays(np.bool_, shape))
        cost = np.where(closed, np.float32(draw(FORBIDDEN)), cost)
    return cost


def check(cost, column, expected, objective):
    """`column` is a matching, leaves out no more rows than it must, and scores as expected."""
    column = np.asarray(column)
    assert column.dtype == np.int32
    assert column.shape == cost.shape[:1]
    used = column[column >= 0]
    assert len(set(used.tolist())) == len(used)
    assert ((column >= -1) & (column < cost.shape[1])).all()
    left_out, worst, total = oracle.score(cost, column.tolist())
    assert left_out == expected[0]
    if objective == "bottleneck":
        assert worst == expected[1]
    scale = float(np.abs(cost[np.isfinite(cost)]).max(initial=0.0))
    assert np.isfinite(total)
    assert_close(total, expected[2], 0, atol=2e-6 * cost.shape[0] * scale)


@drawn
@given(costs(SMALL + LARGE))
def test_sum_has_scipys_total(cost):
    check(cost, match(cost, objective="sum"), oracle.by_scipy_sum(cost), "sum")


@drawn
@given(costs(SMALL))
def test_bottleneck_equals_trying_all(cost):
    best = oracle.by_trying_all(cost, "bottleneck")
    check(cost, match(cost, objective="bottleneck"), best, "bottleneck")


@drawn
@given(costs(LARGE))
def test_bottleneck_equals_thresholds_on_larger_costs(cost):
    best = oracle.by_scipy_bottleneck(cost)
    check(cost, match(cost, objective="bottleneck"), best, "bottleneck")


@pytest.mark.parametrize("objective", ["sum", "bottleneck"])
@drawn
@given(cost=costs(SMALL, forbidden=True))
def test_forbidden_pairs_leave_out_as_few_rows_as_they_must(cost, objective):
    best = oracle.by_trying_all(cost, objective)
    check(cost, match(cost, objective=objective), best, objective)


def test_the_pair_of_a_row_left_out_does_not_raise_the_limit():
    # Two of the three rows can be served; the dearest pair is 90 without row 0, and 91 with it.
    cost = np.array([[91, np.inf, np.inf], [1, 0, np.inf], [np.inf, 90, np.inf]], np.float32)
    assert match(cost, objective="bottleneck").tolist() == [-1, 0, 1]


@drawn
@given(costs(LARGE, forbidden=True))
def test_forbidden_pairs_on_larger_costs(cost):
    check(cost, match(cost, objective="sum"), oracle.by_scipy_sum(cost), "sum")
    best = oracle.by_scipy_bottleneck(cost)
    check(cost, match(cost, objective="bottleneck"), best, "bottleneck")


@drawn
@given(costs(SMALL, forbidden=True))
def test_the_two_oracles_agree(cost):
    tried = oracle.by_trying_all(cost, "sum"), oracle.by_trying_all(cost, "bottleneck")
    for ours, scipys in zip(
        tried, (oracle.by_scipy_sum(cost), oracle.by_scipy_bottleneck(cost)), strict=True
    ):
        assert ours[0] == scipys[0]
        assert_close(ours[2], scipys[2])
    assert tried[1][1] == oracle.by_scipy_bottleneck(cost)[1]


def test_the_objectives_differ():
    # Total 6 with worst 6 against total 8 with worst 4.
    cost = np.array([[0.0, 4.0], [4.0, 6.0]], np.float32)
    assert match(cost, objective="sum").tolist() == [0, 1]
    assert match(cost, objective="bottleneck").tolist() == [1, 0]


def test_a_row_that_nothing_can_serve_gets_none():
    cost = np.array([[np.inf, np.nan, np.inf], [3, 1, 2], [1, 2, 3]], np.float32)
    for objective in ("sum", "bottleneck"):
        assert match(cost, objective=objective).tolist() == [-1, 1, 0]


@pytest.mark.parametrize("objective", ["sum", "bottleneck"])
def test_is_the_same_under_vmap_and_without_jit(objective):
    rng = np.random.default_rng(7)
    cost = rng.uniform(0, 10, (6, 3, 5)).astype(np.float32)
    cost[rng.uniform(size=cost.shape) < 0.3] = np.inf
    mapped = quick_jit(jax.vmap(lambda c: offload.match(c, objective=objective)))(cost)
    one_by_one = [match(c, objective=objective).tolist() for c in cost]
    assert mapped.tolist() == one_by_one
    assert offload.match(cost[0], objective=objective).tolist() == one_by_one[0]


@pytest.mark.parametrize("objective", ["sum", "bottleneck"])
def test_more_clusters_than_slots_is_refused(objective):
    with pytest.raises(ValueError, match=r"offload\.edge_capacity") as caught:
        offload.match(np.zeros((3, 2), np.float32), objective=objective)
    assert "clustering.num_clusters" in str(caught.value)
    assert re.findall(r"\d+", str(caught.value))[:2] == ["3", "2"]
    assert "\n" not in str(caught.value)
