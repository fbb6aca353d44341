"""How a convolution with its pooling and ReLU is computed: one place that chooses by platform.

`lax.conv_general_dilated` under `vmap` over per-client weights becomes a grouped convolution, and
its weight gradient inside a loop runs at 1 to 4 GFLOP/s on a CPU. Products of matrices leave
forward, input gradient and weight gradient to the platform's matrix multiplication.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cefl_jax.models import tiling, winograd
from cefl_jax.models.pooling import pool_and_activate
from cefl_jax.types import AnyArray

# Values of windows held at once on a CPU, so that they stay in its caches.
BLOCK_VALUES = 900_000
MIN_CHANNELS = 4  # of images: Winograd's products of fewer are too thin


@dataclasses.dataclass(frozen=True)
class Lowering:
    """A way to compute a convolution.

    `xla`: XLA's own. `patches`: one product over the patch under each output. `tiles`,
    `winograd`: see the modules of these names.
    """

    kind: str  # xla | patches | tiles | winograd
    tile: int = 1  # tiles, winograd: rows and columns of outputs computed from one window


XLA = Lowering("xla")


def choose_lowering(
    platform: str,
    image_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    sides: tuple[int, int],
) -> Lowering:
    """The fastest Lowering that was found, by measuring forward and both gradients together.

    On a CPU (`benchmarks/convolutions.py`) the one with the fewest multiplications, those of its
    transforms too, is the fastest or nearly so: tiles of 2x2, or Winograd with tiles of up to 4x4.
    On a GPU (an H200, `benchmarks/widths.py`) tiles of 2x2: a round of stacked split training took
    10 times as long with XLA's own convolutions, and 1.8 to 2.7 times as long with patches.
    Elsewhere nothing has been measured.

    Args:
      platform: "cpu", "gpu", "tpu".
      image_shape: `(H, W, ...)`.
      kernel_shape: `(R, C, I, O)`.
      sides: rows and columns of the outputs that are wanted.
    """
    if platform not in ("cpu", "gpu"):
        return Lowering("patches")
    tiles = Lowering("tiles", 2)
    largest = len(winograd.POINTS) + 2 - max(kernel_shape[:2])
    if platform == "gpu" or largest < 2 or kernel_shape[2] < MIN_CHANNELS:
        return tiles

    def multiplications(lowering):
        if lowering == tiles:
            window = math.prod(size + 1 for size in kernel_shape[:2])
            return 4 * window * math.prod([-(-side // 2) for side in sides] + [*kernel_shape[2:]])
        axes = _axes(image_shape, kernel_shape, sides, (0, 0), lowering.tile)
        return winograd.multiplications(*axes, *kernel_shape[2:])

    found = [Lowering("winograd", tile) for tile in range(2, min(4, largest) + 1)]
    return min([tiles, *found], key=multiplications)


def conv_block(
    images: Float[AnyArray, "B H W I"],
    kernel: Float[Array, "R C I O"],
    bias: Float[Array, "O"],
    padding: str,
    pool: bool,
    lowering: Lowering | None = None,
    platform: str = "cpu",
) -> Float[Array, "B rows columns O"]:
    """Convolution with bias, stride 1, then the largest of each 2x2 window if `pool`, then ReLU.

    An odd last row or column is cut by pooling. Where several of a window are largest, the first
    gets the gradient, as in PyTorch.

    Args:
      images: f32[B, H, W, I].
      kernel: f32[R, C, I, O].
      bias: f32[O].
      padding: static, "SAME" (of an odd margin, more below and right) or "VALID".
      pool: static bool.
      lowering: static Lowering; None for `choose_lowering` on the platform.
      platform: static, where it will run.
    Returns:
      f32[B, H', W', O], whatever the lowering, to float tolerance.
    """
    margins = _margins(kernel.shape, padding)
    sides = tuple(
        (side + sum(margin) - size + 1) // (2 if pool else 1) * (2 if pool else 1)
        for side, margin, size in zip(images.shape[1:3], margins, kernel.shape[:2], strict=True)
    )
    lowering = lowering or choose_lowering(platform, images.shape[1:3], kernel.shape, sides)
    make = {"tiles": _make_tiles, "winograd": _make_winograd}.get(lowering.kind)
    if make is None or min(sides) == 0:  # a pooled row leaves none
        convolve = _conv_xla if lowering.kind == "xla" else _conv_patches
        x = convolve(images, kernel, margins)[:, : sides[0], : sides[1]]
        return _finish(x.transpose(3, 1, 2, 0), bias, pool, platform)
    plan = lowering.tile, pool, sides, margins, platform
    of_images, values = make(images.shape, kernel, bias, *plan)
    limit = BLOCK_VALUES if platform == "cpu" else None
    return _in_blocks(of_images, images, *_split(images.shape[0], values, limit))


def _conv_xla(images, kernel, margins):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), margins, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _conv_patches(images, kernel, margins):
    rows, columns, channels, outputs = kernel.shape
    images = jnp.pad(images, ((0, 0), *margins, (0, 0)))
    height, width = images.shape[1] - rows + 1, images.shape[2] - columns + 1
    shifted = [
        images[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(rows * columns * channels, outputs)


def _make_tiles(shape, kernel, bias, tile, pool, sides, margins, platform):
    """`conv_block` of images by tiles, and how many values of a sample it holds at once."""
    counts = tuple(-(-side // tile) for side in sides)
    before = tuple(first for first, _ in margins)
    wide = tiling.count_wide(kernel.shape[1], tile, counts[1])

    def of_images(images):
        x = tiling.convolve(images, kernel, before, counts, tile, platform)
        if pool and tile == 2:
            x = pool_and_activate(x, bias[:, None], 2, platform)
            x = x.reshape(-1, counts[0], wide, len(images))[:, :, : counts[1]]
            return x.transpose(3, 1, 2, 0)
        x = x.reshape(-1, tile, tile, counts[0], wide, len(images)).transpose(0, 3, 1, 4, 2, 5)
        x = x.reshape(len(x), tile * counts[0], tile * wide, -1)
        return _finish(x[:, : sides[0], : sides[1]], bias, pool, platform)

    window = math.prod(size + tile - 1 for size in kernel.shape[:2]) * kernel.shape[2]
    return of_images, window * math.prod(counts)


def _make_winograd(shape, kernel, bias, tile, pool, sides, margins, platform):
    """`conv_block` of images by Winograd, and how many values of a sample it holds at once."""
    before = tuple(first for first, _ in margins)
    axes = _axes(shape[1:], kernel.shape, sides, before, tile)
    weights = winograd.transform_kernel(kernel.astype(jnp.float32), *axes)

    def of_images(images):
        batch, height, width, _ = images.shape
        x = images.astype(jnp.float32).transpose(1, 2, 0, 3).reshape(height, width, -1)
        x = winograd.convolve(x, weights, *axes)
        if not pool:
            x = jax.nn.relu(
                x[: sides[0], : sides[1]].reshape(*sides, batch, -1) + bias[None, None, None]
            )
            return x.transpose(2, 0, 1, 3)
        rows, columns = (side // 2 for side in x.shape[:2])
        x = x[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, -1)
        # Repeated by a product, or XLA's CPU looks for each bias by a division.
        biases = jnp.ones((batch, 2)) @ jnp.stack([bias, jnp.zeros_like(bias)])
        x = pool_and_activate(x, biases.reshape(1, 1, -1), 3, platform)
        x = x[: sides[0] // 2, : sides[1] // 2].reshape(sides[0] // 2, sides[1] // 2, batch, -1)
        return x.transpose(2, 0, 1, 3)

    places = math.prod(axis.points * axis.tiles for axis in axes)
    return of_images, places * max(kernel.shape[2:])


def _axes(shape, kernel_shape, sides, before, tile):
    """The `winograd.Axis` of rows and that of columns."""
    given = zip(kernel_shape[:2], shape[:2], sides, before, strict=True)
    return [
        winograd.Axis(size, tile, side, -(-wanted // tile), first)
        for size, side, wanted, first in given
    ]


def _finish(x, bias, pool, platform):
    """Outputs f32[B, H', W', O] of f32[O, H, W, B]; pooled where there are 2x2 windows."""
    outputs, height, width, batch = x.shape
    if not pool:
        return jax.nn.relu(x + bias[:, None, None, None]).transpose(3, 1, 2, 0)
    x = x.reshape(outputs * (height // 2), 2, width // 2, 2, batch)
    bias = jnp.repeat(bias, height // 2)[:, None, None]
    x = pool_and_activate(x, bias, 3, platform)
    return x.reshape(outputs, height // 2, width // 2, batch).transpose(3, 1, 2, 0)


def _in_blocks(f, images, blocks, block):
    """`f` of images, some of them at a time."""
    if blocks == 1:
        return f(images)
    batch = len(images)
    images = jnp.pad(images, ((0, blocks * block - batch), *((0, 0),) * (images.ndim - 1)))
    made = jax.lax.map(f, images.reshape(blocks, block, *images.shape[1:]))
    return made.reshape(-1, *made.shape[2:])[:batch]


def _split(batch, values, limit):
    """How many blocks of how many samples, nearly alike; of at most `limit` values, or of one."""
    blocks = 1 if limit is None else -(-batch // max(limit // values, 1))
    block = -(-batch // blocks)
    return -(-batch // block), block


def _margins(kernel_shape, padding):
    if padding == "VALID":
        return (0, 0), (0, 0)
    return tuple(((size - 1) // 2, size // 2) for size in kernel_shape[:2])
