"""The CPU as JAX uses it: a device a core, how it rounds, and what kind it is."""

import hashlib
import importlib.util
import os
import platform
from collections.abc import Callable
from pathlib import Path

import jax
import jaxlib

X86 = ("x86_64", "AMD64")
ROUNDED = "--xla_cpu_max_isa=AVX"
NOT_UNROLLED = "--xla_backend_extra_options=-unroll-threshold=40"
"""Only short loops are unrolled: compilation takes a quarter less time, and rounds no longer."""


def set_up(
    devices: int | None = None,
    warn: Callable[[str], object] = print,
    deterministic: bool = True,
) -> None:
    """Makes ready the CPU, where it is what computes; to be called before JAX is used.

    It counts as several devices: by default a core each. And where the bits must not depend on the
    number of devices, it rounds after every operation on x86: AVX, to which XLA is kept there, has
    no fused multiply-add. Of a*b + c*d LLVM fuses one product where it vectorises and the other
    where it does not, which in turn depends on the buffers that XLA lets share their memory, and so
    on the number of devices. Products of matrices and convolutions are those of libraries, which
    take what the CPU has. Where JAX has CPUs alone, its compiler unrolls short loops only. What
    JAX_NUM_CPU_DEVICES, XLA_FLAGS or an earlier call asks for stays.

    Where JAX is in use already, as it may be in a notebook, none of this can be changed any more:
    one line says what does not hold then, and all stays as it is.

    Args:
      devices: how many; None for as many as there are cores.
      warn: called with the one line that says so.
      deterministic: whether the bits must not depend on the number of devices; else all that the
        CPU has is used.
    """
    asked = os.environ.get("XLA_FLAGS", "")
    given = "xla_force_host_platform_device_count" in asked
    divide = not given and jax.config.values["jax_num_cpu_devices"] == -1
    round = deterministic and platform.machine() in X86 and "xla_cpu_max_isa" not in asked
    if is_in_use():
        lost = ["the CPU is not split into a device a core"] * divide
        lost += ["a run has not the same bits on every number of devices"] * round
        if lost:
            warn(
                f"JAX is in use in this process already: {', and '.join(lost)}; for that, call "
                "cefl_jax.runtime.cpu.set_up() before JAX is used, in a new process"
            )
        return
    if divide:
        jax.config.update("jax_num_cpu_devices", devices or count_cores())
    short = "xla_backend_extra_options" not in asked and not _has_accelerators()
    flags = [ROUNDED] * round + [NOT_UNROLLED] * short
    os.environ["XLA_FLAGS"] = " ".join([asked, *flags]).strip()


def _has_accelerators():
    """Whether JAX has been installed for accelerators, whose code may need its loops unrolled."""
    return any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))


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


def machine() -> str:
    """Returns a name for this kind of CPU and compiler: code compiled for another may crash."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    name = hashlib.sha256("\n".join([*kind, platform.machine()]).encode()).hexdigest()[:12]
    return f"{name}-{jaxlib.__version__}"
