"""Who trains where in a round, on which batches, and whose smashed data is uploaded."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float32, Int, Int32, PRNGKeyArray

from cefl_jax.data.federated import FederatedData, batch_examples, steps_per_epoch
from cefl_jax.numerics import take
from cefl_jax.specs import TrainSpec
from cefl_jax.types import AnyArray


class Plan(NamedTuple):
    """The clients of a round in the order of their clusters, and where each cluster lies."""

    clients: Int32[Array, "K"]  # indices into the population
    sizes: Int32[Array, "K"]  # examples of each client
    steps: Int32[Array, "K"]  # local steps of each client, 0 for a client of no cluster
    uploaded: Int32[Array, "K"]  # last local steps whose smashed data is uploaded
    weight: Float32[Array, "K"]  # of a client's halves in the averages
    cluster: Int32[Array, "K"]  # ascending; M for a client of no cluster
    first: Int32[Array, "M"]  # where a cluster's clients begin
    members: Int32[Array, "M"]  # clients of a cluster, 0 where none formed


def make_plan(
    clients: Int[AnyArray, "K"],
    cluster: Int[AnyArray, "K"],
    sizes: Int[AnyArray, "K"],
    num_clusters: int,
    train: TrainSpec,
    upload_steps: int | None,
) -> Plan:
    """Orders the clients of a round by cluster, keeping the sampling order within one.

    A client makes `local_steps` local steps, or `local_epochs` passes over its examples. Uploaded
    is the smashed data of its last `upload_steps` steps, or of as many as one pass takes (which,
    with `local_steps`, may begin in one pass and end in the next). Its weight is its examples.

    Args:
      clients: i32[K] indices into the population, or anything for a client of no cluster.
      cluster: i32[K] cluster of each client, -1 for none.
      sizes: i32[K] examples of each client.
      num_clusters: static M.
      train: static TrainSpec.
      upload_steps: static, None for as many as one pass takes.
    Returns:
      Plan.
    """
    placed = jnp.where(cluster < 0, num_clusters, cluster)
    order = jnp.argsort(placed, stable=True)
    clients, sizes, placed = clients[order], sizes[order], placed[order]
    members = jnp.zeros(num_clusters, jnp.int32).at[placed].add(1, mode="drop")
    per_epoch = steps_per_epoch(sizes, train.batch_size)
    if train.local_steps is None:
        steps = train.local_epochs * per_epoch
    else:
        steps = jnp.full_like(sizes, train.local_steps)
    steps = jnp.where(placed < num_clusters, steps, 0)
    uploaded = jnp.minimum(steps, per_epoch if upload_steps is None else upload_steps)
    weight = jnp.where(placed < num_clusters, sizes, 0).astype(jnp.float32)
    first = jnp.cumsum(members) - members
    return Plan(clients, sizes, steps, uploaded, weight, placed, first, members)


def apply_dropouts(plan: Plan, steps: Int32[Array, "K"], counts: Bool[Array, "K"]) -> Plan:
    """Returns the Plan when some clients drop out of the round.

    What a client delivers after part of its steps weighs as that part of them. The back half of its
    cluster keeps what it has learned from these steps, whether they count or not.

    Args:
      plan: Plan.
      steps: i32[K] local steps that each client makes, at most those of the plan.
      counts: bool[K] whether a client delivers in time; else its front half weighs 0, and none of
        its smashed data is uploaded.
    Returns:
      Plan.
    """
    part = jnp.where(steps < plan.steps, steps / jnp.maximum(plan.steps, 1), 1.0)
    return plan._replace(
        steps=steps,
        uploaded=jnp.where(counts, jnp.minimum(plan.uploaded, steps), 0),
        weight=jnp.where(counts, plan.weight * part, 0.0),
    )


def exclude_clients(plan: Plan, skipped: Bool[Array, "K"] | None) -> Plan:
    """Returns the Plan as if some clients did nothing in the round, or nothing more.

    Args:
      plan: Plan.
      skipped: bool[K], who; or None for nobody.
    Returns:
      Plan; of these clients, no steps, no uploads and no weight.
    """
    if skipped is None:
        return plan
    steps, uploaded, weight = (
        jnp.where(skipped, 0, x) for x in (plan.steps, plan.uploaded, plan.weight)
    )
    return plan._replace(steps=steps, uploaded=uploaded, weight=weight)


class StaticBounds(NamedTuple):
    """Static bounds over the population."""

    steps: int  # S, most local steps that any client makes
    uploads: int  # U, most steps whose smashed data any client uploads


def static_bounds(
    sizes: Int[np.ndarray, "N"], train: TrainSpec, upload_steps: int | None
) -> StaticBounds:
    """Returns the StaticBounds of rounds over a population.

    Args:
      sizes: NumPy i32[N] examples of each client.
      train: TrainSpec.
      upload_steps: as in `make_plan`.
    Returns:
      StaticBounds.
    """
    per_epoch = int(steps_per_epoch(sizes, train.batch_size).max())
    steps = train.local_steps or (train.local_epochs or 0) * per_epoch  # one of the two is set
    return StaticBounds(steps, min(steps, upload_steps or per_epoch))


def draw_batches(
    data: FederatedData,
    key: PRNGKeyArray,
    clients: Int32[Array, "K"],
    batch_size: int,
    num_steps: int,
) -> Int32[Array, "K S B"]:
    """Draws the examples of every local step of the clients of a round; see `batch_examples`.

    The table takes 4 K S B bytes. Whoever trains or uploads reads it by `read_batches`.

    Args:
      data: FederatedData.
      key: of the clients' batches in this round.
      clients: i32[K] indices into the population, or anything for a client of no cluster.
      batch_size: static B.
      num_steps: static S.
    Returns:
      i32[K, S, B] example indices, n (one past the end) where a batch has no more.
    """
    (num_clients,) = clients.shape
    own = jax.vmap(lambda client: jax.random.fold_in(key, client))(clients)

    def of_step(at):  # by one index of client and step: fewer axes are less code to compile
        row, step = jax.lax.div(at, num_steps), jax.lax.rem(at, num_steps)
        return batch_examples(data, own[row], clients[row], step, batch_size)

    batches = jax.vmap(of_step)(jnp.arange(num_clients * num_steps))
    return batches.reshape(num_clients, num_steps, batch_size)


def read_batches(
    batches: Int32[Array, "K S B"],
    row: Int[Array, "..."],
    step: Int[ArrayLike, "..."],
    there: Bool[Array, "*rows"],
    num_examples: int,
) -> Int32[Array, "*rows B"]:
    """Reads batches by one flat index of row and local step; see `numerics.at_pairs`.

    Args:
      batches: i32[K, S, B] of `draw_batches`.
      row: i32[...] of a client, broadcast with `step`, i32[...].
      there: bool[...], whether there is such a batch.
      num_examples: static n, of which a batch consists that is not there.
    Returns:
      i32[..., B].
    """
    num_clients, num_steps, batch_size = batches.shape
    at = jnp.where(there, row * num_steps + step, num_clients * num_steps)
    flat = batches.reshape(-1, batch_size)
    return take(flat, at, num_examples)


def step_samples(plan: Plan, batch_size: int, max_steps: int) -> Int32[Array, "K S"]:
    """Returns the samples of every client's every local step, i32[K, max_steps]."""
    per_epoch = jnp.maximum(steps_per_epoch(plan.sizes, batch_size), 1)[:, None]
    step = jnp.arange(max_steps)[None]
    left = plan.sizes[:, None] - step % per_epoch * batch_size
    return jnp.where(step < plan.steps[:, None], jnp.clip(left, 0, batch_size), 0)


def uploaded_samples(plan: Plan, samples: Int32[Array, "K S"]) -> Int32[Array, "K"]:
    """Counts the samples that each client uploads, i32[K], of `step_samples` i32[K, S]."""
    left = plan.steps[:, None] - jnp.arange(samples.shape[1])[None]
    return jnp.where(left <= plan.uploaded[:, None], samples, 0).sum(1)


def upload_examples(
    plan: Plan, batches: Int32[Array, "K S B"], slots: int, num_examples: int
) -> Int32[Array, "K U B"]:
    """Returns the samples whose smashed data is uploaded, in the slots in which it is kept.

    Args:
      plan: Plan.
      batches: i32[K, S, B] of `draw_batches`.
      slots: static U.
      num_examples: static n.
    Returns:
      i32[K, U, B] example indices, n (one past the end) in slots that are not filled.
    """
    row, slot = jnp.arange(batches.shape[0])[:, None], jnp.arange(slots)[None]
    step = (plan.steps - plan.uploaded)[:, None] + slot
    return read_batches(batches, row, step, slot < plan.uploaded[:, None], num_examples)
