"""The models: sequences of blocks, each of which a cut may follow, and the cloud models."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cefl_jax.models.conv import conv_block
from cefl_jax.types import AnyArray

CLOUD_NAMES = ("deep",)


class Dense(nn.Module):
    """A dense layer on the flattened input, with ReLU unless it ends the model."""

    features: int
    activate: bool = True

    @nn.compact
    def __call__(self, x: Float[AnyArray, "B ..."]) -> Float[Array, "B features"]:
        x = nn.Dense(self.features, dot_general=dot_general)(x.reshape(x.shape[0], -1))
        return nn.relu(x) if self.activate else x


class Conv(nn.Module):
    """Convolution, 2x2 max-pool if `pool`, ReLU."""

    features: int
    size: int
    padding: str
    pool: bool = True
    lowering: Callable = conv_block

    @nn.compact
    def __call__(self, x: Float[AnyArray, "B H W I"]) -> Float[Array, "B rows columns features"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return self.lowering(x, kernel, bias, self.padding, self.pool)


class Architecture(NamedTuple):
    """How an edge-side model is made."""

    make: Callable  # (num_classes, lowering) -> its blocks, front to back
    least_side: int | None  # rows and columns that its images need; None: rows of a table serve too


def _mlp(num_classes, lowering):
    return (Dense(200), Dense(200), Dense(num_classes, activate=False))


def _lenet5(num_classes, lowering):
    convs = [Conv(width, 5, "VALID", lowering=lowering) for width in (6, 16)]
    return (*convs, Dense(120), Dense(84), Dense(num_classes, activate=False))


def _cnn(num_classes, lowering):
    convs = [Conv(width, 5, "SAME", lowering=lowering) for width in (32, 64)]
    return (*convs, Dense(512), Dense(num_classes, activate=False))


MODELS = {
    "mlp": Architecture(_mlp, None),
    "lenet5": Architecture(_lenet5, 16),
    "cnn": Architecture(_cnn, 4),
}
"""By name. A script may add a model of its own before it makes settings."""

NAMES = MODELS.keys()


def make_blocks(
    name: str, num_classes: int, lowering: Callable = conv_block
) -> tuple[nn.Module, ...]:
    """Makes the blocks of an edge-side model, front to back.

    `mlp`: two hidden layers of 200 (McMahan et al. 2017, "2NN"). `lenet5`: valid 5x5 convolutions
    of 6 and 16, dense 120 and 84 (LeCun et al. 1998, with ReLU and max-pooling). `cnn`: same 5x5
    convolutions of 32 and 64, dense 512 (McMahan et al. 2017).

    Args:
      name: of `MODELS`.
      num_classes: Y.
      lowering: how convolutions are computed, with the arguments of `conv.conv_block`.
    Returns:
      A tuple of Linen modules.
    Raises:
      ValueError: for an unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"model.name={name!r} is unknown; known: {', '.join(NAMES)}")
    return MODELS[name].make(num_classes, lowering)


def make_cloud_blocks(
    name: str, feature_shape: tuple[int, ...], num_classes: int, lowering: Callable = conv_block
) -> tuple[nn.Module, ...]:
    """Returns the blocks of a cloud model, which starts at the cut-layer features.

    `deep`: on images of features, 3x3 convolutions of 32, 64 and 64, pooled after the first and the
    last while both sides allow it, then dense 256 and 128; on flat features, dense 512, 512, 256.
    With the output layer six and four layers, more than any back half in `make_blocks`.

    Args:
      name: one of `CLOUD_NAMES`.
      feature_shape: of one sample, `(H, W, I)` or `(F,)`.
      num_classes: Y.
      lowering: how convolutions are computed, with the arguments of `conv.conv_block`.
    Returns:
      A tuple of Linen modules.
    Raises:
      ValueError: for an unknown name.
    """
    if name != "deep":
        raise ValueError(f"model.cloud={name!r} is unknown; known: {', '.join(CLOUD_NAMES)}")
    last = Dense(num_classes, activate=False)
    if len(feature_shape) == 1:
        return (Dense(512), Dense(512), Dense(256), last)
    side = min(feature_shape[:2])
    pool_first, pool_last = side >= 2, side >= 4
    convs = [
        Conv(32, 3, "SAME", pool=pool_first, lowering=lowering),
        Conv(64, 3, "SAME", pool=False, lowering=lowering),
        Conv(64, 3, "SAME", pool=pool_last, lowering=lowering),
    ]
    return (*convs, Dense(256), Dense(128), last)


def output_shape(blocks: tuple[nn.Module, ...], sample_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one sample after the blocks, without computing anything."""
    model = nn.Sequential(blocks)
    images = jax.ShapeDtypeStruct((1, *sample_shape), jnp.float32)
    made = lambda images: model.init_with_output(jax.random.key(0), images)[0]  # noqa: E731
    return jax.eval_shape(made, images).shape[1:]


@jax.custom_vjp
def _dense(x, kernel):
    """f32[B, I] @ f32[I, O]."""
    return x @ kernel


def _forward(x, kernel):
    return _dense(x, kernel), (x, kernel)


def _backward(kept, grad):
    x, kernel = kept
    # Left to itself JAX makes it transposed and turns it afterwards, a slow copy on a CPU.
    of_kernel = jax.lax.dot_general(x, grad, (((0,), (0,)), ((), ())))
    return jax.lax.dot_general(grad, kernel, (((1,), (1,)), ((), ()))), of_kernel


_dense.defvjp(_forward, _backward)


def dot_general(
    x: Float[Array, "B I"],
    kernel: Float[Array, "I O"],
    dimension_numbers: tuple,
    precision: Any = None,
    **_: Any,
) -> Float[Array, "B O"]:
    """Returns what `flax.linen.Dense` takes for a product, for f32[B, I] and f32[I, O] only."""
    return _dense(x, kernel)
