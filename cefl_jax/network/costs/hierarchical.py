"""What a round costs in which edge nodes average their own clients' models several times."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from cefl_jax.network.ledger import Activity, RoundCost, paid, phase_seconds, round_cost
from cefl_jax.network.messages import Sent, Sizes
from cefl_jax.network.schedule import Schedule
from cefl_jax.network.step_times import Task, members, own_server, step_times
from cefl_jax.network.topology import RoundNetwork
from cefl_jax.numerics import at_pairs
from cefl_jax.types import Number


class EdgeRoundTimes(NamedTuple):
    """What clients and edge nodes do in R edge rounds; nothing where they take no part."""

    loads: Bool[Array, "K R"]  # the client loads its edge node's model
    delivers: Bool[Array, "K R"]  # and delivers its own
    ways_s: Float32[Array, "4 K R"]  # loading, forward, backward, delivering
    path_s: Float32[Array, "4 E R"]  # those of each edge node's last client
    average_s: Float32[Array, "E"]  # the edge node averages, in each edge round
    begin_s: Float32[Array, "E R"]  # when an edge round begins
    down_s: Float32[Array, "E"]  # until the edge node has the cloud's model
    up_s: Float32[Array, "E"]  # until the cloud has the edge node's
    closed_s: Float32[Array, "E"]  # when it has


def nearest_edges(task: Task, network: RoundNetwork) -> Int32[Array, "K"]:
    """Returns the edge node i32[K] that is nearest to each client of a Task; the first of equals.

    E for a client that takes no part.
    """
    taking_part = own_server(task) >= 0
    return jnp.where(taking_part, network.distance_km.argmin(1), network.distance_km.shape[1])


def steps_per_edge_round(task: Task, edge_rounds: int) -> Int32[Array, "K"]:
    """Local steps i32[K] of each client's every edge round, of a Task of the whole round."""
    return (task.samples > 0).sum(1, dtype=jnp.int32) // edge_rounds


def hierarchical_cost(
    task: Task,
    schedule: Schedule,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    distill_flop: Number,
    num_kinds: int,
    edge_rounds: int,
) -> RoundCost:
    """Returns what a round of edge rounds cost.

    The edge nodes of clients that start get the model from the cloud. In an edge round each client
    loads it from its edge node, makes its local steps and delivers; when the last one has, the edge
    node averages, at 2 FLOPs a parameter and client. After the last edge round it sends its model
    to the cloud, which averages when the slowest edge node has.

    A client that leaves has delivered in every edge round that it completed, and its edge node
    waited until it left; its models are in no average. An edge node without others sends nothing.

    A client takes part until the end of the round or until it leaves, an edge node until the cloud
    has its model.

    Args:
      task: step_times.Task of the whole round; its clusters are not read but for who takes part.
      schedule: schedule.Schedule, of which is read who starts, makes how many steps, and finishes.
      network: RoundNetwork.
      work: Workload, of whole models.
      sizes: messages.Sizes, likewise.
      distill_flop: not read; nothing is distilled.
      num_kinds: static number of device classes.
      edge_rounds: static R.
    """
    node = nearest_edges(task, network)
    own = task._replace(cluster=node, placement=jnp.arange(network.distance_km.shape[1]))
    counting = (members(own) & schedule.finished[None]).sum(1)  # [E]
    times = _run(own, schedule, counting, network, work, sizes, edge_rounds)
    m, num_nodes = times.closed_s.argmax(), (counting > 0).sum()
    cloud_s = 2.0 * num_nodes * work.front_params / network.cloud.flop_per_s
    load_s, forward_s, backward_s, deliver_s = times.path_s[:, m].sum(1)
    phase_s = phase_seconds(
        model_download=times.down_s[m] + load_s,
        front_forward=forward_s,
        front_backward=backward_s,
        model_upload=deliver_s + times.up_s[m],
        averaging=edge_rounds * times.average_s[m] + cloud_s,
    )
    activities = (
        _client_activity(own, schedule, times, network, phase_s.sum()),
        _edge_activity(own, times, network),
        paid(network.cloud, cloud_s),
    )
    started, model = (members(own) & schedule.started[None]).any(1).sum(), sizes.front
    sent: Sent = {
        "client_up": {"model": [(times.delivers.sum(), model)]},
        "client_down": {"model": [(times.loads.sum(), model)]},
        "edge_up": {"model": [(num_nodes, model)]},
        "edge_down": {"model": [(started, model)]},
    }
    return round_cost(phase_s, activities, sent, num_kinds)


