"""What crosses the links of a round: which messages, over which link, of how many bytes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

LINKS = ("client_up", "client_down", "edge_up", "edge_down")
"""A client's link to the servers and back, and the servers' link to the cloud and back."""

MESSAGES = ("front_half", "smashed_data", "labels", "cut_gradient", "back_half")


class Payload(NamedTuple):
    """Bytes of one client's message of one local step: static, linear in its samples."""

    per_sample: int
    per_message: int

    def of(self, samples, messages):
        """Bytes of so many messages with so many samples in all."""
        return samples * self.per_sample + messages * self.per_message


class Sizes(NamedTuple):
    """Bytes of the messages of split training, static."""

    smashed: Payload
    gradient: Payload
    label: int  # of one sample
    front: int
    back: int

    def upward_bits(self, samples, messages):
        """Bits of smashed data and labels."""
        return 8.0 * (self.smashed.of(samples, messages) + self.label * samples)

    def downward_bits(self, samples, messages):
        """Bits of gradients at the cut."""
        return 8.0 * self.gradient.of(samples, messages)


class Traffic(NamedTuple):
    """How often each message of a split round was sent, i32[] each; messages hold samples."""

    fronts_down: jax.Array
    fronts_up: jax.Array
    backs_down: jax.Array  # from the cloud to edge nodes
    backs_up: jax.Array
    steps: jax.Array  # messages of smashed data, each answered by a gradient
    samples: jax.Array  # in them
    cloud_steps: jax.Array  # those of them that a cluster on the cloud exchanged
    cloud_samples: jax.Array
    uploaded_steps: jax.Array  # messages of smashed data that edge nodes sent on to the cloud
    uploaded_samples: jax.Array


def count_bytes(traffic, sizes):
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
        none = jnp.zeros((), jnp.int64)
        rows = {
            "client_up": (
                t.fronts_up * sizes.front,
                sizes.smashed.of(t.samples, t.steps),
                t.samples * sizes.label,
                none,
                none,
            ),
            "client_down": (
                t.fronts_down * sizes.front,
                none,
                none,
                sizes.gradient.of(t.samples, t.steps),
                none,
            ),
            "edge_up": (
                none,
                sizes.smashed.of(onward, onward_steps),
                onward * sizes.label,
                none,
                t.backs_up * sizes.back,
            ),
            "edge_down": (
                none,
                none,
                none,
                sizes.gradient.of(t.cloud_samples, t.cloud_steps),
                t.backs_down * sizes.back,
            ),
        }
        return jnp.stack([jnp.stack(rows[link]) for link in LINKS])
