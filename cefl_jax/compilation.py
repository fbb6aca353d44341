"""From a Setup to compiled programs with everything that they take on the devices."""

import functools
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np

from cefl_jax import compiler, program
from cefl_jax.build import Setup
from cefl_jax.program import Inputs


def compile_program(
    setup: Setup, display: Any, meanwhile: Callable[[], object] = lambda: None
) -> tuple[Any, jax.stages.Compiled, Inputs, float]:
    """Puts everything on the device and compiles; the only compilation of a run.

    Args:
      setup: Setup.
      display: progress.Display.
      meanwhile: called once, while the compiler is at work.
    Returns:
      The first state, the compiled `advance`, its other arguments, and seconds of compilation.
    """
    began = time.monotonic()
    display.note("compiling the round ...")
    inputs = put_inputs(setup)
    start, advance = compile_both(setup, inputs, meanwhile)
    return begin(setup, start, inputs), advance, inputs, time.monotonic() - began


def put_inputs(setup: Setup) -> Inputs:
    """What the compiled program takes besides the state, on every device."""
    arrays = program.make_hparams(setup.spec), setup.data, setup.network
    return jax.device_put(arrays, setup.mesh.everywhere)


def begin(setup: Setup, start: jax.stages.Compiled, inputs: Inputs) -> Any:
    """The first state of a run, by its compiled `start`."""
    return start(jax.random.key(setup.spec.seed), *inputs[1:])


def compile_both(
    setup: Setup, inputs: Inputs, meanwhile: Callable[[], object] = lambda: None
) -> tuple[jax.stages.Compiled, jax.stages.Compiled]:
    """The compiled `start` and `advance` of a run, side by side; for any seed.

    Args:
      setup: Setup.
      inputs: from `put_inputs`.
      meanwhile: called once, while the compiler is at work.
    """
    start, advance = program.make_program(setup)
    everywhere = setup.mesh.everywhere
    with futures.ThreadPoolExecutor() as threads:
        key = jax.random.key(setup.spec.seed)
        traced = jax.jit(start, out_shardings=everywhere).trace(key, *inputs[1:])
        starting = threads.submit(compiler.compile_lowered, traced.lower(), compiler.FOR_CPU_ONCE)
        # Not as ShapeDtypeStruct, whose 64 bits would become 32.
        shapes = jax.tree.unflatten(jax.tree.structure(traced.out_info), traced.jaxpr.out_avals)
        jitted = jax.jit(
            advance, donate_argnums=0, in_shardings=everywhere, out_shardings=everywhere
        )
        compiling = threads.submit(compiler.compile_lowered, jitted.lower(shapes, *inputs))
        meanwhile()
        return starting.result(), compiling.result()


def warn_of_deadline(
    setup: Setup, state: Any, inputs: tuple[Any, ...], display: Any
) -> None:
    """Says before the first round when none of its clients will meet the deadline."""
    deadline_s = setup.spec.network.deadline_s
    if deadline_s is None:
        return
    look = jax.jit(functools.partial(program.first_round, setup)).lower(state, *inputs[1:])
    compiled = compiler.compile_lowered(look, compiler.FOR_CPU_ONCE)
    counted, soonest_s = compiled(state, *inputs[1:])
    if not counted and np.isfinite(soonest_s):
        display.warn(
            f"network.deadline_s={deadline_s:g}: nobody meets it in the first round, where the "
            f"fastest client alone needs {soonest_s:.4g} s; rounds that nobody finishes change "
            "nothing. Raise it"
        )
