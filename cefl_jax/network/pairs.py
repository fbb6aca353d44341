"""What it would cost every edge node to train every cluster, from the network's present state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class PairCost(NamedTuple):
    """A round's split training for every pair of cluster and server, f32[M, E]."""

    clients_s: jax.Array  # first cost: the slowest client's computing and links, over the steps
    node_s: jax.Array  # second cost: the server's computing, with the server to itself
    active_j: jax.Array  # joules of computing and sending, beyond what is drawn while idle
    idle_w: jax.Array  # watts that the pair's devices draw while idle

    def weigh(self, time_weight, energy_weight):
        """The two costs as `time_weight` x seconds + `energy_weight` x joules.

        Idling for the server's computing is part of the second cost, as it grows with it.
        """
        a_second = time_weight + energy_weight * self.idle_w
        return a_second * self.clients_s + energy_weight * self.active_j, a_second * self.node_s


def client_seconds(samples, network, work, sizes):
    """What each client's local steps would take with each server, were it alone with it.

    Args:
      samples: i32[K, S] samples of each client's local steps, 0 where it makes none.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
    Returns:
      f32[K, E] seconds of the client's computing and links, f32[K, E] of the server's computing.
    """
    total, steps = (x.sum(1)[:, None].astype(jnp.float32) for x in (samples, samples > 0))
    compute = work.front_forward_flop + work.front_backward_flop
    client_s = (
        total * (compute / network.clients.flop_per_s[:, None])
        + sizes.upward_bits(total, steps) / network.up_bps
        + sizes.downward_bits(total, steps) / network.down_bps
    )
    return client_s, total * (work.back_train_flop / network.servers.flop_per_s)


def pair_costs(samples, cluster, network, work, sizes, num_clusters):
    """What every server would take to train every cluster.

    A synchronous step of cluster m on server e takes
    max_k(front forward + smashed data / rate_ke) + samples x back FLOPs / f_e
    + max_k(cut gradient / rate_ek + front backward). Joules are those of `energy.py`.

    Args:
      samples: i32[K, S] samples of each client's local steps, 0 where it makes none.
      cluster: i32[K] cluster of each client, M for none.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      num_clusters: static M.
    Returns:
      PairCost; 0 for a cluster that did not form.
    """
    members = cluster == jnp.arange(num_clusters)[:, None]                         # [M, K]
    compute_s = 1.0 / network.clients.flop_per_s[:, None]                          # [K, 1]

    def slowest(client_s, sends):
        return jnp.where((members & sends)[..., None], client_s, 0.0).max(1)       # [M, E]

    def add_step(step, total_s):
        now = samples[:, step, None].astype(jnp.float32)                           # [K, 1]
        sends = now > 0
        up = now * work.front_forward_flop * compute_s
        up += sizes.upward_bits(now, 1.0) / network.up_bps
        down = now * work.front_backward_flop * compute_s
        down += sizes.downward_bits(now, 1.0) / network.down_bps
        return total_s + slowest(up, sends[:, 0]) + slowest(down, sends[:, 0])

    steps = (samples > 0).any(0).sum()                    # nobody's steps have gaps
    start = jnp.zeros((num_clusters, network.up_bps.shape[1]))
    clients_s = jax.lax.fori_loop(0, steps, add_step, start)
    total, messages = (x.sum(1).astype(jnp.float32) for x in (samples, samples > 0))   # [K]
    of_cluster = lambda x: jnp.where(members, x, 0.0).sum(1)[:, None]              # noqa: E731
    node_s = of_cluster(total) * work.back_train_flop / network.servers.flop_per_s
    clients, servers = network.clients, network.servers
    compute = total * (work.front_forward_flop + work.front_backward_flop) * compute_s[:, 0]
    up_s = sizes.upward_bits(total, messages)[:, None] / network.up_bps            # [K, E]
    down_s = sizes.downward_bits(total, messages)[:, None] / network.down_bps
    in_cluster = members.astype(jnp.float32)
    active_j = (
        of_cluster((clients.busy_w - clients.idle_w) * compute)
        + in_cluster @ (clients.transmit_w[:, None] * up_s)
        + (in_cluster @ down_s) * servers.transmit_w
        + node_s * (servers.busy_w - servers.idle_w)
    )
    formed = members.any(1)[:, None]
    idle_w = jnp.where(formed, of_cluster(clients.idle_w) + servers.idle_w, 0.0)
    return PairCost(clients_s, node_s, active_j, idle_w)
