"""The CPU as JAX uses it: its cores, each a device, and how it rounds."""

import os
import platform
from collections.abc import Callable

import jax

X86 = ("x86_64", "AMD64")


def set_up(devices: int | None = None, warn: Callable[[str], object] = print) -> None:
    """Makes ready the CPU, where it is what computes; to be called before JAX is used.

    It counts as several devices: by default a core each. And on x86 it rounds after every
    operation: AVX, to which XLA is kept there, has no fused multiply-add. Of a*b + c*d LLVM fuses
    one product where it vectorises and the other where it does not, which in turn depends on the
    buffers that XLA lets share their memory, and so on the number of devices. Products of matrices
    and convolutions are those of libraries, which take what the CPU has. What JAX_NUM_CPU_DEVICES,
    XLA_FLAGS or an earlier call asks for stays as it is.

    Where JAX is in use already, as it may be in a notebook, none of this can be changed any more:
    one line says what does not hold then, and all stays as it is.

    Args:
      devices: how many; None for as many as there are cores.
      warn: called with the one line that says so.
    """
    asked = os.environ.get("XLA_FLAGS", "")
    given = "xla_force_host_platform_device_count" in asked
    divide = not given and jax.config.values["jax_num_cpu_devices"] == -1
    round = platform.machine() in X86 and "xla_cpu_max_isa" not in asked
    if (divide or round) and is_in_use():
        lost = ["the CPU is not split into a device a core"] * divide
        lost += ["a run has not the same bits on every number of devices"] * round
        warn(
            f"JAX is in use in this process already: {', and '.join(lost)}; for that, call "
            "cefl_jax.runtime.cpu.set_up() before JAX is used, in a new process"
        )
        return
    if divide:
        jax.config.update("jax_num_cpu_devices", devices or count_cores())
    if round:
        os.environ["XLA_FLAGS"] = f"{asked} --xla_cpu_max_isa=AVX".strip()


def is_in_use() -> bool:
    """Returns whether JAX has made its devices, after which no call to `set_up` has an effect."""
    now = jax.config.values["jax_num_cpu_devices"]
    try:
        jax.config.update("jax_num_cpu_devices", now + 1)  # refused from then on
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", now)
    return False


def count_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
