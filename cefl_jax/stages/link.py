"""The link at the cut: compression and noise of features going up, and of gradients coming down."""

import dataclasses
import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, PRNGKeyArray

from cefl_jax.models.cost import Workload
from cefl_jax.models.split import SplitModel
from cefl_jax.network.messages import Knowledge, Payload, Sizes
from cefl_jax.specs import CompressionSpec, PrivacySpec
from cefl_jax.types import AnyArray, Number

NAMES = ("none", "bf16", "int8", "topk")
LEVELS = 127  # int8: steps from zero to the largest magnitude
FRACTION_BITS = 23  # of the random numbers that int8 rounds with, all that an f32 in [0, 1) has


@dataclasses.dataclass(frozen=True)
class Codec:
    """How one client's message of one local step is sent: B samples, of which some count.

    none: f32 values, as they are. bf16: values rounded to nearest, ties to even. int8: multiples of
    one scale, max|x| / 127 over the samples that count, rounded up or down at random so that the
    expected value is x; a maximum below 1.5e-36 is sent as zeros. topk: of each sample the
    `topk_share` of its values that are largest in magnitude, rounded up to a whole number (ties:
    first index), as values and indices; the others arrive as 0.

    Samples that do not count change nothing for those that do; int8 sends them as zeros, the other
    rules like any. What has become infinite or not a number does not arrive as finite.
    """

    rule: str
    topk_share: float

    def __post_init__(self):
        if self.rule not in NAMES:
            raise ValueError(
                f"compression rule={self.rule!r} is unknown; known: {', '.join(NAMES)}"
            )
        if not 0 < self.topk_share <= 1:
            raise ValueError(
                f"compression topk_share={self.topk_share} is the share of a sample's values that "
                "is sent; give a number above 0 and at most 1"
            )

    def encode(
        self, key: PRNGKeyArray, x: Float32[AnyArray, "B *values"], valid: Bool[AnyArray, "B"]
    ) -> tuple[AnyArray, ...]:
        """Returns the arrays that cross the link.

        Args:
          key: of the random numbers; read by int8 only.
          x: f32[B, ...] message.
          valid: bool[B], which samples count.
        Returns:
          none: (f32[B, ...],). bf16: (bf16[B, ...],). int8: (i8[B, ...], f32[] scale). topk:
          (f32[B, k], unsigned[B, k] indices into the flattened sample, largest magnitude first, of
          the smallest type that holds them).
        """
        if self.rule == "none":
            return (x,)
        if self.rule == "bf16":
            # Rounded first: a compiler may drop a conversion to bf16 and back as excess precision.
            return (jax.lax.reduce_precision(x, 8, 7).astype(jnp.bfloat16),)
        if self.rule == "int8":
            return _encode_int8(key, x, valid)
        x = x.reshape(x.shape[0], -1)
        _, index = jax.lax.top_k(jnp.abs(x), self._count_sent(x.shape[1]))
        values = jnp.take_along_axis(x, index, axis=1)
        return values, index.astype(np.min_scalar_type(x.shape[1] - 1))

    def decode(
        self, packet: tuple[AnyArray, ...], shape: tuple[int, ...]
    ) -> Float32[AnyArray, "B *values"]:
        """Returns the message f32[shape] of a packet of `encode`; shape is `(B, ...)`."""
        if self.rule == "none":
            return packet[0]
        if self.rule == "bf16":
            return packet[0].astype(jnp.float32)
        if self.rule == "int8":
            values, scale = packet
            return values.astype(jnp.float32) * scale
        values, index = packet
        empty = jnp.zeros((shape[0], math.prod(shape[1:])))
        return jnp.put_along_axis(empty, index, values, axis=1, inplace=False).reshape(shape)

    def transmit(
        self, key: PRNGKeyArray, x: Float32[AnyArray, "B *values"], valid: Bool[AnyArray, "B"]
    ) -> Float32[AnyArray, "B *values"]:
        """Encodes and decodes: the message f32[B, ...] as it arrives; x itself for "none"."""
        return self.decode(self.encode(key, x, valid), x.shape)

    def size(self, sample_shape: tuple[int, ...]) -> Payload:
        """Returns the Payload of a message of samples of this shape: the size of its arrays."""
        one, two = (self._count_bytes(count, sample_shape) for count in (1, 2))
        return Payload(per_sample=two - one, per_message=2 * one - two)

    def _count_sent(self, num_values):
        """Returns how many values of a sample topk sends."""
        # The decimal as written: the nearest binary number makes 0.07 of 100 a little more than 7.
        return math.ceil(fractions.Fraction(str(self.topk_share)) * num_values)

    def _count_bytes(self, num_samples, sample_shape):
        key = jax.eval_shape(lambda: jax.random.key(0))
        x = jax.ShapeDtypeStruct((num_samples, *sample_shape), jnp.float32)
        valid = jax.ShapeDtypeStruct((num_samples,), jnp.bool_)
        packet = jax.eval_shape(self.encode, key, x, valid)
        return sum(array.size * array.dtype.itemsize for array in packet)


