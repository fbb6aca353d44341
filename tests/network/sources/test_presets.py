"""The networks that the settings name, and the classes of their devices."""

import collections
import dataclasses
import math

import numpy as np
import pytest

from cefl_jax.network.sources import presets
from cefl_jax.network.sources.assembly import CLASSES
from cefl_jax.network.topology import Network
from cefl_jax.specs import NetworkSpec
from tests.compare import assert_close
from tests.oracles import network as oracle

NUM_CLIENTS, NUM_EDGES = 300, 5
MADE = tuple(name for name in presets.PRESETS if name != "file")
UP = {"bandwidth_hz": 10e6, "power_w": 0.2, "noise_w_per_hz": 3.981e-21}
DOWN = UP | {"power_w": 1.0}
SHAPES = {
    "client_km": (NUM_CLIENTS, 2),
    "edge_km": (NUM_EDGES, 2),
    "front_km": (2,),
    "bandwidth_hz": (NUM_CLIENTS,),
    "up_snr": (NUM_CLIENTS, NUM_EDGES + 1),
    "down_snr": (NUM_CLIENTS, NUM_EDGES + 1),
    "backhaul_bps": (NUM_EDGES + 1,),
}
ROLES = {"clients": (NUM_CLIENTS,), "edges": (NUM_EDGES,), "front": (), "cloud": ()}

FORMER = {  # of cellular with seed 0, 300 clients and 5 edge nodes, before networks had places
    "up": [21.44034, 13.42969, 30.679134, 15.018183, 87.46284, 46.692028],  # of client 0, Mbit/s
    "down": [31.882576, 33.447803, 59.052807, 40.411507, 84.686104, 64.953285],  # of client 299
    "client": [2.9341645e9, 2.0429024e9, 2.7073155e9],  # FLOP/s, the first clients'
    "edge": [3.0154470e11, 2.4493713e11, 4.8707266e11, 6.4241205e11, 3.5798132e11],
}


def make(preset, seed=0, num_clients=NUM_CLIENTS, num_edges=NUM_EDGES):
    return presets.make_network(NetworkSpec(preset, num_edges=num_edges), num_clients, seed)


def leaves(network):
    """Every array of a network by name."""
    for field in SHAPES:
        yield field, getattr(network, field)
    for role in ROLES:
        for field, leaf in getattr(network, role)._asdict().items():
            yield f"{role}.{field}", leaf


def rates(network, direction):
    snr = getattr(network, f"{direction}_snr").astype(np.float64)
    return network.bandwidth_hz[:, None] * np.log2(1 + snr)


def class_names(network, names, role):
    return [names[kind] for kind in np.atleast_1d(getattr(network, role).kind)]


@pytest.mark.parametrize("preset", MADE)
@pytest.mark.parametrize(("num_clients", "num_edges"), [(NUM_CLIENTS, NUM_EDGES), (1, 1)])
def test_a_network_is_arrays_of_the_promised_shapes(preset, num_clients, num_edges):
    network, names = make(preset, num_clients=num_clients, num_edges=num_edges)
    assert isinstance(network, Network)
    assert network.trace is None
    assert isinstance(names, tuple)
    assert len(set(names)) == len(names)
    sides = {NUM_CLIENTS: num_clients, NUM_EDGES: num_edges, NUM_EDGES + 1: num_edges + 1}
    for name, leaf in leaves(network):
        role, _, field = name.partition(".")
        shape = ROLES[role] if field else SHAPES[role]
        assert isinstance(leaf, np.ndarray)
        assert leaf.shape == tuple(sides.get(side, side) for side in shape)
        assert leaf.dtype == (np.int32 if field == "kind" else np.float32)
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("preset", MADE)
def test_every_device_and_link_works(preset):
    network, names = make(preset)
    for name in ("bandwidth_hz", "up_snr", "down_snr", "backhaul_bps"):
        assert (getattr(network, name) > 0).all()
    for role in ROLES:
        devices = getattr(network, role)
        assert (devices.flop_per_s > 0).all()
        assert (devices.idle_w >= 0).all()
        assert (devices.busy_w > devices.idle_w).all()
        assert ((devices.transmit_w > 0) == (role != "cloud")).all()
        assert ((devices.kind >= 0) & (devices.kind < len(names))).all()


