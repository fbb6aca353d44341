"""A user's own network: what is described is built, and what is wrong is named."""

import copy
import inspect
import json
import os
import pathlib
import textwrap

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.network.sources import network_file
from cefl_jax.network.sources.assembly import CLASSES
from cefl_jax.network.sources.network_file import read_network
from cefl_jax.network.sources.presets import make_network
from cefl_jax.specs import NetworkSpec
from tests.compare import assert_close
from tests.oracles import network as oracle

CAMERA = {"flop_per_s": 2e9, "idle_w": 1, "busy_w": 3, "bandwidth_hz": 5e6, "transmit_w": 0.1}
VALID = {
    "devices": {"camera": CAMERA},
    "clients": [
        {"device": "camera", "position_km": [0.1, 0.2], "count": 2},
        {"device": "phone", "position_km": [-0.3, 0]},
    ],
    "edges": [
        {"device": "edge_server", "position_km": [0.2, 0.1], "backhaul_bps": 1e9},
        {"device": "jetson_agx_orin", "position_km": [-0.3, 0], "backhaul_bps": 2e8},
    ],
    "front": {"device": "edge_server", "position_km": [0, 0.0], "backhaul_bps": 1e10},
    "cloud": {"device": "cloud_accelerator"},
}
LINKS = {
    "up_bps": [[5e6, 2e6, 1], [5e6, 3e6, 2e7], [9e6, 8e6, 4e8]],
    "down_bps": [[9e6, 4e6, 5e5], [9e6, 5e6, 1e6], [2e7, 1e7, 1e5]],
}


def write(folder, description, name="mine.json"):
    """A file of bytes, of text, or of a description in the format that its name says."""
    if isinstance(description, dict):
        to_text = json.dumps if name.endswith(".json") else yaml.safe_dump
        description = to_text(description)
    content = description if isinstance(description, bytes) else description.encode()
    (folder / name).write_bytes(content)
    return folder / name


def read(folder, description, name="mine.json", num_clients=3, num_edges=2):
    return read_network(str(write(folder, description, name)), num_clients, num_edges)


def changed(path, value, base=VALID):
    """VALID with another value at a path such as "edges.1.backhaul_bps"; ... removes it."""
    made = copy.deepcopy(base)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = made
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return made


def rates(network, direction):
    snr = getattr(network, f"{direction}_snr").astype(np.float64)
    return network.bandwidth_hz[:, None] * np.log2(1 + snr)


def check_network(network, names, num_clients=3, num_edges=2):
    """Every shape, and every number finite and, where it must be, positive: in float32."""
    assert network.up_snr.shape == network.down_snr.shape == (num_clients, num_edges + 1)
    assert network.client_km.shape == (num_clients, 2)
    assert network.edge_km.shape == (num_edges, 2)
    positive = [network.bandwidth_hz, network.backhaul_bps]
    for snr in (network.up_snr, network.down_snr):
        for fade in (1e-10, 1, 1e10):  # 100 dB of shadow fading either way
            faded = snr * np.float32(fade)
            positive += [faded, network.bandwidth_hz[:, None] * np.log1p(faded)]
    for devices in (network.clients, network.edges, network.front, network.cloud):
        positive.append(devices.flop_per_s)
        assert (devices.idle_w >= 0).all()
        assert (devices.idle_w <= devices.busy_w).all()
        assert np.isfinite([*map(np.max, devices)]).all()
        assert (devices.transmit_w >= 0).all()
        assert ((devices.kind >= 0) & (devices.kind < len(names))).all()
        assert devices.kind.dtype == np.int32
    for leaf in (*positive, network.client_km, network.edge_km, network.front_km):
        assert leaf.dtype == np.float32
        assert np.isfinite(leaf).all()
    assert all((leaf >= np.finfo(np.float32).tiny).all() for leaf in positive)


