"""Joules of a round by device class."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float32

from cefl_jax.indexing import at_pairs
from cefl_jax.network.schedule import Schedule
from cefl_jax.network.step_times import Task, own_server
from cefl_jax.network.topology import RoundNetwork, radio_watts


def round_energy(
    task: Task,
    schedule: Schedule,
    round_s: Float32[Array, ""],
    network: RoundNetwork,
    work: Any,
    averaging_s: Float32[Array, "2"],
    distillation_s: Float32[Array, ""],
    num_kinds: int,
) -> Float32[Array, "num_kinds"]:
    """What the devices of a round draw from its beginning to its end.

    A device that takes part draws its idle watts for as long as it does, more while it computes,
    and the power that it radiates while it sends. Clients that finish wait for the end of the
    round; one that drops out takes part until then. A server takes part until the last cluster on
    it has closed; the clusters that share it compute one after another. Front aggregation server
    and cloud are otherwise other people's: averaging and distillation are paid at busy watts.
    Clients that never started, servers without a cluster, and wires draw nothing.

    Args:
      task: step_times.Task.
      schedule: schedule.Schedule.
      round_s: f32[] seconds of the whole round.
      network: RoundNetwork.
      work: Workload.
      averaging_s: f32[2] seconds at front aggregation server and cloud.
      distillation_s: f32[] seconds at the cloud.
      num_kinds: static number of device classes.
    Returns:
      f32[num_kinds] joules.
    """
    pace, front, cloud = schedule.pace, network.front, network.cloud
    loads_s = jnp.where(schedule.started, pace.load, 0.0).sum()
    server_j, radio_j = _server_joules(task, schedule, network, work)
    relayed = jnp.isinf(network.backhaul_bps)
    joules = jnp.zeros(num_kinds)
    for kind, amount in (
        (network.clients.kind, _client_joules(task, schedule, round_s, network)),
        (network.servers.kind, server_j),
        (jnp.where(relayed, front.kind, network.servers.kind), radio_j),
        (front.kind, front.busy_w * averaging_s[0] + front.transmit_w * loads_s),
        (cloud.kind, cloud.busy_w * (averaging_s[1] + distillation_s)),
    ):
        joules = joules.at[kind].add(amount)
    return joules


def _client_joules(task, schedule, round_s, network):
    """Joules of each client, f32[K]."""
    clients, pace = network.clients, schedule.pace
    radio = _at_own_server(task, network.up_bps / network.radio_up_bps)
    delivers_s = jnp.where(schedule.counts, pace.deliver, 0.0)
    present_s = jnp.where(schedule.finished, round_s, schedule.out_s + delivers_s)
    return (
        clients.idle_w * present_s
        + (clients.busy_w - clients.idle_w) * _total(task, schedule, pace.forward + pace.backward)
        + clients.transmit_w * (_total(task, schedule, pace.send) * radio + delivers_s)
    )


def _server_joules(task, schedule, network, work):
    """Joules of each server's idling and computing, f32[E], and of what is radiated for it."""
    servers, num_servers = network.servers, network.servers.flop_per_s.shape[0]
    placed = own_server(task)
    at = jnp.where(schedule.started & (placed >= 0), placed, num_servers)
    nothing = jnp.zeros(num_servers)
    trained = _total(task, schedule, task.samples) * work.back_train_flop
    busy_s = nothing.at[at].add(trained, mode="drop") / servers.flop_per_s
    radio = _at_own_server(task, network.down_bps / network.radio_down_bps)
    sends_s = _total(task, schedule, schedule.pace.receive) * radio
    sends_s = nothing.at[at].add(sends_s, mode="drop")
    cluster_at = jnp.where(task.placement < 0, num_servers, task.placement)
    reserved_s = nothing.at[cluster_at].max(schedule.closed_s, mode="drop")
    server_j = servers.idle_w * reserved_s + (servers.busy_w - servers.idle_w) * busy_s
    return server_j, radio_watts(network) * sends_s


def _total(task, schedule, values):
    """Sum f32[K] of values [K, S] over the local steps that each client made."""
    made = jnp.arange(task.samples.shape[1])[None] < schedule.steps[:, None]
    return jnp.where(made, values, 0).sum(1)


def _at_own_server(task, values):
    """Values f32[K, E] at each client's own server, f32[K]; 0 without one."""
    placed = own_server(task)
    own = at_pairs(values, jnp.arange(placed.shape[0]), jnp.maximum(placed, 0))
    return jnp.where(placed < 0, 0.0, own)
