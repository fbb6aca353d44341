"""Serves rounds of a tiled population to `benchmarks.timing`, and says what memory they take.

    python -m benchmarks.scaling_worker [--examples=20] [FIELD=VALUE ...]

Each of `data.partition.num_clients` clients holds two runs of the data set sorted by label, which
begin at random: two labels, and the same example at many clients once there are more clients than
examples. So a population of any size takes no more images than the data set has.
"""

import argparse
import resource

import jax
import numpy as np

from benchmarks.cefl_worker import make_round
from benchmarks.settings import make_spec
from benchmarks.worker import serve
from cefl_jax import build, compiler
from cefl_jax.data import sources
from cefl_jax.runtime import cpu


def tile(labels, num_clients, examples, seed):
    """Example indices of each client, rows of i32[N, examples]; see above.

    Args:
      labels: i32[n] of the data set.
      num_clients: N.
      examples: of each client, even.
      seed: of where the runs begin.
    """
    by_label = np.argsort(labels, kind="stable").astype(np.int32)
    run = examples // 2
    begins = np.random.default_rng(seed).integers(len(labels) - run + 1, size=(num_clients, 2))
    return by_label[begins[..., None] + np.arange(run)].reshape(num_clients, 2 * run)


def prepare(spec, examples):
    """`advance` and facts, as `benchmarks.worker.serve` wants them."""
    cpu.set_up(spec.run.devices)
    dataset = sources.load(spec.data.name, spec.data.path)
    dataset = sources.hold_out(dataset, spec.data.validation_share, spec.seed)
    parts = tile(dataset.train_labels, spec.data.partition.num_clients, examples, spec.seed)
    setup = build.make_setup(spec, dataset, list(parts))  # `build` refuses an example held twice
    state, step, arrays = make_round([setup])
    lowered = jax.jit(step, donate_argnums=0).lower(state, *arrays)
    compiled = compiler.compile_lowered(lowered)
    sizes = compiled.memory_analysis()
    facts = {
        "peak_before_rounds_mb": peak_mb(),  # of the compiler, as a rule
        "argument_mb": 1e-6 * sizes.argument_size_in_bytes,
        "temporary_mb": 1e-6 * sizes.temp_size_in_bytes,
        "device": jax.devices()[0].device_kind,
        "client_chunk": setup.spec.run.client_chunk,
        "devices": setup.mesh.size,
        "jax": jax.__version__,
    }
    holder = [state]

    def advance():
        holder[0], loss = jax.block_until_ready(compiled(holder[0], *arrays))
        facts.setdefault("peak_mb", peak_mb())  # after the first round: all it will take
        return float(loss)

    return advance, facts


def peak_mb():
    """Most megabytes in use so far: of the device where it tells, or of this process."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return 1e-6 * stats["peak_bytes_in_use"]
    return 1e-6 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts KiB


def main():
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    options = parser.parse_args()
    serve(lambda: prepare(make_spec(options.fields), options.examples))


if __name__ == "__main__":
    main()
