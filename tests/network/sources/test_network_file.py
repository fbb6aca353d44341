"""A user's own network: what is described is built, and what is wrong is named in one line."""

import copy
import functools
import inspect
import json
import pathlib
import textwrap

import numpy as np
import pytest
import yaml

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
    return str(folder / name)


def read(folder, description, name="mine.json", num_clients=3, num_edges=2):
    return read_network(write(folder, description, name), num_clients, num_edges)


def refusal(file):
    """The one line that a file is refused with, without its beginning."""
    with pytest.raises(ValueError) as error:  # noqa: PT011, told apart by the caller
        read_network(file, 3, 2)
    line, beginning = str(error.value), f"network.path={file}: "
    assert line.startswith(beginning)
    assert "\n" not in line
    assert len(line) < len(file) + 500
    return line.removeprefix(beginning)


def changed(path, value):
    """VALID with another value at a path such as "edges.1.backhaul_bps"; ... removes it."""
    made = copy.deepcopy(VALID | {"links": LINKS} if path.startswith("links") else VALID)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = functools.reduce(lambda inner, part: inner[part], parents, made)
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


@pytest.mark.parametrize(("name", "seed"), [("mine.json", 0), ("mine.yaml", 1), ("MINE.YML", 2)])
def test_make_network_of_a_file_builds_what_is_described_whatever_the_seed(tmp_path, name, seed):
    spec = NetworkSpec("file", path=write(tmp_path, VALID, name), num_edges=2)
    network, names = make_network(spec, 3, seed)
    check_network(network, names)
    assert names == ("camera", "phone", "edge_server", "jetson_agx_orin", "cloud_accelerator")
    np.testing.assert_array_equal(network.clients.kind, [0, 0, 1])
    np.testing.assert_array_equal(network.edges.kind, [2, 3])
    assert (network.front.kind, network.cloud.kind) == (2, 4)
    assert_close(network.client_km, [[0.1, 0.2], [0.1, 0.2], [-0.3, 0]], 1e-6)
    assert_close(network.edge_km, [[0.2, 0.1], [-0.3, 0]], 1e-6)
    np.testing.assert_array_equal(network.front_km, [0, 0])
    assert_close(network.backhaul_bps, [1e9, 2e8, 1e10], 1e-6, each=True)
    for field in ("flop_per_s", "busy_w", "idle_w", "transmit_w"):
        of_clients = [CAMERA[field], CAMERA[field], getattr(CLASSES["phone"], field)]
        assert_close(getattr(network.clients, field), of_clients, 1e-6, each=True)
    assert network.cloud.flop_per_s == np.float32(CLASSES["cloud_accelerator"].flop_per_s)


@pytest.mark.parametrize("noise", [None, 1e-19])
def test_read_network_models_rates_by_the_path_loss(tmp_path, noise):
    """Client 2 and edge node 1 share a place, and count as 35 m apart."""
    network, _ = read(tmp_path, VALID | ({} if noise is None else {"noise_w_per_hz": noise}))
    clients = np.array([[0.1, 0.2], [0.1, 0.2], [-0.3, 0]])
    servers = [[0.2, 0.1], [-0.3, 0], [0, 0]]
    km = np.maximum(np.linalg.norm(clients[:, None] - servers, axis=-1), 0.035)
    for (k, e), distance in np.ndenumerate(km):
        bandwidth_hz, client_w = ((5e6, 0.1), (5e6, 0.1), (20e6, 0.2))[k]
        radio = {"bandwidth_hz": bandwidth_hz, "noise_w_per_hz": noise or 3.981e-21}
        for direction, power_w in (("up", client_w), ("down", 1.0)):
            wanted = oracle.shannon_rate(distance, power_w=power_w, **radio)
            assert_close(rates(network, direction)[k, e], wanted)


def test_read_network_takes_measured_rates_whatever_places_and_powers(tmp_path):
    silent = changed("devices.camera.transmit_w", 0) | {"links": LINKS}
    far = copy.deepcopy(silent)
    far["clients"][0]["position_km"] = [9, 9]
    for description in (silent, far):
        network, names = read(tmp_path, description)
        check_network(network, names)
        for direction in ("up", "down"):
            assert_close(rates(network, direction), LINKS[f"{direction}_bps"], each=True)


def test_read_network_reads_the_documented_example(tmp_path):
    lines = inspect.getdoc(read_network).split("\n")
    start, end = (
        next(i for i, line in enumerate(lines) if line.lstrip().startswith(mark))
        for mark in ("devices:", "`device` names")
    )
    example = textwrap.dedent("\n".join(lines[start:end]))
    network, names = read(tmp_path, example, "example.yaml", num_edges=1)
    check_network(network, names, num_edges=1)
    assert names == ("camera", "phone", "edge_server", "cloud_accelerator")
    assert_close(rates(network, "up"), [[5e6, 2e6], [5e6, 3e6], [9e6, 8e6]], each=True)
    commented = example.replace("# noise_w_per_hz", "noise_w_per_hz")
    with pytest.raises(ValueError, match="noise_w_per_hz is not read where links are measured"):
        read(tmp_path, commented, "example.yaml", num_edges=1)


