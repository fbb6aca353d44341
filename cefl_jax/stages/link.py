"""The wire at the cut: what happens to features on their way up, and to gradients coming down."""

import dataclasses

import jax
from jaxtyping import Bool, Float32, PRNGKeyArray

from cefl_jax.models.cost import Workload
from cefl_jax.models.split import SplitModel
from cefl_jax.network.messages import Knowledge, Payload, Sizes
from cefl_jax.specs import CompressionSpec, PrivacySpec
from cefl_jax.stages.compression import Codec
from cefl_jax.stages.leakage import add_noise
from cefl_jax.types import AnyArray

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
