"""Eight devices made of one CPU, and a compile cache that outlives the session."""

import pathlib

import hypothesis
import jax

from cefl_jax.runtime import compile_cache

FOLDER = pathlib.Path(__file__).parents[1] / ".jax_cache" / compile_cache.machine()

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", str(FOLDER))
jax.config.update("jax_compilation_cache_max_size", 2**32)  # with a limit, processes take turns
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# A slow machine is no failure.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
