"""What it would cost every edge node to train every cluster, from the network's present state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from cefl_jax.network.messages import Sizes
from cefl_jax.network.step_times import upload_bits
from cefl_jax.network.topology import RoundNetwork, radios


class PairCost(NamedTuple):
    """A round's split training for every pair of cluster and server, f32[M, E]."""

    clients_s: Float32[Array, "M E"]  # first cost: the slowest client's computing and links
    node_s: Float32[Array, "M E"]  # second cost: the server's computing, it alone
    backhaul_s: Float32[Array, "M E"]  # its link to the cloud: back half both ways, smashed data up
    active_j: Float32[Array, "M E"]  # joules of computing and sending, beyond those of idling
    idle_w: Float32[Array, "M E"]  # watts that the pair's devices draw while idle

    def weigh(
        self, time_weight: float, energy_weight: float
    ) -> tuple[Float32[Array, "M E"], Float32[Array, "M E"]]:
        """Returns the two costs as `time_weight` x seconds + `energy_weight` x joules.

        Idling for the server is part of the second cost, as it grows with it.
        """
        a_second = time_weight + energy_weight * self.idle_w
        clients = a_second * self.clients_s + energy_weight * self.active_j
        return clients, a_second * (self.node_s + self.backhaul_s)


def client_seconds(
    samples: Int32[Array, "K S"],
    uploads: Int32[Array, "K"],
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
) -> tuple[Float32[Array, "K E"], Float32[Array, "K E"]]:
    """Returns what each client's local steps would take with each server, were it alone with it.

    Args:
      samples: i32[K, S] samples of each client's local steps, 0 where it makes none.
      uploads: i32[K] last local steps whose smashed data goes on to the cloud.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
    Returns:
      f32[K, E] seconds of the client's computing and links, f32[K, E] of the server's computing and
      of its link to the cloud for the client's smashed data.
    """
    total, steps = (x.sum(1)[:, None].astype(jnp.float32) for x in (samples, samples > 0))
    compute = work.front_forward_flop + work.front_backward_flop
    client_s = (
        total * (compute / network.clients.flop_per_s[:, None])
        + sizes.upward_bits(total, steps) / network.up_bps
        + sizes.downward_bits(total, steps) / network.down_bps
    )
    server_s = total * (work.back_train_flop / network.servers.flop_per_s)[None]
    onward = upload_bits(samples, (samples > 0).sum(1), uploads, sizes)[:, None]
    return client_s, server_s + onward / network.backhaul_bps[None]


def pair_costs(
    samples: Int32[Array, "K S"],
    uploads: Int32[Array, "K"],
    cluster: Int32[Array, "K"],
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    num_clusters: int,
) -> PairCost:
    """Returns what every server would take to train every cluster.

    A synchronous step of cluster m on server e takes
    max_k(front forward + smashed data / rate_ke) + samples x back FLOPs / f_e
    + max_k(cut gradient / rate_ek + front backward). To that comes the server's link to the cloud,
    as if nothing else were sent meanwhile. Joules are those of `ledger.Activity`.

    Args:
      samples: i32[K, S] samples of each client's local steps, 0 where it makes none.
      uploads: i32[K] last local steps whose smashed data goes on to the cloud.
      cluster: i32[K] cluster of each client, M for none.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      num_clusters: static M.
    Returns:
      PairCost; 0 for a cluster that did not form.
    """
    members = cluster[None] == jnp.arange(num_clusters)[:, None]  # [M, K]
    compute_s = 1.0 / network.clients.flop_per_s[:, None]  # [K, 1]
    nothing = jnp.zeros((num_clusters, network.up_bps.shape[1]))

    def slowest(client_s, sends):
        return nothing.at[cluster].max(jnp.where(sends, client_s, 0.0), mode="drop")

    def add_step(step, total_s):
        now = samples[:, step, None].astype(jnp.float32)  # [K, 1]
        sends = now > 0
        up = now * work.front_forward_flop * compute_s
        up += sizes.upward_bits(now, 1.0) / network.up_bps
        down = now * work.front_backward_flop * compute_s
        down += sizes.downward_bits(now, 1.0) / network.down_bps
        return total_s + slowest(up, sends) + slowest(down, sends)

    steps = (samples > 0).any(0).sum()  # nobody's steps have gaps
    clients_s = jax.lax.fori_loop(0, steps, add_step, nothing)
    total = samples.sum(1).astype(jnp.float32)  # [K]
    of_cluster = lambda x: jnp.where(members, x[None], 0.0).sum(1)[:, None]  # noqa: E731
    node_s = of_cluster(total) * work.back_train_flop / network.servers.flop_per_s[None]
    formed = members.any(1)[:, None]
    onward = jnp.where(formed, 16.0 * sizes.back, 0.0)
    onward += of_cluster(upload_bits(samples, (samples > 0).sum(1), uploads, sizes))
    idle_w = of_cluster(network.clients.idle_w) + network.servers.idle_w[None]
    return PairCost(
        clients_s,
        node_s,
        onward / network.backhaul_bps[None],
        _active_joules(samples, cluster, node_s, network, work, sizes),
        jnp.where(formed, idle_w, 0.0),
    )


def _active_joules(samples, cluster, node_s, network, work, sizes):
    """Joules f32[M, E] of computing and sending, beyond what is drawn while idle."""
    clients, servers = network.clients, network.servers
    total, messages = (x.sum(1).astype(jnp.float32) for x in (samples, samples > 0))
    compute_s = total * (work.front_forward_flop + work.front_backward_flop) / clients.flop_per_s
    compute_j = (clients.busy_w - clients.idle_w) * compute_s  # [K]
    up_s = sizes.upward_bits(total, messages)[:, None] / network.radio_up_bps  # [K, E]
    down_s = sizes.downward_bits(total, messages)[:, None] / network.radio_down_bps
    client_j = compute_j[:, None] + clients.transmit_w[:, None] * up_s
    client_j += radios(network).transmit_w[None] * down_s
    in_clusters = jnp.zeros(node_s.shape).at[cluster].add(client_j, mode="drop")  # [M, E]
    return in_clusters + node_s * (servers.busy_w - servers.idle_w)[None]
