"""Joules of a round by device class."""

import jax.numpy as jnp


def round_energy(task, schedule, round_s, network, work, averaging_s, distillation_s, num_kinds):
    """What the devices of a round draw from its beginning to its end.

    A device that takes part draws its idle watts for as long as it does, more while it computes,
    and the power that it radiates while it sends. Clients that finish wait for the end of the
    round; one that drops out takes part until then. A server takes part until the last cluster on
    it has closed; the clusters that share it compute one after another. Front aggregation server
    and cloud are otherwise other people's: averaging and distillation are paid at busy watts.
    Clients that never started, servers without a cluster, and wires draw nothing.

    Args:
      task: pace.Task.
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
    clients, servers, pace = network.clients, network.servers, schedule.pace
    made = jnp.arange(task.samples.shape[1]) < schedule.steps[:, None]             # [K, S]
    total = lambda seconds: jnp.where(made, seconds, 0.0).sum(1)                   # noqa: E731
    delivers_s = jnp.where(schedule.counts, pace.deliver, 0.0)
    present_s = jnp.where(schedule.finished, round_s, schedule.out_s + delivers_s)
    client_j = (
        clients.idle_w * present_s
        + (clients.busy_w - clients.idle_w) * total(pace.forward + pace.backward)
        + clients.transmit_w * (total(pace.send) + delivers_s)
    )

    num_servers = servers.flop_per_s.shape[0]
    placed = task.placement.at[task.cluster].get(mode="fill", fill_value=-1)
    at = jnp.where(schedule.started & (placed >= 0), placed, num_servers)
    trained = jnp.where(made, task.samples, 0).sum(1) * work.back_train_flop
    nothing = jnp.zeros(num_servers)
    busy_s = nothing.at[at].add(trained, mode="drop") / servers.flop_per_s
    sends_s = nothing.at[at].add(total(pace.receive), mode="drop")
    cluster_at = jnp.where(task.placement < 0, num_servers, task.placement)
    reserved_s = nothing.at[cluster_at].max(schedule.closed_s, mode="drop")
    server_j = (
        servers.idle_w * reserved_s
        + (servers.busy_w - servers.idle_w) * busy_s
        + servers.transmit_w * sends_s
    )
    loads_s = jnp.where(schedule.started, pace.load, 0.0).sum()
    front_j = network.front.busy_w * averaging_s[0] + network.front.transmit_w * loads_s
    cloud_j = network.cloud.busy_w * (averaging_s[1] + distillation_s)
    joules = jnp.zeros(num_kinds)
    for kind, amount in (
        (clients.kind, client_j),
        (servers.kind, server_j),
        (network.front.kind, front_j),
        (network.cloud.kind, cloud_j),
    ):
        joules = joules.at[kind].add(amount)
    return joules
