"""Tiles' windows and their products, against slicing and the correlation that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax.models import tiling
from tests.quick import quick_jit

WINDOWS = [  # kernel, tile, tiles down and across, padding before, side of images
    ((2, 2), 1, (4, 5), (0, 0), (5, 6)),
    ((5, 3), 2, (2, 4), (0, 0), (8, 10)),
    ((5, 3), 2, (2, 4), (2, 1), (4, 8)),
    ((4, 4), 3, (3, 1), (1, 1), (10, 4)),
    ((3, 3), 2, (2, 2), (1, 1), (5, 5)),  # the last row and column are needed by none
]


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize(("kernel", "tile", "counts", "before", "sides"), WINDOWS)
def test_convolve_and_its_gradient_are_those_of_slicing(
    kernel, tile, counts, before, sides, platform
):
    """Integers: sums are exact, whatever their order."""
    rng = np.random.default_rng(2)
    images = rng.integers(-9, 10, (3, *sides, 2)).astype(np.float32)
    taps = rng.integers(-3, 4, (*kernel, 2, 4)).astype(np.float32)
    d = rng.integers(-9, 10, (4, tile, tile, *counts, 3)).astype(np.float32)
    wide = tiling.count_wide(kernel[1], tile, counts[1])

    def by_tiles(images, taps):
        made = tiling.convolve(images, taps, before, counts, tile, platform)
        made = made.reshape(4, tile, tile, counts[0], wide, 3)
        return made[:, :, :, :, : counts[1]]

    def by_slices(images, taps):
        """Place in the tile, tile: each output is one sum over one window."""
        images = jnp.pad(images, ((0, 0), (before[0], 20), (before[1], 20), (0, 0)))
        made = [
            jnp.einsum(
                "bijc,ijco->ob",
                images[:, row : row + kernel[0], column : column + kernel[1]],
                taps,
            )
            for i, j, down, across in np.ndindex(tile, tile, *counts)
            for row, column in [(down * tile + i, across * tile + j)]
        ]
        made = jnp.stack(made).reshape(tile, tile, *counts, 4, 3)
        return made.transpose(4, 0, 1, 2, 3, 5)

    def both():
        found = []
        for convolve in (by_tiles, by_slices):
            made, pull = jax.vjp(convolve, images, taps)
            found.append((made, *pull(d)))
        return found

    got, wanted = quick_jit(both)()
    for values, correct in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(values, correct)
