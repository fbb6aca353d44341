"""The networks that the settings name, and the classes of their devices."""

import collections
import dataclasses
import math

import jax
import numpy as np
import pytest

from cefl_jax.network.sources import presets
from cefl_jax.network.sources.assembly import CLASSES
from cefl_jax.specs import NetworkSpec
from tests.compare import assert_close
from tests.network.sources.test_network_file import check_network, rates
from tests.oracles import network as oracle

NUM_CLIENTS, NUM_EDGES = 300, 5
MADE = tuple(name for name in presets.PRESETS if name != "file")
ROLES = ("clients", "edges", "front", "cloud")
DRAWN = ["client_km", "edge_km", "up_snr", "down_snr", "clients", "edges"]

FORMER = {  # of cellular with seed 0, 300 clients and 5 edge nodes, before networks had places
    "up": [21.44034, 13.42969, 30.679134, 15.018183, 87.46284, 46.692028],  # of client 0, Mbit/s
    "down": [31.882576, 33.447803, 59.052807, 40.411507, 84.686104, 64.953285],  # of client 299
    "client": [2.9341645e9, 2.0429024e9, 2.7073155e9],  # FLOP/s, the first clients'
    "edge": [3.0154470e11, 2.4493713e11, 4.8707266e11, 6.4241205e11, 3.5798132e11],
}


def make(preset, seed=0, num_clients=NUM_CLIENTS, num_edges=NUM_EDGES):
    return presets.make_network(NetworkSpec(preset, num_edges=num_edges), num_clients, seed)


def class_names(network, names, role):
    return [names[kind] for kind in np.atleast_1d(getattr(network, role).kind)]


@pytest.mark.parametrize("preset", MADE)
@pytest.mark.parametrize(("num_clients", "num_edges"), [(NUM_CLIENTS, NUM_EDGES), (1, 1)])
def test_make_network_has_shapes_and_devices_and_links_that_work(preset, num_clients, num_edges):
    network, names = make(preset, num_clients=num_clients, num_edges=num_edges)
    check_network(network, names, num_clients, num_edges)
    assert len({*names}) == len(names)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(network))
    for role, sides in (("clients", (num_clients,)), ("edges", (num_edges,)), ("front", ())):
        devices = getattr(network, role)
        assert {leaf.shape for leaf in devices} == {sides}
        assert (devices.busy_w > devices.idle_w).all()
        assert (devices.transmit_w > 0).all()


@pytest.mark.parametrize(
    ("preset", "drawn"),
    [
        ("cellular", DRAWN),
        ("device_zoo", [*DRAWN, "bandwidth_hz"]),
        ("uniform", []),
        ("hierfavg", []),
    ],
)
def test_make_network_draws_places_and_speeds_by_the_seed(preset, drawn):
    (network, names), (again, _), (other, others) = make(preset), make(preset), make(preset, 1)
    assert names == others
    jax.tree.map(np.testing.assert_array_equal, network, again)
    for field in network._fields:
        one, two = (jax.tree.leaves(getattr(made, field)) for made in (network, other))
        equal = all(map(np.array_equal, one, two))
        assert equal == (field not in drawn), field
    for field in {"client_km", "edge_km"} & {*drawn}:
        assert (getattr(network, field) != getattr(other, field)).all()


def test_cellular_is_as_it_was_before_it_had_places():
    network, _ = make("cellular")
    up, down = rates(network, "up") / 1e6, rates(network, "down") / 1e6
    assert_close(up[0], FORMER["up"], each=True)
    assert_close(down[299], FORMER["down"], each=True)
    assert_close(network.clients.flop_per_s[:3], FORMER["client"], 1e-6, each=True)
    assert_close(network.edges.flop_per_s, FORMER["edge"], 1e-6, each=True)


@pytest.mark.parametrize("preset", ["cellular", "device_zoo"])
def test_make_network_draws_places_uniform_in_a_disc(preset):
    """Of such points, the squared distance from the centre is uniform."""
    network, _ = make(preset)
    radius = np.linalg.norm(network.client_km, axis=1)
    assert max(radius.max(), np.linalg.norm(network.edge_km, axis=1).max()) <= 0.5
    np.testing.assert_array_equal(network.front_km, 0)
    error = 4 * np.sqrt(0.25 * 0.75 / NUM_CLIENTS)
    assert (radius < 0.25).mean() == pytest.approx(0.25, abs=error)
    angle = np.arctan2(*network.client_km.T)
    assert (angle < 0).mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / NUM_CLIENTS))