@pytest.mark.parametrize("name", ["mine.json", "mine.yaml", "MINE.YML"])
def test_what_is_described_is_built(tmp_path, name):
    network, names = read(tmp_path, VALID, name)
    check_network(network, names)
    assert names == ("camera", "phone", "edge_server", "jetson_agx_orin", "cloud_accelerator")
    np.testing.assert_array_equal(network.clients.kind, [0, 0, 1])
    np.testing.assert_array_equal(network.edges.kind, [2, 3])
    assert (network.front.kind, network.cloud.kind) == (2, 4)
    assert_close(network.client_km, [[0.1, 0.2], [0.1, 0.2], [-0.3, 0]], 1e-6)
    assert_close(network.edge_km, [[0.2, 0.1], [-0.3, 0]], 1e-6)
    np.testing.assert_array_equal(network.front_km, [0, 0])
    assert_close(network.backhaul_bps, [1e9, 2e8, 1e10], 1e-6, each=True)
    flop_per_s = [2e9, 2e9, CLASSES["phone"].flop_per_s]
    assert_close(network.clients.flop_per_s, flop_per_s, 1e-6, each=True)
    assert_close(network.clients.busy_w, [3, 3, CLASSES["phone"].busy_w], 1e-6, each=True)
    assert_close(network.clients.idle_w, [1, 1, CLASSES["phone"].idle_w], 1e-6, each=True)
    assert network.cloud.flop_per_s == np.float32(CLASSES["cloud_accelerator"].flop_per_s)


@pytest.mark.parametrize("noise", [None, 1e-19])
def test_rates_follow_the_path_loss(tmp_path, noise):
    """Client 2 and edge node 1 share a place, and count as 35 m apart."""
    description = VALID if noise is None else VALID | {"noise_w_per_hz": noise}
    network, _ = read(tmp_path, description)
    km = np.hypot(
        np.array([0.1, 0.1, -0.3])[:, None] - [0.2, -0.3, 0],
        np.array([0.2, 0.2, 0])[:, None] - [0.1, 0, 0],
    )
    km[2, 1] = 0.035
    bandwidth_hz, client_w, server_w = [5e6, 5e6, 20e6], [0.1, 0.1, 0.2], [1.0, 1.0, 1.0]
    for (k, e), distance in np.ndenumerate(km):
        radio = {"bandwidth_hz": bandwidth_hz[k], "noise_w_per_hz": noise or 3.981e-21}
        up = oracle.shannon_rate(distance, power_w=client_w[k], **radio)
        down = oracle.shannon_rate(distance, power_w=server_w[e], **radio)
        assert_close(rates(network, "up")[k, e], up)
        assert_close(rates(network, "down")[k, e], down)


