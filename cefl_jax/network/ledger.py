"""Costs on the simulated network: seconds by phase, bytes by message, joules by device.

Of a round, whatever its traffic: who does what for how long, and what is sent; of a run, their sum.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float32, Float64, Int64, Real

from cefl_jax.network.messages import LINKS, MESSAGES, Sent, count_bytes
from cefl_jax.network.schedule import PHASES
from cefl_jax.network.topology import Devices


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


class Activity(NamedTuple):
    """Seconds that devices of one role spend in a round, f32[...] as the devices are; None for 0.

    Devices draw idle watts while they take part, more while they compute, and the power that they
    radiate while they send. Who takes no part draws nothing, nor do wires.
    """

    devices: Devices
    present_s: Any = None  # takes part, computing and sending included
    computing_s: Any = None
    sending_s: Any = None

    def joules(self) -> Any:
        """Returns f32[...] joules of each device."""
        devices = self.devices
        drawn = (
            (devices.idle_w, self.present_s),
            (devices.busy_w - devices.idle_w, self.computing_s),
            (devices.transmit_w, self.sending_s),
        )
        return sum(watts * seconds for watts, seconds in drawn if seconds is not None)


def paid(devices: Devices, computing_s: Any, sending_s: Any = None) -> Activity:
    """Returns the Activity of shared devices: paid at busy watts while they compute, else not."""
    never_idle = devices._replace(idle_w=jnp.zeros_like(devices.idle_w))
    return Activity(never_idle, None, computing_s, sending_s)


def phase_seconds(**seconds: Any) -> Float32[Array, "phases"]:
    """Returns the seconds f32[] of some phases as f32[PHASES], 0 for the others.

    Raises:
      ValueError: for a name that is not among `schedule.PHASES`.
    """
    if unknown := seconds.keys() - set(PHASES):
        raise ValueError(f"unknown phases {sorted(unknown)}; known: {', '.join(PHASES)}")
    rows = (jnp.where(np.array(PHASES) == name, spent, 0.0) for name, spent in seconds.items())
    return sum(rows, jnp.zeros(len(PHASES)))


def round_cost(
    phase_s: Float32[Array, "phases"], activities: Iterable[Activity], sent: Sent, num_kinds: int
) -> RoundCost:
    """Returns what a round cost.

    Args:
      phase_s: seconds along the path that sets the round's pace.
      activities: of all devices that take part.
      sent: of all links.
      num_kinds: static number of device classes.
    """
    each = [jnp.broadcast_arrays(one.devices.kind, one.joules()) for one in activities]
    kind, joules = (jnp.concatenate([x.ravel() for x in both]) for both in zip(*each, strict=True))
    energy_j = jnp.zeros(num_kinds).at[kind].add(joules)
    return RoundCost(phase_s, count_bytes(sent), energy_j)


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
