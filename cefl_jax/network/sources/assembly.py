"""From devices at places to a network; and classes of devices, each with the source of its numbers.

A speed is what float32 training sustains. Where a source gives only the peak, the share of it that
training reaches is assumed and said: 0.3 of a GPU, 0.5 of one whose peak counts no tensor cores and
that runs large batches, less of a CPU. `idle_w` and `busy_w` are of the whole device unless said.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Real

from cefl_jax.network.channel import path_gain
from cefl_jax.network.topology import Devices, Network

NOISE_W_PER_HZ = 3.981e-21  # thermal noise at 290 K, -174 dBm/Hz
NEAREST_KM = 0.035  # least distance to a site in the path-loss model (3GPP TR 36.814)
BLOCK = 2**16  # clients whose links are computed at once


@dataclasses.dataclass(frozen=True)
class DeviceClass:
    """What all devices of a class have in common."""

    flop_per_s: float  # sustained while training
    idle_w: float  # drawn while waiting
    busy_w: float  # drawn while computing
    bandwidth_hz: float  # of a client's links, each way; not read of a server; 0: no radio
    transmit_w: float  # radiated while sending, on top of either; 0: no radio


# Radios of LTE by 3GPP TS 36.101: carriers of 10 and 20 MHz, 23 dBm of power class 3; category M1
# with 6 resource blocks of 180 kHz and 20 dBm of power class 5. TR 36.814: pico cell, 30 dBm.
LTE, WIDE_LTE, LTE_M1 = (10e6, 0.2), (20e6, 0.2), (1.08e6, 0.1)
PICO_CELL = (20e6, 1.0)
WIRED = (0.0, 0.0)

CLASSES = {
    # Espressif ESP32: two cores of 240 MHz with one multiply-add a cycle, 0.05 assumed. Data sheet,
    # current consumption in modem sleep at 3.3 V: 20 mA at 80 MHz, 68 mA at 240 MHz.
    "microcontroller": DeviceClass(48e6, 0.066, 0.22, *LTE_M1),
    # 8 GFLOP/s of Linpack in float64 (Feiereisen 2022, "Benchmarking the Raspberry Pi 4 with
    # Raspberry Pi OS64"); twice that in float32 and 0.5 of it in training, both assumed.
    # 2.1 W and 6.41 W: measured by Halfacree, The MagPi 88 (2019), "Thermal testing".
    "raspberry_pi_4": DeviceClass(8e9, 2.1, 6.4, *LTE),
    # NVIDIA data sheet: 128 cores, 921.6 MHz, so 236 GFLOP/s, 0.3 assumed; 10 W mode. Idle:
    # assumed.
    "jetson_nano": DeviceClass(70e9, 2.0, 10.0, *WIDE_LTE),
    # NVIDIA data sheet: 384 cores, 1.1 GHz, so 845 GFLOP/s, 0.3 assumed; 15 W mode. Idle:
    # assumed.
    "jetson_xavier_nx": DeviceClass(250e9, 4.0, 15.0, *WIDE_LTE),
    # NVIDIA data sheet: 1024 cores, 625 MHz, so 1.28 TFLOP/s, 0.3 assumed; 15 W mode. Idle:
    # assumed.
    "jetson_orin_nano": DeviceClass(380e9, 4.0, 15.0, *WIDE_LTE),
    # One Cortex-A77 at 2.42 GHz (Snapdragon 865): two 128-bit multiply-adds a cycle, so
    # 38.7 GFLOP/s, 0.13 assumed. Both powers: assumed.
    "phone_core": DeviceClass(5e9, 0.5, 2.0, *LTE),
    # Four of these cores, 155 GFLOP/s, 0.13 assumed. 4 W: a warm phone under load (AnandTech 2019,
    # "Snapdragon 865 performance preview": 3.83 W of an iPhone 11 Pro). Idle: assumed.
    "phone": DeviceClass(20e9, 0.5, 4.0, *WIDE_LTE),
    # Eight cores of 3 GHz with two AVX2 multiply-adds a cycle, so 768 GFLOP/s, 0.15 assumed; 45 W
    # of processors for such laptops, and 10 W for the rest of it, assumed. Idle: assumed.
    "laptop": DeviceClass(115e9, 8.0, 55.0, *WIDE_LTE),
    # NVIDIA GeForce RTX 3060: 12.7 TFLOP/s, 0.3 assumed; 170 W of the card (NVIDIA) and 80 W for
    # the rest, assumed. Idle: assumed.
    "workstation": DeviceClass(3.8e12, 60.0, 250.0, *WIDE_LTE),
    # NVIDIA Jetson AGX Orin data sheet: 2048 cores, 1.3 GHz, so 5.3 TFLOP/s, 0.3 assumed; 60 W
    # mode. Idle: assumed.
    "jetson_agx_orin": DeviceClass(1.6e12, 10.0, 60.0, *PICO_CELL),
    # Sixteen cores of 2.5 GHz with two AVX-512 multiply-adds a cycle, so 2.56 TFLOP/s, 0.2 assumed.
    # Both powers: assumed.
    "edge_cpu_server": DeviceClass(500e9, 70.0, 200.0, *PICO_CELL),
    # NVIDIA T4 data sheet: 8.1 TFLOP/s, 70 W; 0.5 assumed, for it throttles at this power (Jia et
    # al. 2019, "Dissecting the NVidia Turing T4 GPU"). The server around it, 70 and 100 W: assumed.
    "edge_server": DeviceClass(4e12, 80.0, 170.0, *PICO_CELL),
    # NVIDIA A100 SXM data sheet: 19.5 TFLOP/s without tensor cores, 400 W; 0.5 assumed. Idle:
    # assumed. The accelerator alone.
    "cloud_accelerator": DeviceClass(10e12, 50.0, 400.0, *WIRED),
}


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
) -> tuple[Float32[np.ndarray, "N servers"], Float32[np.ndarray, "N servers"]]:
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
    kind, power = np.asarray(plan.clients.kind), _of(plan, "transmit_w")
    noise_w = noise_w_per_hz * _of(plan, "bandwidth_hz")
    up, down = np.empty((2, len(kind), len(server_km)), np.float32)
    for first in range(0, len(kind), BLOCK):
        block = slice(first, first + BLOCK)
        offset = plan.clients.km[block, None] - server_km
        distance = np.maximum(np.hypot(offset[..., 0], offset[..., 1]), NEAREST_KM)
        gain = np.asarray(path_gain(distance), np.float64)
        noise = noise_w[kind[block]][:, None]
        with np.errstate(over="ignore"):  # of a file's numbers, which are checked next
            up[block] = power[kind[block]][:, None] * gain / noise
            down[block] = power[np.append(plan.edges.kind, plan.front.kind)] * gain / noise
    return up, down


def to_network(
    plan: Plan, up_snr: Real[np.ndarray, "N servers"], down_snr: Real[np.ndarray, "N servers"]
) -> Network:
    """Returns the network of a plan and the signal-to-noise ratios of its links.

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


def _single(values: Any) -> Any:
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
