"""Times our rounds against the same in PyTorch, each program in a process of its own, in turns.

    python -m benchmarks.torch_baseline [--cases=...] [--turns=5] [--rounds=3] [--json=FILE]
    python -m benchmarks.torch_baseline --check

`--check` times nothing: it plays two small rounds of every case with equal initial weights,
clients, clusters and batches in both, and prints how far apart they end. PyTorch draws its own
otherwise.
"""

import math
import subprocess
import sys

from benchmarks.settings import make_parser, write_json
from benchmarks.timing import Contender, alternate, environment, table, worker_environment
from benchmarks.torch_baseline.cases import CASES

VARIANTS = ("loop", "compiled_vmap")
SAME = 1e-4  # most difference of a parameter array, as a share of how far two rounds move it
# With more samples, a last bit decides for one of them on which side of a ReLU's kink it is.
SMALL = (
    "train.local_steps=2",
    "train.batch_size=4",
    "train.clients_per_round=4",
)
CLUSTERED = ("cefl.clustering.num_clusters=2", "cefl.distill.batch_size=16")
HERE = "benchmarks.torch_baseline"
IMPORT = """
import time, torch
began = time.perf_counter()
import benchmarks.settings, cefl_jax.build
print(time.perf_counter() - began)
"""


def measure_import_s():
    """Seconds in which a PyTorch program imports our package, for settings and data; best of 3."""
    command, variables = [sys.executable, "-c", IMPORT], worker_environment()
    return min(float(subprocess.check_output(command, env=variables)) for _ in range(3))


def time_case(case, variants, turns, rounds, import_s):
    """Timings of ours and of the PyTorch variants.

    `import_s` does not count in a variant's start, as PyTorch itself would not need it.

    Raises:
      RuntimeError: when their models have not the same numbers of parameters.
    """
    contenders = [Contender("ours", ("-m", "benchmarks.cefl_worker", *case.fields))]
    for variant in variants:
        arguments = f"--method={case.method}", f"--variant={variant}", *case.fields
        contenders.append(Contender(f"torch {variant}", ("-m", f"{HERE}.worker", *arguments)))
    timings = alternate(contenders, turns, rounds)
    counts = {str(timing.about["parameters"]) for timing in timings}
    if len(counts) > 1:
        raise RuntimeError(f"models of different sizes: {counts} parameters")
    for timing in timings[1:]:
        timing.about["start_s"] -= import_s
    return timings


def rounds_to_break_even(ours, other):
    """Rounds after the first until our time since the start is no longer the greater one.

    Args:
      ours: timing.Timing.
      other: the same.
    Returns:
      int, 0 if our first round is done no later than theirs; None if it is never so, or only until
      their shorter rounds have made up for a later start.
    """
    gain_ms = other.median_ms - ours.median_ms
    behind_s = ours.about["start_s"] - other.about["start_s"]
    if gain_ms < 0 or (gain_ms == 0 and behind_s > 0):
        return None
    return math.ceil(1000 * behind_s / gain_ms) if behind_s > 0 else 0


def summary(results):
    """Markdown: ours, the fastest PyTorch variant of every case, and how late ours starts."""
    lines = [
        "| round | ours, median ms | quartiles | fastest PyTorch | median ms | quartiles "
        "| ours is faster by | start to first round, s: ours | fastest PyTorch | loop "
        "| further rounds to break even with the loop |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, (ours, *others) in results.items():
        best = min(others, key=lambda timing: timing.median_ms)
        cells = [
            f"{timing.median_ms:.1f} | {timing.spread_ms[0]:.1f} to {timing.spread_ms[1]:.1f}"
            for timing in (ours, best)
        ]
        ratio = best.median_ms / ours.median_ms
        variant = best.name.removeprefix("torch ")
        starts = " | ".join(f"{timing.about['start_s']:.1f}" for timing in (ours, best))
        loop = next((timing for timing in others if timing.name == "torch loop"), None)
        lines.append(
            f"| {name} | {cells[0]} | {variant} | {cells[1]} | {ratio:.2f} | {starts} "
            f"| {against_loop(ours, loop)} |"
        )
    return "\n".join(lines)


def against_loop(ours, loop):
    """Two cells: the loop's start, and rounds until we break even with it."""
    if loop is None:
        return "not timed | not timed"
    rounds = rounds_to_break_even(ours, loop)
    return f"{loop.about['start_s']:.1f} | {'never' if rounds is None else rounds}"


def check(cases, variants):
    """Prints how far ours and PyTorch are apart after two rounds; whether all are the same."""
    from benchmarks.settings import make_spec
    from benchmarks.torch_baseline.parity import compare, play_ours
    from cefl_jax import build

    rows, same = [], True
    for name, case in cases.items():
        setup = build.prepare(make_spec(case.shrink(SMALL, CLUSTERED).fields))
        played = play_ours(setup)
        for variant in variants:
            apart = compare(setup, played, case.method, variant)
            same &= apart < SAME
            rows.append(f"| {name} | {variant} | {apart:.1e} |")
            print(f"{name}, {variant}: {apart:.1e}", file=sys.stderr, flush=True)
    print("| round | PyTorch variant | largest difference, as a share of the movement |")
    print("\n".join(["|---|---|---:|", *rows]))
    print("the same" if same else f"not the same: more than {SAME:.0e} apart")
    return same


def main():
    """Times or checks, prints a table, and writes JSON where asked to."""
    parser = make_parser(__doc__)
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--variants", default=",".join(VARIANTS), help="loop, vmap, compiled_vmap")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    unknown = set(options.cases.split(",")) - set(CASES)
    if unknown:
        parser.error(f"--cases: {', '.join(sorted(unknown))} unknown; known: {', '.join(CASES)}")
    cases = {name: CASES[name] for name in options.cases.split(",")}
    variants = options.variants.split(",")
    if options.check:
        sys.exit(not check(cases, variants))
    facts, results = environment("jax", "jaxlib", "torch", "numpy"), {}
    import_s = measure_import_s()
    for name, case in cases.items():
        results[name] = time_case(case, variants, options.turns, options.rounds, import_s)
        print(f"{name}\n\n{table(results[name])}\n", flush=True)
    print(summary(results))
    rows = {name: [one.to_json() for one in timings] for name, timings in results.items()}
    write_json(options.json, {"environment": facts, "cases": rows})


if __name__ == "__main__":
    main()
