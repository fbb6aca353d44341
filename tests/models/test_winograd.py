"""Winograd's transforms, against the correlation that they stand for."""

import jax
import numpy as np
import pytest

from cefl_jax.models import winograd
from cefl_jax.models.winograd import Axis
from tests.compare import assert_close
from tests.quick import quick_jit

MOST = len(winograd.POINTS) + 1  # rows of a window: one for each point, and infinity
FILTERS = [(size, tile) for size in range(1, MOST) for tile in range(1, MOST + 2 - size)]


def test_transforms_reproduce_correlation():
    """F(m, r) is an identity of polynomials, so in float64 little but rounding is left."""
    rng = np.random.default_rng(0)
    assert max(size + tile - 1 for size, tile in FILTERS) == MOST == 8
    for size, tile in FILTERS:
        axis = Axis(size, tile, inputs=0, tiles=0, before=0)
        of_window, of_kernel, of_tile = winograd._transforms(axis)
        shapes = [matrix.shape for matrix in (of_window, of_kernel, of_tile)]
        points = axis.points
        assert shapes == [(points, points), (points, size), (points, tile)]
        for _ in range(20):
            window, kernel = rng.integers(-9, 10, points), rng.integers(-9, 10, size)
            got = of_tile.T @ ((of_kernel @ kernel) * (of_window @ window))
            assert_close(got, np.correlate(window, kernel, "valid"), 0, atol=1e-10)


@pytest.mark.parametrize(
    ("down", "across"),
    [
        (Axis(3, 2, inputs=6, tiles=2, before=0), Axis(2, 3, inputs=7, tiles=2, before=0)),
        (Axis(3, 4, inputs=5, tiles=2, before=1), Axis(5, 2, inputs=4, tiles=2, before=2)),
        (Axis(2, 1, inputs=9, tiles=3, before=0), Axis(3, 3, inputs=9, tiles=2, before=1)),
    ],
)
def test_convolve_puts_outputs_where_it_says(down, across):
    """Row, column, sample and channel; what lies beyond the images is zero."""
    rng = np.random.default_rng(3)
    images = rng.integers(-3, 4, (down.inputs, across.inputs, 2, 3)).astype(np.float32)
    kernel = rng.integers(-3, 4, (down.size, across.size, 3, 4)).astype(np.float32)

    def convolve(images, kernel):
        weights = winograd.transform_kernel(kernel, down, across)
        flat = images.reshape(*images.shape[:2], -1)
        return winograd.convolve(flat, weights, down, across)

    got = quick_jit(convolve)(images, kernel)
    sides = [axis.tile * axis.tiles for axis in (down, across)]
    assert got.shape == (*sides, 2 * 4)
    margins = [(axis.before, 20) for axis in (down, across)]
    padded = np.pad(images, (*margins, (0, 0), (0, 0)))
    for i, j in np.ndindex(*sides):
        window = padded[i : i + down.size, j : j + across.size]
        wanted = np.einsum("ijbc,ijco->bo", window, kernel).ravel()
        assert_close(got[i, j], wanted, 0, atol=1e-4)


def test_multiplications_are_those_of_the_products():
    """Counted in the traced program, for one sample."""
    down, across = Axis(3, 4, 10, 3, 1), Axis(5, 2, 7, 3, 0)
    channels, outputs = 3, 5

    def convolve(images, weights):
        return winograd.convolve(images, weights, down, across)

    shapes = (10, 7, channels), (down.points * across.points, channels, outputs)
    lowered = jax.jit(convolve).lower(*(jax.ShapeDtypeStruct(s, np.float32) for s in shapes))
    flop = lowered.cost_analysis()["flops"]
    assert flop == 2 * winograd.multiplications(down, across, channels, outputs)
