"""What the clients of a round see of the network, against its equations."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.network import topology
from cefl_jax.network.topology import Conditions, Devices, Network
from tests.compare import assert_close
from tests.quick import quick_jit

SIZES = [(1, 1, 1), (5, 3, 4), (4, 2, 4)]  # N, E, K: one of each, uneven, full


@functools.cache
def of_clients(include_cloud):
    return quick_jit(functools.partial(topology.of_clients, include_cloud=include_cloud))


def draw_devices(rng, shape):
    watts, flop_per_s = rng.uniform(0.1, 300, (3, *shape)), 10 ** rng.uniform(7, 13, shape)
    leaves = (np.asarray(leaf, np.float32) for leaf in (flop_per_s, *watts))
    return Devices(*leaves, kind=np.asarray(rng.integers(0, 9, shape), np.int32))


def draw_network(rng, num_clients, num_edges):
    links = num_clients, num_edges + 1
    leaves = {
        "client_km": rng.normal(size=(num_clients, 2)),
        "edge_km": rng.normal(size=(num_edges, 2)),
        "front_km": rng.normal(size=2),
        "bandwidth_hz": 10 ** rng.uniform(5, 8, num_clients),
        "up_snr": 10 ** rng.uniform(-4, 6, links),
        "down_snr": 10 ** rng.uniform(-4, 6, links),
        "backhaul_bps": 10 ** rng.uniform(6, 10, num_edges + 1),
    }
    return Network(
        clients=draw_devices(rng, (num_clients,)),
        edges=draw_devices(rng, (num_edges,)),
        front=draw_devices(rng, ()),
        cloud=draw_devices(rng, ()),
        **{name: leaf.astype(np.float32) for name, leaf in leaves.items()},
    )


def draw_conditions(rng, num_clients, num_edges):
    return Conditions(
        shadow_db=rng.normal(0, 8, (num_clients, num_edges + 1)).astype(np.float32),
        edge_load=rng.uniform(-0.5, 1.5, num_edges).astype(np.float32),
        available=rng.uniform(size=num_clients) < 0.5,
    )


def rate(network, conditions, client, server, snr):
    """bit/s: W log2(1 + snr 10^(shadow / 10)), with float64."""
    fade = 10.0 ** (float(conditions.shadow_db[client, server]) / 10)
    return float(network.bandwidth_hz[client]) * np.log2(1 + float(snr[client, server]) * fade)


@pytest.mark.parametrize("include_cloud", [False, True])
@pytest.mark.parametrize("size", SIZES)
@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_of_clients_equals_the_equations(size, include_cloud, seed):
    (num_clients, num_edges, k), rng = size, np.random.default_rng(seed)
    network = draw_network(rng, num_clients, num_edges)
    conditions = draw_conditions(rng, num_clients, num_edges)
    clients = rng.choice(num_clients, k, replace=False).astype(np.int32)
    seen = of_clients(include_cloud)(network, conditions, clients)

    near = functools.partial(assert_close, each=True)
    front = num_edges
    rates = {
        direction: np.array(
            [
                [rate(network, conditions, client, server, snr) for server in range(num_edges + 1)]
                for client in clients
            ]
        )
        for direction, snr in (("up", network.up_snr), ("down", network.down_snr))
    }
    near(seen.front_up_bps, rates["up"][:, front])
    near(seen.front_down_bps, rates["down"][:, front])
    for row, client in enumerate(clients):
        for edge in range(num_edges):
            x, y = network.client_km[client] - network.edge_km[edge]
            near(seen.distance_km[row, edge], np.hypot(x, y))
            near(seen.up_bps[row, edge], rates["up"][row, edge])
            near(seen.down_bps[row, edge], rates["down"][row, edge])
    load = np.minimum(np.maximum(conditions.edge_load.astype(float), 0.0), 0.95)
    near(seen.servers.flop_per_s[:num_edges], network.edges.flop_per_s * (1 - load))
    near(seen.backhaul_bps[:num_edges], network.backhaul_bps[:front])
    for field in Devices._fields:
        of_client = getattr(network.clients, field)[clients]
        np.testing.assert_array_equal(getattr(seen.clients, field), of_client)
        np.testing.assert_array_equal(getattr(seen.front, field), getattr(network.front, field))
        np.testing.assert_array_equal(getattr(seen.cloud, field), getattr(network.cloud, field))
        if field != "flop_per_s":
            at_edges = getattr(seen.servers, field)[:num_edges]
            np.testing.assert_array_equal(at_edges, getattr(network.edges, field))

    assert seen.up_bps.shape == seen.down_bps.shape == (k, num_edges + include_cloud)
    assert seen.distance_km.shape == (k, num_edges + include_cloud)
    assert seen.servers.kind.shape == seen.backhaul_bps.shape == (num_edges + include_cloud,)
    if include_cloud:
        wire = network.backhaul_bps[front].astype(float)
        for direction, through in (("up", seen.up_bps), ("down", seen.down_bps)):
            # A bit takes its time by radio and then its time by wire.
            near(1 / np.asarray(through[:, -1]), 1 / rates[direction][:, front] + 1 / wire)
        assert np.isinf(seen.distance_km[:, -1]).all()
        assert np.isinf(seen.backhaul_bps[-1])
        for field in Devices._fields:
            np.testing.assert_array_equal(
                getattr(seen.servers, field)[-1], getattr(network.cloud, field)
            )
    for direction, radio in (("up", seen.radio_up_bps), ("down", seen.radio_down_bps)):
        near(radio, rates[direction][:, : num_edges + include_cloud])


def test_of_clients_at_an_empty_place_is_finite_and_moves_nobody():
    rng = np.random.default_rng(0)
    network, conditions = draw_network(rng, 5, 3), draw_conditions(rng, 5, 3)
    see = of_clients(False)
    whole, padded = (see(network, conditions, np.array(c)) for c in ([1, 0, 3, 2], [1, 0, 5, 5]))
    for full, leaf in zip(jax.tree.leaves(whole), jax.tree.leaves(padded), strict=True):
        assert leaf.shape == full.shape
        assert leaf.dtype == full.dtype
        assert np.isfinite(leaf).all()
    for field in ("up_bps", "down_bps", "front_up_bps", "front_down_bps", "distance_km"):
        np.testing.assert_array_equal(getattr(padded, field)[:2], getattr(whole, field)[:2])
        assert (getattr(padded, field) > 0).all()
    np.testing.assert_array_equal(padded.servers.flop_per_s, whole.servers.flop_per_s)


@pytest.mark.parametrize(
    ("load", "left"), [(-1.0, 1.0), (0.0, 1.0), (0.3, 0.7), (0.95, 0.05), (1.0, 0.05), (7.0, 0.05)]
)
def test_of_clients_slows_a_loaded_node_and_never_stops_it(load, left):
    rng = np.random.default_rng(2)
    network, conditions = draw_network(rng, 4, 2), draw_conditions(rng, 4, 2)
    loaded = conditions._replace(edge_load=np.array([0.0, load], np.float32))
    seen = of_clients(False)(network, loaded, np.arange(4))
    expected = network.edges.flop_per_s * np.array([1.0, left])
    assert_close(seen.servers.flop_per_s, expected, each=True)


def test_without_servers_has_one_that_costs_nothing():
    rng = np.random.default_rng(0)
    seen = of_clients(True)(draw_network(rng, 5, 3), draw_conditions(rng, 5, 3), np.arange(4))
    alone = topology.without_servers(seen)
    assert alone.up_bps.shape == alone.radio_down_bps.shape == alone.distance_km.shape == (4, 1)
    assert not np.any([alone.servers.idle_w, alone.servers.busy_w, alone.servers.transmit_w])
    assert np.isinf(alone.backhaul_bps).tolist() == [True]
    for field in ("clients", "front", "cloud", "front_up_bps", "front_down_bps"):
        jax.tree.map(np.testing.assert_array_equal, getattr(alone, field), getattr(seen, field))
