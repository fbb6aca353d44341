"""The CPU as JAX uses it: its cores, each a device, and how it rounds."""

import os
import platform

import jax

X86 = ("x86_64", "AMD64")


def set_up(devices: int | None = None) -> None:
    """Makes ready the CPU, where it is what computes; to be called before JAX is used.

    It counts as several devices: by default a core each. And on x86 it rounds after every
    operation: AVX, to which XLA is kept there, has no fused multiply-add. Of a*b + c*d LLVM fuses
    one product where it vectorises and the other where it does not, which in turn depends on the
    buffers that XLA lets share their memory, and so on the number of devices. Products of matrices
    and convolutions are those of libraries, which take what the CPU has. What JAX_NUM_CPU_DEVICES,
    XLA_FLAGS or an earlier call asks for stays as it is.
    """
    asked = os.environ.get("XLA_FLAGS", "")
    given = "xla_force_host_platform_device_count" in asked
    if not given and jax.config.values["jax_num_cpu_devices"] == -1:
        jax.config.update("jax_num_cpu_devices", devices or count_cores())
    if platform.machine() in X86 and "xla_cpu_max_isa" not in asked:
        os.environ["XLA_FLAGS"] = f"{asked} --xla_cpu_max_isa=AVX".strip()


def count_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
