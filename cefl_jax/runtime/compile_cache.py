"""Compiled programs, kept from one run to the next in a folder of the user's own."""

import hashlib
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable

import filelock
import jax
import jaxlib

MOST_BYTES = 2**30  # what was used longest ago goes first
LOCK = ".lockfile"  # JAX's name of it
LOCK_S = 10.0  # how long JAX waits for it


def keep(warn: Callable[[str], object] = print) -> None:
    """Lets JAX keep what it compiles and find it again, where it has not been told how already.

    A folder set by `JAX_COMPILATION_CACHE_DIR` is left as it is, with JAX's own settings for it.

    Args:
      warn: called with one line when the user's folder cannot be made, written or locked; nothing
        is kept then.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = user_folder() / machine()
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
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def remove_unfinished(folder: pathlib.Path) -> None:
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
        with filelock.FileLock(folder / LOCK, timeout=LOCK_S):
            for program in folder.glob("*-cache"):
                used = program.with_name(program.name.removesuffix("-cache") + "-atime")
                if not used.exists() or program.stat().st_size == 0:
                    program.unlink()
    except NotImplementedError as error:  # a file system without locks
        raise OSError(str(error)) from error


def user_folder() -> pathlib.Path:
    """The folder for all machines: below `XDG_CACHE_HOME` where that is absolute, or `~/.cache`."""
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = pathlib.Path.home() / ".cache"
        except RuntimeError as error:
            raise OSError(str(error)) from error
    return base / "cefl_jax"


def machine() -> str:
    """A name for this kind of CPU and compiler: code compiled for another may crash."""
    cpu = pathlib.Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    name = hashlib.sha256("\n".join([*kind, platform.machine()]).encode()).hexdigest()[:12]
    return f"{name}-{jaxlib.__version__}"
