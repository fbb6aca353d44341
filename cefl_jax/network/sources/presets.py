"""The computing power network that the settings name."""

import dataclasses

import numpy as np

from cefl_jax.network.sources.assembly import (
    CLASSES,
    DeviceClass,
    Plan,
    Sites,
    mean_snr,
    to_network,
)
from cefl_jax.network.sources.network_file import read_network
from cefl_jax.network.topology import Network
from cefl_jax.specs import NetworkSpec

PRESETS = ("cellular", "uniform", "hierfavg", "device_zoo", "file")

CELL_RADIUS_KM = 0.5  # urban macro inter-site distance of 500 m and more (3GPP TR 36.814)
BACKHAUL_BPS = 1e9  # assumed: gigabit Ethernet from every server to the cloud

CELL = {name: CLASSES[name] for name in ("phone_core", "edge_cpu_server", "cloud_accelerator")}
CELL_SPREAD = (0.4, 1.6)  # cellular draws speeds between these times their class's, assumed

# Percent of the devices, assumed.
CLIENT_MIX = {
    "microcontroller": 5,
    "raspberry_pi_4": 15,
    "jetson_nano": 15,
    "jetson_xavier_nx": 10,
    "phone": 50,
    "workstation": 5,
}
EDGE_MIX = {"edge_cpu_server": 40, "edge_server": 40, "jetson_agx_orin": 20}

# Liu et al., "Client-Edge-Cloud Hierarchical Federated Learning", ICC 2020, table I and section IV.
HIERFAVG_HZ, HIERFAVG_W = 1e6, 0.5  # bandwidth and power of a transmission
HIERFAVG_SNR = 1e-8 * HIERFAVG_W / 1e-10  # channel gain 1e-8, noise 1e-10 W
HIERFAVG_CYCLES_PER_S = 1e9
HIERFAVG_BUSY_W = 2e-28 / 2 * HIERFAVG_CYCLES_PER_S**3  # (alpha / 2) c D f^2 joules in c D / f s
HIERFAVG_CLOUD_DELAY = 10  # times as long to the cloud as to an edge node
FLOP_PER_CYCLE = 1  # assumed: the paper counts cycles a bit, not FLOP
HIERFAVG = {  # the paper counts neither time nor energy of servers; cellular's are assumed
    "hierfavg_client": DeviceClass(
        FLOP_PER_CYCLE * HIERFAVG_CYCLES_PER_S, 0.0, HIERFAVG_BUSY_W, HIERFAVG_HZ, HIERFAVG_W
    ),
    "hierfavg_edge": dataclasses.replace(
        CLASSES["edge_cpu_server"], bandwidth_hz=HIERFAVG_HZ, transmit_w=HIERFAVG_W
    ),
    "cloud_accelerator": CLASSES["cloud_accelerator"],
}


def make_network(spec: NetworkSpec, num_clients: int, seed: int) -> tuple[Network, tuple[str, ...]]:
    """Returns the network that the settings name.

    `cellular`: clients and edge nodes uniform in a disc of `CELL_RADIUS_KM`, the front aggregation
    server at its centre, urban macro path loss, speeds drawn log-uniformly. `uniform`: every client
    at half the radius from every server, the devices of a role alike. `hierfavg`: the radio and
    the clients of Liu et al.; places of `uniform`. `device_zoo`: places and path loss of
    `cellular`, device classes mixed by `CLIENT_MIX` and `EDGE_MIX`. `file`: what `spec.path`
    describes. `uniform`, `hierfavg` and `file` are the same for all seeds.

    Args:
      spec: NetworkSpec.
      num_clients: N.
      seed: of places and speeds.
    Returns:
      Network of NumPy arrays, f32 and `kind` i32, and the device names that kinds index.
    Raises:
      ValueError: for an unknown preset, or a file that is not as it needs to be.
    Reference:
      Liu, Zhang, Song, Letaief, ICC 2020, table I.
    """
    rng = np.random.default_rng([seed, 0x4E4554])  # a stream apart from the partition's
    match spec.preset:
        case "cellular":
            return _cellular(rng, num_clients, spec.num_edges), tuple(CELL)
        case "uniform":
            plan = _uniform(CELL, num_clients, spec.num_edges, BACKHAUL_BPS)
        case "hierfavg":
            return _hierfavg(num_clients, spec.num_edges), tuple(HIERFAVG)
        case "device_zoo":
            plan = _device_zoo(rng, num_clients, spec.num_edges)
        case "file":
            return read_network(spec.path, num_clients, spec.num_edges)
        case _:
            raise ValueError(
                f"network.preset={spec.preset!r} is unknown; known: {', '.join(PRESETS)}"
            )
    return to_network(plan, *mean_snr(plan)), tuple(plan.classes)


