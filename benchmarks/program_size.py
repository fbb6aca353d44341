"""How large the programs of some runs are, and how long they take to be made.

    python -m benchmarks.program_size [--config=FILE] [--only=WORD] [--no-compile] [--files]

Prints a table with a row for each case, which changes some fields of the config: equations traced
(those of each distinct jaxpr once), characters of StableHLO, and CPU seconds, of all threads, to
trace and lower and to compile, on one device. `--files` prints besides how many of the equations
come from which file of the package. Start-up follows these numbers.

Seen with jaxlib 0.10.2 on two idle cores, whose CPU seconds vary by a tenth:

| program | equations | StableHLO, characters | trace + lower, CPU s | compile, CPU s |
| --- | ---: | ---: | ---: | ---: |
| as configured | 5,617 | 1,127,720 | 2.4 | 16.1 |
| without distillation | 3,591 | 732,005 | 1.4 | 8.0 |
| MLP | 3,820 | 771,127 | 1.5 | 7.4 |
| LeNet-5, FedAvg | 2,659 | 527,699 | 1.0 | 5.6 |
| MLP, FedAvg | 1,953 | 388,065 | 0.8 | 3.2 |
"""

import argparse
import collections
import time

import jax
import jax.extend.core as core

from cefl_jax import build, compiler, config, program
from cefl_jax.runtime import cpu
from cefl_jax.specs import Spec

UNREAD = Spec().cefl.clustering  # by FedAvg; a config may have other values
FEDAVG = {
    "method.name": "fedavg",
    "cefl.clustering.rule": UNREAD.rule,
    "cefl.clustering.num_clusters": UNREAD.num_clusters,
}
CASES = {
    "as configured": {},
    "without distillation": {"cefl.distill.rule": "none"},
    "MLP": {"model.name": "mlp"},
    "LeNet-5, FedAvg": FEDAVG,
    "MLP, FedAvg": FEDAVG | {"model.name": "mlp"},
}
PACKAGE = "/cefl_jax/"


def measure_program(spec, compiles):
    """Returns the cells of a row, and the Counter of equations by file."""
    jax.clear_caches()
    setup = build.prepare(spec)
    inputs = program.put_inputs([setup])
    start, advance = program.make_program(setup)
    first = jax.jit(start).trace(jax.random.key(0), *inputs[1:])
    state = jax.tree.unflatten(jax.tree.structure(first.out_info), first.jaxpr.out_avals)
    began = time.process_time()
    traced = jax.jit(advance, donate_argnums=0).trace(state, *inputs)
    lowered = traced.lower()
    made = time.process_time()
    files = count_equations(traced.jaxpr.jaxpr)
    cells = [f"{files.total():,}", f"{len(lowered.as_text()):,}", f"{made - began:.1f}"]
    if compiles:
        began = time.process_time()
        compiler.compile_lowered(lowered)
        cells.append(f"{time.process_time() - began:.1f}")
    return cells, files


def count_equations(jaxpr):
    """Returns the Counter of equations by file, those of each distinct jaxpr once."""
    files, seen, left = collections.Counter(), set(), [jaxpr]
    while left:
        jaxpr = left.pop()
        if id(jaxpr) not in seen:
            seen.add(id(jaxpr))
            files.update(map(file_of, jaxpr.eqns))
            left.extend(core.subjaxprs(jaxpr))
    return files


def file_of(equation):
    """Returns the file of the package that made an equation, by the innermost of its calls."""
    trace = equation.source_info.traceback
    names = (frame.file_name for frame in trace.frames) if trace else ()
    return next((name for name in names if PACKAGE in name), "elsewhere").rpartition(PACKAGE)[2]


def main():
    """Measures, and prints a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--only", default="", help="cases with this word in their names")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--files", action="store_true")
    options = parser.parse_args()
    cpu.set_up(1)
    jax.config.update("jax_enable_compilation_cache", False)
    columns = [
        "program",
        "equations",
        "StableHLO, characters",
        "trace + lower, CPU s",
        "compile, CPU s",
    ]
    columns = columns[: len(columns) - options.no_compile]
    print(row(columns), row(["---"] + ["---:"] * (len(columns) - 1)), sep="\n")
    for name, changes in CASES.items():
        if options.only in name:
            settings = config.load(options.config)
            with settings.unlocked(), settings.ignore_type():
                settings.update_from_flattened_dict({"run.devices": 1} | changes)
            cells, files = measure_program(config.to_spec(settings), not options.no_compile)
            print(row([name, *cells]), flush=True)
            if options.files:
                print(*(f"{count:6} {file}" for file, count in files.most_common()), sep="\n")


def row(cells):
    """Returns a line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
