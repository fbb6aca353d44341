"""Costs of a run on the simulated network: seconds by phase, bytes by message, joules by device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float32, Float64, Int64, Real

from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES


def communication_time(
    bits: Real[ArrayLike, "..."],
    bandwidth_hz: Real[ArrayLike, "..."],
    gain: Real[ArrayLike, "..."],
    power_w: Real[ArrayLike, "..."],
    noise_w: Real[ArrayLike, "..."],
) -> Float32[Array, "..."]:
    """Returns the seconds to send bits over a link of Shannon capacity W log2(1 + h p / sigma).

    Args:
      bits: f32[...] message length.
      bandwidth_hz: f32[...] bandwidth W.
      gain: f32[...] channel gain h, dimensionless.
      power_w: f32[...] transmit power p.
      noise_w: f32[...] noise power sigma.
    Returns:
      f32[...] seconds.
    Reference:
      Liu et al., Client-edge-cloud hierarchical federated learning, ICC 2020, section IV.
    """
    return jnp.log(2.0) * bits / (jnp.log1p(gain * power_w / noise_w) * bandwidth_hz)


def computation_time(
    bits: Real[ArrayLike, "..."],
    cycles_per_bit: Real[ArrayLike, "..."],
    frequency_hz: Real[ArrayLike, "..."],
) -> Real[ArrayLike, "..."]:
    """Returns the seconds to process bits: c D / f (Liu et al., ICC 2020, section IV)."""
    return cycles_per_bit * bits / frequency_hz


def computation_energy(
    bits: Real[ArrayLike, "..."],
    cycles_per_bit: Real[ArrayLike, "..."],
    frequency_hz: Real[ArrayLike, "..."],
    capacitance: Real[ArrayLike, "..."],
) -> Real[ArrayLike, "..."]:
    """Returns joules to process bits: (alpha / 2) c D f^2 (Liu et al., ICC 2020, section IV)."""
    return 0.5 * capacitance * cycles_per_bit * bits * frequency_hz**2


class RoundCost(NamedTuple):
    """What one round cost."""

    phase_s: Float32[Array, "phases"]  # seconds, which add up to the round's length
    link_bytes: Int64[Array, "links messages"]
    energy_j: Float32[Array, "num_kinds"]


class Ledger(NamedTuple):
    """What a run has cost so far."""

    phase_s: Float64[Array, "phases"]  # simulated seconds
    link_bytes: Int64[Array, "links messages"]
    energy_j: Float64[Array, "num_kinds"]  # joules


def empty_ledger(num_kinds: int) -> Ledger:
    """Returns the Ledger before the first round, of a network with so many device classes."""
    with jax.enable_x64(True):
        return Ledger(
            jnp.zeros(len(PHASES), jnp.float64),
            jnp.zeros((len(LINKS), len(MESSAGES)), jnp.int64),
            jnp.zeros(num_kinds, jnp.float64),
        )


def add_cost(ledger: Ledger, cost: RoundCost) -> Ledger:
    """Returns the Ledger after one more round."""
    with jax.enable_x64(True):
        return Ledger(
            ledger.phase_s + cost.phase_s.astype(jnp.float64),
            ledger.link_bytes + cost.link_bytes,
            ledger.energy_j + cost.energy_j.astype(jnp.float64),
        )
