"""What crosses the links of a round: which messages, over which link, of how many bytes."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Int32, Int64, Shaped

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

Count: TypeAlias = int | float | Shaped[AnyArray, "..."]
"""How many there are, in all or each of an array."""


class Payload(NamedTuple):
    """Bytes of one client's message of one local step: static, linear in its samples."""

    per_sample: int
    per_message: int

    def of(self, samples: Count, messages: Count) -> Any:
        """Bytes of so many messages with so many samples in all."""
        return samples * self.per_sample + messages * self.per_message


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
        """Bits of smashed data and labels."""
        return 8.0 * (self.smashed.of(samples, messages) + self.label * samples)

    def downward_bits(self, samples: Count, messages: Count) -> Any:
        """Bits of gradients at the cut."""
        return 8.0 * self.gradient.of(samples, messages)


class Traffic(NamedTuple):
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


def count_bytes(traffic: Traffic, sizes: Sizes) -> Int64[Array, "links messages"]:
    """Bytes of a split round by link and message.

    A cluster on the cloud exchanges smashed data and gradients over both kinds of link; its back
    half and its smashed data are where they are needed already.

    Args:
      traffic: Traffic.
      sizes: Sizes.
    Returns:
      i64[LINKS, MESSAGES]; to be read within `jax.enable_x64(True)` while tracing.
    """
    with jax.enable_x64(True):
        t = Traffic(*(x.astype(jnp.int64) for x in traffic))
        onward_steps = t.cloud_steps + t.uploaded_steps
        onward = t.cloud_samples + t.uploaded_samples
        of_client = {"model" if sizes.whole else "front_half": sizes.front - sizes.control}
        of_client["control_variate"] = sizes.control
        rows = {
            "client_up": {
                **{name: t.fronts_up * size for name, size in of_client.items()},
                "smashed_data": sizes.smashed.of(t.samples, t.steps),
                "labels": t.samples * sizes.label,
            },
            "client_down": {
                **{name: t.fronts_down * size for name, size in of_client.items()},
                "cut_gradient": sizes.gradient.of(t.samples, t.steps),
            },
            "edge_up": {
                "smashed_data": sizes.smashed.of(onward, onward_steps),
                "labels": onward * sizes.label,
                "back_half": t.backs_up * sizes.back,
            },
            "edge_down": {
                "cut_gradient": sizes.gradient.of(t.cloud_samples, t.cloud_steps),
                "back_half": t.backs_down * sizes.back,
            },
        }
        return tabulate(rows)


def tabulate(rows: dict[str, dict[str, ArrayLike]]) -> Int64[Array, "links messages"]:
    """Bytes {link: {message: i64[]}} as i64[LINKS, MESSAGES], 0 where nothing is said.

    To be called, and its result read, within `jax.enable_x64(True)` while tracing.
    """
    none = jnp.zeros((), jnp.int64)
    return jnp.stack(
        [
            jnp.stack(
                [jnp.asarray(rows.get(link, {}).get(name, none), jnp.int64) for name in MESSAGES]
            )
            for link in LINKS
        ]
    )
