"""Convolution by square tiles of outputs: one matrix product for all of them.

Inside, arrays lie channel first and batch last, `[I, H, W, B]`: whatever is shifted, pooled or
added then runs over long contiguous rows, and products have long sides.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cefl_jax.models.winograd import multiply
from cefl_jax.types import AnyArray


def convolve(
    images: Float[AnyArray, "B H W I"],
    kernel: Float[Array, "R C I O"],
    before: tuple[int, int],
    counts: tuple[int, int],
    tile: int,
    platform: str,
) -> Float[Array, "O tile tile values"]:
    """Cross-correlation, stride 1.

    A tile of outputs depends on the window of `tile + kernel size - 1` rows and columns over it.
    Its outputs are columns of one product over the windows' values, with the kernel repeated at
    each place of the tile and zeros around it.

    Args:
      images: f32[B, H, W, I].
      kernel: f32[R, C, I, O].
      before: static, rows and columns of padding before the first.
      counts: static, tiles down and across.
      tile: static, its rows and columns.
      platform: static, where it will run.
    Returns:
      f32[O, tile, tile, down * wide * B]: channel, place in the tile, tile and sample; `wide` is
      `count_wide`, of which those from `across` on mean nothing.
    """
    reach = tuple(_reach(size, tile) for size in kernel.shape[:2])
    windows = take_windows(images, before, counts, tile, reach, platform)
    made = _product(_repeat_kernel(kernel, tile, reach), windows)
    return made.reshape(kernel.shape[3], tile, tile, -1)


def count_wide(size: int, tile: int, across: int) -> int:
    """Tiles across, with those that the last windows of a row reach."""
    return across + _reach(size, tile) - 1


def _reach(size, tile):
    """Tiles across a window."""
    return -(-(size - 1) // tile) + 1


def take_windows(
    images: Float[AnyArray, "B H W I"],
    before: tuple[int, int],
    counts: tuple[int, int],
    tile: int,
    reach: tuple[int, int],
    platform: str,
) -> Float[Array, "places values"]:
    """All windows of `reach` tiles down and across, a tile apart.

    Places with the same remainder by the tile's side lie together, and all of their rows in one.
    So the windows of all tiles are `reach[0] * reach[1]` shifted copies.

    Returns:
      f32[I * reach[0] * reach[1] * tile * tile, down * wide * B], the tile's columns before rows.
    """
    batch, height, width, channels = images.shape
    high, wide = counts[0] + reach[0], counts[1] + reach[1] - 1
    down = before[0], tile * high - height - before[0], 0
    across = before[1], tile * wide - width - before[1], 0
    nothing, zero = (0, 0, 0), jnp.zeros((), images.dtype)
    x = images.transpose(3, 1, 2, 0)
    on_cpu = platform == "cpu"
    x = jax.lax.pad(x, zero, (nothing, nothing if on_cpu else down, across, nothing))
    x = x.reshape(channels, -1, wide, tile, batch).transpose(0, 3, 1, 2, 4)
    if on_cpu:  # by a product, whose result XLA's CPU leaves as it is: shifts of it are quick
        rows = _rows(height, before[0], high, tile).astype(x.dtype)
        x = multiply(rows, x.reshape(channels * tile, height, -1))
    else:
        x = x.reshape(channels, tile, high, tile, -1).swapaxes(2, 3)
    x = x.reshape(channels, tile * tile, -1)
    length = counts[0] * wide * batch
    shifts = [(i * wide + j) * batch for i, j in np.ndindex(reach)]
    x = jnp.concatenate([x[:, :, shift : shift + length] for shift in shifts], 1)
    return x.reshape(-1, length)


def _rows(height, before, high, tile):
    """The matrix f32[tile * high, height] that takes rows apart by their remainder by `tile`."""
    rows = np.arange(tile * high).reshape(high, tile).T.reshape(-1, 1) - before
    return (rows == np.arange(height)).astype(np.float32)


def _repeat_kernel(kernel, tile, reach):
    """The kernel at each place of a tile, f32[I * window, O * tile * tile]."""
    rows, columns = (
        tile * tiles - size for tiles, size in zip(reach, kernel.shape[:2], strict=True)
    )
    places = [
        jnp.pad(kernel, ((i, rows - i), (j, columns - j), (0, 0), (0, 0)))
        for i in range(tile)
        for j in range(tile)
    ]
    repeated = jnp.stack(places, -1)
    repeated = repeated.reshape(reach[0], tile, reach[1], tile, *kernel.shape[2:], -1)
    repeated = repeated.transpose(4, 0, 2, 3, 1, 5, 6)
    return repeated.reshape(-1, kernel.shape[3] * tile * tile)


@jax.custom_vjp
def _product(weights, values):
    """f32[J, O] and f32[J, T] to f32[O, T]."""
    return jax.lax.dot_general(weights, values, (((0,), (0,)), ((), ())))


def _product_gradients(kept, grad):
    weights, values = kept
    # The wide factor first: XLA's CPU is up to three times slower the other way round.
    return jax.lax.dot_general(values, grad, (((1,), (1,)), ((), ()))), weights @ grad


_product.defvjp(lambda *given: (_product(*given), given), _product_gradients)
