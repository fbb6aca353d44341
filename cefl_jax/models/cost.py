"""What the halves of a model cost: FLOPs, parameters and bytes, derived and not counted by hand."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from cefl_jax.models import zoo
from cefl_jax.models.conv import XLA, conv_block
from cefl_jax.models.split import make_model, with_head
from cefl_jax.specs import ModelSpec


@dataclasses.dataclass(frozen=True)
class Workload:
    """Work and message sizes of one sample, and of the parameters.

    FLOPs are those of the compiler's cost analysis with convolutions as convolutions, so they do
    not depend on how this program lowers them, nor on the device.
    """

    front_forward_flop: float  # of one sample
    front_backward_flop: float  # parameter gradients from the gradient at the cut
    back_forward_flop: float
    back_train_flop: float  # forward, parameter gradients and gradient at the cut
    cloud_forward_flop: float
    cloud_train_flop: float  # forward and parameter gradients
    back_distill_flop: float  # likewise of the back half
    feature_bytes: int  # cut-layer features of one sample, and the gradient there
    front_bytes: int  # parameters
    back_bytes: int
    cloud_bytes: int

    @property
    def front_params(self) -> int:
        """Number of parameters of the front half."""
        return self.front_bytes // 4

    @property
    def back_params(self) -> int:
        """Number of parameters of the back half."""
        return self.back_bytes // 4

    @property
    def cloud_params(self) -> int:
        """Number of parameters of the cloud model."""
        return self.cloud_bytes // 4


def measure_workload(
    spec: ModelSpec,
    sample_shape: tuple[int, ...],
    num_classes: int,
    whole: bool = False,
    head: bool = False,
) -> Workload:
    """Returns the Workload of the model that the settings name; nothing is compiled or run.

    Args:
      spec: ModelSpec.
      sample_shape: of one sample, `(H, W, I)` of an image or `(F,)` of a row of a table.
      num_classes: Y.
      whole: clients train the whole model: it is the front half, and nothing is left for others.
      head: clients train the front half with a classifier head of its own: together they are the
        front half, and the cloud model is left.
    Returns:
      Workload.
    Raises:
      ValueError: where JAX may not use the CPU, and as `make_model`.
    """
    models = tuple(zoo.MODELS.items())  # which a person's file may change
    return _measure(spec, sample_shape, num_classes, whole, head, models)


@functools.lru_cache(64)  # runs of a sweep have the same, and it takes half a second
def _measure(spec, sample_shape, num_classes, whole, head, _):
    lowering = functools.partial(conv_block, lowering=XLA)
    model = make_model(spec, sample_shape, num_classes, lowering)
    model = with_head(model) if head else model
    halves, cloud = jax.eval_shape(model.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *sample_shape), jnp.float32)
    features = jax.ShapeDtypeStruct((1, *model.feature_shape), jnp.float32)
    of_cloud = {
        "cloud_forward_flop": _flop(model.cloud, cloud, features),
        "cloud_train_flop": _flop(_grad(model.cloud, 0), cloud, features),
        "feature_bytes": _bytes(features),
        "cloud_bytes": _bytes(cloud),
    }
    if whole or head:
        work = _whole_workload(model, halves.front + halves.back, image)
        return dataclasses.replace(work, **of_cloud) if head else work

    front_forward = _flop(model.front, halves.front, image)
    return Workload(
        front_forward_flop=front_forward,
        front_backward_flop=_flop(_grad(model.front, 0), halves.front, image) - front_forward,
        back_forward_flop=_flop(model.back, halves.back, features),
        back_train_flop=_flop(_grad(model.back, (0, 1)), halves.back, features),
        back_distill_flop=_flop(_grad(model.back, 0), halves.back, features),
        front_bytes=_bytes(halves.front),
        back_bytes=_bytes(halves.back),
        **of_cloud,
    )


def _whole_workload(model, params, image):
    forward = _flop(model.whole, params, image)
    nothing = {field.name: 0 for field in dataclasses.fields(Workload)}
    return Workload(
        **nothing
        | {
            "front_forward_flop": forward,
            "front_backward_flop": _flop(_grad(model.whole, 0), params, image) - forward,
            "front_bytes": _bytes(params),
        }
    )


def _grad(apply, argnums):
    def total(params, x):
        outputs = apply(params, x)
        return outputs.sum(), outputs  # returned, or the last layer's forward is dropped

    return jax.grad(total, argnums, has_aux=True)


def _flop(f, *shapes):
    # Asked of the CPU, since accelerators' plugins have no analysis before compilation.
    with jax.default_device(_cpu()):
        analysis: Any = jax.jit(f).lower(*shapes).cost_analysis()
    return float(analysis["flops"])


def _cpu():
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        platforms = jax.config.values["jax_platforms"]
        raise ValueError(
            f"JAX_PLATFORMS={platforms}: FLOPs are counted on the CPU, which it leaves out; set it "
            f"to {platforms},cpu"
        ) from error


def _bytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
