"""Serves our rounds to `benchmarks.timing`: the compiled round alone, without evaluation.

    python -m benchmarks.cefl_worker [FIELD=VALUE ...]

Fields are those of `configs/default.py`, such as model.name=cnn.
"""

import argparse

import jax

from benchmarks.settings import make_spec
from benchmarks.worker import serve
from cefl_jax import build, compiler, program
from cefl_jax.runtime import cpu


def make_round(setup, jit=compiler.jit):
    """The method's first state, and its round not yet compiled.

    Args:
      setup: build.Setup.
      jit: compiles the first state.
    Returns:
      The state; a function from state and the other arguments to state and mean loss; and these
      arguments, on the device.
    """
    inputs = program.put_inputs([setup])
    start, step = program.make_round(setup)

    def step_and_loss(*arguments):
        state, metrics = step(*arguments)
        return state, metrics.train_loss

    start = jit(start, out_shardings=setup.mesh.everywhere)
    return start(jax.random.key(setup.spec.seed), *inputs[1:]), step_and_loss, inputs


def prepare(spec):
    """`advance` and facts, as `benchmarks.worker.serve` wants them."""
    cpu.set_up(spec.run.devices, deterministic=spec.run.deterministic)
    setup = build.prepare(spec)
    state, step, arrays = make_round(setup)
    model = jax.eval_shape(setup.model.init, jax.random.key(0))  # halves, and cloud model
    parameters = [sum(leaf.size for leaf in jax.tree.leaves(part)) for part in model]
    lowered = jax.jit(step, donate_argnums=0).lower(state, *arrays)
    compiled = compiler.compile_lowered(lowered)
    holder = [state]

    def advance():
        holder[0], loss = jax.block_until_ready(compiled(holder[0], *arrays))
        return float(loss)

    facts = {
        "parameters": parameters,
        "device": jax.devices()[0].device_kind,
        "client_chunk": setup.spec.run.client_chunk,
        "devices": setup.mesh.size,
        "jax": jax.__version__,
    }
    return advance, facts


def main():
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    spec = make_spec(parser.parse_args().fields)
    serve(lambda: prepare(spec))


if __name__ == "__main__":
    main()
