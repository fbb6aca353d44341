"""Eight devices made of one CPU, and a compile cache that outlives the session."""

import os
import pathlib

import hypothesis
import jax
import jaxtyping

# Before the package is imported: what its functions say of types and shapes, they keep here.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook("cefl_jax", CHECKER)

from cefl_jax.runtime import cpu  # noqa: E402

# A folder for each process of pytest-xdist: none reads what another has half written.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
FOLDER = pathlib.Path(__file__).parents[1] / ".jax_cache" / cpu.machine() / WORKER

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
cpu.set_up()
jax.config.update("jax_compilation_cache_dir", str(FOLDER))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# A slow machine is no failure.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
