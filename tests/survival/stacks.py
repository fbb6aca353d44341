"""A stack of runs over the devices of one process or of two, with both axes of the mesh in use.

    python -m tests.survival.stacks FILE.npz [ADDRESS INDEX]

Four runs side by side, two devices each, on eight devices: of this process, or four of each of two.
Process 0 writes the leaves of all states, and the metrics, after three rounds.
"""

import sys

import jax
import numpy as np

from cefl_jax import build, parallel, program, stack
from cefl_jax.runtime.checkpoint import flatten
from tests import world

CHANGES = {
    "run.layout": "flat",
    "run.devices": 2,
    "train.rounds": 3,
    "run.eval_every": 3,
    "network.dynamics": "markov",
}


def main(file, address=None, index=0):
    """Makes the stack, and writes what it came to."""
    jax.config.update("jax_num_cpu_devices", 4 if address else 8)
    if address:
        jax.distributed.initialize(address, 2, int(index))
    mesh, dataset = parallel.make_stack_mesh(2), world.make_dataset()
    setups = []
    for seed in range(4):
        rates = {"seed": seed, "train.optimizer.learning_rate": 0.02 * (seed + 1)}
        spec, parts = world.make_spec(CHANGES | rates), world.make_parts(seed=seed)
        setups.append(build.make_setup(spec, dataset, parts, mesh))
    setups = stack.join(setups)
    inputs = program.put_inputs(setups)
    start, advance = program.compile_both(setups, inputs)
    state, chunk = advance(program.begin(setups, start, inputs), *inputs)
    leaves = flatten({"state": state, "chunk": chunk._replace(round_trace=None)})
    if int(index) == 0:
        np.savez(file, **leaves)


if __name__ == "__main__":
    main(*sys.argv[1:])
