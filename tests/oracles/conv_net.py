"""Convolution, pooling and the models of the zoo in float64 NumPy, one kernel tap at a time."""

import numpy as np


def conv2d(images, kernel, padding):
    """Cross-correlation [B, H', W', O] of images [B, H, W, I] with a kernel [R, C, I, O].

    "SAME" puts (R - 1) // 2 rows of zeros above and the rest of the R - 1 below; columns likewise.
    """
    padded = _pad(np.asarray(images, np.float64), kernel.shape, padding)
    height, width = padded.shape[1] - kernel.shape[0] + 1, padded.shape[2] - kernel.shape[1] + 1
    outputs = np.zeros((len(images), height, width, kernel.shape[3]))
    for r, c in np.ndindex(*kernel.shape[:2]):
        outputs += padded[:, r : r + height, c : c + width] @ kernel[r, c].astype(np.float64)
    return outputs


def conv2d_gradients(images, kernel, padding, d_outputs):
    """Gradients by images and kernel, from the gradient by the outputs [B, H', W', O]."""
    padded = _pad(np.asarray(images, np.float64), kernel.shape, padding)
    height, width = d_outputs.shape[1:3]
    d_padded, d_kernel = np.zeros_like(padded), np.zeros(kernel.shape)
    for r, c in np.ndindex(*kernel.shape[:2]):
        window = np.s_[:, r : r + height, c : c + width]
        d_padded[window] += d_outputs @ kernel[r, c].T.astype(np.float64)
        d_kernel[r, c] = np.tensordot(padded[window], d_outputs, axes=((0, 1, 2), (0, 1, 2)))
    (top, _), (left, _) = _margins(kernel.shape, padding)
    return d_padded[:, top : top + images.shape[1], left : left + images.shape[2]], d_kernel


def max_pool2d(images):
    """Largest of each whole 2x2 window."""
    batch, height, width, channels = images.shape
    pooled = np.zeros((batch, height // 2, width // 2, channels))
    for i, j in np.ndindex(height // 2, width // 2):
        pooled[:, i, j] = images[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2))
    return pooled


def max_pool2d_gradient(images, d_pooled):
    """Gradient by the images: all of it to the largest of a window, of equal ones to the first."""
    d_images = np.zeros(images.shape)
    for i, j in np.ndindex(d_pooled.shape[1:3]):
        places = [images[:, 2 * i + r, 2 * j + s] for r, s in np.ndindex(2, 2)]
        first = np.argmax(places, axis=0)  # of equal ones, row by row
        for place, (r, s) in enumerate(np.ndindex(2, 2)):
            d_images[:, 2 * i + r, 2 * j + s] = d_pooled[:, i, j] * (first == place)
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
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    corners = [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
    *_, second, top = np.sort(corners, axis=0)
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
        x = max_pool2d(np.maximum(conv2d(x, kernel, padding) + bias, 0))
    x = x.reshape(len(x), -1)
    for i, (kernel, bias) in enumerate(layers[num_convs:], num_convs + 1):
        x = x @ kernel.astype(np.float64) + bias
        x = x if i == len(layers) else np.maximum(x, 0)
    return x


def _margins(kernel_shape, padding):
    if padding == "VALID":
        return (0, 0), (0, 0)
    return tuple(((n - 1) // 2, n - 1 - (n - 1) // 2) for n in kernel_shape[:2])


def _pad(images, kernel_shape, padding):
    return np.pad(images, ((0, 0), *_margins(kernel_shape, padding), (0, 0)))