def _encode_int8(key, x, valid):
    """Returns the values i8[B, ...] and their scale f32[]."""
    x = jnp.where(valid.reshape(-1, *[1] * (x.ndim - 1)), x, 0.0)
    scale = jnp.abs(x).max() * (1.0 / LEVELS)
    # Without a finite reciprocal it is zero; a comparison that leaves nan as it is.
    scale = jnp.where(scale < jnp.finfo(jnp.float32).tiny, 0.0, scale)
    ratio = x * (1.0 / jnp.where(scale == 0.0, 1.0, scale))
    # floor(ratio + noise) in whole numbers of 2^-23: a sum that no compiler rounds in another way.
    noise = jax.random.uniform(key, x.shape)
    ratio, noise = (
        (part * 2.0**FRACTION_BITS).astype(jnp.int32)
        for part in (jnp.clip(ratio, -LEVELS, LEVELS), noise)
    )
    return jnp.right_shift(ratio + noise, FRACTION_BITS).astype(jnp.int8), scale


def add_noise(
    key: PRNGKeyArray, features: Float32[AnyArray, "*B"], std: Number
) -> Float32[AnyArray, "*B"]:
    """Adds independent Gaussian noise to every value of the features.

    Args:
      key: of the noise.
      features: f32[...].
      std: standard deviation of the noise, f32[] or a number; for the number 0 nothing is computed.
    Returns:
      f32[...].
    """
    if not isinstance(std, jax.Array) and std == 0:
        return features
    return features + std * jax.random.normal(key, features.shape)


LABEL_BYTES = 4  # an i32
LOGIT_BYTES = 4  # an f32


@dataclasses.dataclass(frozen=True)
class CutLink:
    """How smashed data and gradients at the cut cross between a client and its server."""

    smashed: Codec
    gradient: Codec
    noise_std: float  # of Gaussian noise that a client adds to its smashed data

    def send_features(
        self, key: PRNGKeyArray, features: Float32[AnyArray, "B *F"], valid: Bool[AnyArray, "B"]
    ) -> Float32[AnyArray, "B *F"]:
        """Returns one client's features f32[B, ...] as they arrive; `valid` bool[B] count."""
        noise_key, codec_key = jax.random.split(key)
        features = add_noise(noise_key, features, self.noise_std)
        return self.smashed.transmit(codec_key, features, valid)

    def send_gradient(
        self, key: PRNGKeyArray, gradient: Float32[AnyArray, "B *F"], valid: Bool[AnyArray, "B"]
    ) -> Float32[AnyArray, "B *F"]:
        """Returns gradients f32[B, ...] at the cut as the client gets them."""
        return self.gradient.transmit(key, gradient, valid)

    def measure(self, model: SplitModel, work: Workload) -> Sizes:
        """Returns the bytes of all messages: messages.Sizes."""
        shape = model.feature_shape
        return Sizes(
            smashed=self.smashed.size(shape),
            gradient=self.gradient.size(shape),
            label=LABEL_BYTES,
            front=work.front_bytes,
            back=work.back_bytes,
        )


def whole_sizes(work: Workload, control: bool = False) -> Sizes:
    """Returns the Sizes of whole models, down and up, and of a control variate with each or not."""
    nothing, variate = Payload(0, 0), work.front_bytes if control else 0
    model = work.front_bytes + variate
    return Sizes(nothing, nothing, 0, model, work.back_bytes, whole=True, control=variate)


def knowledge_sizes(work: Workload, num_classes: int) -> Sizes:
    """Returns the Sizes without models: features, labels and logits of Y classes after training."""
    nothing = Payload(0, 0)
    knowledge = Knowledge(work.feature_bytes, LABEL_BYTES, LOGIT_BYTES * num_classes)
    return Sizes(nothing, nothing, 0, 0, 0, knowledge=knowledge)


def make_link(compression: CompressionSpec, privacy: PrivacySpec) -> CutLink:
    """Returns the CutLink that CompressionSpec and PrivacySpec name."""
    smashed, gradient = (
        Codec(rule, compression.topk_share) for rule in (compression.smashed, compression.gradient)
    )
    return CutLink(smashed, gradient, privacy.noise_std)
