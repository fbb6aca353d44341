"""The simulated course of a round: who computes, sends and waits when, and who drops out."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from cefl_jax.network.messages import Sizes
from cefl_jax.network.step_times import (
    StepTimes,
    Task,
    back_delivery,
    back_loading,
    members,
    of_client,
    sample_service,
    slowest,
    step_times,
)
from cefl_jax.network.topology import RoundNetwork
from cefl_jax.types import Number

PHASES = (
    "model_download",
    "front_forward",
    "smashed_upload",
    "back_training",
    "gradient_download",
    "front_backward",
    "model_upload",
    "averaging",
    "distillation",
    "waiting",
    "examples_upload",
)
"""Phases of a round; their seconds are those on the critical path."""


class Schedule(NamedTuple):
    """What became of a round."""

    pace: StepTimes
    started: Bool[Array, "K"]  # loaded the front half
    steps: Int32[Array, "K"]  # local steps made
    finished: Bool[Array, "K"]  # made all, and delivered the front half in time
    counts: Bool[Array, "K"]  # delivered a front half that counts
    out_s: Float32[Array, "K"]  # when a client's last local step was over, or it dropped out
    begin_s: Float32[Array, "M S"]  # when each local step of a cluster began; 0 where none did
    arrived_s: Float32[Array, "M S"]  # when the last smashed data was there
    served_s: Float32[Array, "M S"]  # when the server had trained
    end_s: Float32[Array, "M S"]  # when the last client had finished its backward pass
    loaded_s: Float32[Array, "M"]  # when the server had the back half; 0 where nobody started
    trained_s: Float32[Array, "M"]  # when the last local step was over
    uploaded_s: Float32[Array, "M"]  # when back half and smashed data were in the cloud
    closed_s: Float32[Array, "M"]  # when all that counts of a cluster had been delivered
    phase_s: Float32[Array, "phases"]  # seconds until the slowest cluster had closed


def simulate(
    task: Task,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    deadline_s: Number | None = None,
    keep: bool = False,
) -> Schedule:
    """Runs the simulated clock of a round, up to the averaging.

    A cluster begins when its server has the back half and every client that starts has the front
    half. In a local step the clients compute forward and send; when the last smashed data is there
    the server trains on all of it; the clients receive gradients and compute backward; the step is
    over when the last one has. Then the clients deliver front halves, and the server back half and
    smashed data. Clusters on one server share its computing, and its link to the cloud, evenly.

    The deadline is for the clients' front halves; what servers send to the cloud, averaging and
    distillation come on top. A client drops out after the local steps that it stays for, and before
    the first step from which it could not deliver by the deadline even if nobody held it up; if
    that is the first step of all, it does not start. A step that would end after the deadline is
    not begun. Who makes all its steps and delivers in time has finished, and counts.

    With `keep`, a client need not get through all its steps: it drops out before the first one
    after which it could not deliver in time, if nobody held it up or with those who would make the
    step. It then delivers at once what it has; after some steps that counts, if in time.

    A round with a deadline of which nothing counts lasts until the deadline.

    Args:
      task: Task.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      deadline_s: static seconds from the round's beginning, or None.
      keep: static.
    Returns:
      Schedule.
    """
    pace = step_times(task, network, work, sizes)
    planned = (task.samples > 0).sum(1, dtype=jnp.int32)
    limit = None if deadline_s is None else _Limit(deadline_s, _need(pace, keep), keep)
    start, ready_s = _begin(task, pace, planned, limit, network, sizes)
    service_s = sample_service(task, network, work)
    ways = jnp.stack([pace.forward + pace.send, pace.receive + pace.backward], -1)
    step = functools.partial(_local_step, task, pace, ways, service_s, limit)
    clock = jax.lax.fori_loop(0, planned.max(), step, start)
    counts = clock.steps > 0
    if limit is not None:
        counts &= clock.out_s + pace.deliver <= limit.at_s
    finished = counts & (clock.steps == planned)
    counts = counts if keep else finished
    back_s, upload_s = _upload_seconds(task, pace, clock, counts, network, sizes)
    closed_s = clock.now_s + upload_s
    m = closed_s.argmax()
    path_s = jnp.stack([ready_s[m], *_spent(task, pace, clock.steps, m), upload_s[m]])
    wait_s: Number = 0.0
    if deadline_s is not None:
        wait_s = jnp.where(counts.any(), 0.0, deadline_s)
        path_s = jnp.where(counts.any(), path_s, 0.0)
    phase_s = jnp.zeros(len(PHASES)).at[:7].set(path_s).at[PHASES.index("waiting")].set(wait_s)
    return Schedule(
        pace=pace,
        started=start.active,
        steps=clock.steps,
        finished=finished,
        counts=counts,
        out_s=clock.out_s,
        **dict(zip(_MARKS, jnp.moveaxis(clock.marks, 0, 2), strict=True)),
        loaded_s=jnp.where(ready_s > 0, back_loading(task, network, sizes), 0.0),
        trained_s=clock.now_s,
        uploaded_s=clock.now_s + back_s,
        closed_s=closed_s,
        phase_s=phase_s,
    )


_MARKS = ("begin_s", "arrived_s", "served_s", "end_s")


class _Clock(NamedTuple):
    """Where the clusters are in their local steps."""

    now_s: Float32[Array, "M"]
    active: Bool[Array, "K"]  # clients that started and have not dropped out
    steps: Int32[Array, "K"]  # made so far
    out_s: Float32[Array, "K"]  # when the last of them was over
    marks: Float32[Array, "S 4 M"]  # _MARKS


class _Limit(NamedTuple):
    """By when, and from when on it cannot be kept."""

    at_s: Number
    need_s: Float32[Array, "K S"]
    keep: bool


def _begin(task, pace, planned, limit, network, sizes):
    """The _Clock when the clusters are ready for their first step, and that time, f32[M]."""
    num_clusters, num_steps = task.placement.shape[0], task.samples.shape[1]
    back_s = back_loading(task, network, sizes)
    loaded_s = jnp.maximum(pace.load, of_client(task, back_s))
    started = of_client(task, task.placement >= 0) & (planned > 0)
    if limit is not None:
        started &= loaded_s + limit.need_s[:, 0] <= limit.at_s
    ready_s = slowest(task, started, loaded_s)
    clock = _Clock(
        ready_s,
        started,
        jnp.zeros_like(planned),
        jnp.where(started, of_client(task, ready_s), 0.0),
        jnp.zeros((num_steps, len(_MARKS), num_clusters)),
    )
    return clock, ready_s


def _local_step(task, pace, ways, service_s, limit, s, clock):
    """The _Clock after local step s of all clusters; ways f32[K, S, 2] up and down."""
    samples = task.samples[:, s]
    wants = clock.active & (samples > 0)
    at_work = wants & (s < task.stays)  # [K]
    way_s = jax.lax.dynamic_index_in_dim(ways, s, 1, keepdims=False)  # [K, 2]

    def run(at_work):
        up_s, down_s = slowest(task, at_work, way_s).T  # [M]
        there = jnp.where(at_work, samples, 0)
        there = jnp.zeros_like(task.placement).at[task.cluster].add(there, mode="drop")
        arrived_s = clock.now_s + up_s
        served_s = arrived_s + there * service_s
        return there > 0, arrived_s, served_s, served_s + down_s

    if limit is not None:
        at_work &= of_client(task, clock.now_s) + limit.need_s[:, s] <= limit.at_s
    if limit is not None and limit.keep:
        *_, end_s = run(at_work)
        at_work &= of_client(task, end_s) + pace.deliver <= limit.at_s
    begins, arrived_s, served_s, end_s = run(at_work)
    if limit is not None:
        begins &= end_s <= limit.at_s
    made = at_work & of_client(task, begins)
    marks = jnp.stack([clock.now_s, arrived_s, served_s, end_s])  # [4, M]
    return _Clock(
        now_s=jnp.where(begins, end_s, clock.now_s),
        active=clock.active & (made | ~wants),
        steps=clock.steps + made,
        out_s=jnp.where(made, of_client(task, end_s), clock.out_s),
        marks=clock.marks.at[s].set(jnp.where(begins, marks, 0.0)),
    )


def _spent(task, pace, steps, m):
    """Seconds of cluster m by phase, forward to backward, on the way of who is last each time."""
    made = (task.cluster == m)[:, None] & (jnp.arange(task.samples.shape[1])[None] < steps[:, None])
    ways = jnp.stack([pace.forward, pace.send, pace.receive, pace.backward])
    ways = jnp.where(made, ways, 0.0).reshape(2, 2, *made.shape)  # up, down
    last = ways.sum(1).argmax(1)  # [2, S]
    way_s = jnp.take_along_axis(ways, last[:, None, None], 2).sum((2, 3)).ravel()
    return *way_s[:2], jnp.where(made, pace.serve, 0.0).sum(), *way_s[2:]


def _need(pace, keep):
    """Seconds f32[K, S] that a client needs from each step on if nobody holds it up.

    Until it has delivered after all its steps; or, where partial work is kept, after this one.
    """
    own_s = pace.forward + pace.send + pace.serve + pace.receive + pace.backward
    if not keep:
        own_s = jnp.cumsum(own_s[:, ::-1], 1)[:, ::-1]
    return own_s + pace.deliver[:, None]


def _upload_seconds(task, pace, clock, counts, network, sizes):
    """Seconds f32[M] from the last step until what counts is in the cloud, and until all of it is
    delivered; 0 where nothing counts."""
    counting = members(task) & counts[None]
    # Differences of times first: sums of small and large ones would lose the small.
    still_s = clock.out_s - of_client(task, clock.now_s) + pace.deliver
    back_s = back_delivery(task, counting, clock.steps, network, sizes)
    back_s = jnp.where(counting.any(1), back_s, 0.0)
    return back_s, jnp.maximum(back_s, slowest(task, counts, still_s))
