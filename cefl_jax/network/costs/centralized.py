"""What it costs to bring all examples to the cloud, and to train there."""

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from cefl_jax.network.costs.activity import Activity, paid, phase_seconds, round_cost
from cefl_jax.network.ledger import RoundCost
from cefl_jax.network.topology import RoundNetwork


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