def _cellular(rng, num_clients, num_edges):
    plan = _uniform(CELL, num_clients, num_edges, BACKHAUL_BPS)
    edge_km, client_km = _places(rng, num_edges), _places(rng, num_clients)
    plan = plan._replace(
        clients=plan.clients._replace(km=client_km), edges=plan.edges._replace(km=edge_km)
    )
    network = to_network(plan, *mean_snr(plan))
    return network._replace(
        clients=_of_various_speeds(rng, network.clients, CELL["phone_core"]),
        edges=_of_various_speeds(rng, network.edges, CELL["edge_cpu_server"]),
    )


def _uniform(classes, num_clients, num_edges, backhaul_bps):
    """Three classes, of client, server and cloud; the servers in one place, the clients in one."""
    return Plan(
        classes=classes,
        clients=Sites(np.full(num_clients, 0), np.full((num_clients, 2), [CELL_RADIUS_KM / 2, 0])),
        edges=Sites(np.full(num_edges, 1), np.zeros((num_edges, 2))),
        front=Sites(1, np.zeros(2)),
        cloud=2,
        backhaul_bps=np.full(num_edges + 1, backhaul_bps),
    )


def _hierfavg(num_clients, num_edges):
    rate = HIERFAVG_HZ * np.log2(1 + HIERFAVG_SNR)
    plan = _uniform(HIERFAVG, num_clients, num_edges, rate / HIERFAVG_CLOUD_DELAY)
    snr = np.full((num_clients, num_edges + 1), HIERFAVG_SNR)
    return to_network(plan, snr, snr)


def _device_zoo(rng, num_clients, num_edges):
    edge_km, client_km = _places(rng, num_edges), _places(rng, num_clients)
    names = (*CLIENT_MIX, *EDGE_MIX, "cloud_accelerator")
    return Plan(
        classes={name: CLASSES[name] for name in names},
        clients=Sites(_mix(rng, CLIENT_MIX, num_clients), client_km),
        edges=Sites(len(CLIENT_MIX) + _mix(rng, EDGE_MIX, num_edges), edge_km),
        front=Sites(names.index("edge_server"), np.zeros(2)),
        cloud=names.index("cloud_accelerator"),
        backhaul_bps=np.full(num_edges + 1, BACKHAUL_BPS),
    )


def _mix(rng, percent, count):
    """Shuffled kinds i64[count], each as often as its share by largest remainder; ties: first."""
    whole, rest = np.divmod(np.array([*percent.values()]) * count, 100)
    most_left = np.argsort(-rest, kind="stable")[: count - whole.sum()]
    whole[most_left] += 1
    return rng.permutation(np.repeat(np.arange(len(whole)), whole))


def _of_various_speeds(rng, devices, device_class):
    low, high = np.log(CELL_SPREAD)
    times = np.exp(rng.uniform(low, high, devices.flop_per_s.shape))
    return devices._replace(flop_per_s=np.asarray(device_class.flop_per_s * times, np.float32))


def _places(rng, count):
    """Points f64[count, 2] uniform in the disc, km."""
    radius = CELL_RADIUS_KM * np.sqrt(rng.uniform(size=count))
    angle = rng.uniform(0, 2 * np.pi, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