def test_measured_rates_are_the_rates(tmp_path):
    """Whatever the path loss, and though nobody has a power to send with."""
    silent = changed("devices.camera.transmit_w", 0)
    network, names = read(tmp_path, silent | {"links": LINKS})
    check_network(network, names)
    for direction in ("up", "down"):
        assert_close(rates(network, direction), LINKS[f"{direction}_bps"], each=True)
    near, far = changed("clients.0.position_km", [1, 1]), changed("clients.0.position_km", [9, 9])
    for one, other in zip(
        *(read(tmp_path, base | {"links": LINKS})[0][6:] for base in (near, far)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_documented_example_is_read(tmp_path):
    lines = inspect.getdoc(read_network).split("\n")
    start, end = (
        next(i for i, line in enumerate(lines) if line.lstrip().startswith(mark))
        for mark in ("devices:", "`device` names")
    )
    example = textwrap.dedent("\n".join(lines[start:end]))
    network, names = read(tmp_path, example, "example.yaml", num_edges=1)
    check_network(network, names, num_edges=1)
    assert names == ("camera", "phone", "edge_server", "cloud_accelerator")
    wanted = [[5e6, 2e6], [5e6, 3e6], [9e6, 8e6]]
    assert_close(rates(network, "up"), wanted, each=True)
    commented = example.replace("# noise_w_per_hz", "noise_w_per_hz")
    with pytest.raises(ValueError, match="noise_w_per_hz is not read where links are measured"):
        read(tmp_path, commented, "example.yaml", num_edges=1)


def test_the_preset_file_is_the_file(tmp_path):
    spec = NetworkSpec("file", path=str(write(tmp_path, VALID)), num_edges=2)
    for seed in (0, 1):
        network, names = make_network(spec, 3, seed)
        expected, expected_names = read(tmp_path, VALID)
        assert names == expected_names
        np.testing.assert_array_equal(network.up_snr, expected.up_snr)
        np.testing.assert_array_equal(network.client_km, expected.client_km)


WRONG = {
    # What is there and should not be, or is not and should be.
    "unknown_key": ("edge", 1, "edge is unknown; did you mean edges? known: clients, edges, front"),
    "odd_key": ("a b\n", 1, r"'a b\n' is unknown; known: "),
    "unknown_entry_key": ("clients.0.devise", 1, "clients[0].devise is unknown; did you mean dev"),
    "count_of_edges": ("edges.0.count", 2, "edges[0].count is unknown"),
    "no_cloud": ("cloud", ..., "cloud is missing; add it"),
    "no_position": ("clients.1.position_km", ..., "clients[1].position_km is missing"),
    "no_backhaul": ("edges.1.backhaul_bps", ..., "edges[1].backhaul_bps is missing"),
    "front_without_backhaul": ("front.backhaul_bps", ..., "front.backhaul_bps is missing"),
    "no_device": ("edges.0.device", ..., "edges[0].device is missing"),
    # Devices.
    "toaster": ("clients.1.device", "toaster", "clients[1].device='toaster' is unknown; known: "),
    "typo": ("front.device", "edge_servr", "front.device='edge_servr' is unknown; did you mean ed"),
    "device_number": ("cloud.device", 3, "cloud.device=3 is unknown"),
    "device_list": ("cloud.device", ["phone"], "cloud.device=['phone'] is unknown"),
    "class_of_ours": ("devices.phone", CAMERA, "devices.phone is a class that exists"),
    "class_of_text": ("devices.camera", "fast", "devices.camera is 'fast', and needs to be a map"),
    "class_without": ("devices.camera.idle_w", ..., "devices.camera.idle_w is missing"),
    "class_with": ("devices.camera.watts", 1, "devices.camera.watts is unknown"),
    "nameless_class": ("devices", {"": CAMERA}, "devices.'' needs a name"),
    "class_in_lines": ("devices", {"a\nb": CAMERA}, r"devices.'a\nb' needs a name that is text in"),
    "classes_list": ("devices", [CAMERA], "devices=[{'bandwidth_hz': 5000000.0, 'busy_w': 3"),
    "busy": ("devices.camera.busy_w", 0.5, "devices.camera.busy_w=0.5 is less than idle_w=1"),
    "no_speed": ("devices.camera.flop_per_s", 0, "devices.camera.flop_per_s=0 needs to be from"),
    "less_than_idle": ("devices.camera.idle_w", -1, "devices.camera.idle_w=-1 needs to be 0, or"),
    "no_bandwidth": ("devices.camera.bandwidth_hz", 0, "clients[0].device='camera' has bandwidth_"),
    "wired_client": ("clients.1.device", "cloud_accelerator", "clients[1].device='cloud_acceler"),
    "no_power": ("devices.camera.transmit_w", 0, "client 0 has a link to edges[0] with the signal"),
    "wired_edge": ("edges.1.device", "cloud_accelerator", "client 0 has a link from edges[1] with"),
    "wired_front": ("front.device", "cloud_accelerator", "client 0 has a link from front with the"),
    # Numbers.
    "negative": ("edges.1.backhaul_bps", -5, "edges[1].backhaul_bps=-5 needs to be from 1e-25 to"),
    "zero": ("front.backhaul_bps", 0, "front.backhaul_bps=0 needs to be from 1e-25 to 1e+25"),
    "true": ("front.backhaul_bps", True, "front.backhaul_bps=True needs to be a number"),
    "text": ("front.backhaul_bps", "1 Gbit", "front.backhaul_bps='1 Gbit' needs to be a number"),
    "null": ("noise_w_per_hz", None, "noise_w_per_hz=None needs to be a number"),
    "nan": ("noise_w_per_hz", float("nan"), "noise_w_per_hz=nan needs to be from"),
    "infinite": ("noise_w_per_hz", float("inf"), "noise_w_per_hz=inf needs to be from"),
    "too_small": ("noise_w_per_hz", 1e-46, "noise_w_per_hz=1e-46 needs to be from"),
    "too_large": ("devices.camera.flop_per_s", 10**400, "devices.camera.flop_per_s=1000"),
    "no_rate": ("devices.camera.bandwidth_hz", 1e-25, "client 0 has a link"),
    "noisy": ("noise_w_per_hz", 1e20, "client 0 has a link to edges[0] with the signal-to-noise"),
    "endless_band": (
        "devices.camera",
        CAMERA | {"bandwidth_hz": 1e25, "transmit_w": 1e16},
        "client 0 has a link to edges[0] with the rate in bit/s",
    ),
    # Positions and counts.
    "flat": ("clients.0.position_km", 1, "clients[0].position_km=1 needs to be a pair [x, y]"),
    "three": ("edges.0.position_km", [1, 2, 3], "edges[0].position_km=[1, 2, 3] needs to be a p"),
    "one": ("edges.0.position_km", [1], "edges[0].position_km=[1] needs to be a pair"),
    "keys": ("front.position_km", {"x": 0, "y": 0}, "front.position_km={'x': 0, 'y': 0} needs"),
    "letters": ("front.position_km", "ab", "front.position_km='ab' needs to be a pair"),
    "half_text": ("front.position_km", [0, "1"], "front.position_km=[0, '1'] needs to be a pair"),
    "bool_position": ("front.position_km", [0, True], "front.position_km=[0, True] needs to be a"),
    "nan_position": ("front.position_km", [0, float("nan")], "front.position_km=[0, nan] needs"),
    "far": ("front.position_km", [0, -1e7], "front.position_km=[0, -10000000.0] needs to be"),
    "half_count": ("clients.0.count", 1.5, "clients[0].count=1.5 needs to be a whole number"),
    "float_count": ("clients.0.count", 2.0, "clients[0].count=2.0 needs to be a whole number"),
    "no_count": ("clients.0.count", 0, "clients[0].count=0 needs to be a whole number from 1"),
    "true_count": ("clients.0.count", True, "clients[0].count=True needs to be a whole number"),
    "many": ("clients.0.count", 10**12, "clients[0].count=1000000000000 needs to be a whole"),
    "many_together": (
        "clients",
        [VALID["clients"][0] | {"count": 6_000_000}] * 2,
        "describes 12000000 clients, and 10000000 is the most",
    ),
    # Shapes.
    "nobody": ("clients", [], "clients has 0 entries, and needs at least one"),
    "no_edges": ("edges", [], "edges has 0 entries, and needs at least one"),
    "mapping": ("edges", VALID["edges"][0], "edges={'backhaul_bps': 1000000000.0, 'device': 'edge"),
    "bare": ("edges.1", 5, "edges[1] is 5, and needs to be a mapping of device, position_km, back"),
    "fronts": ("front", [VALID["front"]], "front is [{'backhaul_bps': 10000000000.0, 'device'"),
    "no_front": ("front", None, "front is None, and needs to be a mapping"),
    # Measured rates.
    "links_number": ("links", 1e6, "links is 1000000.0, and needs to be a mapping of up_bps"),
    "one_way": ("links.down_bps", ..., "links.down_bps is missing"),
    "all_ways": ("links.bps", 1, "links.bps is unknown"),
    "few_rows": ("links.up_bps", LINKS["up_bps"][:2], "links.up_bps has 2 entries, and needs 3"),
    "long_row": ("links.down_bps.1", [1, 2, 3, 4], "links.down_bps[1] has 4 entries, and needs 3"),
    "no_row": ("links.down_bps.1", 3, "links.down_bps[1]=3 needs to be a list of 3 entries"),
    "text_rate": ("links.up_bps.2.0", "1e6", "links.up_bps[2][0]='1e6' needs to be a number"),
    "no_rate_at_all": ("links.up_bps.0.1", 0, "links.up_bps[0][1]=0 needs to be from 1e-25"),
    "nan_rate": ("links.up_bps.0.1", float("nan"), "links.up_bps[0][1]=nan needs to be from"),
    "steep_rate": (
        "links.up_bps.0.2",
        5e9,
        "client 0 has a link to front with the signal-to-noise ratio",
    ),
    "endless_rate": (
        "links.up_bps.0.2",
        1e24,
        "client 0 has a link to front with the signal-to-noise ratio",
    ),
    "faint_rate": (
        "links.down_bps.2.2",
        1e-25,
        "client 2 has a link from front with the signal-to-noise ratio",
    ),
}


@pytest.mark.parametrize(("path", "value", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line_that_names_the_entry(tmp_path, path, value, message):
    base = VALID | {"links": LINKS} if path.startswith("links") else VALID
    file = write(tmp_path, changed(path, value, base))
    with pytest.raises(ValueError) as error:  # noqa: PT011, told apart below
        read_network(str(file), 3, 2)
    assert str(error.value).startswith(f"network.path={file}: {message}")
    assert "\n" not in str(error.value)


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join(9 * [f'*{old}'])}]\n"
    for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{','.join(9 * [f'*{old}'])}]}}\n"
    for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
