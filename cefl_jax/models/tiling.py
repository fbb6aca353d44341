"""Convolution by square tiles of outputs: one matrix product for all tiles, or Winograd's few.

Inside, arrays lie channel first and batch last, `[I, H, W, B]`: whatever is shifted, pooled or
added then runs over long contiguous rows, and products have long sides.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Where Winograd's polynomials are evaluated, besides infinity: the fewer, the less rounding.
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)


def convolve(
    x: Float[Array, "I H W B"],
    kernel: Float[Array, "R C I O"],
    counts: tuple[int, int],
    tile: int,
    winograd: bool,
) -> Float[Array, "tile tile O down across B"]:
    """Cross-correlation, stride 1, of values that have their padding.

    A tile of outputs depends on the window of `tile + kernel size - 1` rows and columns over it.
    Its outputs are columns of one product over the windows' values, with the kernel repeated at
    each place of the tile and zeros around it; or Winograd's minimal filtering: windows and kernel
    are transformed, multiplied place by place, and transformed back, with fewer multiplications.

    Args:
      x: f32[I, H, W, B], H and W what the tiles' windows take.
      kernel: f32[R, C, I, O].
      counts: static, tiles down and across.
      tile: static, its rows and columns.
      winograd: static bool.
    Returns:
      f32[tile, tile, O, down, across, B]: place in the tile, channel, tile, sample.
    Reference:
      Lavin and Gray, Fast algorithms for convolutional neural networks, CVPR 2016, section 4; the
      matrices by Toom and Cook's construction for any size.
    """
    rows, columns, channels, outputs = kernel.shape
    size = rows + tile - 1, columns + tile - 1
    if winograd:
        windows = take_windows(x, size, tile, 0).reshape(size[0] * size[1], channels, -1)
        of_window, of_kernel, of_tile = _transforms(rows, columns, tile)
        seen = (of_window @ windows.reshape(len(windows), -1)).reshape(windows.shape)
        taps = kernel.reshape(rows * columns, channels, outputs).transpose(0, 2, 1)
        weights = (of_kernel @ taps.reshape(rows * columns, -1)).reshape(-1, outputs, channels)
        made = _products(weights, seen)
        made = _product(of_tile, made.reshape(len(made), -1))
    else:
        # Channels first: under `vmap` the products' batch then lies outermost as it is.
        windows = take_windows(x, size, tile, 1).reshape(channels * size[0] * size[1], -1)
        made = _product(_repeat_kernel(kernel, tile), windows)
    return made.reshape(tile, tile, outputs, *counts, x.shape[3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def take_windows(
    x: Float[Array, "I H W B"], size: tuple[int, int], stride: int, axis: int
) -> Float[Array, "_ _ down across B"]:
    """All windows of a size, `stride` apart, of f32[I, H, W, B].

    Its gradient adds the windows' overlaps first along rows and then along columns.

    Returns:
      f32[I, down, across, B] with an axis of the size[0] * size[1] places of a window put in.
    """
    down, across = ((n - s) // stride * stride + 1 for n, s in zip(x.shape[1:3], size, strict=True))
    return jnp.stack(
        [
            x[:, i : i + down : stride, j : j + across : stride]
            for i in range(size[0])
            for j in range(size[1])
        ],
        axis,
    )


def _take_windows(x, size, stride, axis):
    return take_windows(x, size, stride, axis), None


def _add_windows(size, stride, axis, _, windows):
    windows = jnp.moveaxis(windows, axis, 0)
    windows = windows.reshape(*size, *windows.shape[1:])
    return (_add_overlaps(_add_overlaps(windows, 2, stride), 2, stride),)


take_windows.defvjp(_take_windows, _add_windows)


def _add_overlaps(parts, axis, stride):
    """Sums parts `[s, ...]` of which the i-th begins at i on an axis of the result, `stride` apart.

    Places with the same remainder by the stride are summed apart, as whole shifted arrays.
    """
    size, count = parts.shape[0], parts.shape[axis + 1]
    reach = -(-size // stride)
    sums = []
    for phase in range(stride):
        shifted = []
        for shift, i in enumerate(range(phase, size, stride)):
            margins = [(0, 0, 0)] * (parts.ndim - 1)
            margins[axis] = shift, reach - 1 - shift, 0
            shifted.append(jax.lax.pad(parts[i], jnp.zeros((), parts.dtype), margins))
        sums.append(functools.reduce(jnp.add, shifted))
    shape = list(parts.shape[1:])
    shape[axis] = (count + reach - 1) * stride
    whole = jnp.stack(sums, axis + 1).reshape(shape)
    return jax.lax.slice_in_dim(whole, 0, (count - 1) * stride + size, axis=axis)


def _repeat_kernel(kernel, tile):
    """The kernel at each place of a tile, f32[I * window, tile * tile * O]."""
    places = [
        jnp.pad(kernel, ((i, tile - 1 - i), (j, tile - 1 - j), (0, 0), (0, 0)))
        for i in range(tile)
        for j in range(tile)
    ]
    repeated = jnp.concatenate(places, -1)
    return repeated.transpose(2, 0, 1, 3).reshape(-1, tile * tile * kernel.shape[3])


@jax.custom_vjp
def _product(weights, values):
    """f32[J, O] and f32[J, T] to f32[O, T]."""
    return jax.lax.dot_general(weights, values, (((0,), (0,)), ((), ())))


@jax.custom_vjp
def _products(weights, values):
    """f32[P, O, I] and f32[P, I, T] to f32[P, O, T], one product for each of P."""
    return jax.lax.dot_general(weights, values, (((2,), (1,)), ((0,), (0,))))


def _keep(product):
    return lambda weights, values: (product(weights, values), (weights, values))


def _product_gradients(kept, grad):
    weights, values = kept
    # The wide factor first: XLA's CPU is up to three times slower the other way round.
    return jax.lax.dot_general(values, grad, (((1,), (1,)), ((), ()))), weights @ grad


def _products_gradients(kept, grad):
    weights, values = kept
    of_weights = jax.lax.dot_general(grad, values, (((2,), (2,)), ((0,), (0,))))
    return of_weights, jax.lax.dot_general(weights, grad, (((1,), (1,)), ((0,), (0,))))


_product.defvjp(_keep(_product), _product_gradients)
_products.defvjp(_keep(_products), _products_gradients)


@functools.cache
def _transforms(rows, columns, tile):
    """Winograd's matrices over both axes: of windows, of kernels and of tiles, f32[P, ...].

    A product of polynomials is found from its values at points, y = V^-1 ((V g) * (V u)); the
    filter is its transpose by u.
    """
    pairs = zip(_transforms_1d(rows, tile), _transforms_1d(columns, tile), strict=True)
    return tuple(np.kron(down, across).astype(np.float32) for down, across in pairs)


def _transforms_1d(size, tile):
    length = size + tile - 1
    of_window = np.linalg.inv(_vandermonde(length, length)).T
    scale = np.abs(of_window).max(1, keepdims=True)
    return of_window / scale, _vandermonde(length, size) * scale, _vandermonde(length, tile)


def _vandermonde(num_points, terms):
    """Powers of the points, the last of which is infinity, f64[num_points, terms]."""
    finite = np.vander(POINTS[: num_points - 1], terms, increasing=True)
    return np.concatenate([finite, np.eye(terms)[-1:]])
