"""How a convolution with its pooling and ReLU is computed: one place that chooses by platform.

`lax.conv_general_dilated` under `vmap` over per-client weights becomes a grouped convolution, and
its weight gradient inside a loop runs at 1 to 4 GFLOP/s on a CPU. Products of matrices leave
forward, input gradient and weight gradient to the platform's matrix multiplication.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cefl_jax.models import tiling
from cefl_jax.types import AnyArray

# Values of windows held at once on a CPU, so that they stay in its caches.
BLOCK_VALUES = 450_000


@dataclasses.dataclass(frozen=True)
class Lowering:
    """A way to compute a convolution.

    `xla`: XLA's own. `patches`: one product over the patch under each output. `tiles` and
    `winograd`: see `tiling`.
    """

    kind: str  # xla | patches | tiles | winograd
    tile: int = 1  # tiles, winograd: rows and columns of outputs computed from one window


XLA = Lowering("xla")


def choose_lowering(
    platform: str, kernel_shape: tuple[int, ...], sides: tuple[int, int]
) -> Lowering:
    """The fastest Lowering that was found, by measuring forward and both gradients together.

    On a CPU (`benchmarks/convolutions.py`): tiles of 2x2 where channels are few, which pooling then
    takes whole; where there are enough of them to pay for its transforms, Winograd with the tile,
    up to 4x4, that leaves the fewest multiplications. On a GPU (an H200, `benchmarks/widths.py`)
    tiles of 2x2: a round of stacked split training took 10 times as long with XLA's own
    convolutions, and 1.8 to 2.7 times as long with patches. Elsewhere nothing has been measured.

    Args:
      platform: "cpu", "gpu", "tpu".
      kernel_shape: `(R, C, I, O)`.
      sides: rows and columns of the outputs that are wanted.
    """
    if platform == "gpu":
        return Lowering("tiles", 2)
    if platform != "cpu":
        return Lowering("patches")
    if min(kernel_shape[:2]) < 3 or min(kernel_shape[2:]) < 32:
        return Lowering("tiles", 2)

    def multiplications(tile):
        of_tile = math.prod(size + tile - 1 for size in kernel_shape[:2])
        return of_tile * math.prod(-(-side // tile) for side in sides)

    largest = min(4, 9 - max(kernel_shape[:2]))  # `tiling` knows points for windows of up to 8
    if largest < 2:
        return Lowering("tiles", 2)
    return Lowering("winograd", min(range(2, largest + 1), key=multiplications))


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

    Pooling first gives the same as ReLU first, with less work. An odd last row or column is cut by
    pooling. Where several of a window are largest, the first gets the gradient, as in PyTorch.

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
    sides = _output_sides(images.shape, kernel.shape, padding)
    if pool:
        sides = tuple(side // 2 * 2 for side in sides)
    lowering = lowering or choose_lowering(platform, kernel.shape, sides)
    if lowering.kind in ("tiles", "winograd") and min(sides) > 0:  # a pooled row leaves none
        return _conv_tiles(images, kernel, bias, padding, pool, lowering, sides, platform)
    convolve = _conv_xla if lowering.kind == "xla" else _conv_patches
    x = convolve(images, kernel, padding)
    if pool:
        batch, (height, width), outputs = x.shape[0], sides, x.shape[3]
        x = x[:, :height, :width].reshape(batch, height // 2, 2, width // 2, 2, outputs)
        x = x.transpose(2, 4, 0, 1, 3, 5)
        x = _pool(x.reshape(4, *x.shape[2:]), platform)
    return jax.nn.relu(x + bias[None, None, None])


def _conv_xla(images, kernel, padding):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _conv_patches(images, kernel, padding):
    rows, columns, channels, outputs = kernel.shape
    margins = _margins(kernel.shape, padding)
    images = jnp.pad(images, ((0, 0), *margins, (0, 0)))
    height, width = images.shape[1] - rows + 1, images.shape[2] - columns + 1
    shifted = [
        images[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(rows * columns * channels, outputs)


def _conv_tiles(images, kernel, bias, padding, pool, lowering, sides, platform):
    """`conv_block` by tiles, as many samples at a time as the caches take."""
    tile, batch = lowering.tile, images.shape[0]
    down, across = (-(-side // tile) for side in sides)
    window = (kernel.shape[0] + tile - 1) * (kernel.shape[1] + tile - 1) * kernel.shape[2]
    limit = BLOCK_VALUES if platform == "cpu" else None
    blocks, block = _split(batch, window * down * across, limit)
    x = images.transpose(3, 1, 2, 0)  # at once, to undo what the block before did last
    margins = [
        (before, count * tile + size - 1 - side - before, 0)
        for (before, _), count, size, side in zip(
            _margins(kernel.shape, padding),
            (down, across),
            kernel.shape[:2],
            x.shape[1:3],
            strict=True,
        )
    ]
    nothing = 0, 0, 0
    zero = jnp.zeros((), x.dtype)
    x = jax.lax.pad(x, zero, (nothing, *margins, (0, blocks * block - batch, 0)))

    def convolve(x):
        return tiling.convolve(x, kernel, (down, across), tile, lowering.kind == "winograd")

    if blocks == 1:
        x = _finish_tiles(convolve(x), sides, pool, platform)
    else:  # What lies between images and outputs is made again for the gradient, not kept.
        x = jnp.moveaxis(x.reshape(*x.shape[:3], blocks, block), 3, 0)
        x = jax.vmap(lambda x: _finish_tiles(x, sides, pool, platform))(
            jax.lax.map(jax.checkpoint(convolve), x)
        )
        x = jnp.moveaxis(x, 0, 3).reshape(*x.shape[1:4], -1)[..., :batch]
    return jax.nn.relu(x + bias[:, None, None, None]).transpose(3, 1, 2, 0)


def _finish_tiles(x, sides, pool, platform):
    """Outputs f32[O, H', W', B], pooled, of tiles f32[t, t, O, down, across, B]."""
    tile, _, outputs, down, across, batch = x.shape
    if not (pool and tile == 2):
        x = x.transpose(2, 3, 0, 4, 1, 5).reshape(outputs, down * tile, across * tile, batch)
        x = x[:, : sides[0], : sides[1]]
        if not pool:
            return x
        down, across = sides[0] // 2, sides[1] // 2
        x = x.reshape(outputs, down, 2, across, 2, batch).transpose(2, 4, 0, 1, 3, 5)
    x = _pool(x.reshape(4, outputs, -1), platform)
    return x.reshape(outputs, down, across, batch)


def _split(batch, values, limit):
    """How many blocks of how many samples, nearly alike; of at most `limit` values, or of one."""
    blocks = 1 if limit is None else -(-batch // max(limit // values, 1))
    block = -(-batch // blocks)
    return -(-batch // block), block


def _margins(kernel_shape, padding):
    if padding == "VALID":
        return (0, 0), (0, 0)
    return tuple(((size - 1) // 2, size // 2) for size in kernel_shape[:2])


def _output_sides(shape, kernel_shape, padding):
    return tuple(
        side + sum(margin) - size + 1
        for side, margin, size in zip(
            shape[1:3], _margins(kernel_shape, padding), kernel_shape[:2], strict=True
        )
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool(places, platform):
    """The largest over the places of a window, f32[4, ...]; f32[...]."""
    return functools.reduce(jnp.maximum, list(places))


def _pool_forward(places, platform):
    """Also the place that the gradient goes to, the first of the largest."""
    top = _pool(places, platform)
    taken = jnp.full(top.shape, 3)
    for place in (2, 1, 0):
        taken = jnp.where(places[place] == top, place, taken)
    return top, taken


def _pool_backward(platform, taken, grad):
    def of_place(place):
        return jnp.where(taken == place, grad, 0)

    # On a CPU in a loop, or XLA makes `taken` and `grad` anew for each of the four.
    if platform == "cpu":
        return (jax.lax.map(of_place, jnp.arange(4)),)
    return (jax.vmap(of_place)(jnp.arange(4)),)


_pool.defvjp(_pool_forward, _pool_backward)