UNREADABLE = {
    "empty.json": ("", "cannot be read as JSON"),
    "empty.yaml": ("", "the file is None, and needs to be a mapping of clients, edges"),
    "list.json": ("[1, 2]", "the file is [1, 2], and needs to be a mapping"),
    "half.json": ('{"clients": [', "cannot be read as JSON: Expecting value: line 1"),
    "half.yaml": ("clients: [", "cannot be read as YAML: while parsing"),
    "two.yaml": ("a: 1\n---\nb: 2", "cannot be read as YAML: expected a single document"),
    "double.json": ('{"a": 1, "a": 2}', "cannot be read as JSON: the key 'a' is given twice"),
    "double.yaml": ("x:\n  a: 1\n  a: 2", "cannot be read as YAML: a key is given twice in the ma"),
    "latin.json": (b'{"cloud": "\xe4"}', "is not UTF-8 text at byte 11"),
    "latin.yaml": (b"cloud: \xe4", "is not UTF-8 text at byte 7"),
    "zip.yaml": (b"PK\x03\x04", "cannot be read as YAML"),
    "deep.json": ("[" * 100_000, "is nested too deeply"),
    "deep.yaml": ("[" * 100_000, "is nested too deeply"),
    "digits.json": (f'{{"a": {"9" * 5000}}}', "cannot be read as JSON"),
    "hex.yaml": (f"noise: 1\nclients: 0x{'f' * 9000}", "noise is unknown"),
    "self.yaml": ("&a [*a]", "cannot be read as YAML: found unconstructable recursive node"),
    "bomb.yaml": (BOMB, "a is unknown"),
    "bomb_inside.yaml": (BOMB + "clients: *l", "a is unknown"),
    "merge_bomb.yaml": (MERGE_BOMB, "a is unknown"),
    "python.yaml": ("!!python/object/apply:os.getcwd []", "the file is []"),
    "python_name.yaml": ("cloud: !!python/name:os.system", "clients is missing"),
    "tag.yaml": ("cloud: !mine {}", "clients is missing"),
    "list_key.yaml": ("[1]: 2", "cannot be read as YAML: the key in line 1 is no text: put it in"),
    "number_key.yaml": ("\n1: 2", "cannot be read as YAML: the key in line 2 is no text: put it"),
    "truth_key.yaml": ("on: 2", "on is unknown"),
    "surrogate.json": ('{"a": "\\ud800"}', "has text that is not Unicode, half of a surrogate"),
    "surrogate_key.json": ('{"\\udfff": 1}', "has text that is not Unicode, half of a surrogate"),
    "deepish.json": ("[" * 60 + "]" * 60, "is nested too deeply"),
    "network.py": ("clients", "its name needs to end in .json, .yaml or .yml"),
    "network": ("clients", "its name needs to end in .json, .yaml or .yml"),
}


