"""Convolution by Winograd's minimal filtering, of whole images at once.

Lavin and Gray, Fast algorithms for convolutional neural networks, CVPR 2016, section 4: windows and
kernel are transformed, multiplied place by place, and transformed back. Here the transforms of all
windows along an axis are one matrix over the whole side, with the padding in it. So all of the
work is products of matrices, and no windows are taken.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cefl_jax.types import AnyArray

# Where the polynomials are evaluated, besides infinity: the fewer, the less rounding.
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)


class Axis(NamedTuple):
    """An axis of images, static."""

    size: int  # of the kernel
    tile: int  # outputs from one window
    inputs: int
    tiles: int
    before: int  # padding

    @property
    def points(self) -> int:
        """Places of a window."""
        return self.size + self.tile - 1


def multiplications(down: Axis, across: Axis, channels: int, outputs: int) -> int:
    """Returns how many a sample takes, with those of the transforms."""
    rows, columns = down.points * down.tiles, across.points * across.tiles
    of_windows = columns * down.inputs * (across.inputs + rows)
    of_tiles = rows * across.tile * (columns + down.tile * across.tiles)
    return channels * of_windows + outputs * of_tiles + rows * columns * channels * outputs


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def transform_kernel(
    kernel: Float[Array, "R C I O"], down: Axis, across: Axis
) -> Float[Array, "P I O"]:
    """Returns the weights at each place of a window."""
    rows, columns, channels, outputs = kernel.shape
    made = _multiply(_of_kernel(down, across), kernel.reshape(1, rows * columns, -1))
    return made.reshape(-1, channels, outputs)


def _kernel_gradient(down, across, _, grad):
    made = _multiply(_of_kernel(down, across).T, grad.reshape(1, len(grad), -1))
    return (made.reshape(down.size, across.size, *grad.shape[1:]),)


transform_kernel.defvjp(lambda *given: (transform_kernel(*given), None), _kernel_gradient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    images: Float[AnyArray, "H W inputs"], weights: Float[Array, "P I O"], down: Axis, across: Axis
) -> Float[Array, "rows columns outputs"]:
    """Computes the cross-correlation, stride 1, with the kernel of `transform_kernel`.

    Args:
      images: f32[H, W, B * I].
      weights: f32[P, I, O].
      down: static, of rows.
      across: static, of columns.
    Returns:
      f32[tile * tiles, tile * tiles, B * O].
    """
    return _forward(images, weights, down, across)[0]


def _forward(images, weights, down, across):
    seen = _see(images, weights.shape[1], down, across)
    made, parts = _product(seen, weights, 2, 1), (down.tiles, across.tiles)
    return _to_images(made, _of_tiles(down), _of_tiles(across), parts), (images, weights)


def _backward(down, across, kept, grad):
    images, weights = kept
    # Made again, not kept: in blocks that is quicker, and elsewhere XLA finds it made already.
    seen = _see(images, weights.shape[1], down, across)
    grad = _to_places(grad, _of_tiles(down), _of_tiles(across), weights.shape[2])
    made = _product(grad, weights, 2, 2)
    images = _to_images(made, _of_windows(down), _of_windows(across), (1, 1))
    return images, _product(seen, grad, 1, 1)


convolve.defvjp(_forward, _backward)


def _to_places(images, down, across, channels):
    """f32[P, tiles and samples, C] of f32[H, W, B * C], by f32[u, n, h] and f32[v, m, w].

    A matrix takes n windows from h rows; of H rows there are H / h such parts.
    """
    (u, n, h), (v, m, w) = down.shape, across.shape
    height, width, _ = images.shape
    made = _multiply(across.reshape(v * m, w), images.reshape(height * width // w, w, -1))
    made = _multiply(down.reshape(u * n, h), made.reshape(height // h, h, -1))
    made = made.reshape(height // h, u, n, width // w, v, m, -1, channels)
    return made.transpose(1, 4, 0, 2, 3, 5, 6, 7).reshape(u * v, -1, channels)


def _to_images(places, down, across, parts):
    """The transpose of `_to_places`, for so many parts of rows and of columns."""
    (u, n, h), (v, m, w), (rows, columns) = down.shape, across.shape, parts
    made = places.reshape(u, v, rows, n, columns, m, -1, places.shape[2])
    made = made.transpose(2, 0, 3, 4, 1, 5, 6, 7).reshape(rows * u * n * columns, v * m, -1)
    made = _multiply(across.reshape(v * m, w).T, made)
    made = _multiply(down.reshape(u * n, h).T, made.reshape(rows, u * n, -1))
    return made.reshape(rows * h, columns * w, -1)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))  # traced once for both
def _see(images, channels, down, across):
    """The places of all windows, f32[P, tiles and samples, C]."""
    return _to_places(images, _of_windows(down), _of_windows(across), channels)


def _product(left, right, of_left, of_right):
    """One product for each place, over these axes."""
    return jax.lax.dot_general(left, right, (((of_left,), (of_right,)), ((0,), (0,))))


@jax.custom_batching.custom_vmap
def _multiply(matrix, arrays):
    """A constant f32[M, K] times each of f32[N, K, L]; f32[N, M, L]."""
    # Repeated: with a product that had to broadcast, XLA would transpose the result.
    return _product(jnp.broadcast_to(matrix, (len(arrays), *matrix.shape)), arrays, 2, 1)


@_multiply.def_vmap
def _multiply_all(size, _, matrix, arrays):
    """Under `vmap` likewise, as more arrays."""
    made = _multiply(matrix, arrays.reshape(-1, *arrays.shape[2:]))
    return made.reshape(size, -1, *made.shape[1:]), True


@jax.custom_vjp
def multiply(
    matrix: Float[AnyArray, "M K"], arrays: Float[Array, "N K L"]
) -> Float[Array, "N M L"]:
    """Returns a constant times each of the arrays."""
    return _multiply(matrix, arrays)


multiply.defvjp(
    lambda matrix, arrays: (_multiply(matrix, arrays), matrix),
    lambda matrix, grad: (None, _multiply(matrix.T, grad)),
)


@functools.cache
def _of_windows(axis):
    """f32[points, tiles, inputs]."""
    of_window = _transforms(axis)[0]
    made = np.zeros((axis.points, axis.tiles, axis.before + axis.inputs + axis.points))
    for i in range(axis.tiles):
        made[:, i, i * axis.tile : i * axis.tile + axis.points] = of_window
    return made[:, :, axis.before : axis.before + axis.inputs].astype(np.float32)


def _of_tiles(axis):
    """f32[points, 1, tile]."""
    return _transforms(axis)[2][:, None].astype(np.float32)


@functools.cache
def _of_kernel(down, across):
    """f32[P, R * C]."""
    return np.kron(_transforms(down)[1], _transforms(across)[1]).astype(np.float32)


@functools.cache
def _transforms(axis):
    """Matrices of a window, of the kernel and of a tile, f64[points, ...].

    A product of polynomials is found from its values at points, y = V^-1 ((V g) * (V u)); the
    filter is its transpose by u. The matrices are by Toom and Cook's construction for any size.
    """
    of_window = np.linalg.inv(_vandermonde(axis.points, axis.points)).T
    scale = np.abs(of_window).max(1, keepdims=True)
    of_kernel = _vandermonde(axis.points, axis.size) * scale
    return of_window / scale, of_kernel, _vandermonde(axis.points, axis.tile)


def _vandermonde(points, terms):
    """Powers of the points, the last of which is infinity, f64[points, terms]."""
    finite = np.vander(POINTS[: points - 1], terms, increasing=True)
    return np.concatenate([finite, np.eye(terms)[-1:]])