@pytest.mark.parametrize("preset", MADE)
def test_a_network_is_its_seed(preset):
    (network, names), (again, _), (other, others) = make(preset), make(preset), make(preset, 1)
    assert names == others
    drawn = {
        "cellular": {
            "client_km",
            "edge_km",
            "up_snr",
            "down_snr",
            "clients.flop_per_s",
            "edges.flop_per_s",
        },
        "device_zoo": {"client_km", "edge_km"},
    }.get(preset, set())
    for (name, leaf), (_, same), (_, another) in zip(
        leaves(network), leaves(again), leaves(other), strict=True
    ):
        np.testing.assert_array_equal(leaf, same)
        if name in drawn:
            assert (leaf != another).all()
        elif preset != "device_zoo":
            np.testing.assert_array_equal(leaf, another)


def test_cellular_is_as_it_was_before_it_had_places():
    network, _ = make("cellular")
    up, down = rates(network, "up") / 1e6, rates(network, "down") / 1e6
    assert_close(up[0], FORMER["up"], each=True)
    assert_close(down[299], FORMER["down"], each=True)
    assert_close(network.clients.flop_per_s[:3], FORMER["client"], 1e-6, each=True)
    assert_close(network.edges.flop_per_s, FORMER["edge"], 1e-6, each=True)


def test_the_places_of_a_cell_are_uniform_in_a_disc():
    """Of such points, the squared distance from the centre is uniform."""
    for preset in ("cellular", "device_zoo"):
        network, _ = make(preset)
        radius = np.linalg.norm(network.client_km, axis=1)
        assert max(radius.max(), np.linalg.norm(network.edge_km, axis=1).max()) <= 0.5
        np.testing.assert_array_equal(network.front_km, 0)
        error = 4 * np.sqrt(0.25 * 0.75 / NUM_CLIENTS)
        assert (radius < 0.25).mean() == pytest.approx(0.25, abs=error)
        angle = np.arctan2(*network.client_km.T)
        assert (angle < 0).mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / NUM_CLIENTS))


@pytest.mark.parametrize("preset", ["cellular", "uniform", "device_zoo"])
def test_rates_follow_from_places_by_the_path_loss(preset):
    network, names = make(preset, num_clients=40)
    server_km = [*network.edge_km.tolist(), network.front_km.tolist()]
    senders = [*class_names(network, names, "edges"), *class_names(network, names, "front")]
    up, down = rates(network, "up"), rates(network, "down")
    for k, (place, name) in enumerate(
        zip(network.client_km.tolist(), class_names(network, names, "clients"), strict=True)
    ):
        radio = {"bandwidth_hz": CLASSES[name].bandwidth_hz, "noise_w_per_hz": 3.981e-21}
        assert_close(network.bandwidth_hz[k], radio["bandwidth_hz"], 1e-6)
        for e, (at, sender) in enumerate(zip(server_km, senders, strict=True)):
            distance = max(math.dist(place, at), 0.035)
            for rate, power_w in (
                (up[k, e], CLASSES[name].transmit_w),
                (down[k, e], CLASSES[sender].transmit_w),
            ):
                wanted = oracle.shannon_rate(distance, power_w=power_w, **radio)
                assert_close(rate, wanted)


def test_uniform_is_uniform_and_half_the_radius_away():
    network, _ = make("uniform")
    for name, leaf in leaves(network):
        if not name.endswith("_km"):
            assert len(np.unique(leaf)) == 1
    offset = network.client_km[:, None] - network.edge_km
    assert_close(np.linalg.norm(offset, axis=-1), 0.25, 1e-6)
    assert_close(np.linalg.norm(network.client_km, axis=1), 0.25, 1e-6)
    assert_close(rates(network, "up"), oracle.shannon_rate(0.25, **UP), each=True)
    assert_close(rates(network, "down"), oracle.shannon_rate(0.25, **DOWN), each=True)
    assert_close(network.clients.flop_per_s, 5e9, 1e-6)
    assert_close(network.edges.flop_per_s, 500e9, 1e-6, each=True)
    assert_close(network.backhaul_bps, 1e9, 1e-6, each=True)


def test_computing_power_of_a_cell_differs_within_its_bounds():
    network, _ = make("cellular")
    for speed, usual in ((network.clients.flop_per_s, 5e9), (network.edges.flop_per_s, 500e9)):
        assert len(np.unique(speed)) == len(speed)
        assert speed.min() >= 0.4 * usual * (1 - 1e-5)
        assert speed.max() <= 1.6 * usual * (1 + 1e-5)
    # Log-uniform: half of the clients are below the geometric mean 0.8.
    below = (network.clients.flop_per_s < 0.8 * 5e9).mean()
    assert below == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / NUM_CLIENTS))


