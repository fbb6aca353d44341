"""Seconds of each client's local steps and transfers on its own server, as that is shared."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Shaped

from cefl_jax.network.messages import Sizes
from cefl_jax.network.topology import RoundNetwork
from cefl_jax.numerics import at_pairs, take


class Task(NamedTuple):
    """What the clients of a round are to do, and where."""

    samples: Int32[Array, "K S"]  # samples of each client's local steps, 0 where it makes none
    cluster: Int32[Array, "K"]  # M for none
    placement: Int32[Array, "M"]  # server of each cluster, -1 for none
    stays: Int32[Array, "K"]  # local steps after which a client leaves; S or more: it does not
    uploads: Int32[Array, "K"]  # last local steps whose smashed data goes on to the cloud


class StepTimes(NamedTuple):
    """Seconds of what the clients do at their own servers; 0 for clients of none."""

    load: Float32[Array, "K"]  # the front half
    forward: Float32[Array, "K S"]  # of each local step
    send: Float32[Array, "K S"]  # smashed data and labels
    serve: Float32[Array, "K S"]  # the server's training on the client's samples, as it is shared
    receive: Float32[Array, "K S"]  # gradients at the cut
    backward: Float32[Array, "K S"]
    deliver: Float32[Array, "K"]  # the front half


def step_times(task: Task, network: RoundNetwork, work: Any, sizes: Sizes) -> StepTimes:
    """Returns the StepTimes of a Task on a RoundNetwork, by a Workload and messages.Sizes.

    Clusters on one server share its computing evenly.
    """
    placed = own_server(task)
    server, k = jnp.maximum(placed, 0), jnp.arange(placed.shape[0])
    samples = jnp.where(placed[:, None] < 0, 0, task.samples).astype(jnp.float32)
    sends = (samples > 0).astype(jnp.float32)
    up_bps, down_bps = (at_pairs(bps, k, server) for bps in (network.up_bps, network.down_bps))
    client_s = samples / network.clients.flop_per_s[:, None]
    server_s = of_client(task, sample_service(task, network, work))
    front_bits = jnp.where(placed < 0, 0.0, 8.0 * sizes.front)
    return StepTimes(
        load=front_bits / network.front_down_bps,
        forward=client_s * work.front_forward_flop,
        send=sizes.upward_bits(samples, sends) / up_bps[:, None],
        serve=samples * server_s[:, None],
        receive=sizes.downward_bits(samples, sends) / down_bps[:, None],
        backward=client_s * work.front_backward_flop,
        deliver=front_bits / network.front_up_bps,
    )


def sample_service(task: Task, network: RoundNetwork, work: Any) -> Float32[Array, "M"]:
    """Returns seconds that a cluster's server, as it is shared, trains on a sample; 0 for none."""
    each_s = work.back_train_flop / network.servers.flop_per_s
    return _tenants(task.placement, network) * take(each_s, task.placement)


def back_loading(task: Task, network: RoundNetwork, sizes: Sizes) -> Float32[Array, "M"]:
    """Returns seconds f32[M] until a cluster's server has the back halves of all clusters on it."""
    each_s = 8.0 * sizes.back / network.backhaul_bps
    return _tenants(task.placement, network) * take(each_s, task.placement)


def back_delivery(
    task: Task,
    counting: Bool[Array, "M K"],
    steps: Int32[Array, "K"],
    network: RoundNetwork,
    sizes: Sizes,
) -> Float32[Array, "M"]:
    """Returns the seconds f32[M] until back half and smashed data of each cluster are in the cloud.

    Clusters on one server share its link, and are done when all of it is. Sent are the back halves
    of clusters with clients that count, bool[M, K], and what these upload of their steps i32[K].
    """
    bits = upload_bits(task.samples, steps, task.uploads, sizes)
    bits = jnp.where(counting, bits, 0.0).sum(1)
    bits += jnp.where(counting.any(1), 8.0 * sizes.back, 0.0)  # [M]
    through = _sum_by_server(bits, task.placement, network)
    return take(through / network.backhaul_bps, task.placement)


def _tenants(placement, network):
    """Clusters on each cluster's own server, itself included, f32[M]; 0 for those of none."""
    return take(_sum_by_server(jnp.ones(placement.shape), placement, network), placement)


def _sum_by_server(values, placement, network):
    """Values f32[M] of clusters added up by their server, f32[E]; those of none are left out."""
    nothing = jnp.zeros(network.backhaul_bps.shape[0]).at[placement]
    return nothing.add(values, mode="drop", wrap_negative_indices=False)


def upload_bits(
    samples: Int32[Array, "K S"], steps: Int32[Array, "K"], count: Int32[Array, "K"], sizes: Sizes
) -> Float32[Array, "K"]:
    """Returns the bits of smashed data and labels of the last `count` of the steps made."""
    sent = last_steps(steps, count, samples.shape[1])  # [K, S]
    # Not in integers, whose 32 bits the bits of an epoch can exceed.
    total, messages = (x.sum(1).astype(jnp.float32) for x in (sent * samples, sent))
    return sizes.upward_bits(total, messages)


def total_made(steps: Int32[Array, "K"], values: Shaped[Array, "K S"]) -> Shaped[Array, "K"]:
    """Returns the sum of values [K, S] over the local steps i32[K] that each client made, [K]."""
    made = jnp.arange(values.shape[1])[None] < steps[:, None]
    return jnp.where(made, values, 0).sum(1)


def last_steps(
    steps: Int32[Array, "K"], count: Int32[Array, "K"], num_steps: int
) -> Bool[Array, "K S"]:
    """Which local steps are the last `count` i32[K] of `steps` i32[K] made, bool[K, num_steps]."""
    s = jnp.arange(num_steps)[None]
    return (s < steps[:, None]) & (s >= (steps - count)[:, None])


def own_server(task: Task) -> Int32[Array, "K"]:
    """Returns the server of each client's cluster, i32[K]; -1 for none."""
    return take(task.placement, task.cluster, -1)


def members(task: Task) -> Bool[Array, "M K"]:
    """Returns whether each client is in each cluster, bool[M, K]."""
    return task.cluster[None] == jnp.arange(task.placement.shape[0])[:, None]


def slowest(
    task: Task, among: Bool[Array, "K"], values: Float32[Array, "K *more"]
) -> Float32[Array, "M *more"]:
    """Largest of values f32[K, ...] >= 0 in each cluster among clients bool[K], f32[M, ...].

    0 among none.
    """
    nothing = jnp.zeros((task.placement.shape[0], *values.shape[1:]))
    among = jnp.expand_dims(among, range(1, values.ndim))
    return nothing.at[task.cluster].max(jnp.where(among, values, 0.0), mode="drop")


def of_client(task: Task, values: Shaped[Array, "M"]) -> Shaped[Array, "K"]:
    """Returns the values [M] of each client's cluster, [K]; 0 for clients of none."""
    return take(values, task.cluster)
