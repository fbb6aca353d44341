"""Compiled programs, kept from one run to the next in a folder of the user's own."""

import hashlib
import os
import pathlib
import platform
import tempfile

import jax
import jaxlib

MOST_BYTES = 2**30  # what was used longest ago goes first


def keep() -> None:
    """Lets JAX keep what it compiles and find it again, where it has not been told how already.

    A folder set by `JAX_COMPILATION_CACHE_DIR` is left as it is, with JAX's own settings for it.

    Raises:
      OSError: when the user's folder cannot be made or written.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = user_folder() / machine()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # whoever can write there can run code
    with tempfile.TemporaryFile(dir=folder):
        pass
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


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
