"""The models of `cefl_jax.models.zoo` as torch modules, and parameters taken across and back."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from cefl_jax.types import Halves


class Model(NamedTuple):
    """The edge-side model cut in two, and the cloud model on its features."""

    front: nn.Sequential
    back: nn.Sequential
    cloud: nn.Sequential


def make_model(name, cut, sample_shape, num_classes):
    """The model of these settings, with PyTorch's own initial weights.

    Args:
      name: one of `cefl_jax.models.zoo.NAMES`.
      cut: blocks of the front half.
      sample_shape: `(H, W, I)` of one image.
      num_classes: Y.
    Returns:
      Model.
    """
    shape = sample_shape[2], *sample_shape[:2]
    blocks, features = [], shape
    for i, (width, *conv) in enumerate(_layers(name, num_classes)):
        if i == cut:
            features = shape
        blocks.append(_block(shape, width, *conv))
        shape = _output_shape(blocks[-1], shape)
    _without_relu(blocks[-1])
    cloud, shape = [], features
    for width, *conv in _cloud_layers(features, num_classes):
        cloud.append(_block(shape, width, *conv))
        shape = _output_shape(cloud[-1], shape)
    _without_relu(cloud[-1])
    return Model(*(nn.Sequential(*part) for part in (blocks[:cut], blocks[cut:], cloud)))


def _layers(name, num_classes):
    """Width of every block, and size, padding and pooling of those that convolve."""
    return {
        "mlp": [(200,), (200,), (num_classes,)],
        "lenet5": [(6, 5, 0, True), (16, 5, 0, True), (120,), (84,), (num_classes,)],
        "cnn": [(32, 5, 2, True), (64, 5, 2, True), (512,), (num_classes,)],
    }[name]


def _cloud_layers(features, num_classes):
    if len(features) == 1:
        return [(512,), (512,), (256,), (num_classes,)]
    side = min(features[1:])
    convs = [(32, 3, 1, side >= 2), (64, 3, 1, False), (64, 3, 1, side >= 4)]
    return [*convs, (256,), (128,), (num_classes,)]


def _block(shape, width, size=None, padding=0, pool=False):
    if size is None:
        flatten = [nn.Flatten()] if len(shape) > 1 else []
        return nn.Sequential(*flatten, nn.Linear(int(np.prod(shape)), width), nn.ReLU())
    pooling = [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(nn.Conv2d(shape[0], width, size, padding=padding), *pooling, nn.ReLU())


def _without_relu(block):
    del block[-1]


def _output_shape(block, shape):
    with torch.inference_mode():
        image = torch.zeros(1, *shape, dtype=next(block.parameters()).dtype)
        return tuple(block(image).shape[1:])


def count_parameters(*modules):
    """Numbers in the parameters of modules."""
    return sum(p.numel() for module in modules for p in module.parameters())


def load_params(model, halves, cloud, sample_shape):
    """Copies our parameters into a Model.

    Convolution kernels go from HWIO to OIHW; the rows of a dense layer that follows images, from
    rows, columns, channels to channels, rows, columns.

    Args:
      model: Model, changed in place.
      halves: Halves, leaves f32.
      cloud: parameters of the cloud model.
      sample_shape: `(H, W, I)` of one image.
    """
    for module, ours, shape in _blocks_of(model, halves, cloud, sample_shape):
        layer, params = _layer(module), _flat(ours)
        kernel = torch.from_numpy(np.array(params["kernel"]))
        if isinstance(layer, nn.Conv2d):
            kernel = kernel.permute(3, 2, 0, 1)
        else:
            if len(shape) == 3:
                kernel = kernel.reshape(*shape[1:], shape[0], -1).permute(2, 0, 1, 3)
            kernel = kernel.reshape(-1, layer.out_features).T
        with torch.no_grad():
            layer.weight.copy_(kernel)
            layer.bias.copy_(torch.from_numpy(np.array(params["bias"])))


def read_params(model, halves, cloud, sample_shape):
    """Our parameters out of a Model.

    Args:
      model: Model.
      halves: Halves whose structure the answer has.
      cloud: likewise.
      sample_shape: `(H, W, I)` of one image.
    Returns:
      Halves and parameters of the cloud model, NumPy f32.
    """
    blocks = []
    for module, ours, shape in _blocks_of(model, halves, cloud, sample_shape):
        layer = _layer(module)
        kernel, bias = layer.weight.detach(), layer.bias.detach().numpy().copy()
        if isinstance(layer, nn.Conv2d):
            kernel = kernel.permute(2, 3, 1, 0)
        else:
            kernel = kernel.T
            if len(shape) == 3:
                kernel = kernel.reshape(*shape, -1).permute(1, 2, 0, 3)
                kernel = kernel.reshape(-1, layer.out_features)
        params = {"kernel": kernel.contiguous().numpy().copy(), "bias": bias}
        blocks.append(params if "kernel" in ours else dict.fromkeys(ours, params))
    cut, whole = len(model.front), len(model.front) + len(model.back)
    return Halves(tuple(blocks[:cut]), tuple(blocks[cut:whole])), tuple(blocks[whole:])


def _blocks_of(model, halves, cloud, sample_shape):
    """Every block with its parameters in ours and the shape of what it takes."""
    image = sample_shape[2], *sample_shape[:2]
    features = _output_shape(model.front, image)
    for modules, trees, shape in zip(
        model, (*halves, cloud), (image, features, features), strict=True
    ):
        for module, tree in zip(modules, trees, strict=True):
            yield module, tree, shape
            shape = _output_shape(module, shape)


def _layer(module):
    return next(part for part in module if hasattr(part, "weight"))


def _flat(params):
    """The kernel and bias of a block, whether it holds them itself or its only layer does."""
    return params if "kernel" in params else next(iter(params.values()))
