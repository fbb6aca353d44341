"""A user's own computing power network, from a file that is checked entry by entry.

Every complaint is one line that names the file and the entry, as in `edges[1].device`.
"""

import dataclasses
import difflib
import functools
import re
from pathlib import Path

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
REQUIRED, OPTIONAL = ("clients", "edges", "front", "cloud"), ("devices", "noise_w_per_hz", "links")


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
        _check_keys(document, "", REQUIRED, OPTIONAL)
        classes = CLASSES | _own_classes(document.get("devices", {}))
        _check_document(document, classes)
        _check_counts(path, document, num_clients, num_edges)
        plan = _plan(document, classes)
        snr = _links(document, plan)
    except InputFileError as error:
        raise ValueError(one_line(f"network.path={path}: {error}")) from error
    return to_network(plan, *snr), tuple(plan.classes)


def _own_classes(devices):
    """The classes that a file defines, by name."""
    if not isinstance(devices, dict):
        raise InputFileError(f"devices={show(devices)} needs to be a mapping of names to classes")
    may_be_zero = functools.partial(_check_number, zero=True)
    checks = dict.fromkeys(DEVICE_FIELDS, may_be_zero) | {"flop_per_s": _check_number}
    for name, fields in devices.items():
        where = f"devices.{_show_key(name)}"
        if not isinstance(name, str) or not name or not name.isprintable():
            raise InputFileError(f"{where} needs a name that is text in one line")
        if name in CLASSES:
            raise InputFileError(f"{where} is a class that exists; give yours another name")
        _check_mapping(fields, where, checks)
        if fields["busy_w"] < fields["idle_w"]:
            raise InputFileError(
                f"{where}.busy_w={fields['busy_w']} is less than idle_w={fields['idle_w']}; it is "
                "all that the device draws while computing"
            )
    return {name: DeviceClass(**fields) for name, fields in devices.items()}


def _check_document(document, classes):
    """Refuses a file whose entries are not as `read_network` says; its links are checked later."""
    device = {"device": functools.partial(_check_device, classes=classes)}
    site = device | {"position_km": _check_position}
    server = functools.partial(_check_mapping, required=site | {"backhaul_bps": _check_number})
    group = functools.partial(_check_mapping, required=site, optional={"count": _check_count})
    _check_list(document["clients"], "clients", group)
    _check_list(document["edges"], "edges", server)
    server(document["front"], "front")
    _check_mapping(document["cloud"], "cloud", device)
    for index, clients in enumerate(document["clients"]):
        if not classes[clients["device"]].bandwidth_hz:
            raise InputFileError(
                f"clients[{index}].device={show(clients['device'])} has bandwidth_hz=0, and a "
                "client needs one; name another class"
            )


def _check_counts(path, document, num_clients, num_edges):
    """Refuses other numbers of clients or edge nodes than the settings', and too many of them."""
    clients = sum(group.get("count", 1) for group in document["clients"])
    edges = len(document["edges"])
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


def _plan(document, classes):
    """The Plan of a checked file."""
    groups, edges, front = document["clients"], document["edges"], document["front"]
    names = [entry["device"] for entry in (*groups, *edges, front, document["cloud"])]
    used = {name: classes[name] for name in names}
    kind_of = {name: kind for kind, name in enumerate(used)}
    kinds = np.array([kind_of[name] for name in names])
    counts = [group.get("count", 1) for group in groups]
    km = [np.array([entry["position_km"] for entry in role], float) for role in (groups, edges)]
    return Plan(
        classes=used,
        clients=Sites(np.repeat(kinds[: len(groups)], counts), np.repeat(km[0], counts, axis=0)),
        edges=Sites(kinds[len(groups) : -2], km[1]),
        front=Sites(kinds[-2], np.array(front["position_km"], float)),
        cloud=kinds[-1],
        backhaul_bps=np.array([server["backhaul_bps"] for server in (*edges, front)], float),
    )


def _links(document, plan):
    """Signal-to-noise ratios up and down, by the path-loss model or of the measured rates."""
    bandwidth_hz = np.array([device.bandwidth_hz for device in plan.classes.values()], np.float64)
    bandwidth_hz = bandwidth_hz[plan.clients.kind][:, None]
    if "links" in document:
        if "noise_w_per_hz" in document:
            raise InputFileError("noise_w_per_hz is not read where links are measured; remove it")
        row = functools.partial(_check_list, entry=_check_number, length=len(plan.backhaul_bps))
        rows = functools.partial(_check_list, entry=row, length=len(plan.clients.kind))
        _check_mapping(document["links"], "links", dict.fromkeys(DIRECTIONS, rows))
        rates = [np.array(document["links"][name], np.float64) for name in DIRECTIONS]
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


def _check_mapping(value, where, required, optional=None):
    """Refuses anything but a mapping whose entries pass the checks of their keys."""
    checks = required | (optional or {})
    _check_keys(value, where, tuple(required), tuple(optional or ()))
    for key, check in checks.items():
        if key in value:
            check(value[key], f"{where}.{key}")


def _check_keys(value, where, required, optional):
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


def _check_list(value, where, entry, length=None):
    """Refuses anything but a list of at least one entry, or of `length`, that pass a check."""
    wanted = "at least one" if length is None else length
    if not isinstance(value, list):
        raise InputFileError(f"{where}={show(value)} needs to be a list of {wanted} entries")
    if not value or (length is not None and len(value) != length):
        raise InputFileError(f"{where} has {len(value)} entries, and needs {wanted}; correct it")
    for index, inner in enumerate(value):
        entry(inner, f"{where}[{index}]")


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


def _check_count(value, where):
    if type(value) is not int or not 1 <= value <= MAX_CLIENTS:
        raise InputFileError(
            f"{where}={show(value)} needs to be a whole number from 1 to {MAX_CLIENTS}"
        )


def _check_position(value, where):
    fits = isinstance(value, list) and len(value) == 2
    if not fits or not all(type(x) in (int, float) and abs(x) <= MAX_KM for x in value):
        raise InputFileError(
            f"{where}={show(value)} needs to be a pair [x, y] of numbers within {MAX_KM:g}"
        )


def _check_device(value, where, classes):
    if not isinstance(value, str) or value not in classes:
        raise InputFileError(f"{where}={show(value)} is unknown; {_suggest(value, classes)}")


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
