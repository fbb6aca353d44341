"""The CPU as JAX uses it: a device a core, how it rounds, and programs compiled for it on disk."""

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import filelock
import jax
import jaxlib

X86 = ("x86_64", "AMD64")
MAX_CACHE_BYTES = 2**30  # what was used longest ago goes first
CACHE_LOCK = ".lockfile"  # JAX's name of it
CACHE_LOCK_S = 10.0  # how long JAX waits for it


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
    take what the CPU has. What JAX_NUM_CPU_DEVICES, XLA_FLAGS or an earlier call asks for stays.

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


def use_compile_cache(warn: Callable[[str], object] = print) -> None:
    """Lets JAX keep compiled programs on disk and reuse them, unless a cache is set already.

    A folder set by `JAX_COMPILATION_CACHE_DIR` is left as it is, with JAX's own settings for it.

    Args:
      warn: called with one line when the user's folder cannot be made, written or locked; nothing
        is kept then.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = cache_folder() / machine()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who can write there can run code
        with tempfile.TemporaryFile(dir=folder):
            pass
        remove_unfinished(folder)
    except OSError as error:
        warn(
            f"compiled programs cannot be kept for later runs: {error}; set "
            "JAX_COMPILATION_CACHE_DIR to a folder, or --config.run.compile_cache=False"
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def remove_unfinished(folder: Path) -> None:
    """Removes the programs that a killed process or a power cut has left unfinished in a folder.

    JAX writes `KEY-cache`, then `KEY-atime`, holding a lock. One without its `-atime` was never
    finished, and would make every later write to the folder fail; an empty one can be read by
    nobody, and would never be replaced. Both are compiled anew. As this holds the lock too, what
    another process is writing stays; only one that uses the folder without JAX's limit of size
    writes without the lock.

    Args:
      folder: of a cache of JAX's with a limit of size.
    Raises:
      OSError: when the folder cannot be locked or written.
    """
    try:
        with filelock.FileLock(folder / CACHE_LOCK, timeout=CACHE_LOCK_S):
            for program in folder.glob("*-cache"):
                used = program.with_name(program.name.removesuffix("-cache") + "-atime")
                if not used.exists() or program.stat().st_size == 0:
                    program.unlink()
    except NotImplementedError as error:  # a file system without locks
        raise OSError(str(error)) from error


def cache_folder() -> Path:
    """The folder for all machines: below `XDG_CACHE_HOME` where that is absolute, or `~/.cache`."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError as error:
            raise OSError(str(error)) from error
    return base / "cefl_jax"


def machine() -> str:
    """Returns a name for this kind of CPU and compiler: code compiled for another may crash."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    name = hashlib.sha256("\n".join([*kind, platform.machine()]).encode()).hexdigest()[:12]
    return f"{name}-{jaxlib.__version__}"
