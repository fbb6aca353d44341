"""A model cut in two: the front half on the clients, the back half on the edge nodes."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from cefl_jax.models import conv, zoo
from cefl_jax.specs import ModelSpec
from cefl_jax.types import AnyArray, Halves, Params


@dataclasses.dataclass(frozen=True)
class SplitModel:
    """A model as blocks with a cut, and the cloud model that takes the same features.

    Parameters are tuples with one tree per block, so that the unsplit model's parameters are
    `halves.front + halves.back`, whatever the cut.
    """

    blocks: tuple
    cloud_blocks: tuple
    cut: int
    sample_shape: tuple[int, ...]
    dtype: str = "float32"  # of the computing; parameters, features and logits are f32 always

    def init(self, key: PRNGKeyArray) -> tuple[Halves, Params]:
        """Parameters of the two halves and of the cloud model; they do not depend on the cut.

        Returns:
          `Halves` and a tuple with one tree per cloud block, all leaves f32.
        """
        edge_key, cloud_key = jax.random.split(key)
        whole, features = _init_blocks(self.blocks, edge_key, self.sample_shape, self.cut)
        cloud, _ = _init_blocks(self.cloud_blocks, cloud_key, features, 0)
        return Halves(whole[: self.cut], whole[self.cut :]), cloud

    def front(
        self, params: Params, images: Float32[AnyArray, "B *sample"]
    ) -> Float32[Array, "B *features"]:
        """Cut-layer features f32[B, ...] of normalised samples f32[B, ...]."""
        return _apply(self.blocks[: self.cut], self.dtype, params, images)

    def back(
        self, params: Params, features: Float[AnyArray, "B *features"]
    ) -> Float32[Array, "B Y"]:
        """Returns the logits f32[B, Y] of cut-layer features by the back half."""
        return _apply(self.blocks[self.cut :], self.dtype, params, features)

    def whole(
        self, params: Params, images: Float32[AnyArray, "B *sample"]
    ) -> Float32[Array, "B Y"]:
        """Returns logits f32[B, Y] of normalised images by the unsplit model, `front + back`."""
        return _apply(self.blocks, self.dtype, params, images)

    def cloud(
        self, params: Params, features: Float[AnyArray, "B *features"]
    ) -> Float32[Array, "B Y"]:
        """Returns the logits f32[B, Y] of cut-layer features by the cloud model."""
        return _apply(self.cloud_blocks, self.dtype, params, features)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one sample's cut-layer features."""
        return zoo.output_shape(self.blocks[: self.cut], self.sample_shape)

    @property
    def num_classes(self) -> int:
        """Y."""
        return self.blocks[-1].features


@functools.partial(jax.jit, static_argnums=(0, 1))  # traced once for each shape
def _apply(blocks, dtype, params, x):
    """Blocks one after another; f32[B, ...]."""
    if dtype != "float32":
        params, x = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x))
    for block, block_params in zip(blocks, params, strict=True):
        x = block.apply({"params": block_params}, x)
    return x.astype(jnp.float32)


def with_head(model: SplitModel) -> SplitModel:
    """A SplitModel of the same front half, whose back half is the last layer alone: a head."""
    return dataclasses.replace(model, blocks=(*model.blocks[: model.cut], model.blocks[-1]))


def make_model(
    spec: ModelSpec,
    sample_shape: tuple[int, ...],
    num_classes: int,
    lowering: Callable = conv.conv_block,
    dtype: str = "float32",
) -> SplitModel:
    """Returns the model that the settings name.

    Args:
      spec: ModelSpec.
      sample_shape: of one sample, `(H, W, I)` of an image or `(F,)` of a row of a table.
      num_classes: Y.
      lowering: how convolutions are computed, with the arguments of `conv.conv_block`.
      dtype: of the computing, "float32" or "bfloat16".
    Returns:
      SplitModel.
    Raises:
      ValueError: for an unknown name, a cut that leaves a half without blocks, samples that are
        no images or too small ones for the model, or a cloud model that is not deeper than the back
        half.
    """
    blocks = zoo.make_blocks(spec.name, num_classes, lowering)
    if not 1 <= spec.cut < len(blocks):
        raise ValueError(
            f"model.cut={spec.cut}: {spec.name} has {len(blocks)} blocks, "
            f"so the cut is from 1 to {len(blocks) - 1}"
        )
    least = zoo.MODELS[spec.name].least_side
    if least and (len(sample_shape) == 1 or min(sample_shape[:2]) < least):
        size, is_row = "x".join(map(str, sample_shape[:2])), len(sample_shape) == 1
        found = (
            f"the data are rows of {size} numbers" if is_row else f"those of the data are {size}"
        )
        raise ValueError(
            f"model.name={spec.name!r} needs images of at least {least}x{least}, and {found}; "
            "choose another model, such as mlp"
        )
    features = zoo.output_shape(blocks[: spec.cut], sample_shape)
    cloud_blocks = zoo.make_cloud_blocks(spec.cloud, features, num_classes, lowering)
    if len(cloud_blocks) <= len(blocks) - spec.cut:
        raise ValueError(
            f"model.cloud={spec.cloud!r} has {len(cloud_blocks)} layers, not more than the back "
            f"half's {len(blocks) - spec.cut}; raise model.cut"
        )
    return SplitModel(blocks, cloud_blocks, spec.cut, tuple(sample_shape), dtype)


def _init_blocks(blocks, key, sample_shape, cut):
    """One parameter tree per block, and the shape of a sample at the cut."""
    x = jnp.zeros((1, *sample_shape))
    params, features = [], sample_shape
    for i, block in enumerate(blocks):
        if i == cut:
            features = x.shape[1:]
        x, variables = block.init_with_output(jax.random.fold_in(key, i), x)
        params.append(variables["params"])
    return tuple(params), features