@pytest.mark.parametrize(("name", "case"), UNREADABLE.items(), ids=UNREADABLE)
def test_an_unreadable_file_is_one_line_that_says_why(tmp_path, name, case):
    content, message = case
    file = write(tmp_path, content, name)
    with pytest.raises(ValueError) as error:  # noqa: PT011, told apart below
        read_network(str(file), 3, 2)
    assert str(error.value).startswith(f"network.path={file}: {message}")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(file)) + 500


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("*l", "clients[0] is [["),
        ("[*l]", "clients[0] is [["),
        ("[{device: *l, position_km: [0, 0]}]", "clients[0].device=[["),
        ("[{device: phone, position_km: *l}]", "clients[0].position_km=[["),
        ("[{device: phone, position_km: [*l, *l]}]", "clients[0].position_km=[["),
        ("[{device: phone, position_km: [0, 0], count: *l}]", "clients[0].count=[["),
    ],
)
def test_a_bomb_is_refused_without_setting_it_off(tmp_path, entry, message):
    """The file holds 9^12 numbers; the message shows no more of them than a line."""
    levels = [line.partition(": ")[2] for line in BOMB.splitlines()]
    rest = yaml.safe_dump({key: VALID[key] for key in ("edges", "front", "cloud")})
    text = f"noise_w_per_hz: [{', '.join(levels)}]\nclients: {entry}\n{rest}"
    with pytest.raises(ValueError, match="clients") as error:
        read(tmp_path, text, "bomb.yaml")
    assert message in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("number", ["1:30", "0xff", "1_000", ".inf", "true", "!!int 5", "'5'"])
