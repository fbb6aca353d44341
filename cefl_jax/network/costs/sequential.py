"""Rounds in which clients take turns: whose turn it is has its server and the links to itself."""

from typing import Any

import jax
import jax.numpy as jnp

from cefl_jax.network.costs.split import split_cost
from cefl_jax.network.ledger import RoundCost
from cefl_jax.network.messages import Sizes
from cefl_jax.network.schedule import Schedule, simulate
from cefl_jax.network.step_times import Task, own_server
from cefl_jax.network.topology import RoundNetwork
from cefl_jax.types import Number

OF_CLIENT = (
    "clients",
    "distance_km",
    "up_bps",
    "down_bps",
    "radio_up_bps",
    "radio_down_bps",
    "front_up_bps",
    "front_down_bps",
)
"""What of a RoundNetwork has the clients as its first axis."""


def simulate_sequential(
    task: Task,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    deadline_s: Number | None = None,
    keep: bool = False,
) -> Schedule:
    """Runs the simulated clock of every turn, each as a round of one client.

    Args:
      task: Task of all clients.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      deadline_s: not read; clients that come late in a round could not keep one.
      keep: static, as in `simulate`.
    Returns:
      Schedule of each client's turn, leaves [K, ...], from the beginning of the turn.
    """

    def turn(task, network):
        return simulate(task, network, work, sizes, keep=keep)

    tasks, networks, axes = _split(task, network)
    return jax.vmap(turn, (0, axes))(tasks, networks)


def sequential_cost(
    task: Task,
    schedules: Schedule,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    distill_flop: Number,
    num_kinds: int,
) -> RoundCost:
    """Returns what a round of turns cost: as much as all turns together, without any averaging.

    A client, and its server, take part while it is the client's turn.

    Args:
      task: Task of all clients.
      schedules: of `simulate_sequential`.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      distill_flop: not read; nothing is distilled.
      num_kinds: static number of device classes.
    """

    def turn(task, schedule, network):
        return split_cost(task, schedule, network, work, sizes, 0.0, num_kinds, averages=False)

    tasks, networks, axes = _split(task, network)
    costs = jax.vmap(turn, (0, 0, axes))(tasks, schedules, networks)
    with jax.enable_x64(True):
        return jax.tree.map(lambda x: x.sum(0), costs)


def _split(task, network):
    """Task and RoundNetwork of each turn, and along which axes of the latter the turns lie."""
    one = lambda tree: jax.tree.map(lambda x: x[:, None], tree)  # noqa: E731
    tasks = Task(
        samples=one(task.samples),
        cluster=jnp.zeros_like(one(task.cluster)),
        placement=one(own_server(task)),
        stays=one(task.stays),
        uploads=one(task.uploads),
    )
    networks = network._replace(**{name: one(getattr(network, name)) for name in OF_CLIENT})
    axes = RoundNetwork._make(0 if name in OF_CLIENT else None for name in RoundNetwork._fields)
    return tasks, networks, axes
