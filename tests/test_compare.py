"""The comparison that the other tests make."""

import numpy as np
import pytest

from tests.compare import assert_close

DESIRED = np.array([4.0, -1e-4, 0.0], np.float32)


def moved(index, by):
    actual = DESIRED.copy()
    actual[index] += np.float32(by)
    return actual


@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_element_may_differ_by_the_scale_of_its_array(index):
    assert_close(moved(index, 3e-5), DESIRED)
    with pytest.raises(AssertionError, match="a name"):
        assert_close(moved(index, 1e-4), DESIRED, err_msg="a name")


def test_with_a_scale_of_its_own_an_element_may_not():
    assert_close(moved(0, 3e-5), DESIRED, each=True)
    for index in (1, 2):
        with pytest.raises(AssertionError):
            assert_close(moved(index, 3e-5), DESIRED, each=True)
        assert_close(moved(index, 3e-5), DESIRED, each=True, atol=4e-5)


def test_arrays_of_a_tree_have_each_their_scale():
    tree = {"large": DESIRED, "small": (1e-6 * DESIRED,)}
    assert_close(tree, tree)
    with pytest.raises(AssertionError):
        assert_close({"large": DESIRED, "small": (1e-6 * moved(0, 1e-3),)}, tree)
    with pytest.raises(ValueError, match="large"):
        assert_close({"large": DESIRED}, {"small": DESIRED})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_the_same_and_gives_no_scale(bad):
    desired = np.array([bad, 1.0])
    assert_close(desired, desired)
    for actual in ([0.0, 1.0], [bad, 1.1], [bad, -bad]):
        with pytest.raises(AssertionError):
            assert_close(np.array(actual), desired)


def test_whole_numbers_and_truth_values_are_equal():
    assert_close(np.array([2**62, 1]), np.array([2**62, 1]))
    with pytest.raises(AssertionError):
        assert_close(np.array([2**62, 1]), np.array([2**62, 2]))
    with pytest.raises(AssertionError):
        assert_close(np.array([True]), np.array([False]))


def test_other_shapes_differ_and_nothing_is_like_nothing():
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(AssertionError):
        assert_close(np.zeros((0, 3)), np.zeros((1, 3)))
