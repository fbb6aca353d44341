"""The computing power network: what it is made of, and what the clients of a round see of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32

from cefl_jax.numerics import take
from cefl_jax.types import AnyArray

MAX_LOAD = 0.95  # share of an edge node that others can take; a node never stands still


class Devices(NamedTuple):
    """Devices of one role, leaves f32[...] of one shape."""

    flop_per_s: Float32[Array, "..."]  # sustained while training
    idle_w: Float32[Array, "..."]  # drawn while waiting
    busy_w: Float32[Array, "..."]  # drawn while computing
    transmit_w: Float32[Array, "..."]  # radiated while sending, on top of either
    kind: Int32[Array, "..."]  # device class, an index into the names that come with the network


class Network(NamedTuple):
    """What the network is made of; NumPy arrays before the run, device arrays in it.

    The last column of a client's links is the one to the front aggregation server.
    """

    clients: Devices  # [N]
    edges: Devices  # [E]
    front: Devices  # [], the front aggregation server
    cloud: Devices  # []
    client_km: Float32[Array, "N 2"]  # position
    edge_km: Float32[Array, "E 2"]
    front_km: Float32[Array, "2"]
    bandwidth_hz: Float32[Array, "N"]  # of a client's link, each way
    up_snr: Float32[Array, "N E+1"]  # mean signal-to-noise ratio, client to server
    down_snr: Float32[Array, "N E+1"]  # and back
    backhaul_bps: Float32[Array, "E+1"]  # between server and cloud, each way
    trace: Any = None  # dynamics.Trace that the run replays


class Conditions(NamedTuple):
    """The present state of the network: what changes from round to round."""

    # Shadow fading of a client's links, alike both ways; an axis of 1 where all are alike.
    shadow_db: Float32[Array, "N|1 E+1|1"]
    edge_load: Float32[Array, "E"]  # share of an edge node that others take; see MAX_LOAD
    available: Bool[Array, "N"]  # clients that can be sampled


class RoundNetwork(NamedTuple):
    """The network as the clients of a round see it now; the last server may be the cloud."""

    clients: Devices  # [K]
    servers: Devices  # [E] or [E + 1]
    front: Devices  # []
    cloud: Devices  # []
    distance_km: Float32[Array, "K E"]  # to each server; infinite to the cloud
    up_bps: Float32[Array, "K E"]  # client to server
    down_bps: Float32[Array, "K E"]  # and back
    radio_up_bps: Float32[Array, "K E"]  # of the radio in up_bps, which to the cloud has a wire too
    radio_down_bps: Float32[Array, "K E"]  # likewise
    front_up_bps: Float32[Array, "K"]  # client to front aggregation server
    front_down_bps: Float32[Array, "K"]  # and back
    backhaul_bps: Float32[Array, "E"]  # between server and cloud, each way; infinite for the cloud


def radios(network: RoundNetwork) -> Devices:
    """Returns what sends to clients for each server, [E]: to the cloud's, the front's radio."""
    relayed, front, servers = jnp.isinf(network.backhaul_bps), network.front, network.servers
    transmit_w = jnp.where(relayed, front.transmit_w, servers.transmit_w)
    return servers._replace(
        transmit_w=transmit_w, kind=jnp.where(relayed, front.kind, servers.kind)
    )


def of_clients(
    network: Network,
    conditions: Conditions,
    clients: Int[AnyArray, "K"],
    include_cloud: bool = False,
) -> RoundNetwork:
    """Returns the network as the clients of a round see it.

    A client reaches the cloud through the front aggregation server, which hands on what it gets
    when it has all of it, and whose radio sends what comes from the cloud.

    Args:
      network: Network.
      conditions: Conditions.
      clients: i32[K]; N stands for an empty place, whose values are finite and mean nothing.
      include_cloud: static, the cloud is one more server.
    Returns:
      RoundNetwork.
    """
    of = lambda leaf: take(leaf, clients, None)  # noqa: E731
    bandwidth, fade = of(network.bandwidth_hz)[:, None], 10.0 ** (of(conditions.shadow_db) / 10.0)
    up, down = (
        bandwidth * jnp.log1p(of(snr) * fade) * (1.0 / jnp.log(2.0))
        for snr in (network.up_snr, network.down_snr)
    )
    free = 1.0 - jnp.clip(conditions.edge_load, 0.0, MAX_LOAD)
    servers = network.edges._replace(flop_per_s=network.edges.flop_per_s * free)
    offset = of(network.client_km)[:, None] - network.edge_km[None]
    distance = jnp.sqrt((offset**2).sum(-1))  # [K, E]
    front_up, front_down, backhaul = up[:, -1], down[:, -1], network.backhaul_bps[:-1]
    radio_up, radio_down = up, down
    up, down = up[:, :-1], down[:, :-1]
    if include_cloud:
        wire = 1.0 / network.backhaul_bps[-1]
        servers = jax.tree.map(jnp.append, servers, network.cloud)
        up = jnp.column_stack([up, 1.0 / (1.0 / front_up + wire)])
        down = jnp.column_stack([down, 1.0 / (1.0 / front_down + wire)])
        distance = jnp.pad(distance, ((0, 0), (0, 1)), constant_values=jnp.inf)
        backhaul = jnp.append(backhaul, jnp.inf)
    return RoundNetwork(
        clients=jax.tree.map(of, network.clients),
        servers=servers,
        front=network.front,
        cloud=network.cloud,
        distance_km=distance,
        up_bps=up,
        down_bps=down,
        radio_up_bps=radio_up[:, : up.shape[1]],
        radio_down_bps=radio_down[:, : up.shape[1]],
        front_up_bps=front_up,
        front_down_bps=front_down,
        backhaul_bps=backhaul,
    )


def without_servers(network: RoundNetwork) -> RoundNetwork:
    """Returns a RoundNetwork for clients that train alone: its one server costs nothing."""
    one = jnp.ones(1)
    idle = Devices(one, 0 * one, 0 * one, 0 * one, network.front.kind[None])
    links = jnp.ones((network.up_bps.shape[0], 1))
    return network._replace(
        servers=idle,
        distance_km=0 * links,
        up_bps=links,
        down_bps=links,
        radio_up_bps=links,
        radio_down_bps=links,
        backhaul_bps=jnp.full(1, jnp.inf),
    )
