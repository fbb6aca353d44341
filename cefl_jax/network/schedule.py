"""The simulated course of a round: who computes, sends and waits when, and who drops out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

PHASES = (
    "model_download",
    "front_forward",
    "smashed_upload",
    "back_training",
    "gradient_download",
    "front_backward",
    "model_upload",
    "averaging",
    "distillation",
    "waiting",
)
"""What the seconds of a round are spent on, along the path that sets its pace."""


class Task(NamedTuple):
    """What the clients of a round are to do, and where."""

    samples: jax.Array  # i32[K, S] samples of each client's local steps, 0 where it makes none
    cluster: jax.Array  # i32[K], M for none
    placement: jax.Array  # i32[M] server of each cluster, -1 for none
    stays: jax.Array  # i32[K] local steps after which a client leaves; S or more: it does not
    uploads: jax.Array  # i32[K] last local steps whose smashed data goes on to the cloud


class Pace(NamedTuple):
    """Seconds of what the clients do at their own servers; 0 for clients of none."""

    load: jax.Array  # f32[K] the front half
    forward: jax.Array  # f32[K, S] of each local step
    send: jax.Array  # f32[K, S] smashed data and labels
    serve: jax.Array  # f32[K, S] the server's training on the client's samples, as it is shared
    receive: jax.Array  # f32[K, S] gradients at the cut
    backward: jax.Array  # f32[K, S]
    deliver: jax.Array  # f32[K] the front half


class Schedule(NamedTuple):
    """What became of a round."""

    pace: Pace
    started: jax.Array  # bool[K] loaded the front half
    steps: jax.Array  # i32[K] local steps made
    finished: jax.Array  # bool[K] made all, and delivered the front half in time
    counts: jax.Array  # bool[K] delivered a front half that counts
    out_s: jax.Array  # f32[K] when a client's last local step was over, or it dropped out
    begin_s: jax.Array  # f32[M, S] when each local step of a cluster began; 0 where none did
    arrived_s: jax.Array  # f32[M, S] when the last smashed data was there
    served_s: jax.Array  # f32[M, S] when the server had trained
    end_s: jax.Array  # f32[M, S] when the last client had finished its backward pass
    trained_s: jax.Array  # f32[M] when the last local step was over
    closed_s: jax.Array  # f32[M] when all that counts of a cluster had been delivered
    phase_s: jax.Array  # f32[len(PHASES)] seconds until the slowest cluster had closed


def simulate(task, network, work, sizes, deadline_s=None, keep=False):
    """Runs the simulated clock of a round, up to the averaging.

    A cluster begins when its server has the back half and every client that starts has the front
    half. In a local step the clients compute forward and send; when the last smashed data is there
    the server trains on all of it; the clients receive gradients and compute backward; the step is
    over when the last one has. Then the clients deliver front halves, and the server back half and
    smashed data. Clusters on one server share its computing, and its link to the cloud, evenly.

    A client drops out after the local steps that it stays for, and before the first step from
    which it could not deliver by the deadline even if nobody held it up; if that is the first step
    of all, it does not start. A step that would end after the deadline is not begun. Who makes
    all its steps and delivers in time has finished. With `keep`, a client that drops out after
    some steps delivers at once what it has, and that counts if it arrives in time. A round with a
    deadline of which nothing counts lasts until the deadline.

    Args:
      task: Task.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      deadline_s: static seconds from the round's beginning, or None.
      keep: static.
    Returns:
      Schedule.
    """
    num_clusters, num_steps = task.placement.shape[0], task.samples.shape[1]
    limit_s = jnp.inf if deadline_s is None else deadline_s
    pace = _set_pace(task, network, work, sizes)
    planned = (task.samples > 0).sum(1, dtype=jnp.int32)
    members = task.cluster == jnp.arange(num_clusters)[:, None]                    # [M, K]
    of_client = lambda x: x.at[task.cluster].get(mode="fill", fill_value=0)        # noqa: E731
    own_s = pace.forward + pace.send + pace.serve + pace.receive + pace.backward
    rest_s = jnp.cumsum(own_s[:, ::-1], 1)[:, ::-1] + pace.deliver[:, None]        # [K, S]
    back_s = 8.0 * sizes.back * _tenants(task.placement, network) * _at_server(
        1.0 / network.backhaul_bps, task.placement
    )
    started = of_client(task.placement >= 0) & (planned > 0)
    started &= jnp.maximum(pace.load, of_client(back_s)) + rest_s[:, 0] <= limit_s
    began = (members & started).any(1)
    ready_s = jnp.where(began, jnp.maximum(back_s, _slowest(members & started, pace.load)), 0.0)

    def step(s, carry):
        clock, active, steps, out_s, marks, spent_s = carry
        wants = active & (s < planned)
        in_time = of_client(clock) + rest_s[:, s] <= limit_s
        at_work = members & wants & in_time & (s < task.stays)
        up, down = pace.forward[:, s] + pace.send[:, s], pace.receive[:, s] + pace.backward[:, s]
        arrived = clock + _slowest(at_work, up)
        served = arrived + jnp.where(at_work, pace.serve[:, s], 0.0).sum(1)
        end = served + _slowest(at_work, down)
        begins = at_work.any(1) & (end <= limit_s)
        made = (at_work & begins[:, None]).any(0)
        u, d = (jnp.where(at_work, x, -1.0).argmax(1) for x in (up, down))         # who is last
        parts = pace.forward[u, s], pace.send[u, s], served - arrived, pace.receive[d, s]
        parts = jnp.stack([*parts, pace.backward[d, s]], 1)                        # [M, 5]
        now = jnp.stack([clock, arrived, served, end])                             # [4, M]
        return (
            jnp.where(begins, end, clock),
            active & (made | ~wants),
            steps + made,
            jnp.where(made, of_client(end), out_s),
            marks.at[:, :, s].set(jnp.where(begins, now, 0.0)),
            spent_s + jnp.where(begins[:, None], parts, 0.0),
        )

    start = (
        ready_s,
        started,
        jnp.zeros_like(planned),
        jnp.where(started, of_client(ready_s), 0.0),
        jnp.zeros((4, num_clusters, num_steps)),
        jnp.zeros((num_clusters, 5)),
    )
    trained_s, _, steps, out_s, marks, spent_s = jax.lax.fori_loop(0, planned.max(), step, start)
    arrives_s = out_s + pace.deliver
    counts = (steps > 0) & (arrives_s <= limit_s)
    finished = counts & (steps == planned)
    counts = counts if keep else finished
    sent_s = trained_s + _back_delivery(task, members & counts, steps, network, sizes)
    counted = (members & counts).any(1)
    closed_s = jnp.maximum(sent_s, _slowest(members & counts, arrives_s))
    closed_s = jnp.where(counted, closed_s, trained_s)
    m = closed_s.argmax()
    path_s = jnp.concatenate([ready_s[m, None], spent_s[m], closed_s[m, None] - trained_s[m, None]])
    wait_s = 0.0
    if deadline_s is not None:
        wait_s = jnp.where(counts.any(), 0.0, deadline_s)
        path_s = jnp.where(counts.any(), path_s, 0.0)
    phase_s = jnp.zeros(len(PHASES)).at[:7].set(path_s).at[PHASES.index("waiting")].set(wait_s)
    return Schedule(
        pace, started, steps, finished, counts, out_s, *marks, trained_s, closed_s, phase_s
    )


def _set_pace(task, network, work, sizes):
    """The Pace of a Task."""
    placed = task.placement.at[task.cluster].get(mode="fill", fill_value=-1)      # [K]
    server, k = jnp.maximum(placed, 0), jnp.arange(placed.shape[0])
    samples = jnp.where(placed[:, None] < 0, 0, task.samples).astype(jnp.float32)
    sends = (samples > 0).astype(jnp.float32)
    client_s = samples / network.clients.flop_per_s[:, None]
    tenants = _tenants(task.placement, network).at[task.cluster].get(mode="fill", fill_value=0)
    server_s = tenants * work.back_train_flop / network.servers.flop_per_s[server]
    front_bits = jnp.where(placed < 0, 0.0, 8.0 * sizes.front)
    return Pace(
        load=front_bits / network.front_down_bps,
        forward=client_s * work.front_forward_flop,
        send=sizes.upward_bits(samples, sends) / network.up_bps[k, server][:, None],
        serve=samples * server_s[:, None],
        receive=sizes.downward_bits(samples, sends) / network.down_bps[k, server][:, None],
        backward=client_s * work.front_backward_flop,
        deliver=front_bits / network.front_up_bps,
    )


def _back_delivery(task, counting, steps, network, sizes):
    """Seconds f32[M] until back half and smashed data of each cluster are in the cloud."""
    s = jnp.arange(task.samples.shape[1])
    sent = (s < steps[:, None]) & (s >= (steps - task.uploads)[:, None])          # [K, S]
    # Not in integers, whose 32 bits the bits of an epoch can exceed.
    samples, messages = (x.sum(1).astype(jnp.float32) for x in (sent * task.samples, sent))
    bits = jnp.where(counting, sizes.upward_bits(samples, messages), 0.0).sum(1)
    bits += jnp.where(counting.any(1), 8.0 * sizes.back, 0.0)                      # [M]
    num_servers = network.backhaul_bps.shape[0]
    server = jnp.where(task.placement < 0, num_servers, task.placement)
    through = jnp.zeros(num_servers).at[server].add(bits, mode="drop")
    return _at_server(through / network.backhaul_bps, task.placement)


def _tenants(placement, network):
    """Clusters on each cluster's own server, itself included, f32[M]; 0 for those of none."""
    num_servers = network.backhaul_bps.shape[0]
    server = jnp.where(placement < 0, num_servers, placement)
    return _at_server(jnp.zeros(num_servers).at[server].add(1.0, mode="drop"), placement)


def _at_server(values, placement):
    """Values f32[E] of each cluster's server, f32[M]; 0 for those of none."""
    return jnp.where(placement < 0, 0.0, values[jnp.maximum(placement, 0)])


def _slowest(among, values):
    """Largest of values f32[K] >= 0 among each row of bool[M, K]; 0 among none."""
    return jnp.where(among, values, 0.0).max(1)