def _run(own, schedule, counting, network, work, sizes, edge_rounds):
    """The EdgeRoundTimes of clients at their own edge nodes, of which i32[E] count at each."""
    k, e = jnp.arange(own.cluster.shape[0]), jnp.maximum(own_server(own), 0)
    up_bps, down_bps = (at_pairs(bps, k, e) for bps in (network.up_bps, network.down_bps))
    links = network._replace(front_up_bps=up_bps, front_down_bps=down_bps)  # to their own nodes
    pace = step_times(own, links, work, sizes)
    block = jnp.maximum(steps_per_edge_round(own, edge_rounds), 1)[:, None]
    r = jnp.arange(edge_rounds)[None]
    whole = schedule.steps[:, None] // block  # [K, 1]
    loads = schedule.started[:, None] & (r <= whole)
    delivers = schedule.started[:, None] & (r < whole)
    ways_s = _ways(pace, schedule.steps, block, loads, delivers)
    at_node = members(own)[..., None]  # [E, K, 1]
    last = jnp.where(at_node, ways_s.sum(0), -1.0).argmax(1)  # [E, R]
    path_s = jnp.where(at_node.any(1), at_pairs(ways_s, last, r), 0.0)
    average_s = 2.0 * counting * work.front_params / network.servers.flop_per_s
    edge_round_s = path_s.sum(0) + average_s[:, None]  # [E, R]
    model_s = 8.0 * sizes.front / network.backhaul_bps
    down_s = jnp.where((members(own) & schedule.started[None]).any(1), model_s, 0.0)
    up_s = jnp.where(counting > 0, model_s, 0.0)
    end_s = down_s[:, None] + jnp.cumsum(edge_round_s, 1)
    closed_s = end_s[:, -1] + up_s
    begin_s = end_s - edge_round_s
    return EdgeRoundTimes(
        loads, delivers, ways_s, path_s, average_s, begin_s, down_s, up_s, closed_s
    )


def _ways(pace, steps, block, loads, delivers):
    """Seconds f32[4, K, R] of each client's loading, forward, backward and delivering."""
    s, k = jnp.arange(pace.forward.shape[1])[None], jnp.arange(steps.shape[0])[:, None]
    edge_round = jnp.where(s < steps[:, None], s // block, loads.shape[1])  # [K, S]
    computing = [
        jnp.zeros(loads.shape).at[k, edge_round].add(of_step, mode="drop")
        for of_step in (pace.forward, pace.backward)
    ]
    load_s = jnp.where(loads, pace.load[:, None], 0.0)
    return jnp.stack([load_s, *computing, jnp.where(delivers, pace.deliver[:, None], 0.0)])


def _client_activity(own, schedule, times, network, round_s):
    """What clients do in a round of so many seconds."""
    load_s, forward_s, backward_s, deliver_s = times.ways_s.sum(2)  # [K]
    # Who leaves does so in the last edge round that it has loaded for, after what it did in it.
    k = jnp.arange(load_s.shape[0])
    e, r = jnp.maximum(own_server(own), 0), jnp.maximum(times.loads.sum(1) - 1, 0)
    left_s = at_pairs(times.begin_s, e, r) + at_pairs(times.ways_s, k, r).sum(0)
    present_s = jnp.where(schedule.finished, round_s, jnp.where(schedule.started, left_s, 0.0))
    return Activity(network.clients, present_s, forward_s + backward_s, deliver_s)


def _edge_activity(own, times, network):
    """What edge nodes do: each averages in every edge round, and sends what its clients load."""
    averages_s = times.loads.shape[1] * times.average_s
    sends_s = jnp.where(members(own), times.ways_s[0].sum(1)[None], 0.0).sum(1)
    return Activity(network.servers, times.closed_s, averages_s, sends_s)
