"""From devices at places to a network."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Real

from cefl_jax.network.channel import path_gain
from cefl_jax.network.topology import Devices, Network

NOISE_W_PER_HZ = 3.981e-21  # thermal noise at 290 K, -174 dBm/Hz
NEAREST_KM = 0.035  # least distance to a site in the path-loss model (3GPP TR 36.814)


class Sites(NamedTuple):
    """Devices of one role and where they are."""

    kind: int | np.ndarray  # i32[...] index into the classes of the plan
    km: np.ndarray  # f64[..., 2] position


class Plan(NamedTuple):
    """Which device is where."""

    classes: dict  # name -> DeviceClass, in the order that kinds count
    clients: Sites  # [N]
    edges: Sites  # [E]
    front: Sites  # []
    cloud: int  # its kind
    backhaul_bps: np.ndarray  # f64[E + 1] between server and cloud; the last is the front's


def mean_snr(
    plan: Plan, noise_w_per_hz: float = NOISE_W_PER_HZ
) -> tuple[Float64[np.ndarray, "N servers"], Float64[np.ndarray, "N servers"]]:
    """Signal-to-noise ratios of all links by the path loss of an urban macro cell.

    A link has its client's bandwidth each way, and its sender's power. Devices closer than
    `NEAREST_KM` count as that far apart.

    Args:
      plan: Plan.
      noise_w_per_hz: noise density.
    Returns:
      Up and down; the last column is the front aggregation server's.
    """
    server_km = np.vstack([plan.edges.km, plan.front.km])
    (east, north), (server_east, server_north) = plan.clients.km.T, server_km.T
    distance = np.hypot(east[:, None] - server_east, north[:, None] - server_north)
    gain = np.asarray(path_gain(np.maximum(distance, NEAREST_KM)), np.float64)
    power = _of(plan, "transmit_w")
    noise_w = noise_w_per_hz * _of(plan, "bandwidth_hz")[plan.clients.kind][:, None]
    up = power[plan.clients.kind][:, None] * gain / noise_w
    down = power[np.append(plan.edges.kind, plan.front.kind)] * gain / noise_w
    return up, down


def to_network(
    plan: Plan, up_snr: Real[np.ndarray, "N servers"], down_snr: Real[np.ndarray, "N servers"]
) -> Network:
    """The network of a plan and the signal-to-noise ratios of its links.

    Args:
      plan: Plan.
      up_snr: f64[N, E + 1] client to server.
      down_snr: f64[N, E + 1] and back.
    Returns:
      Network of NumPy arrays, f32 and `kind` i32.
    """
    return Network(
        clients=_devices(plan, plan.clients.kind),
        edges=_devices(plan, plan.edges.kind),
        front=_devices(plan, plan.front.kind),
        cloud=_devices(plan, plan.cloud),
        client_km=_single(plan.clients.km),
        edge_km=_single(plan.edges.km),
        front_km=_single(plan.front.km),
        bandwidth_hz=_single(_of(plan, "bandwidth_hz")[plan.clients.kind]),
        up_snr=_single(up_snr),
        down_snr=_single(down_snr),
        backhaul_bps=_single(plan.backhaul_bps),
    )


def _single(values) -> Any:
    """A NumPy array f32, which stands for one on a device until the run begins."""
    return np.asarray(values, np.float32)


def _devices(plan, kind):
    kinds: Any = np.asarray(kind, np.int32)
    flop_per_s, idle_w, busy_w, transmit_w = (
        _single(_of(plan, field)[kind])
        for field in ("flop_per_s", "idle_w", "busy_w", "transmit_w")
    )
    return Devices(flop_per_s, idle_w, busy_w, transmit_w, kinds)


def _of(plan, field):
    """A field of every class, f64[classes]."""
    return np.array([getattr(device, field) for device in plan.classes.values()], np.float64)
