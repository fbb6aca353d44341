"""What a round costs that brings examples, or features and logits, to the cloud, and no model."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from cefl_jax.network.ledger import Activity, RoundCost, paid, phase_seconds, round_cost
from cefl_jax.network.messages import Sent, Sizes
from cefl_jax.network.schedule import Schedule
from cefl_jax.network.step_times import Task, last_steps, total_made
from cefl_jax.network.topology import RoundNetwork
from cefl_jax.types import Number


def centralized_cost(
    counts: Int32[Array, "K"],
    network: RoundNetwork,
    example_bytes: int,
    label_bytes: int,
    flop: Float32[Array, ""],
    num_kinds: int,
) -> RoundCost:
    """Returns what a round cost in which clients upload examples, and then the cloud trains.

    All clients upload at once, each over its own way to the cloud; the round waits for the slowest
    one. A client takes part until its examples are there; the cloud draws busy watts in training.

    Args:
      counts: i32[K] examples that each client uploads, 0 for none.
      network: RoundNetwork with the cloud as the last server.
      example_bytes: static, of an example without its label.
      label_bytes: static.
      flop: f32[] FLOPs of training.
      num_kinds: static number of device classes.
    """
    bits = counts.astype(jnp.float32) * (8.0 * (example_bytes + label_bytes))
    upload_s, radio_s = bits / network.up_bps[:, -1], bits / network.radio_up_bps[:, -1]
    train_s = flop / network.cloud.flop_per_s
    activities = (
        Activity(network.clients, upload_s, sending_s=radio_s),
        paid(network.cloud, train_s),
    )
    count = counts.sum()
    sent = {"examples": [(count, example_bytes)], "labels": [(count, label_bytes)]}
    return round_cost(
        phase_seconds(examples_upload=upload_s.max(), back_training=train_s),
        activities,
        {"client_up": sent, "edge_up": sent},
        num_kinds,
    )


def logit_exchange_cost(
    task: Task,
    schedule: Schedule,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    server_flop: Number,
    num_kinds: int,
) -> RoundCost:
    """Returns what a round cost in which clients and cloud teach each other.

    The schedule is that of the clients' local steps, in which nothing is sent. A client that has
    made them passes the samples that it uploads once more through its model, and sends features,
    labels and logits to the cloud, through the front aggregation server. The cloud begins when all
    clients have sent or left; it trains and predicts, and its logits go the same way back, to all
    clients at once. They are for the next time that a client trains.

    Seconds are those of the slowest client: local steps and the last pass under `front_forward` and
    `front_backward`, its upload under `smashed_upload`; then the cloud's under `distillation`, and
    the slowest client's logits under `gradient_download`. Clients that have sent wait for the end
    of the round, the cloud is paid while it computes, and the front aggregation server's radio
    sends the logits.

    Args:
      task: step_times.Task, every client in a cluster of its own on the cloud, the last server.
      schedule: schedule.Schedule.
      network: RoundNetwork.
      work: Workload, the client's model its front half.
      sizes: messages.Sizes with a Knowledge.
      server_flop: f32[] FLOPs of the cloud's training and predicting.
      num_kinds: static number of device classes.
    """
    knowledge = sizes.knowledge
    if knowledge is None:
        raise ValueError("Sizes without a Knowledge: features and logits have no known bytes")
    sent_on = last_steps(schedule.steps, task.uploads, task.samples.shape[1])
    sent_on &= schedule.counts[:, None]
    uploaded = jnp.where(sent_on, task.samples, 0).sum(1)  # samples, i32[K]
    bits = 8.0 * uploaded
    send_s = bits * sum(knowledge) / network.up_bps[:, -1]
    receive_s = bits * knowledge.logits / network.down_bps[:, -1]
    pace = schedule.pace
    forward_s, backward_s = (total_made(schedule.steps, x) for x in (pace.forward, pace.backward))
    forward_s += uploaded * work.front_forward_flop / network.clients.flop_per_s
    way_s = jnp.stack([forward_s, backward_s, send_s])  # [3, K]
    server_s = server_flop / network.cloud.flop_per_s
    front_forward, front_backward, smashed_upload = way_s[:, way_s.sum(0).argmax()]
    phase_s = phase_seconds(
        front_forward=front_forward,
        front_backward=front_backward,
        smashed_upload=smashed_upload,
        distillation=server_s,
        gradient_download=receive_s.max(),
    )
    present_s = jnp.where(schedule.counts, phase_s.sum(), schedule.out_s)
    # By radio alone: the rest of the way is wire.
    sends_s = send_s * (network.up_bps / network.radio_up_bps)[:, -1]
    hands_on_s = receive_s * (network.down_bps / network.radio_down_bps)[:, -1]
    activities = (
        Activity(network.clients, present_s, forward_s + backward_s, sends_s),
        Activity(network.front, sending_s=hands_on_s.sum()),
        paid(network.cloud, server_s),
    )
    count = uploaded.sum()
    logits = [(count, knowledge.logits)]
    up = {
        "smashed_data": [(count, knowledge.features)],
        "labels": [(count, knowledge.label)],
        "logits": logits,
    }
    down = {"logits": logits}
    sent: Sent = {"client_up": up, "edge_up": up, "client_down": down, "edge_down": down}
    return round_cost(phase_s, activities, sent, num_kinds)
