"""The bill of one round of split training, from its schedule."""

from typing import Any

import jax.numpy as jnp

from cefl_jax.network.costs.energy import round_energy
from cefl_jax.network.ledger import Bill
from cefl_jax.network.messages import Sizes, Traffic, count_bytes
from cefl_jax.network.schedule import PHASES, Schedule
from cefl_jax.network.step_times import Task, last_steps, members
from cefl_jax.network.topology import RoundNetwork
from cefl_jax.types import Number


def make_bill(
    task: Task,
    schedule: Schedule,
    network: RoundNetwork,
    work: Any,
    sizes: Sizes,
    distill_flop: Number,
    num_kinds: int,
    averages: bool = True,
) -> Bill:
    """What a round of split training cost.

    When the slowest cluster has closed, the front aggregation server averages the front halves and
    the cloud the back halves, at 2 FLOPs for each number delivered (of 4 bytes, so that control
    variates are among them), one after the other, and the cloud distils.

    Args:
      task: step_times.Task.
      schedule: schedule.Schedule.
      network: RoundNetwork.
      work: Workload.
      sizes: messages.Sizes.
      distill_flop: f32[] FLOPs of distillation.
      num_kinds: static number of device classes.
      averages: static, whether anything is averaged.
    Returns:
      ledger.Bill.
    """
    traffic = count_traffic(task, schedule, network)
    clusters = (members(task) & schedule.counts[None]).any(1).sum()
    averaging_s = jnp.stack(
        [
            2.0 * traffic.fronts_up * (sizes.front // 4) / network.front.flop_per_s,
            2.0 * clusters * work.back_params / network.cloud.flop_per_s,
        ]
    )
    if not averages:
        averaging_s = jnp.zeros(2)
    distillation_s = jnp.asarray(distill_flop / network.cloud.flop_per_s)
    phase_s = schedule.phase_s.at[PHASES.index("averaging")].set(averaging_s.sum())
    phase_s = phase_s.at[PHASES.index("distillation")].set(distillation_s)
    energy_j = round_energy(
        task, schedule, phase_s.sum(), network, work, averaging_s, distillation_s, num_kinds
    )
    return Bill(phase_s, count_bytes(traffic, sizes), energy_j)


def count_traffic(task: Task, schedule: Schedule, network: RoundNetwork) -> Traffic:
    """How often each message of a round of split training was sent: messages.Traffic.

    Every client that starts loads a front half, every cluster with such a client a back half. The
    back half and the smashed data go on to the cloud for clusters and clients that count.
    """
    num_steps = task.samples.shape[1]
    made = jnp.arange(num_steps)[None] < schedule.steps[:, None]  # [K, S]
    uploaded = last_steps(schedule.steps, task.uploads, num_steps)
    remote = jnp.isfinite(network.backhaul_bps)[jnp.maximum(task.placement, 0)]  # [M]
    on_edge = remote.at[task.cluster].get(mode="fill", fill_value=True)  # [K]
    uploaded &= (schedule.counts & on_edge)[:, None]

    def total(where):
        return jnp.where(where, task.samples, 0).sum()

    on_cloud = made & ~on_edge[:, None]
    return Traffic(
        fronts_down=schedule.started.sum(),
        fronts_up=schedule.counts.sum(),
        backs_down=((members(task) & schedule.started[None]).any(1) & remote).sum(),
        backs_up=((members(task) & schedule.counts[None]).any(1) & remote).sum(),
        steps=made.sum(),
        samples=total(made),
        cloud_steps=on_cloud.sum(),
        cloud_samples=total(on_cloud),
        uploaded_steps=uploaded.sum(),
        uploaded_samples=total(uploaded),
    )
