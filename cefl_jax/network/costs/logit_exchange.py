"""The bill of a round of knowledge transfer: features and logits travel, and no model."""

from typing import Any

import jax
import jax.numpy as jnp

from cefl_jax.network.ledger import Bill
from cefl_jax.network.messages import Sizes, tabulate
from cefl_jax.network.schedule import PHASES, Schedule
from cefl_jax.network.step_times import Task, last_steps
from cefl_jax.network.topology import RoundNetwork
from cefl_jax.types import Number


def bill_transfer(
    task: Task,
    schedule: Schedule,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    server_flop: Number,
    num_kinds: int,
) -> Bill:
    """What a round cost in which clients and cloud teach each other.

    The schedule is that of the clients' local steps, in which nothing is sent. A client that has
    made them passes the samples that it uploads once more through its model, and sends features,
    labels and logits to the cloud, through the front aggregation server. The cloud begins when all
    clients have sent or left; it trains and predicts, and its logits go the same way back, to all
    clients at once. They are for the next time that a client trains.

    Seconds are those of the slowest client: local steps and the last pass under `front_forward` and
    `front_backward`, its upload under `smashed_upload`; then the cloud's under `distillation`, and
    the slowest client's logits under `gradient_download`. Joules are those of `energy`: clients
    that have sent wait for the end of the round, the cloud is paid while it computes, and the front
    aggregation server's radio sends the logits.

    Args:
      task: step_times.Task, every client in a cluster of its own on the cloud, the last server.
      schedule: schedule.Schedule.
      network: RoundNetwork.
      work: Workload, the client's model its front half.
      sizes: messages.Sizes with a Knowledge.
      server_flop: f32[] FLOPs of the cloud's training and predicting.
      num_kinds: static number of device classes.
    Returns:
      ledger.Bill.
    """
    knowledge = sizes.knowledge
    if knowledge is None:
        raise ValueError("Sizes without a Knowledge: features and logits have no known bytes")
    uploaded = _count_uploaded(task, schedule)  # i32[K]
    bits = 8.0 * uploaded
    send_s = bits * sum(knowledge) / network.up_bps[:, -1]
    receive_s = bits * knowledge.logits / network.down_bps[:, -1]
    forward_s, backward_s = (
        _of_steps_made(schedule, x) for x in (schedule.pace.forward, schedule.pace.backward)
    )
    forward_s += uploaded * work.front_forward_flop / network.clients.flop_per_s
    way_s = jnp.stack([forward_s, backward_s, send_s])  # [3, K]
    server_s = server_flop / network.cloud.flop_per_s
    phase_s = jnp.zeros(len(PHASES))
    for phase, seconds in zip(
        ("front_forward", "front_backward", "smashed_upload", "distillation", "gradient_download"),
        (*way_s[:, way_s.sum(0).argmax()], server_s, receive_s.max()),
        strict=True,
    ):
        phase_s = phase_s.at[PHASES.index(phase)].set(seconds)
    computing_s, round_s = forward_s + backward_s, phase_s.sum()
    energy_j = jnp.zeros(num_kinds)
    for kind, joules in _joules(schedule, network, computing_s, send_s, receive_s, round_s):
        energy_j = energy_j.at[kind].add(joules)
    energy_j = energy_j.at[network.cloud.kind].add(network.cloud.busy_w * server_s)
    return Bill(phase_s, _count_bytes(uploaded.sum(), knowledge), energy_j)


def _count_uploaded(task, schedule):
    """Samples that each client uploads, i32[K]."""
    sent = last_steps(schedule.steps, task.uploads, task.samples.shape[1])
    return jnp.where(sent & schedule.counts[:, None], task.samples, 0).sum(1)


def _of_steps_made(schedule, values):
    """Sum f32[K] of values f32[K, S] over the local steps that each client made."""
    made = jnp.arange(values.shape[1])[None] < schedule.steps[:, None]
    return jnp.where(made, values, 0.0).sum(1)


def _joules(schedule, network, computing_s, send_s, receive_s, round_s):
    """(device class, joules) of the clients, and of the front aggregation server's radio."""
    clients, front = network.clients, network.front
    present_s = jnp.where(schedule.counts, round_s, schedule.out_s)
    # By radio alone: the rest of the way is wire.
    sends_s = send_s * (network.up_bps / network.radio_up_bps)[:, -1]
    hands_on_s = receive_s * (network.down_bps / network.radio_down_bps)[:, -1]
    yield (
        clients.kind,
        (
            clients.idle_w * present_s
            + (clients.busy_w - clients.idle_w) * computing_s
            + clients.transmit_w * sends_s
        ),
    )
    yield front.kind, front.transmit_w * hands_on_s.sum()


def _count_bytes(samples, knowledge):
    """Bytes i64[LINKS, MESSAGES] of the transfer of i32[] samples, over both kinds of link."""
    with jax.enable_x64(True):
        samples = samples.astype(jnp.int64)
        up = {
            "smashed_data": samples * knowledge.features,
            "labels": samples * knowledge.label,
            "logits": samples * knowledge.logits,
        }
        down = {"logits": samples * knowledge.logits}
        links = {"client_up": up, "edge_up": up, "client_down": down, "edge_down": down}
        return tabulate(links)