def test_yaml_has_no_numbers_but_those_of_json(tmp_path, number):
    text = yaml.safe_dump(VALID).replace("10000000000.0", number)
    assert number in text
    if number == "!!int 5":
        read(tmp_path, text, "mine.yaml")  # a tag changes nothing
        return
    with pytest.raises(ValueError, match=r"front\.backhaul_bps='.*' needs to be a number"):
        read(tmp_path, text, "mine.yaml")


def test_a_file_must_be_there_and_be_one(tmp_path):
    for path in (None, ""):
        with pytest.raises(ValueError, match=r"network\.path=.*: name the JSON or YAML file"):
            read_network(path, 3, 2)
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, told in (
        ("absent.json", "there is no such file"),
        ("folder.json", "is a folder"),
        ("nul\0.json", "cannot be read"),
        ("x" * 300 + ".json", "cannot be read"),
        ("pipe.yaml", "is a pipe or a device"),
        ("two\nlines.json", "there is no such file"),
    ):
        path = str(tmp_path / name)
        with pytest.raises(ValueError, match=told) as error:
            read_network(path, 3, 2)
        shown = path.replace("\0", "?").replace("\n", "?")
        assert str(error.value).startswith(f"network.path={shown}: {told}")


def test_a_file_of_more_than_its_bytes_is_not_read(tmp_path, monkeypatch):
    text = json.dumps(VALID)
    for limit, name in (("MAX_BYTES", "mine.json"), ("MAX_YAML_BYTES", "mine.yaml")):
        monkeypatch.setattr(network_file, limit, len(text))
        assert read(tmp_path, text, name)
        monkeypatch.setattr(network_file, limit, len(text) - 1)
        told = f"has {len(text)} bytes, and {len(text) - 1} is the most"
        with pytest.raises(ValueError, match=told):
            read(tmp_path, text, name)


def test_the_numbers_of_clients_and_edge_nodes_are_the_settings(tmp_path):
    with pytest.raises(ValueError, match="describes 3 clients; set it") as error:
        read(tmp_path, VALID, num_clients=100)
    assert str(error.value).startswith("data.partition.num_clients=100: network.path=")
    with pytest.raises(ValueError, match="describes 2 edge nodes; set it to 2") as error:
        read(tmp_path, VALID, num_edges=4)
    assert str(error.value).startswith("network.num_edges=4: network.path=")


def test_the_settings_bound_what_is_built(tmp_path, monkeypatch):
    """A file of many clients is refused by its counts, before it takes memory."""

    def build(*_):
        raise AssertionError("built")

    monkeypatch.setattr(network_file, "Plan", build)
    with pytest.raises(ValueError, match="describes 10000000 clients"):
        read(tmp_path, changed("clients.0.count", 9_999_999))


def test_yaml_has_the_numbers_of_json(tmp_path):
    """5e9 is text to YAML 1.1."""
    for written in ("2e9", "2E9", "2.e9", "2.0e9", "2e+9", "+2.0e+9", "2000000000", "0.2e10"):
        text = yaml.safe_dump(VALID).replace("2000000000.0", written)
        assert written in text
        network, _ = read(tmp_path, text, "mine.yaml")
        np.testing.assert_array_equal(network.clients.flop_per_s[:2], np.float32(2e9))


