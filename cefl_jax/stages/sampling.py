"""Who takes part in a round."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, PRNGKeyArray

from cefl_jax.data.federated import permute


def sample_clients(
    key: PRNGKeyArray,
    num_clients: int,
    clients_per_round: int,
    available: Bool[Array, "N"] | None = None,
) -> Int32[Array, "K"]:
    """Draws the clients of a round, uniformly without replacement from the available ones.

    They come in random order. A keyed permutation of the population is walked, K positions at a
    time, until K available clients are found or nobody is left. So the work follows the sample, not
    the population, as long as most are available; and with everybody available the clients are
    those of `available=None`.
    Where fewer than K are available, all of them take part, and the places after them are empty.

    Args:
      key: of this round's sampling.
      num_clients: static N.
      clients_per_round: static K, 1 <= K <= N.
      available: bool[N] clients that can be sampled; None for everybody.
    Returns:
      i32[K] indices into the population, N (one past the end) for an empty place.
    """
    positions = jnp.arange(clients_per_round)
    if available is None:
        return permute(key, positions, num_clients)

    def wanting(walk):
        walked, found, _ = walk
        return (found < clients_per_round) & (walked < num_clients)

    def take(walk):
        walked, found, clients = walk
        position = walked + positions
        client = permute(key, jnp.minimum(position, num_clients - 1), num_clients)
        taken = (position < num_clients) & available[client]
        place = jnp.where(taken, found + jnp.cumsum(taken) - 1, clients_per_round)
        clients = clients.at[place].set(client, mode="drop")
        return walked + clients_per_round, found + taken.sum(), clients

    start = jnp.int32(0), jnp.int32(0), jnp.full(clients_per_round, num_clients, jnp.int32)
    return jax.lax.while_loop(wanting, take, start)[2]
