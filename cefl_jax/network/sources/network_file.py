"""A user's own computing power network, from a file that is checked entry by entry.

Every complaint is one line that names the file and the entry, as in `edges[1].device`.
"""

import dataclasses
import difflib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from cefl_jax.network.sources.assembly import (
    CLASSES,
    NOISE_W_PER_HZ,
    DeviceClass,
    Plan,
    Sites,
    mean_snr,
    to_network,
)
from cefl_jax.network.topology import Network
from cefl_jax.safe_read import (
    InputFileError,
    decode,
    expand_user,
    one_line,
    parse_json,
    read_bytes,
    show,
)

MAX_BYTES = 50_000_000
MAX_YAML_BYTES = 5_000_000  # a minute to read
MAX_CLIENTS = 10_000_000
MAX_KM = 1e6  # of a coordinate
MAX_NAMES = 30  # in a message
MIN_NUMBER, MAX_NUMBER = 1e-25, 1e25  # float32 holds it, and 100 dB of fading more

DEVICE_FIELDS = tuple(field.name for field in dataclasses.fields(DeviceClass))
DIRECTIONS = {"up_bps": "to", "down_bps": "from"}


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

    `device` names a class of the file or one of `assembly.CLASSES`; the five fields of a class are
    those of `DeviceClass`, all of them needed. A client needs a bandwidth. Where rates are
    modelled, clients, edge nodes and front need a power to transmit with; where they are measured,
    they become signal-to-noise ratios 2^(rate / bandwidth) - 1, which shadow fading then changes.

    YAML is read as numbers, texts, lists and mappings with texts as keys, whatever its tags say; a
    number is one of JSON, such as 5e9.

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
        document = _read_document(path)
        _check_keys(
            document,
            "",
            ("clients", "edges", "front", "cloud"),
            ("devices", "noise_w_per_hz", "links"),
        )
        plan = _plan(path, document, num_clients, num_edges)
        snr = _links(document, plan)
    except InputFileError as error:
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
            raise InputFileError(
                f"clients[{group}].device={show(name)} has bandwidth_hz=0, and a client needs one; "
                "name another class"
            )
    names = [*clients.names, *edges.names, front["device"], cloud["device"]]
    used = {name: classes[name] for name in names}
    kinds = {name: kind for kind, name in enumerate(used)}

    def kind_of(names):
        return np.array([kinds[name] for name in names])

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
        raise InputFileError(f"devices={show(devices)} needs to be a mapping of names to classes")
    for name, fields in devices.items():
        where = f"devices.{_show_key(name)}"
        if not isinstance(name, str) or not name or not name.isprintable():
            raise InputFileError(f"{where} needs a name that is text in one line")
        if name in CLASSES:
            raise InputFileError(f"{where} is a class that exists; give yours another name")
        _check_keys(fields, where, DEVICE_FIELDS)
        for field in DEVICE_FIELDS:
            _check_number(fields[field], f"{where}.{field}", zero=field != "flop_per_s")
        if fields["busy_w"] < fields["idle_w"]:
            raise InputFileError(
                f"{where}.busy_w={fields['busy_w']} is less than idle_w={fields['idle_w']}; it is "
                "all that the device draws while computing"
            )
    return {name: DeviceClass(**fields) for name, fields in devices.items()}


def _entries(value, where, classes, required=(), optional=()):
    _check_list(value, where)
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
    _check_keys(value, where, ("device", *required), optional)
    name = value["device"]
    if not isinstance(name, str) or name not in classes:
        raise InputFileError(f"{where}.device={show(name)} is unknown; {_suggest(name, classes)}")
    if "position_km" in value:
        _check_position(value["position_km"], f"{where}.position_km")
    if "backhaul_bps" in value:
        _check_number(value["backhaul_bps"], f"{where}.backhaul_bps")
    count = value.get("count", 1)
    if type(count) is not int or not 1 <= count <= MAX_CLIENTS:
        raise InputFileError(
            f"{where}.count={show(count)} needs to be a whole number from 1 to {MAX_CLIENTS}"
        )
    return value


def _check_position(value, where):
    fits = isinstance(value, list) and len(value) == 2
    if not fits or not all(type(x) in (int, float) and abs(x) <= MAX_KM for x in value):
        raise InputFileError(
            f"{where}={show(value)} needs to be a pair [x, y] of numbers within {MAX_KM:g}"
        )


def _check_counts(path, clients, edges, num_clients, num_edges):
    if clients > MAX_CLIENTS:
        raise InputFileError(f"describes {clients} clients, and {MAX_CLIENTS} is the most")
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


