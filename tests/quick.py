"""jit for tests that run a program once: compiled in a third of the time, then slower."""

import functools

from cefl_jax.compiler import FOR_CPU, FOR_CPU_ONCE, jit

OPTIONS = {**FOR_CPU, "xla_backend_optimization_level": 0}

quick_jit = functools.partial(jit, options=OPTIONS)

run_jit = functools.partial(jit, options=FOR_CPU)
"""As a run is."""

once_jit = functools.partial(jit, options=FOR_CPU_ONCE)
"""Compiled in a third of the time of a run; mostly, and not always, to its bits."""