def test_hierfavg_has_the_numbers_of_the_paper():
    """Table I of Liu et al.: its model takes 0.1233 s and 0.0616 J to send (DESIGN, section 5)."""
    network, _ = make("hierfavg")
    bits = 32 * 21_840
    for direction in ("up", "down"):
        wanted = oracle.communication_time(bits, 1e6, 1e-8, 0.5, 1e-10)
        assert_close(bits / rates(network, direction), wanted, 1e-6, each=True)
        assert_close(bits / rates(network, direction), 0.1233, 0, atol=1e-4)
    send_j = network.clients.transmit_w[:, None] * bits / rates(network, "up")
    assert_close(send_j, 0.0616, 0, atol=1e-4)
    np.testing.assert_array_equal(network.edges.transmit_w, np.float32(0.5))
    # The cloud is ten times as far away in time.
    assert_close(network.backhaul_bps, rates(network, "up")[0] / 10, 1e-6, each=True)

    cycles_per_bit, computed_bits = 20, 1e6
    time_s = oracle.computation_time(computed_bits, cycles_per_bit, 1e9)
    energy_j = oracle.computation_energy(computed_bits, cycles_per_bit, 1e9, 2e-28)
    assert_close(network.clients.flop_per_s, cycles_per_bit * computed_bits / time_s, 1e-6)
    assert_close(network.clients.busy_w * time_s, energy_j, 1e-6)
    np.testing.assert_array_equal(network.clients.idle_w, 0)


@pytest.mark.parametrize(("num_clients", "num_edges"), [(1, 1), (2, 2), (7, 3), (99, 10), (999, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_zoo_has_its_shares_by_largest_remainder(num_clients, num_edges, seed):
    """No class is off by one device, all are given out, and who rounds up has the most left."""
    network, names = make("device_zoo", seed, num_clients, num_edges)
    for role, mix, count in (
        ("clients", presets.CLIENT_MIX, num_clients),
        ("edges", presets.EDGE_MIX, num_edges),
    ):
        assert sum(mix.values()) == 100
        held = collections.Counter(class_names(network, names, role))
        assert set(held) <= set(mix)
        assert held.total() == count
        rest = {True: [], False: []}
        for name, percent in mix.items():
            share = percent * count / 100
            assert held[name] in (math.floor(share), math.floor(share) + 1)
            rest[held[name] > math.floor(share)].append(share - math.floor(share))
        assert min(rest[True], default=1) >= max(rest[False], default=0) - 1e-9


def test_a_zoo_of_a_hundred_is_its_percentages():
    network, names = make("device_zoo", num_clients=100, num_edges=100)
    held = collections.Counter(class_names(network, names, "clients"))
    assert held == presets.CLIENT_MIX
    assert collections.Counter(class_names(network, names, "edges")) == presets.EDGE_MIX
    assert max(held, key=held.get) == "phone"
    assert class_names(network, names, "cloud") == ["cloud_accelerator"]


def test_a_zoo_is_shuffled_by_its_seed():
    first, second = make("device_zoo")[0], make("device_zoo", 1)[0]
    for network in (first, second):
        assert (np.diff(network.clients.kind) < 0).any()
    assert (first.clients.kind != second.clients.kind).any()
    assert (first.edges.kind != make("device_zoo", 2)[0].edges.kind).any()


@pytest.mark.parametrize("preset", ["cellular", "uniform", "device_zoo"])
def test_devices_have_the_numbers_of_their_class(preset):
    network, names = make(preset)
    for role in ROLES:
        devices = getattr(network, role)
        for field in ("flop_per_s", "idle_w", "busy_w", "transmit_w"):
            if (preset, field) != ("cellular", "flop_per_s"):
                of_role = class_names(network, names, role)
                wanted = [getattr(CLASSES[name], field) for name in of_role]
                leaf = np.atleast_1d(getattr(devices, field))
                assert_close(leaf, wanted, 1e-6, each=True)


def test_classes_are_possible():
    for name, device in CLASSES.items():
        assert name.isidentifier()
        assert all(type(value) is float for value in dataclasses.astuple(device))
        assert device.flop_per_s > 0
        assert 0 < device.idle_w < device.busy_w
        assert (device.bandwidth_hz > 0) == (device.transmit_w > 0)
        # The most efficient float32 hardware of these years reaches some 100 GFLOP/s a watt.
        assert 1e8 < device.flop_per_s / device.busy_w < 1e11
    speeds = [
        CLASSES[name].flop_per_s
        for name in (
            "microcontroller",
            "raspberry_pi_4",
            "jetson_nano",
            "jetson_xavier_nx",
            "workstation",
            "edge_server",
            "cloud_accelerator",
        )
    ]
    assert speeds == sorted(speeds)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"network\.preset='satellite' is unknown; known: cell"):
        make("satellite")