def test_aliases_and_a_byte_order_mark_are_read(tmp_path):
    text = yaml.safe_dump(VALID | {"cloud": {"device": "edge_server"}})
    aliased = text.replace("cloud:\n  device: edge_server", "cloud: {device: &server edge_server}")
    aliased = aliased.replace("device: edge_server\n", "device: *server\n")
    assert aliased.count("*server") == 2
    network, names = read(tmp_path, b"\xef\xbb\xbf" + aliased.encode(), "mine.yaml")
    expected, expected_names = read(tmp_path, text, "mine.yaml")
    assert names == expected_names
    np.testing.assert_array_equal(network.edges.kind, expected.edges.kind)
    assert read(tmp_path, b"\xef\xbb\xbf" + json.dumps(VALID).encode())


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1e-40, 1e-25, 1e25, 1e39, 10**400, -0.0]),
    st.text(max_size=5),
    st.sampled_from([*CLASSES]),
    st.lists(st.floats(-2, 2), min_size=2, max_size=2),
)
keys = st.sampled_from(
    [
        *VALID,
        "links",
        "noise_w_per_hz",
        "device",
        "position_km",
        "count",
        "backhaul_bps",
        "up_bps",
        "down_bps",
        *CAMERA,
    ]
) | st.text(max_size=4)
trees = st.recursive(
    leaves,
    lambda tree: st.lists(tree, max_size=4) | st.dictionaries(keys, tree, max_size=5),
    max_leaves=12,
)


def places(tree, path=()):
    """Paths of all values in a tree."""
    yield path
    if isinstance(tree, dict | list):
        for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(inner, (*path, key))


@st.composite
def mutants(draw):
    """A valid description in which up to three values are others, gone or doubled."""
    tree = copy.deepcopy(VALID | {"noise_w_per_hz": 4e-21})
    if draw(st.booleans()):
        del tree["noise_w_per_hz"]
        tree["links"] = copy.deepcopy(LINKS)
    for _ in range(draw(st.integers(0, 3))):
        *path, last = draw(st.sampled_from([*places(tree)][1:]))
        place = tree
        for part in path:
            place = place[part]
        match draw(st.sampled_from(["other", "gone", "scaled", "doubled"])):
            case "other":
                place[last] = draw(trees)
            case "gone":
                del place[last]
            case "scaled" if type(place[last]) in (int, float):
                place[last] *= 10.0 ** draw(st.integers(-60, 60))
            case "doubled" if isinstance(place, list):
                place.append(copy.deepcopy(place[last]))
    return tree


def check_reading(path):
    """Reading gives a sound network, or one line that names the file."""
    try:
        network, names = read_network(str(path), 3, 2)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        assert f"network.path={path}" in message
    else:
        check_network(network, names)


@settings(deadline=None, max_examples=150)
@given(tree=mutants() | trees, is_json=st.booleans())
def test_nothing_else_comes_out_of_any_tree(tmp_path_factory, tree, is_json):
    file = tmp_path_factory.getbasetemp() / f"drawn.{'json' if is_json else 'yaml'}"
    try:
        text = json.dumps(tree) if is_json else yaml.safe_dump(tree)
    except ValueError:  # integers that Python does not write
        return
    file.write_text(text, encoding="utf-8", errors="replace")
    check_reading(file)


@settings(deadline=None, max_examples=80)
@given(data=st.data(), is_json=st.booleans())
def test_nothing_else_comes_out_of_any_text(tmp_path_factory, data, is_json):
    text = json.dumps(VALID) if is_json else yaml.safe_dump(VALID)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 10)))
    patch = data.draw(
        st.binary(max_size=6) | st.text("{}[]:,-&*!<#'\"\n 19e", max_size=6).map(str.encode)
    )
    file = tmp_path_factory.getbasetemp() / f"patched.{'json' if is_json else 'yaml'}"
    file.write_bytes(text[:start].encode() + patch + text[end:].encode())
    check_reading(file)


def test_the_file_to_start_from_is_read():
    path = pathlib.Path(__file__).parents[3] / "configs" / "network.yaml"
    network, names = network_file.read_network(str(path), 12, 2)
    assert network.up_snr.shape == (12, 3)
    assert {"camera", "phone", "raspberry_pi_4"} <= set(names)
