"""How long a command takes to its first round, and how large the programs are that it follows.

    python -m benchmarks.startup [--config=FILE] [--only=WORD] [--turns=N] [--json=FILE]
    python -m benchmarks.startup --programs [--files]

Prints a row for each case, which changes some fields of the config: seconds from the command to the
line of its first round, evaluated and shown; cold, where nothing is kept on disk, and warm, the
median of so many further commands; of these, seconds until all is checked and seconds until the
program is there. With `--programs`, sizes: equations traced (those of each distinct jaxpr once),
characters of StableHLO, and CPU seconds, of all threads, to trace and lower and to compile, on one
device; `--files` prints besides how many of the equations come from which file of the package.
"""

import collections
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.extend.core as core

from benchmarks.settings import make_parser, set_fields, write_json
from benchmarks.timing import environment, worker_environment
from cefl_jax import build, compiler, config, program
from cefl_jax.runtime import cpu
from cefl_jax.specs import Spec

UNREAD = Spec().cefl.clustering  # by FedAvg; a config may have other values
FEDAVG = (
    "method.name=fedavg",
    f"cefl.clustering.rule={UNREAD.rule}",
    f"cefl.clustering.num_clusters={UNREAD.num_clusters}",
)
CASES = {
    "as configured": (),
    "without distillation": ("cefl.distill.rule=none",),
    "MLP": ("model.name=mlp",),
    "LeNet-5, FedAvg": FEDAVG,
    "MLP, FedAvg": (*FEDAVG, "model.name=mlp"),
}
PACKAGE = "/cefl_jax/"
CHECKED = "The model, by the compiler's count"  # the first line of a run
FIRST = "round 1/1 "
STARTS = ["program", "cold, s", "warm, s", "checked, s", "program there, s"]
SIZES = [
    "program",
    "equations",
    "StableHLO, characters",
    "trace + lower, CPU s",
    "compile, CPU s",
]


def time_command(location, fields, cache):
    """Returns seconds from the command to its first round, until it is checked, and compiled."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        command = [sys.executable, "-m", "cefl_jax.main"]
        command += [f"--config={location}", f"--workdir={workdir}"]
        once = "train.rounds=1", "run.eval_every=1"
        command += [f"--config.{field}" for field in (*once, *fields)]
        environment = worker_environment() | {"XDG_CACHE_HOME": str(cache)}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        began, seen = time.monotonic(), {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
            for line in run.stdout:
                for word in (CHECKED, FIRST):
                    if line.startswith(word):
                        seen[word] = time.monotonic() - began
        if run.returncode:
            raise RuntimeError(f"the command ended with status {run.returncode}")
        compile_s = json.loads((workdir / "summary.json").read_text())["compile_s"]
    return seen[FIRST], seen[CHECKED], seen[CHECKED] + compile_s


def measure_start(location, fields, turns):
    """Returns the cells of a row of starts."""
    with tempfile.TemporaryDirectory() as cache:
        cold, *_ = time_command(location, fields, cache)
        warm = [time_command(location, fields, cache) for _ in range(turns)]
    medians = map(statistics.median, zip(*warm, strict=True))
    return [f"{seconds:.1f}" for seconds in (cold, *medians)]


def measure_program(location, fields):
    """Returns the cells of a row of sizes, and the Counter of equations by file."""
    jax.clear_caches()
    settings = set_fields(config.load(location), ("run.devices=1", *fields))
    setup = build.prepare(config.to_spec(settings))
    inputs = program.put_inputs([setup])
    start, advance = program.make_program(setup)
    first = jax.jit(start).trace(jax.random.key(0), *inputs[1:])
    state = jax.tree.unflatten(jax.tree.structure(first.out_info), first.jaxpr.out_avals)
    began = time.process_time()
    traced = jax.jit(advance, donate_argnums=0).trace(state, *inputs)
    lowered = traced.lower()
    made = time.process_time()
    compiler.compile_lowered(lowered)
    seconds = made - began, time.process_time() - made
    files = count_equations(traced.jaxpr.jaxpr)
    sizes = [f"{files.total():,}", f"{len(lowered.as_text()):,}"]
    return [*sizes, *(f"{each:.1f}" for each in seconds)], files


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
    parser = make_parser(__doc__)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--only", default="", help="cases with this word in their names")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--programs", action="store_true")
    parser.add_argument("--files", action="store_true")
    options = parser.parse_args()
    if options.programs:
        cpu.set_up(1)
        jax.config.update("jax_enable_compilation_cache", False)
    columns, rows = SIZES if options.programs else STARTS, {}
    print(row(columns), row(["---"] + ["---:"] * (len(columns) - 1)), sep="\n")
    for name, fields in CASES.items():
        if options.only in name:
            files = None
            if options.programs:
                rows[name], files = measure_program(options.config, fields)
            else:
                rows[name] = measure_start(options.config, fields, options.turns)
            print(row([name, *rows[name]]), flush=True)
            if options.files and files:
                print(*(f"{count:6} {file}" for file, count in files.most_common()), sep="\n")
    write_json(options.json, {"columns": columns, "rows": rows, **environment("jax", "jaxlib")})


def row(cells):
    """Returns a line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
