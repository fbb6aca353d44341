"""What the clients of a round see of the network, against its equations."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.network import topology
from cefl_jax.network.topology import Conditions, Devices, Network, RoundNetwork
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


def expect(network, conditions, clients, include_cloud):
    """The RoundNetwork in float64, rates by W log2(1 + snr 10^(shadow / 10)).

    A bit to the cloud takes its time by radio to the front and then its time by wire.
    """
    fade = 10.0 ** (conditions.shadow_db[clients].astype(float) / 10)
    bandwidth = network.bandwidth_hz[clients, None].astype(float)
    radio = [
        bandwidth * np.log2(1 + snr[clients] * fade) for snr in (network.up_snr, network.down_snr)
    ]
    front = [rate[:, -1] for rate in radio]
    km = np.linalg.norm(network.client_km[clients, None] - network.edge_km, axis=-1)
    load = np.clip(conditions.edge_load.astype(float), 0.0, 0.95)
    servers = network.edges._replace(flop_per_s=network.edges.flop_per_s * (1 - load))
    *backhaul, wire = network.backhaul_bps.astype(float)
    if include_cloud:
        through = [np.column_stack([r[:, :-1], 1 / (1 / r[:, -1] + 1 / wire)]) for r in radio]
        km = np.column_stack([km, np.full(len(km), np.inf)])
        servers = jax.tree.map(np.append, servers, network.cloud)
        backhaul.append(np.inf)
    else:
        through = radio = [rate[:, :-1] for rate in radio]
    own = jax.tree.map(lambda leaf: leaf[clients], network.clients)
    backhaul = np.array(backhaul)
    return RoundNetwork(
        own, servers, network.front, network.cloud, km, *through, *radio, *front, backhaul
    )


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
    assert_close(seen, expect(network, conditions, clients, include_cloud), each=True)


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


def test_without_servers_has_one_that_costs_nothing():
    rng = np.random.default_rng(0)
    seen = of_clients(True)(draw_network(rng, 5, 3), draw_conditions(rng, 5, 3), np.arange(4))
    alone = topology.without_servers(seen)
    assert alone.up_bps.shape == alone.radio_down_bps.shape == alone.distance_km.shape == (4, 1)
    assert not np.any([alone.servers.idle_w, alone.servers.busy_w, alone.servers.transmit_w])
    assert np.isinf(alone.backhaul_bps).tolist() == [True]
    for field in ("clients", "front", "cloud", "front_up_bps", "front_down_bps"):
        jax.tree.map(np.testing.assert_array_equal, getattr(alone, field), getattr(seen, field))
