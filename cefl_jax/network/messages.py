"""What crosses the links of a round: which messages, over which link, of how many bytes."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, Int64, Shaped

from cefl_jax.types import AnyArray

LINKS = ("client_up", "client_down", "edge_up", "edge_down")
"""A client's link to the servers and back, and the servers' link to the cloud and back."""

MESSAGES = (
    "front_half",
    "smashed_data",
    "labels",
    "cut_gradient",
    "back_half",
    "model",
    "control_variate",
    "logits",
    "examples",
)

Sent: TypeAlias = dict[str, dict[str, list[tuple[Any, int]]]]
"""By link and message: how often, i32[], something of so many bytes was sent."""

Count: TypeAlias = int | float | Shaped[AnyArray, "..."]
"""How many there are, in all or each of an array."""


class Payload(NamedTuple):
    """Bytes of one client's message of one local step: static, linear in its samples."""

    per_sample: int
    per_message: int

    def of(self, samples: Count, messages: Count) -> Any:
        """Returns the bytes of so many messages with so many samples in all."""
        return samples * self.per_sample + messages * self.per_message

    def sent(self, samples: Any, messages: Any) -> list[tuple[Any, int]]:
        """Returns so many messages with so many samples in all, as `Sent` has them."""
        return [(samples, self.per_sample), (messages, self.per_message)]


class Knowledge(NamedTuple):
    """Bytes of one sample of what a client tells the cloud: static; the cloud tells logits."""

    features: int
    label: int
    logits: int


class Sizes(NamedTuple):
    """Bytes of the messages of split training, static."""

    smashed: Payload
    gradient: Payload
    label: int  # of one sample
    front: int  # of what a client loads and delivers
    back: int
    whole: bool = False  # that is a whole model
    control: int = 0  # bytes of it that are a control variate
    knowledge: Knowledge | None = None  # where that travels, and nothing else

    def upward_bits(self, samples: Count, messages: Count) -> Any:
        """Returns the bits of smashed data and labels."""
        return 8.0 * (self.smashed.of(samples, messages) + self.label * samples)

    def downward_bits(self, samples: Count, messages: Count) -> Any:
        """Returns the bits of gradients at the cut."""
        return 8.0 * self.gradient.of(samples, messages)


class MessageCounts(NamedTuple):
    """How often each message of a split round was sent, i32[] each; messages hold samples."""

    fronts_down: Int32[Array, ""]
    fronts_up: Int32[Array, ""]
    backs_down: Int32[Array, ""]  # from the cloud to edge nodes
    backs_up: Int32[Array, ""]
    steps: Int32[Array, ""]  # messages of smashed data, each answered by a gradient
    samples: Int32[Array, ""]  # in them
    cloud_steps: Int32[Array, ""]  # those of them that a cluster on the cloud exchanged
    cloud_samples: Int32[Array, ""]
    uploaded_steps: Int32[Array, ""]  # messages of smashed data that edge nodes sent on
    uploaded_samples: Int32[Array, ""]


def split_messages(traffic: MessageCounts, sizes: Sizes) -> Sent:
    """Returns the messages of a split round.

    A cluster on the cloud exchanges smashed data and gradients over both kinds of link; its back
    half and its smashed data are where they are needed already.
    """
    t, model = traffic, "model" if sizes.whole else "front_half"
    of_client = {model: sizes.front - sizes.control, "control_variate": sizes.control}
    return {
        "client_up": {
            **{name: [(t.fronts_up, size)] for name, size in of_client.items()},
            "smashed_data": sizes.smashed.sent(t.samples, t.steps),
            "labels": [(t.samples, sizes.label)],
        },
        "client_down": {
            **{name: [(t.fronts_down, size)] for name, size in of_client.items()},
            "cut_gradient": sizes.gradient.sent(t.samples, t.steps),
        },
        "edge_up": {
            "smashed_data": sizes.smashed.sent(t.cloud_samples, t.cloud_steps)
            + sizes.smashed.sent(t.uploaded_samples, t.uploaded_steps),
            "labels": [(t.cloud_samples, sizes.label), (t.uploaded_samples, sizes.label)],
            "back_half": [(t.backs_up, sizes.back)],
        },
        "edge_down": {
            "cut_gradient": sizes.gradient.sent(t.cloud_samples, t.cloud_steps),
            "back_half": [(t.backs_down, sizes.back)],
        },
    }


def count_bytes(sent: Sent) -> Int64[Array, "links messages"]:
    """Returns the bytes of what was sent, i64[LINKS, MESSAGES], 0 where nothing was.

    To be read within `jax.enable_x64(True)` while tracing.

    Raises:
      ValueError: for a link or a message that is not among `LINKS` and `MESSAGES`.
    """
    messages = {name for row in sent.values() for name in row}
    if unknown := (sent.keys() - set(LINKS)) | (messages - set(MESSAGES)):
        raise ValueError(
            f"unknown links or messages {sorted(unknown)}; known: {', '.join((*LINKS, *MESSAGES))}"
        )
    with jax.enable_x64(True):

        def total(parts):
            parts = [jnp.asarray(times).astype(jnp.int64) * size for times, size in parts if size]
            return sum(parts, jnp.zeros((), jnp.int64))

        return jnp.stack(
            [
                jnp.stack([total(sent.get(link, {}).get(name, [])) for name in MESSAGES])
                for link in LINKS
            ]
        )
