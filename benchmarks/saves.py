"""What saving adds to a round's time: runs that save more and less often, in turns, one program.

    python -m benchmarks.saves [--rounds=40] [--turns=5] [--json=FILE] [--config=FILE]

Each row is the same run with its files but for how often it saves, and whether the rounds wait for
it. All save once at their end; a run's time is from its first round until that last save is
written, compilation left out.
"""

import dataclasses
import io
import pathlib
import statistics
import tempfile
import time

from rich.console import Console

from benchmarks.settings import make_parser, write_json
from benchmarks.timing import environment
from cefl_jax import build, config, experiment, program
from cefl_jax.runtime import console, cpu

WAYS = {  # rounds between saves, None for never; whether the next rounds are computed meanwhile
    "at the end only": (None, True),
    "every 10 rounds, meanwhile": (10, True),
    "every 10 rounds, waiting": (10, False),
    "every round, meanwhile": (1, True),
    "every round, waiting": (1, False),
}


def prepare(location, rounds):
    """The checked run, and a function in place of a Compiler that has compiled already."""
    cpu.set_up()
    settings = config.load(location)
    settings.train.rounds, settings.run.eval_every = rounds, 1
    setup = build.prepare(config.to_spec(settings))
    inputs = program.put_inputs([setup])
    start, advance = program.compile_both([setup], inputs)

    def compiled(*_):
        return program.begin([setup], start, inputs), advance, inputs, 0.0

    return setup, compiled


def run(setup, compiled, folder):
    """Milliseconds a round, and the MB of a checkpoint."""
    workdir, _ = experiment.claim(setup, folder)
    with workdir:
        began = time.perf_counter()
        with console.Display(setup.spec.train.rounds, "", Console(file=io.StringIO())) as display:
            experiment.run(setup, workdir, display, compiler=compiled)
        taken = 1000.0 * (time.perf_counter() - began) / setup.spec.train.rounds
    newest = max(path for path in (folder / "checkpoints").iterdir() if path.is_dir())
    return taken, 1e-6 * sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())


def main():
    """Times, prints a table, and writes JSON where asked to."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--config", default="configs/quickstart.py")
    options = parser.parse_args()
    setup, compiled = prepare(options.config, options.rounds)
    times = {name: [] for name in WAYS}
    for turn in range(options.turns + 1):
        for name, (every, meanwhile) in WAYS.items():
            way = {"checkpoint_every": every, "checkpoint_async": meanwhile}
            spec = dataclasses.replace(setup.spec, run=dataclasses.replace(setup.spec.run, **way))
            with tempfile.TemporaryDirectory() as folder:
                place = pathlib.Path(folder) / name
                taken, size_mb = run(setup._replace(spec=spec), compiled, place)
            if turn:  # the first of each is not counted
                times[name].append(taken)
    median = {name: statistics.median(taken) for name, taken in times.items()}
    reference = median["at the end only"]
    print(f"a checkpoint has {size_mb:.1f} MB; {options.turns} x {options.rounds} rounds")
    print("| saved | ms a round | least | most | ratio |")
    print("|---|---:|---:|---:|---:|")
    for name, taken in times.items():
        print(
            f"| {name} | {median[name]:.1f} | {min(taken):.1f} | {max(taken):.1f} "
            f"| {median[name] / reference:.3f} |"
        )
    facts = {"ms": times, "size_mb": size_mb, "environment": environment("jax")}
    write_json(options.json, facts)


if __name__ == "__main__":
    main()
