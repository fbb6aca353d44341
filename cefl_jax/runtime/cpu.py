"""The cores of the CPU, each a device."""

import os

import jax


def offer_devices(count=None):
    """Lets the CPU, where it is what computes, count as several devices: by default a core each.

    To be called before JAX is used. Devices that XLA_FLAGS asks for stay as they are.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", count or count_cores())


def count_cores():
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
