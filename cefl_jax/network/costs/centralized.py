"""What it costs to bring all examples to the cloud, and to train there."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from cefl_jax.network.ledger import Bill
from cefl_jax.network.messages import tabulate
from cefl_jax.network.schedule import PHASES
from cefl_jax.network.topology import RoundNetwork


def make_bill(
    counts: Int32[Array, "K"],
    network: RoundNetwork,
    example_bytes: int,
    label_bytes: int,
    flop: Float32[Array, ""],
    num_kinds: int,
) -> Bill:
    """What a round cost in which clients upload examples, and then the cloud trains.

    All clients upload at once, each over its own way to the cloud; the round waits for the slowest
    one. A client takes part until its examples are there; the cloud draws busy watts in training.

    Args:
      counts: i32[K] examples that each client uploads, 0 for none.
      network: RoundNetwork with the cloud as the last server.
      example_bytes: static, of an example without its label.
      label_bytes: static.
      flop: f32[] FLOPs of training.
      num_kinds: static number of device classes.
    Returns:
      ledger.Bill.
    """
    clients, cloud = network.clients, network.cloud
    bits = counts.astype(jnp.float32) * (8.0 * (example_bytes + label_bytes))
    upload_s, radio_s = bits / network.up_bps[:, -1], bits / network.radio_up_bps[:, -1]
    train_s = flop / cloud.flop_per_s
    spent_s = {"examples_upload": upload_s.max(), "back_training": train_s}
    joules = jnp.zeros(num_kinds)
    joules = joules.at[clients.kind].add(clients.idle_w * upload_s + clients.transmit_w * radio_s)
    joules = joules.at[cloud.kind].add(cloud.busy_w * train_s)
    return Bill(
        jnp.stack([jnp.float32(spent_s.get(name, 0.0)) for name in PHASES]),
        _count_bytes(counts, example_bytes, label_bytes),
        joules,
    )


def _count_bytes(counts, example_bytes, label_bytes):
    """Bytes i64[LINKS, MESSAGES], on a client's link and on the way from there to the cloud."""
    with jax.enable_x64(True):
        count = counts.astype(jnp.int64).sum()
        sent = {"examples": count * example_bytes, "labels": count * label_bytes}
        return tabulate({"client_up": sent, "edge_up": sent})
