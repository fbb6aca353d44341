"""What a round costs when runs are side by side: one round of a stack of R runs, by R.

    python -m benchmarks.widths [FIELD=VALUE ...] [--widths=1,8,64] [--seconds=0.5] [--json=FILE]
                                [--lowerings=chosen,xla,patches,tiles2]

Whole rounds, without evaluation, in the flat layout; the runs differ in their seed. Fields are
those of `configs/default.py`. `ms a run` is the round's time over R, compilation apart.
"""

import functools
import statistics
import time

import jax
import numpy as np

from benchmarks.cefl_worker import compile_round, make_setups
from benchmarks.settings import make_parser, make_spec, write_json
from cefl_jax import stack
from cefl_jax.models.conv import Lowering, conv_block
from cefl_jax.models.split import make_model
from cefl_jax.runtime import cpu


def measure(spec, width, word, seconds):
    """Returns a row: milliseconds of a round of `width` runs, seconds of its compilation, MB."""
    setups = make_setups(spec, width)
    if word != "chosen":
        kind = word.rstrip("0123456789")
        chosen = Lowering(kind, int(word.removeprefix(kind) or 1))
        lowering = functools.partial(conv_block, lowering=chosen)
        shape, classes = setups[0].data.images.shape[1:], len(setups[0].classes)
        model = make_model(spec.model, shape, classes, lowering, spec.run.compute_dtype)
        setups = [setup._replace(model=model) for setup in setups]
    began = time.perf_counter()
    compiled, state, arrays = compile_round(setups)
    compile_s = time.perf_counter() - began
    taken, until = [], time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        state, losses = jax.block_until_ready(compiled(state, *arrays))
        taken.append(1000.0 * (time.perf_counter() - began))
    if not np.isfinite(losses).all():
        raise RuntimeError(f"{word}, width {width}: a loss is not finite")
    return {
        "lowering": word,
        "runs": width,
        "median_ms": statistics.median(taken[1:]),
        "compile_s": compile_s,
        "mb": 1e-6 * stack.count_bytes(compiled),
    }


def main():
    """Reads the command line, and prints a table row by row."""
    parser = make_parser(__doc__)
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    parser.add_argument("--widths", default="1,8,64")
    parser.add_argument("--lowerings", default="chosen")
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    spec = make_spec(options.fields)
    cpu.set_up(1)
    print("| convolutions | runs | median ms | ms a run | compile, s | memory, MB |")
    print("|---|---:|---:|---:|---:|---:|")
    rows = []
    for word in options.lowerings.split(","):
        for width in map(int, options.widths.split(",")):
            row = measure(spec, width, word, options.seconds)
            rows.append(row)
            print(
                f"| {word} | {width} | {row['median_ms']:.3f} | {row['median_ms'] / width:.4f} "
                f"| {row['compile_s']:.1f} | {row['mb']:.0f} |",
                flush=True,
            )
            write_json(options.json, rows)


if __name__ == "__main__":
    main()
