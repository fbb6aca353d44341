"""The comparison that the other tests make."""

import numpy as np
import pytest

from tests.compare import assert_close

DESIRED = np.array([4.0, -1e-4, 0.0], np.float32)
NAN, INF = np.nan, np.inf


def moved(index, by):
    actual = DESIRED.copy()
    actual[index] += np.float32(by)
    return actual


@pytest.mark.parametrize(
    ("actual", "desired", "options"),
    [
        *((moved(index, 3e-5), DESIRED, {}) for index in range(3)),
        (moved(0, 3e-5), DESIRED, {"each": True}),
        (moved(1, 3e-5), DESIRED, {"each": True, "atol": 4e-5}),
        ({"large": DESIRED, "small": (1e-6 * DESIRED,)},) * 2 + ({},),
        *((np.array([bad, 1.0]), np.array([bad, 1.0]), {}) for bad in (NAN, INF, -INF)),
        (np.array([2**62, 1]), np.array([2**62, 1]), {}),
        (np.zeros((0, 3)), np.zeros((0, 3)), {}),
    ],
)
def test_assert_close_accepts_rounding_by_the_scale_of_an_array(actual, desired, options):
    assert_close(actual, desired, **options)


@pytest.mark.parametrize(
    ("actual", "desired", "options"),
    [
        *((moved(index, 1e-4), DESIRED, {}) for index in range(3)),
        *((moved(index, 3e-5), DESIRED, {"each": True}) for index in (1, 2)),
        ((DESIRED, 1e-6 * moved(0, 1e-3)), (DESIRED, 1e-6 * DESIRED), {}),
        *(
            (np.array(actual), np.array([bad, 1.0]), {})
            for bad in (NAN, INF, -INF)
            for actual in ([0.0, 1.0], [bad, 1.1], [bad, -bad])
        ),
        (np.array([2**62, 1]), np.array([2**62, 2]), {}),
        (np.array([True]), np.array([False]), {}),
        (np.zeros((0, 3)), np.zeros((1, 3)), {}),
    ],
)
def test_assert_close_refuses_more(actual, desired, options):
    with pytest.raises(AssertionError, match="a name"):
        assert_close(actual, desired, err_msg="a name", **options)


def test_assert_close_refuses_other_trees():
    with pytest.raises(ValueError, match="large"):
        assert_close({"large": DESIRED}, {"small": DESIRED})
