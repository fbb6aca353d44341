"""Convolution, pooling and the models of the zoo in float64 NumPy, window by window."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def conv2d(images, kernel, padding):
    """Cross-correlation [B, H', W', O] of images [B, H, W, I] with a kernel [R, C, I, O].

    "SAME" puts (R - 1) // 2 rows of zeros above and the rest of the R - 1 below; columns likewise.
    """
    windows = sliding_window_view(_pad(images, kernel, padding), kernel.shape[:2], (1, 2))
    return np.tensordot(windows, kernel.astype(np.float64), axes=((4, 5, 3), (0, 1, 2)))


def conv2d_gradients(images, kernel, padding, d_outputs):
    """Gradients by images and kernel, from the gradient by the outputs [B, H', W', O]."""
    padded, (height, width) = _pad(images, kernel, padding), d_outputs.shape[1:3]
    d_padded, d_kernel = np.zeros_like(padded), np.zeros(kernel.shape)
    for r, c in np.ndindex(*kernel.shape[:2]):
        window = np.s_[:, r : r + height, c : c + width]
        d_padded[window] += d_outputs @ kernel[r, c].T.astype(np.float64)
        d_kernel[r, c] = np.tensordot(padded[window], d_outputs, axes=((0, 1, 2), (0, 1, 2)))
    (top, _), (left, _) = _margins(kernel, padding)
    return d_padded[:, top : top + images.shape[1], left : left + images.shape[2]], d_kernel


def max_pool2d(images):
    """Largest of each whole 2x2 window."""
    return np.max(_corners(images), axis=0)


def max_pool2d_gradient(images, d_pooled):
    """Gradient by the images: all of it to the largest of a window, of equal ones to the first."""
    d_images = np.zeros(images.shape)
    first = np.argmax(_corners(images), axis=0)  # of equal ones, row by row
    for place, corner in enumerate(_corners(d_images)):
        corner[...] = d_pooled * (first == place)
    return d_images


def conv_block(images, kernel, bias, padding, pool):
    """Convolution, bias, ReLU, and the largest of each whole 2x2 window if `pool`."""
    x = np.maximum(conv2d(images, kernel, padding) + bias, 0)
    return max_pool2d(x) if pool else x


def conv_block_gradients(images, kernel, bias, padding, pool, d_outputs):
    """Gradients by images, kernel and bias; that of ReLU is 0 at 0."""
    x = conv2d(images, kernel, padding) + bias
    d = max_pool2d_gradient(np.maximum(x, 0), d_outputs) if pool else d_outputs
    d = np.where(x > 0, d, 0)
    return *conv2d_gradients(images, kernel, padding, d), d.sum((0, 1, 2))


def conv_block_margin(images, kernel, bias, padding, pool):
    """How much the sum under an output may err before its gradient takes another way, [B, ...].

    That is: how far the one that counts is from 0, and above 0 from the next of its window.
    """
    x = conv2d(images, kernel, padding) + bias
    if not pool:
        return np.abs(x)
    *_, second, top = np.sort(_corners(x), axis=0)
    return np.where(top > 0, np.minimum(top, top - second), -top)


def forward(name, layers, images):
    """Logits [B, Y] of an edge-side model, as its paper draws it.

    Args:
      name: mlp, lenet5 or cnn.
      layers: (kernel, bias) of every layer.
      images: [B, H, W, I].
    """
    padding, num_convs = {"mlp": (None, 0), "lenet5": ("VALID", 2), "cnn": ("SAME", 2)}[name]
    x = np.asarray(images, np.float64)
    for kernel, bias in layers[:num_convs]:
        x = conv_block(x, kernel, bias, padding, pool=True)
    x = x.reshape(len(x), -1)
    for kernel, bias in layers[num_convs:-1]:
        x = np.maximum(x @ kernel.astype(np.float64) + bias, 0)
    kernel, bias = layers[-1]
    return x @ kernel.astype(np.float64) + bias


def _corners(images):
    """Views [4][B, H // 2, W // 2, C] of the places of every whole 2x2 window, row by row."""
    height, width = (side // 2 * 2 for side in images.shape[1:3])
    return [images[:, r:height:2, c:width:2] for r in (0, 1) for c in (0, 1)]


def _margins(kernel, padding):
    if padding == "VALID":
        return (0, 0), (0, 0)
    return tuple(((n - 1) // 2, n - 1 - (n - 1) // 2) for n in kernel.shape[:2])


def _pad(images, kernel, padding):
    return np.pad(np.float64(images), ((0, 0), *_margins(kernel, padding), (0, 0)))
