"""What a round of split training costs: all clients at once, or one after another."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from cefl_jax.network.ledger import Activity, RoundCost, paid, phase_seconds, round_cost
from cefl_jax.network.messages import MessageCounts, Sizes, split_messages
from cefl_jax.network.schedule import Schedule, simulate
from cefl_jax.network.step_times import Task, last_steps, members, own_server, total_made
from cefl_jax.network.topology import RoundNetwork, radios
from cefl_jax.numerics import at_pairs, take
from cefl_jax.types import Number

OF_CLIENT = (
    "clients",
    "distance_km",
    "up_bps",
    "down_bps",
    "radio_up_bps",
    "radio_down_bps",
    "front_up_bps",
    "front_down_bps",
)
"""What of a RoundNetwork has the clients as its first axis."""


def split_cost(
    task: Task,
    schedule: Schedule,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    distill_flop: Number,
    num_kinds: int,
    averages: bool = True,
) -> RoundCost:
    """Returns what a round of split training cost.

    When the slowest cluster has closed, the front aggregation server averages the front halves and
    the cloud the back halves, at 2 FLOPs for each number delivered (of 4 bytes, so that control
    variates are among them), one after the other, and the cloud distils. A client that drops out
    takes part until then. A server takes part until the last cluster on it has closed; the clusters
    that share it compute one after another. Front aggregation server and cloud are otherwise other
    people's.

    Args:
      task: step_times.Task.
      schedule: schedule.Schedule.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      distill_flop: f32[] FLOPs of distillation.
      num_kinds: static number of device classes.
      averages: static, whether anything is averaged.
    """
    traffic = count_traffic(task, schedule, network)
    clusters = (members(task) & schedule.counts[None]).any(1).sum()
    front_s = 2.0 * traffic.fronts_up * (sizes.front // 4) / network.front.flop_per_s
    cloud_s = 2.0 * clusters * work.back_params / network.cloud.flop_per_s
    if not averages:
        front_s = cloud_s = jnp.zeros(())
    distillation_s = jnp.asarray(distill_flop / network.cloud.flop_per_s)
    more = phase_seconds(averaging=front_s + cloud_s, distillation=distillation_s)
    phase_s = schedule.phase_s + more
    loads_s = jnp.where(schedule.started, schedule.pace.load, 0.0).sum()
    activities = (
        client_activity(task, schedule, phase_s.sum(), network),
        *_server_activities(task, schedule, network, work),
        paid(network.front, front_s, loads_s),
        paid(network.cloud, cloud_s + distillation_s),
    )
    return round_cost(phase_s, activities, split_messages(traffic, sizes), num_kinds)


def client_activity(
    task: Task, schedule: Schedule, round_s: Float32[Array, ""], network: RoundNetwork
) -> Activity:
    """Returns what clients do: who finishes waits for the end of a round of so many seconds."""
    pace, total = schedule.pace, functools.partial(total_made, schedule.steps)
    radio = _at_own_server(task, network.up_bps / network.radio_up_bps)
    delivers_s = jnp.where(schedule.counts, pace.deliver, 0.0)
    present_s = jnp.where(schedule.finished, round_s, schedule.out_s + delivers_s)
    sending_s = total(pace.send) * radio + delivers_s
    return Activity(network.clients, present_s, total(pace.forward + pace.backward), sending_s)


def _server_activities(task, schedule, network, work):
    """What servers do, and the radios that send for them: Activity of each."""
    servers, num_servers = network.servers, network.servers.flop_per_s.shape[0]
    placed = own_server(task)
    at = jnp.where(schedule.started & (placed >= 0), placed, num_servers)
    nothing = jnp.zeros(num_servers)
    trained = total_made(schedule.steps, task.samples) * work.back_train_flop
    busy_s = nothing.at[at].add(trained, mode="drop") / servers.flop_per_s
    radio = _at_own_server(task, network.down_bps / network.radio_down_bps)
    sends_s = total_made(schedule.steps, schedule.pace.receive) * radio
    sends_s = nothing.at[at].add(sends_s, mode="drop")
    cluster_at = jnp.where(task.placement < 0, num_servers, task.placement)
    reserved_s = nothing.at[cluster_at].max(schedule.closed_s, mode="drop")
    return Activity(servers, reserved_s, busy_s), Activity(radios(network), sending_s=sends_s)


def _at_own_server(task, values):
    """Values f32[K, E] at each client's own server, f32[K]; 0 without one."""
    placed = own_server(task)
    own = at_pairs(values, jnp.arange(placed.shape[0]), jnp.maximum(placed, 0))
    return jnp.where(placed < 0, 0.0, own)


