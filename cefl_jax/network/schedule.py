"""The simulated course of a round: who computes, sends and waits when, and who drops out."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cefl_jax.network.pace import (
    Pace,
    back_delivery,
    back_loading,
    members,
    of_client,
    set_pace,
)

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
)
"""What the seconds of a round are spent on, along the path that sets its pace."""


class Schedule(NamedTuple):
    """What became of a round."""

    pace: Pace
    started: jax.Array  # bool[K] loaded the front half
    steps: jax.Array  # i32[K] local steps made
    finished: jax.Array  # bool[K] made all, and delivered the front half in time
    counts: jax.Array  # bool[K] delivered a front half that counts
    out_s: jax.Array  # f32[K] when a client's last local step was over, or it dropped out
    begin_s: jax.Array  # f32[M, S] when each local step of a cluster began; 0 where none did
    arrived_s: jax.Array  # f32[M, S] when the last smashed data was there
    served_s: jax.Array  # f32[M, S] when the server had trained
    end_s: jax.Array  # f32[M, S] when the last client had finished its backward pass
    loaded_s: jax.Array  # f32[M] when the server had the back half; 0 where nobody started
    trained_s: jax.Array  # f32[M] when the last local step was over
    uploaded_s: jax.Array  # f32[M] when back half and smashed data were in the cloud
    closed_s: jax.Array  # f32[M] when all that counts of a cluster had been delivered
    phase_s: jax.Array  # f32[len(PHASES)] seconds until the slowest cluster had closed


def simulate(task, network, work, sizes, deadline_s=None, keep=False):
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
    limit_s = jnp.inf if deadline_s is None else deadline_s
    pace = set_pace(task, network, work, sizes)
    planned = (task.samples > 0).sum(1, dtype=jnp.int32)
    need_s = _need(pace, keep)
    start, ready_s = _begin(task, pace, planned, need_s, limit_s, network, sizes)
    step = functools.partial(_local_step, task, pace, planned, need_s, limit_s, keep)
    clock = jax.lax.fori_loop(0, planned.max(), step, start)
    counts = (clock.steps > 0) & (clock.out_s + pace.deliver <= limit_s)
    finished = counts & (clock.steps == planned)
    counts = counts if keep else finished
    back_s, upload_s = _upload_seconds(task, pace, clock, counts, network, sizes)
    closed_s = clock.now_s + upload_s
    m = closed_s.argmax()
    path_s = jnp.concatenate([ready_s[m, None], clock.spent_s[m], upload_s[m, None]])
    wait_s = 0.0
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
        begin_s=clock.marks[0],
        arrived_s=clock.marks[1],
        served_s=clock.marks[2],
        end_s=clock.marks[3],
        loaded_s=jnp.where(ready_s > 0, back_loading(task, network, sizes), 0.0),
        trained_s=clock.now_s,
        uploaded_s=clock.now_s + back_s,
        closed_s=closed_s,
        phase_s=phase_s,
    )


class _Clock(NamedTuple):
    """Where the clusters are in their local steps."""

    now_s: jax.Array  # f32[M]
    active: jax.Array  # bool[K] clients that started and have not dropped out
    steps: jax.Array  # i32[K] made so far
    out_s: jax.Array  # f32[K] when the last of them was over
    marks: jax.Array  # f32[4, M, S] begin, arrived, served, end
    spent_s: jax.Array  # f32[M, 5] by phase, forward to backward


def _begin(task, pace, planned, need_s, limit_s, network, sizes):
    """The _Clock when the clusters are ready for their first step, and that time, f32[M]."""
    num_clusters, num_steps = task.placement.shape[0], task.samples.shape[1]
    back_s = back_loading(task, network, sizes)
    soonest_s = jnp.maximum(pace.load, of_client(task, back_s)) + need_s[:, 0]
    started = of_client(task, task.placement >= 0) & (planned > 0) & (soonest_s <= limit_s)
    here = members(task) & started
    ready_s = jnp.where(here.any(1), jnp.maximum(back_s, _slowest(here, pace.load)), 0.0)
    clock = _Clock(
        ready_s,
        started,
        jnp.zeros_like(planned),
        jnp.where(started, of_client(task, ready_s), 0.0),
        jnp.zeros((4, num_clusters, num_steps)),
        jnp.zeros((num_clusters, 5)),
    )
    return clock, ready_s


def _local_step(task, pace, planned, need_s, limit_s, keep, s, clock):
    """The _Clock after local step s of all clusters."""
    wants = clock.active & (s < planned)
    in_time = of_client(task, clock.now_s) + need_s[:, s] <= limit_s
    at_work = members(task) & wants & in_time & (s < task.stays)                  # [M, K]
    up, down = pace.forward[:, s] + pace.send[:, s], pace.receive[:, s] + pace.backward[:, s]

    def run(at_work):
        serve_s = jnp.where(at_work, pace.serve[:, s], 0.0).sum(1)
        arrived_s = clock.now_s + _slowest(at_work, up)
        served_s = arrived_s + serve_s
        return serve_s, arrived_s, served_s, served_s + _slowest(at_work, down)

    if keep:
        *_, end_s = run(at_work)
        at_work &= of_client(task, end_s) + pace.deliver <= limit_s
    serve_s, arrived_s, served_s, end_s = run(at_work)
    begins = at_work.any(1) & (end_s <= limit_s)
    made = (at_work & begins[:, None]).any(0)
    u, d = (jnp.where(at_work, x, -1.0).argmax(1) for x in (up, down))             # who is last
    parts = pace.forward[u, s], pace.send[u, s], serve_s, pace.receive[d, s], pace.backward[d, s]
    marks = jnp.stack([clock.now_s, arrived_s, served_s, end_s])                   # [4, M]
    return _Clock(
        now_s=jnp.where(begins, end_s, clock.now_s),
        active=clock.active & (made | ~wants),
        steps=clock.steps + made,
        out_s=jnp.where(made, of_client(task, end_s), clock.out_s),
        marks=clock.marks.at[:, :, s].set(jnp.where(begins, marks, 0.0)),
        spent_s=clock.spent_s + jnp.where(begins[:, None], jnp.stack(parts, 1), 0.0),
    )


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
    counting = members(task) & counts
    # Differences of times first: sums of small and large ones would lose the small.
    still_s = clock.out_s - of_client(task, clock.now_s) + pace.deliver
    back_s = back_delivery(task, counting, clock.steps, network, sizes)
    back_s = jnp.where(counting.any(1), back_s, 0.0)
    return back_s, jnp.maximum(back_s, _slowest(counting, still_s))


def _slowest(among, values):
    """Largest of values f32[K] >= 0 among each row of bool[M, K]; 0 among none."""
    return jnp.where(among, values, 0.0).max(1)
