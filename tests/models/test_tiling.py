"""Windows and Winograd's transforms, against slicing and against the correlation they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax.models import tiling
from tests.compare import assert_close
from tests.quick import quick_jit

MOST = len(tiling.POINTS) + 1  # rows of a window: one for each point, and infinity
FILTERS = [(size, tile) for size in range(1, MOST) for tile in range(1, MOST + 2 - size)]


def test_transforms_1d_reproduce_correlation():
    """F(m, r) is an identity of polynomials, so in float64 little but rounding is left."""
    rng = np.random.default_rng(0)
    assert max(size + tile - 1 for size, tile in FILTERS) == MOST == 8
    for size, tile in FILTERS:
        length = size + tile - 1
        of_window, of_kernel, of_tile = tiling._transforms_1d(size, tile)
        shapes = [matrix.shape for matrix in (of_window, of_kernel, of_tile)]
        assert shapes == [(length, length), (length, size), (length, tile)]
        for _ in range(20):
            window, kernel = rng.integers(-9, 10, length), rng.integers(-9, 10, size)
            got = of_tile.T @ ((of_kernel @ kernel) * (of_window @ window))
            assert_close(got, np.correlate(window, kernel, "valid"), 0, atol=1e-10)


def test_transforms_reproduce_correlation_of_planes():
    rng = np.random.default_rng(1)
    rows, columns, tile = 3, 5, 3
    of_window, of_kernel, of_tile = tiling._transforms(rows, columns, tile)
    window = rng.integers(-9, 10, (rows + tile - 1, columns + tile - 1))
    kernel = rng.integers(-9, 10, (rows, columns))
    got = of_tile.T @ ((of_kernel @ kernel.ravel()) * (of_window @ window.ravel()))
    seen = np.lib.stride_tricks.sliding_window_view(window, kernel.shape)
    wanted = np.einsum("abij,ij->ab", seen, kernel)
    assert_close(got.reshape(tile, tile), wanted, 0, atol=1e-4)


WINDOWS = [  # size, stride, windows down and across
    ((3, 3), 1, (4, 5)),
    ((6, 4), 2, (2, 4)),
    ((7, 5), 3, (3, 1)),
    ((2, 2), 2, (2, 3)),  # no overlap
    ((8, 8), 4, (1, 1)),
]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("size", "stride", "counts"), WINDOWS)
def test_take_windows_and_its_gradient_are_those_of_slicing(size, stride, counts, axis):
    """Integers: sums are exact, whatever their order."""
    rng = np.random.default_rng(2)
    sides = [(count - 1) * stride + s for count, s in zip(counts, size, strict=True)]
    x = rng.integers(-9, 10, (2, *sides, 3)).astype(np.float32)
    d = rng.integers(-9, 10, (size[0] * size[1], 2, *counts, 3)).astype(np.float32)
    d = np.moveaxis(d, 0, axis)

    def slices(x):
        cut = [
            x[:, i * stride : i * stride + size[0], j * stride : j * stride + size[1]]
            for i, j in np.ndindex(counts)
        ]
        cut = jnp.stack(cut).reshape(*counts, 2, size[0] * size[1], 3)
        return jnp.moveaxis(cut.transpose(3, 2, 0, 1, 4), 0, axis)

    def all_four():
        got, pull = jax.vjp(lambda x: tiling.take_windows(x, size, stride, axis), x)
        return got, slices(x), *pull(d), *jax.linear_transpose(slices, x)(d)

    got, wanted, gradient, transpose = quick_jit(all_four)()
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(gradient, transpose)


@pytest.mark.parametrize("winograd", [False, True])
def test_convolve_puts_tiles_where_it_says(winograd):
    """Place in the tile, channel, tile, sample: each output is one sum over one window."""
    rng = np.random.default_rng(3)
    kernel, tile, counts = rng.integers(-3, 4, (3, 2, 2, 4)).astype(np.float32), 2, (2, 3)
    x = rng.integers(-3, 4, (2, 2 + 4, 1 + 6, 3)).astype(np.float32)
    got = quick_jit(tiling.convolve, static_argnums=(2, 3, 4))(x, kernel, counts, tile, winograd)
    assert got.shape == (tile, tile, 4, *counts, 3)
    for i, j, o, down, across, b in np.ndindex(got.shape):
        row, column = down * tile + i, across * tile + j
        window = x[:, row : row + 3, column : column + 2, b]
        wanted = np.sum(window.transpose(1, 2, 0) * kernel[..., o])
        assert_close(got[i, j, o, down, across, b], wanted, 0, atol=1e-4)