def count_traffic(task: Task, schedule: Schedule, network: RoundNetwork) -> MessageCounts:
    """Returns how often each message of a round of split training was sent: messages.MessageCounts.

    Every client that starts loads a front half, every cluster with such a client a back half. The
    back half and the smashed data go on to the cloud for clusters and clients that count.
    """
    num_steps = task.samples.shape[1]
    made = jnp.arange(num_steps)[None] < schedule.steps[:, None]  # [K, S]
    uploaded = last_steps(schedule.steps, task.uploads, num_steps)
    remote = jnp.isfinite(network.backhaul_bps)[jnp.maximum(task.placement, 0)]  # [M]
    on_edge = take(remote, task.cluster, True)  # [K]
    uploaded &= (schedule.counts & on_edge)[:, None]

    def total(where):
        return jnp.where(where, task.samples, 0).sum()

    on_cloud = made & ~on_edge[:, None]
    return MessageCounts(
        fronts_down=schedule.started.sum(),
        fronts_up=schedule.counts.sum(),
        backs_down=((members(task) & schedule.started[None]).any(1) & remote).sum(),
        backs_up=((members(task) & schedule.counts[None]).any(1) & remote).sum(),
        steps=made.sum(),
        samples=total(made),
        cloud_steps=on_cloud.sum(),
        cloud_samples=total(on_cloud),
        uploaded_steps=uploaded.sum(),
        uploaded_samples=total(uploaded),
    )


def simulate_sequential(
    task: Task,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    deadline_s: Number | None = None,
    keep: bool = False,
) -> Schedule:
    """Runs the simulated clock of clients one after another, each as a round of its own.

    Args:
      task: Task of all clients.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      deadline_s: not read; clients that come late in a round could not keep one.
      keep: static, as in `simulate`.
    Returns:
      Schedule of each client, leaves [K, ...], from when it begins.
    """

    def one(task, network):
        return simulate(task, network, work, sizes, keep=keep)

    tasks, networks, axes = _by_client(task, network)
    return jax.vmap(one, (0, axes))(tasks, networks)


def sequential_cost(
    task: Task,
    schedules: Schedule,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    distill_flop: Number,
    num_kinds: int,
) -> RoundCost:
    """Returns what a round of one client after another cost, without any averaging.

    A client, and its server, take part while that client trains.

    Args:
      task: Task of all clients.
      schedules: of `simulate_sequential`.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      distill_flop: not read; nothing is distilled.
      num_kinds: static number of device classes.
    """

    def one(task, schedule, network):
        return split_cost(task, schedule, network, work, sizes, 0.0, num_kinds, averages=False)

    tasks, networks, axes = _by_client(task, network)
    costs = jax.vmap(one, (0, 0, axes))(tasks, schedules, networks)
    with jax.enable_x64(True):
        return jax.tree.map(lambda x: x.sum(0), costs)


def _by_client(task, network):
    """Task and RoundNetwork of each client, and along which axes of the latter clients lie."""
    one = lambda tree: jax.tree.map(lambda x: x[:, None], tree)  # noqa: E731
    tasks = Task(
        samples=one(task.samples),
        cluster=jnp.zeros_like(one(task.cluster)),
        placement=one(own_server(task)),
        stays=one(task.stays),
        uploads=one(task.uploads),
    )
    networks = network._replace(**{name: one(getattr(network, name)) for name in OF_CLIENT})
    axes = RoundNetwork._make(0 if name in OF_CLIENT else None for name in RoundNetwork._fields)
    return tasks, networks, axes