@pytest.mark.parametrize("preset", ["cellular", "uniform", "device_zoo"])
def test_make_network_has_the_numbers_of_classes_and_the_rates_of_places(preset):
    network, names = make(preset, num_clients=40)
    for role in ROLES:
        of_role = [CLASSES[name] for name in class_names(network, names, role)]
        for field in ("flop_per_s", "idle_w", "busy_w", "transmit_w"):
            if (preset, field) != ("cellular", "flop_per_s"):  # which is drawn
                leaf = np.atleast_1d(getattr(getattr(network, role), field))
                wanted = [getattr(device, field) for device in of_role]
                assert_close(leaf, wanted, 1e-6, each=True)
    assert_close(network.backhaul_bps, 1e9, 1e-6, each=True)
    senders = class_names(network, names, "edges") + class_names(network, names, "front")
    km = np.linalg.norm(
        network.client_km[:, None] - np.vstack([network.edge_km, network.front_km]), axis=-1
    )
    up, down = rates(network, "up"), rates(network, "down")
    for k, name in enumerate(class_names(network, names, "clients")):
        radio = {"bandwidth_hz": CLASSES[name].bandwidth_hz, "noise_w_per_hz": 3.981e-21}
        assert_close(network.bandwidth_hz[k], radio["bandwidth_hz"], 1e-6)
        for e, sender in enumerate(senders):
            for rate, power_w in (
                (up[k, e], CLASSES[name].transmit_w),
                (down[k, e], CLASSES[sender].transmit_w),
            ):
                distance = max(float(km[k, e]), 0.035)
                assert_close(rate, oracle.shannon_rate(distance, power_w=power_w, **radio))


def test_uniform_is_uniform_and_half_the_radius_away():
    network, _ = make("uniform")
    for field in ("clients", "edges", "bandwidth_hz", "up_snr", "down_snr", "backhaul_bps"):
        for leaf in jax.tree.leaves(getattr(network, field)):
            assert len(np.unique(leaf)) == 1
    offset = network.client_km[:, None] - network.edge_km
    assert_close(np.linalg.norm(offset, axis=-1), 0.25, 1e-6)
    assert_close(np.linalg.norm(network.client_km, axis=1), 0.25, 1e-6)


def test_cellular_draws_speeds_log_uniformly_within_bounds():
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


@pytest.mark.parametrize(("num_clients", "num_edges"), [(1, 1), (7, 3), (100, 100), (999, 4)])
def test_device_zoo_has_its_shares_by_largest_remainder_shuffled(num_clients, num_edges):
    """No class is off by one device, all are given out, and who rounds up has the most left."""
    network, names = make("device_zoo", 1, num_clients, num_edges)
    assert class_names(network, names, "cloud") == ["cloud_accelerator"]
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
        kind = getattr(network, role).kind
        assert count < 10 or (np.diff(kind) < 0).any()


def test_classes_are_possible():
    for name, device in CLASSES.items():
        assert name.isidentifier()
        assert all(type(value) is float for value in dataclasses.astuple(device))
        assert 0 < device.idle_w < device.busy_w
        assert (device.bandwidth_hz > 0) == (device.transmit_w > 0)
        # The most efficient float32 hardware of these years reaches some 100 GFLOP/s a watt.
        assert 1e8 < device.flop_per_s / device.busy_w < 1e11
    ascending = "microcontroller raspberry_pi_4 jetson_nano jetson_xavier_nx workstation"
    speeds = [CLASSES[name].flop_per_s for name in f"{ascending} edge_server".split()]
    assert speeds == sorted(speeds)
    assert CLASSES["cloud_accelerator"].flop_per_s > max(speeds)


def test_make_network_refuses_an_unknown_preset():
    with pytest.raises(ValueError, match=r"network\.preset='satellite' is unknown; known: cell"):
        make("satellite")
