"""How the network changes over the rounds: fading links, busy edge nodes, absent clients."""

import enum
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float32, Int, PRNGKeyArray

from cefl_jax import compiler
from cefl_jax.network.topology import Conditions, Network
from cefl_jax.specs import NetworkSpec

DYNAMICS = ("static", "markov", "trace")


class Trace(NamedTuple):
    """The conditions of many rounds; row r of each array is that of round r, from 0.

    An axis of length 1 stands for values that are all alike: over the rounds, the clients, the
    links of a client, or the edge nodes. After the last row, that row holds for ever.
    """

    shadow_db: Float32[Array, "rows N E+1"]
    edge_load: Float32[Array, "rows E"]
    available: Bool[Array, "rows N"]


class Change(enum.IntEnum):
    """What a key is for: no two of them share one, in no two rounds."""

    SHADOW = 0
    LOAD = 1
    AVAILABLE = 2


def start(key: PRNGKeyArray, network: Network, spec: NetworkSpec) -> Conditions:
    """Returns the conditions of round 0.

    static: no fading, no load, everybody available. markov: drawn from the distribution that
    `step` keeps, so that every round is like any other; everybody is available where nobody ever
    leaves or returns. trace: row 0 of `network.trace`.

    Args:
      key: root of the network's keys in this run.
      network: Network.
      spec: static NetworkSpec.
    Returns:
      Conditions.
    Raises:
      ValueError: for an unknown `spec.dynamics`.
    """
    num_clients, num_links = network.up_snr.shape
    conditions = Conditions(
        shadow_db=jnp.zeros((1, 1)),
        edge_load=jnp.zeros(num_links - 1),
        available=jnp.ones(num_clients, bool),
    )
    if spec.dynamics == "markov":
        conditions = _first(key, conditions, network.up_snr.shape, spec)
    elif spec.dynamics == "trace":
        conditions = _row(network.trace, 0, conditions)
    elif spec.dynamics != "static":
        raise ValueError(
            f"network.dynamics={spec.dynamics!r} is unknown; known: {', '.join(DYNAMICS)}"
        )
    return _sealed(conditions)


def step(
    key: PRNGKeyArray,
    round_index: Int[ArrayLike, ""],
    conditions: Conditions,
    network: Network,
    spec: NetworkSpec,
) -> Conditions:
    """Returns the conditions of the round after this one.

    static: as they are. markov: the fading of each link, and the load of each edge node about
    `load_mean`, are first-order Gauss-Markov processes x' = rho x + sqrt(1 - rho^2) sigma w, with
    w standard normal; an available client leaves with `leave_probability`, one that is away returns
    with `return_probability`. trace: the next row of `network.trace`, or its last.

    Args:
      key: root of the network's keys in this run.
      round_index: i32[] this round r, from 0.
      conditions: Conditions of round r; the load may be outside of what readers clip it to.
      network: Network.
      spec: static NetworkSpec.
    Returns:
      Conditions of round r + 1.
    Reference:
      Gudmundson, Correlation model for shadow fading in mobile radio systems, Electronics Letters
      27(23), 1991.
    """
    if spec.dynamics == "markov":
        return _sealed(_next(key, round_index + 1, conditions, spec))
    if spec.dynamics == "trace":
        return _sealed(_row(network.trace, round_index + 1, conditions))
    return conditions


def record(key: PRNGKeyArray, network: Network, spec: NetworkSpec, rounds: int) -> Trace:
    """Returns the conditions of a run, as a trace that replays it bit for bit.

    Args:
      key: root of the network's keys in the run.
      network: Network.
      spec: NetworkSpec of the run.
      rounds: R, of the run.
    Returns:
      Trace of NumPy arrays with R + 1 rows, for rounds 0 to R, and no axis shortened.
    """

    @compiler.jit
    def conditions_of_rounds(key, network):
        def advance(now, round_index):
            whole = jnp.broadcast_to(now.shadow_db, network.up_snr.shape)
            after = step(key, round_index, now, network, spec)
            return after, now._replace(shadow_db=whole)

        return jax.lax.scan(advance, start(key, network, spec), jnp.arange(rounds + 1))[1]

    return Trace(*jax.tree.map(np.asarray, conditions_of_rounds(key, network)))


def _sealed(conditions):
    """Conditions that a program does not fuse with their readers.

    Fused, multiplications and additions would be contracted in one program and not in another, and
    a recorded trace would differ in the last bit from the run that it was recorded from.
    """
    return jax.lax.optimization_barrier(conditions)


def _first(key, nominal, links, spec):
    """Conditions of round 0 by the distribution that the Markov processes keep."""
    shadow, load, available = (_key(key, 0, change) for change in Change)
    leave, back = spec.leave_probability, spec.return_probability
    share = back / (leave + back) if leave + back > 0 else 1.0
    return Conditions(
        shadow_db=_drifted(shadow, jnp.zeros(links), 0.0, 0.0, spec.shadow_std_db),
        edge_load=_drifted(load, nominal.edge_load, spec.load_mean, 0.0, spec.load_std),
        available=jax.random.uniform(available, nominal.available.shape) < share,
    )


def _next(key, round_index, now, spec):
    """Conditions of a round by the Markov processes, from those of the round before."""
    shadow, load, available = (_key(key, round_index, change) for change in Change)
    luck = jax.random.uniform(available, now.available.shape)  # below 1, never below 0
    return Conditions(
        shadow_db=_drifted(shadow, now.shadow_db, 0.0, spec.shadow_correlation, spec.shadow_std_db),
        edge_load=_drifted(
            load, now.edge_load, spec.load_mean, spec.load_correlation, spec.load_std
        ),
        available=jnp.where(
            now.available, luck >= spec.leave_probability, luck < spec.return_probability
        ),
    )


def _drifted(key, x, mean, correlation, std):
    """The next values of Gauss-Markov processes; a correlation of 1 keeps every bit."""
    innovation = math.sqrt((1.0 - correlation) * (1.0 + correlation)) * std
    return correlation * x + (
        (1.0 - correlation) * mean + innovation * jax.random.normal(key, x.shape)
    )


def _key(key, round_index, change):
    return jax.random.fold_in(jax.random.fold_in(key, int(change)), round_index)


def _row(trace, row, like):
    """Conditions of one row of a trace; load and availability in full shape."""
    shadow_db, edge_load, available = (
        rows[jnp.minimum(row, rows.shape[0] - 1)] for rows in map(jnp.asarray, trace)
    )
    return Conditions(
        shadow_db=shadow_db,
        edge_load=jnp.broadcast_to(edge_load, like.edge_load.shape),
        available=jnp.broadcast_to(available, like.available.shape),
    )
