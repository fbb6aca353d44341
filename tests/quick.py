"""jit for tests that run a program once: compiled in a third of the time, then slower."""

import functools

import jax

from cefl_jax.program import FOR_CPU, FOR_CPU_ONCE

OPTIONS = {"xla_backend_optimization_level": 0}

quick_jit = functools.partial(jax.jit, compiler_options=OPTIONS)

quickest_jit = functools.partial(
    jax.jit, compiler_options=OPTIONS | {"xla_cpu_use_fusion_emitters": False}
)
"""Compiled in half of that; for what is held to a tolerance, or runs on one device."""

run_jit = functools.partial(jax.jit, compiler_options=FOR_CPU)
"""As a run is."""

once_jit = functools.partial(jax.jit, compiler_options=FOR_CPU_ONCE)
"""Compiled in a third of the time of a run; mostly, and not always, to its bits."""
