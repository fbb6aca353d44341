"""The cores of the CPU, each a device."""

import os

import jax


def offer_devices(count: int | None = None) -> None:
    """Lets the CPU, where it is what computes, count as several devices: by default a core each.

    To be called before JAX is used. A number that JAX_NUM_CPU_DEVICES or XLA_FLAGS asks for, or a
    call before this one, stays as it is.
    """
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not asked and jax.config.values["jax_num_cpu_devices"] == -1:
        jax.config.update("jax_num_cpu_devices", count or count_cores())


def count_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