def test_read_network_reads_the_file_to_start_from():
    path = pathlib.Path(__file__).parents[3] / "configs" / "network.yaml"
    network, names = read_network(str(path), 12, 2)
    assert network.up_snr.shape == (12, 3)
    assert {"camera", "phone", "raspberry_pi_4"} <= set(names)


LOUD = CAMERA | {"bandwidth_hz": 1e25, "transmit_w": 1e16}
WRONG = [
    # What is there and should not be, or is not and should be.
    ("edge", 1, "edge is unknown; did you mean edges? known: clients, edges, front"),
    ("a b\n", 1, r"'a b\n' is unknown; known: "),
    ("clients.0.devise", 1, "clients[0].devise is unknown; did you mean dev"),
    ("cloud", ..., "cloud is missing; add it"),
    ("cloud.device", ..., "cloud.device is missing"),
    ("clients", [], "clients has 0 entries, and needs at least one"),
    ("edges", VALID["front"], "edges={'backhaul_bps': 10000000000.0, 'device': 'edge"),
    ("edges.1", 5, "edges[1] is 5, and needs to be a mapping of device, position_km, back"),
    # Devices.
    ("clients.1.device", "toaster", "clients[1].device='toaster' is unknown; known: "),
    ("cloud.device", ["phone"], "cloud.device=['phone'] is unknown"),
    ("devices.phone", CAMERA, "devices.phone is a class that exists"),
    ("devices.camera", "fast", "devices.camera is 'fast', and needs to be a map"),
    ("devices", {"": CAMERA}, "devices.'' needs a name"),
    ("devices", {"a\nb": CAMERA}, r"devices.'a\nb' needs a name that is text in"),
    ("devices", [CAMERA], "devices=[{'bandwidth_hz': 5000000.0, 'busy_w': 3"),
    ("devices.camera.busy_w", 0.5, "devices.camera.busy_w=0.5 is less than idle_w=1"),
    ("devices.camera.flop_per_s", 0, "devices.camera.flop_per_s=0 needs to be from"),
    ("devices.camera.flop_per_s", 10**400, "devices.camera.flop_per_s=1000"),
    ("devices.camera.idle_w", -1, "devices.camera.idle_w=-1 needs to be 0, or"),
    ("devices.camera.bandwidth_hz", 0, "clients[0].device='camera' has bandwidth_hz=0, and"),
    ("clients.1.device", "cloud_accelerator", "clients[1].device='cloud_accelerator' has bandwi"),
    # Numbers.
    ("edges.1.backhaul_bps", -5, "edges[1].backhaul_bps=-5 needs to be from 1e-25 to"),
    ("front.backhaul_bps", 0, "front.backhaul_bps=0 needs to be from 1e-25 to 1e+25"),
    ("front.backhaul_bps", True, "front.backhaul_bps=True needs to be a number"),
    ("noise_w_per_hz", 1e-46, "noise_w_per_hz=1e-46 needs to be from"),
    # Positions and counts.
    ("edges.0.position_km", [1, 2, 3], "edges[0].position_km=[1, 2, 3] needs to be a p"),
    ("front.position_km", [0, True], "front.position_km=[0, True] needs to be a"),
    ("front.position_km", [0, float("nan")], "front.position_km=[0, nan] needs"),
    ("front.position_km", [0, -1e7], "front.position_km=[0, -10000000.0] needs to be"),
    ("clients.0.count", 2.0, "clients[0].count=2.0 needs to be a whole number"),
    ("clients.0.count", True, "clients[0].count=True needs to be a whole number"),
    ("clients.0.count", 10**12, "clients[0].count=1000000000000 needs to be a whole"),
    ("clients", [VALID["clients"][0] | {"count": 6_000_000}] * 2, "describes 12000000 clients"),
    # Links whose ratio or rate float32 does not hold through any fading.
    ("devices.camera.transmit_w", 0, "client 0 has a link to edges[0] with the signal-to-noise"),
    ("front.device", "cloud_accelerator", "client 0 has a link from front with the"),
    ("devices.camera.bandwidth_hz", 1e-25, "client 0 has a link"),
    ("devices.camera", LOUD, "client 0 has a link to edges[0] with the rate in bit/s"),
    ("links.up_bps.0.2", 5e9, "client 0 has a link to front with the signal-to-noise ratio"),
    ("links.down_bps.2.2", 1e-25, "client 2 has a link from front with the signal-to-noise"),
    # Measured rates.
    ("links", 1e6, "links is 1000000.0, and needs to be a mapping of up_bps"),
    ("links.up_bps", LINKS["up_bps"][:2], "links.up_bps has 2 entries, and needs 3"),
    ("links.down_bps.1", [1, 2, 3, 4], "links.down_bps[1] has 4 entries, and needs 3"),
    ("links.down_bps.1", 3, "links.down_bps[1]=3 needs to be a list of 3 entries"),
    ("links.up_bps.2.0", "1e6", "links.up_bps[2][0]='1e6' needs to be a number"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_read_network_names_the_entry_that_is_wrong(tmp_path, path, value, message):
    assert refusal(write(tmp_path, changed(path, value))).startswith(message)


def bomb(entry):
    """YAML of 9^12 entries in some lines, each an alias of the one before, in lists or mappings."""
    start = "a: &a [1,1,1,1,1,1,1,1,1]\n" if entry == "[{}]" else "a: &a {x: 1}\n"
    return start + "".join(
        f"{new}: &{new} {entry.format(','.join(9 * [f'*{old}']))}\n"
        for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
    )


UNREADABLE = [  # JSON as such: tests/test_safe_read.py
    ("empty.json", "", "cannot be read as JSON"),
    ("list.json", "[1, 2]", "the file is [1, 2], and needs to be a mapping"),
    ("empty.yaml", "", "the file is None, and needs to be a mapping of clients, edges"),
    ("half.yaml", "clients: [", "cannot be read as YAML: while parsing"),
    ("two.yaml", "a: 1\n---\nb: 2", "cannot be read as YAML: expected a single document"),
    ("double.yaml", "x:\n  a: 1\n  a: 2", "cannot be read as YAML: a key is given twice in the ma"),
    ("deep.yaml", "[" * 100_000, "is nested too deeply"),
    ("hex.yaml", f"noise: 1\nclients: 0x{'f' * 9000}", "noise is unknown"),
    ("self.yaml", "&a [*a]", "cannot be read as YAML: found unconstructable recursive node"),
    ("bomb.yaml", bomb("[{}]") + "clients: *l", "a is unknown"),
    ("merge_bomb.yaml", bomb("{{<<: [{}]}}"), "a is unknown"),
    ("python.yaml", "!!python/object/apply:os.getcwd []", "the file is []"),
    ("number_key.yaml", "\n1: 2", "cannot be read as YAML: the key in line 2 is no text: put it"),
    ("network.py", "clients", "its name needs to end in .json, .yaml or .yml"),
]


@pytest.mark.parametrize(("name", "content", "message"), UNREADABLE, ids=[x[0] for x in UNREADABLE])
def test_read_network_says_why_a_file_cannot_be_read(tmp_path, name, content, message):
    assert refusal(write(tmp_path, content, name)).startswith(message)


@pytest.mark.parametrize("entry", ["*l", "[{device: phone, position_km: [*l, *l]}]"])
def test_read_network_refuses_a_bomb_without_setting_it_off(tmp_path, entry):
    """The file holds 9^12 numbers; the message shows no more of them than a line."""
    levels = [line.partition(": ")[2] for line in bomb("[{}]").splitlines()]
    rest = yaml.safe_dump({key: VALID[key] for key in ("edges", "front", "cloud")})
    text = f"noise_w_per_hz: [{', '.join(levels)}]\nclients: {entry}\n{rest}"
    assert refusal(write(tmp_path, text, "bomb.yaml")).startswith("clients[0]")


@pytest.mark.parametrize(
    ("number", "taken"),
    [(text, True) for text in ("2e9", "2E9", "2.e9", "+2.0e+9", "2000000000", "0.2e10")]
    + [("!!float 2e9", True)]  # a tag changes nothing
    + [(text, False) for text in ("1:30", "0xff", "1_000", ".inf", "true", "'5'")],
)
def test_read_network_has_the_numbers_of_json_in_yaml_and_no_others(tmp_path, number, taken):
    """5e9 is text to YAML 1.1, and 1:30 a number."""
    text = yaml.safe_dump(VALID).replace("2000000000.0", number)
    assert number in text
    file = write(tmp_path, text, "mine.yaml")
    if taken:
        assert (read_network(file, 3, 2)[0].clients.flop_per_s[:2] == np.float32(2e9)).all()
    else:
        assert refusal(file).startswith("devices.camera.flop_per_s='")


def test_read_network_reads_aliases_and_a_byte_order_mark(tmp_path):
    text = yaml.safe_dump(VALID | {"cloud": {"device": "edge_server"}})
    aliased = text.replace("cloud:\n  device: edge_server", "cloud: {device: &server edge_server}")
    aliased = aliased.replace("device: edge_server\n", "device: *server\n")
    assert aliased.count("*server") == 2
    network, names = read(tmp_path, b"\xef\xbb\xbf" + aliased.encode(), "mine.yaml")
    expected, expected_names = read(tmp_path, text, "mine.yaml")
    assert names == expected_names
    np.testing.assert_array_equal(network.edges.kind, expected.edges.kind)
    assert read(tmp_path, b"\xef\xbb\xbf" + json.dumps(VALID).encode())


def test_read_network_holds_the_file_against_the_settings_before_it_builds(tmp_path, monkeypatch):
    monkeypatch.setattr(network_file, "Plan", pytest.fail)
    for count, settings, message in (
        (2, {"num_clients": 100}, "data.partition.num_clients=100: network.path="),
        (2, {"num_edges": 4}, "network.num_edges=4: network.path="),
        (9_999_999, {}, "data.partition.num_clients=3: network.path="),
    ):
        with pytest.raises(ValueError, match=r"describes .*; set it to") as error:
            read(tmp_path, changed("clients.0.count", count), **settings)
        assert str(error.value).startswith(message)
