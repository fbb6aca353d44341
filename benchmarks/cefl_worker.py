"""Serves our rounds to `benchmarks.timing`: the compiled round alone, without evaluation.

    python -m benchmarks.cefl_worker [FIELD=VALUE ...] [--stack=R]

Fields are those of `configs/default.py`, such as model.name=cnn. With `--stack`, a round is one of
R runs side by side, which differ in their seed.
"""

import argparse
import functools

import jax

from benchmarks.settings import make_spec
from benchmarks.worker import serve
from cefl_jax import build, compiler, parallel, program, stack
from cefl_jax.data import sources
from cefl_jax.runtime import cpu
from cefl_jax.stages import distillation


def make_setups(spec, runs=None):
    """The Setup of a run, or those of a stack of so many."""
    if runs is None:
        return [build.prepare(spec)]
    mesh = parallel.make_stack_mesh(spec.run.devices or 1)
    load, flat = functools.cache(sources.load), spec.replace({"run.layout": "flat"})
    seeds = [flat.replace({"seed": spec.seed + run}) for run in range(runs)]
    return stack.join([build.prepare(each, mesh, load) for each in seeds])


def make_round(setups, jit=compiler.jit):
    """The method's first state, and its round not yet compiled.

    Args:
      setups: from `make_setups`.
      jit: compiles the first state.
    Returns:
      The state; a function from state and the other arguments to state and mean loss; and these
      arguments, on the device.
    """
    inputs = program.put_inputs(setups)
    start, step = program.make_round(setups[0])

    def step_and_loss(*arguments):
        state, metrics = step(*arguments)
        return state, metrics.train_loss

    return program.begin(setups, jit(start), inputs), step_and_loss, inputs


def compile_round(setups):
    """The compiled round of `make_round`, the first state, and its other arguments."""
    state, step, arrays = make_round(setups)
    lowered = jax.jit(step, donate_argnums=0).lower(state, *arrays)
    return compiler.compile_lowered(lowered), state, arrays


def prepare(spec, runs):
    """`advance` and facts, as `benchmarks.worker.serve` wants them."""
    cpu.set_up(spec.run.devices, deterministic=spec.run.deterministic)
    setups = make_setups(spec, runs)
    compiled, state, arrays = compile_round(setups)
    model = jax.eval_shape(setups[0].model.init, jax.random.key(0))  # halves, and cloud model
    parameters = [sum(leaf.size for leaf in jax.tree.leaves(part)) for part in model]
    holder = [state]

    def advance():
        holder[0], loss = jax.block_until_ready(compiled(holder[0], *arrays))
        return float(loss.mean())

    facts = {
        "parameters": parameters,
        "device": jax.devices()[0].device_kind,
        "client_chunk": setups[0].spec.run.client_chunk,
        "devices": setups[0].mesh.size,
        "runs": len(setups),
        "gflop": 1e-9 * count_flop(setups[0]) * len(setups),
        "jax": jax.__version__,
    }
    return advance, facts


def count_flop(setup):
    """FLOP of a round in which every client makes all its steps with full batches."""
    spec, work, bounds = setup.planner.spec, setup.planner.work, setup.planner.bounds
    samples = spec.train.clients_per_round * bounds.steps * spec.train.batch_size
    uploaded = spec.train.clients_per_round * bounds.uploads * spec.train.batch_size
    trained = work.front_forward_flop + work.front_backward_flop + work.back_train_flop
    return samples * trained + float(distillation.count_flop(uploaded, work, spec.cefl.distill))


def main():
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    parser.add_argument("--stack", type=int, help="runs side by side; one alone by default")
    options = parser.parse_args()
    spec = make_spec(options.fields)
    serve(lambda: prepare(spec, options.stack))


if __name__ == "__main__":
    main()
