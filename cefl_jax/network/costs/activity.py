"""What a round costs, whatever its traffic: who does what for how long, and what is sent."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from cefl_jax.network.ledger import RoundCost
from cefl_jax.network.messages import Sent, count_bytes
from cefl_jax.network.schedule import PHASES
from cefl_jax.network.topology import Devices


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
    energy_j = jnp.zeros(num_kinds)
    for activity in activities:
        energy_j = energy_j.at[activity.devices.kind].add(activity.joules())
    return RoundCost(phase_s, count_bytes(sent), energy_j)