def _links(document, plan):
    """Signal-to-noise ratios up and down, by the path-loss model or of the measured rates."""
    bandwidth_hz = np.array([device.bandwidth_hz for device in plan.classes.values()], np.float64)
    bandwidth_hz = bandwidth_hz[plan.clients.kind][:, None]
    if "links" in document:
        if "noise_w_per_hz" in document:
            raise InputFileError("noise_w_per_hz is not read where links are measured; remove it")
        _check_keys(document["links"], "links", tuple(DIRECTIONS))
        rates = [_rates(document["links"][name], f"links.{name}", plan) for name in DIRECTIONS]
        with np.errstate(over="ignore"):  # an infinite ratio is refused below
            links = tuple(np.expm1(rate / bandwidth_hz * np.log(2)) for rate in rates)
        remedy = "its rate, or the client's bandwidth_hz"
    else:
        noise_w_per_hz = document.get("noise_w_per_hz", NOISE_W_PER_HZ)
        _check_number(noise_w_per_hz, "noise_w_per_hz")
        links = mean_snr(plan, noise_w_per_hz)
        remedy = "transmit_w, bandwidth_hz or position_km of one of them, or noise_w_per_hz"
    for direction, snr in zip(DIRECTIONS.values(), links, strict=True):
        for what, values in (
            ("signal-to-noise ratio", snr),
            ("rate in bit/s", bandwidth_hz * np.log1p(snr) / np.log(2)),
        ):
            wrong = ~((values >= MIN_NUMBER) & (values <= MAX_NUMBER))
            if wrong.any():
                client, server = np.unravel_index(wrong.argmax(), wrong.shape)
                name = "front" if server == snr.shape[1] - 1 else f"edges[{server}]"
                raise InputFileError(
                    f"client {client} has a link {direction} {name} with the {what} "
                    f"{values[client, server]:g}, which needs to be from {MIN_NUMBER:g} to "
                    f"{MAX_NUMBER:g}; change {remedy}"
                )
    return links


def _rates(rows, where, plan):
    """f64[N, E + 1] of lists of positive numbers."""
    num_clients, num_servers = len(plan.clients.kind), len(plan.backhaul_bps)
    _check_list(rows, where, num_clients)
    for client, row in enumerate(rows):
        _check_list(row, f"{where}[{client}]", num_servers)
        for server, rate in enumerate(row):
            _check_number(rate, f"{where}[{client}][{server}]")
    return np.array(rows, np.float64)


def _check_keys(value, where, required, optional=()):
    """Refuses anything but a mapping of the required and some optional keys."""
    known = (*required, *optional)
    if not isinstance(value, dict):
        raise InputFileError(
            f"{where or 'the file'} is {show(value)}, and needs to be a mapping of "
            f"{', '.join(known)}"
        )
    inside = f"{where}." if where else ""
    for key in value:
        if key not in known:
            raise InputFileError(f"{inside}{_show_key(key)} is unknown; {_suggest(key, known)}")
    for key in required:
        if key not in value:
            raise InputFileError(f"{inside}{key} is missing; add it")


def _check_list(value, where, length=None):
    """Refuses anything but a list of at least one entry, or of `length`."""
    wanted = "at least one" if length is None else length
    if not isinstance(value, list):
        raise InputFileError(f"{where}={show(value)} needs to be a list of {wanted} entries")
    if not value or (length is not None and len(value) != length):
        raise InputFileError(f"{where} has {len(value)} entries, and needs {wanted}; correct it")


def _check_number(value, where, zero=False):
    """Refuses anything but a number in the range, or 0 where it may be."""
    if type(value) not in (int, float):  # true is an int, but no number
        raise InputFileError(f"{where}={show(value)} needs to be a number")
    if not MIN_NUMBER <= value <= MAX_NUMBER and not (zero and value == 0):  # nor is nan
        wanted = "0, or " if zero else ""
        raise InputFileError(
            f"{where}={show(value)} needs to be {wanted}from {MIN_NUMBER:g} to {MAX_NUMBER:g}; "
            "correct it"
        )


def _suggest(name, known):
    """The names that there are, the one closest to `name` first."""
    close = difflib.get_close_matches(name[:40], known, 1) if isinstance(name, str) else ()
    hint = f"did you mean {_show_key(close[0])}? " if close else ""
    first = ", ".join(map(_show_key, [*known][:MAX_NAMES]))
    return f"{hint}known: {first}{', ...' if len(known) > MAX_NAMES else ''}"


def _show_key(key):
    """A key in an error message, as `show` shows a value."""
    return key if isinstance(key, str) and key.isidentifier() and len(key) <= 40 else show(key)


def _read_document(path):
    """The content of a *.json, *.yaml or *.yml file as dicts, lists, texts and numbers."""
    kind = Path(path).suffix.lower()
    if kind not in (".json", ".yaml", ".yml"):
        raise InputFileError("its name needs to end in .json, .yaml or .yml; rename it")
    if kind == ".json":
        return parse_json(read_bytes(path, MAX_BYTES))
    text = decode(read_bytes(path, MAX_YAML_BYTES))
    try:
        return yaml.load(text, _PlainLoader)
    except RecursionError as error:
        raise InputFileError("is nested too deeply; write it flatter") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
        reason = " ".join(str(error).split())
        raise InputFileError(f"cannot be read as YAML: {reason:.200}; correct it") from error


class _PlainLoader(yaml.BaseLoader):
    """Lists, mappings with texts as keys, texts and numbers: no tags, no merges."""

    def construct_scalar(self, node):
        text = super().construct_scalar(node)
        if node.style is None and (number := _NUMBER.fullmatch(text)):  # None: not in quotes
            return int(text) if number["whole"] else float(text)
        return text

    def construct_mapping(self, node, deep=False):
        for key, _ in node.value:
            if not isinstance(self.construct_object(key), str):
                raise yaml.YAMLError(
                    f"the key in line {key.start_mark.line + 1} is no text: put it in quotes"
                )
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            raise yaml.YAMLError(
                f"a key is given twice in the mapping of line {node.start_mark.line + 1}"
            )
        return made


_NUMBER = re.compile(r"(?P<whole>[-+]?[0-9]+)|[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
