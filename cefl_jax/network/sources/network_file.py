"""A user's own computing power network, from a file."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cefl_jax.network.sources.assembly import NOISE_W_PER_HZ, Plan, Sites, to_network
from cefl_jax.network.sources.devices import CLASSES, DeviceClass
from cefl_jax.network.sources.document import (
    DocumentError,
    check_keys,
    check_list,
    check_number,
    read_document,
    show_key,
    suggest,
)
from cefl_jax.network.sources.file_links import measured_snr, modelled_snr
from cefl_jax.network.topology import Network
from cefl_jax.safe_read import expand_user, one_line, show

MOST_CLIENTS = 10_000_000
MOST_KM = 1e6  # of a coordinate

DEVICE_FIELDS = tuple(field.name for field in dataclasses.fields(DeviceClass))


class _Entries(NamedTuple):
    """Devices of one role as the file lists them."""

    names: list  # str, of the classes
    km: list  # pairs
    counts: list  # devices of an entry
    backhaul_bps: list


def read_network(
    path: str | Path | None, num_clients: int, num_edges: int
) -> tuple[Network, tuple[str, ...]]:
    """Reads the description of a network, and checks all of it.

    The file is JSON (*.json) or YAML (*.yaml, *.yml; slower to read), here in YAML:

        devices:                  # optional: classes of your own, by name
          camera: {flop_per_s: 2e9, idle_w: 1, busy_w: 3, bandwidth_hz: 5e6, transmit_w: 0.1}
        clients:                  # groups of clients that are alike and in one place
          - {device: camera, position_km: [0.1, 0.2], count: 2}
          - {device: phone, position_km: [-0.3, 0]}           # count: 1
        edges:                    # edge nodes
          - {device: edge_server, position_km: [0.2, 0.1], backhaul_bps: 1e9}
        front: {device: edge_server, position_km: [0, 0], backhaul_bps: 1e9}
        cloud: {device: cloud_accelerator}
        links:                    # optional: measured rates in place of the path-loss model,
          up_bps: [[5e6, 2e6], [5e6, 3e6], [9e6, 8e6]]  # a row for each client in the order of
          down_bps: [[9e6, 4e6], [9e6, 5e6], [2e7, 1e7]]  # the groups, a column for each edge
                                  # node, and the last column for `front`
        # noise_w_per_hz: 4e-21   # optional: noise density in the path-loss model

    `device` names a class of the file or one of `devices.CLASSES`; the five fields of a class are
    those of `DeviceClass`, all of them needed. A client needs a bandwidth. Where rates are
    modelled, clients, edge nodes and front need a power to transmit with; where they are measured,
    they become signal-to-noise ratios 2^(rate / bandwidth) - 1, which shadow fading then changes.

    Args:
      path: network.path, the file.
      num_clients: N.
      num_edges: E.
    Returns:
      Network of NumPy arrays, f32 and `kind` i32, and the device names that kinds index,
      in the order in which the file first uses them.
    Raises:
      ValueError: for a file that is missing, unreadable or not as above, and for other numbers of
        clients or edge nodes than the settings'.
    """
    if not path:
        raise ValueError(f"network.path={path!r}: name the JSON or YAML file of the network")
    path = expand_user(path)
    try:
        document = read_document(path)
        check_keys(
            document,
            "",
            ("clients", "edges", "front", "cloud"),
            ("devices", "noise_w_per_hz", "links"),
        )
        plan = _plan(path, document, num_clients, num_edges)
        snr = _snr(document, plan)
    except DocumentError as error:
        raise ValueError(one_line(f"network.path={path}: {error}")) from error
    return to_network(plan, *snr), tuple(plan.classes)


def _plan(path, document, num_clients, num_edges):
    classes = CLASSES | _own_classes(document.get("devices", {}))
    clients = _entries(document["clients"], "clients", classes, optional=("count",))
    edges = _entries(document["edges"], "edges", classes, required=("backhaul_bps",))
    front = _entry(document["front"], "front", classes, ("position_km", "backhaul_bps"))
    cloud = _entry(document["cloud"], "cloud", classes)
    _check_counts(path, sum(clients.counts), len(edges.names), num_clients, num_edges)
    for group, name in enumerate(clients.names):
        if not classes[name].bandwidth_hz:
            raise DocumentError(
                f"clients[{group}].device={show(name)} has bandwidth_hz=0, and a client needs one; "
                "name another class"
            )
    names = [*clients.names, *edges.names, front["device"], cloud["device"]]
    used = {name: classes[name] for name in names}
    kinds = {name: kind for kind, name in enumerate(used)}
    kind_of = lambda names: np.array([kinds[name] for name in names])  # noqa: E731
    return Plan(
        classes=used,
        clients=Sites(
            np.repeat(kind_of(clients.names), clients.counts),
            np.repeat(np.array(clients.km, np.float64), clients.counts, axis=0),
        ),
        edges=Sites(kind_of(edges.names), np.array(edges.km, np.float64)),
        front=Sites(kinds[front["device"]], np.array(front["position_km"], np.float64)),
        cloud=kinds[cloud["device"]],
        backhaul_bps=np.array([*edges.backhaul_bps, front["backhaul_bps"]], np.float64),
    )


def _own_classes(devices):
    if not isinstance(devices, dict):
        raise DocumentError(f"devices={show(devices)} needs to be a mapping of names to classes")
    for name, fields in devices.items():
        where = f"devices.{show_key(name)}"
        if not isinstance(name, str) or not name or not name.isprintable():
            raise DocumentError(f"{where} needs a name that is text in one line")
        if name in CLASSES:
            raise DocumentError(f"{where} is a class that exists; give yours another name")
        check_keys(fields, where, DEVICE_FIELDS)
        for field in DEVICE_FIELDS:
            check_number(fields[field], f"{where}.{field}", zero=field != "flop_per_s")
        if fields["busy_w"] < fields["idle_w"]:
            raise DocumentError(
                f"{where}.busy_w={fields['busy_w']} is less than idle_w={fields['idle_w']}; it is "
                "all that the device draws while computing"
            )
    return {name: DeviceClass(**fields) for name, fields in devices.items()}


def _entries(value, where, classes, required=(), optional=()):
    check_list(value, where)
    made = [
        _entry(entry, f"{where}[{index}]", classes, ("position_km", *required), optional)
        for index, entry in enumerate(value)
    ]
    return _Entries(
        names=[entry["device"] for entry in made],
        km=[entry["position_km"] for entry in made],
        counts=[entry.get("count", 1) for entry in made],
        backhaul_bps=[entry.get("backhaul_bps") for entry in made],
    )


def _entry(value, where, classes, required=(), optional=()):
    check_keys(value, where, ("device", *required), optional)
    name = value["device"]
    if not isinstance(name, str) or name not in classes:
        raise DocumentError(f"{where}.device={show(name)} is unknown; {suggest(name, classes)}")
    if "position_km" in value:
        _check_position(value["position_km"], f"{where}.position_km")
    if "backhaul_bps" in value:
        check_number(value["backhaul_bps"], f"{where}.backhaul_bps")
    count = value.get("count", 1)
    if type(count) is not int or not 1 <= count <= MOST_CLIENTS:
        raise DocumentError(
            f"{where}.count={show(count)} needs to be a whole number from 1 to {MOST_CLIENTS}"
        )
    return value


def _check_position(value, where):
    fits = isinstance(value, list) and len(value) == 2
    if not fits or not all(type(x) in (int, float) and abs(x) <= MOST_KM for x in value):
        raise DocumentError(
            f"{where}={show(value)} needs to be a pair [x, y] of numbers within {MOST_KM:g}"
        )


def _check_counts(path, clients, edges, num_clients, num_edges):
    if clients > MOST_CLIENTS:
        raise DocumentError(f"describes {clients} clients, and {MOST_CLIENTS} is the most")
    if clients != num_clients:
        raise ValueError(
            f"data.partition.num_clients={num_clients}: network.path={path} describes {clients} "
            f"clients; set it to {clients}, or correct the counts in the file"
        )
    if edges != num_edges:
        raise ValueError(
            f"network.num_edges={num_edges}: network.path={path} describes {edges} edge nodes; "
            f"set it to {edges}"
        )


def _snr(document, plan):
    if "links" not in document:
        noise_w_per_hz = document.get("noise_w_per_hz", NOISE_W_PER_HZ)
        check_number(noise_w_per_hz, "noise_w_per_hz")
        return modelled_snr(plan, noise_w_per_hz)
    if "noise_w_per_hz" in document:
        raise DocumentError("noise_w_per_hz is not read where links are measured; remove it")
    return measured_snr(document["links"], plan)
