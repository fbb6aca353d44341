"""Ours and PyTorch on this machine's accelerator, within a time budget; one table at the end.

    python -m benchmarks.gpu [--minutes=8] [--only=WORD] [--json=FILE] [--small]

Needs jax, flax, optax, numpy, jaxtyping, ml_collections and torch. What matters most comes first:
whole rounds of all cases, alone and side by side in stacks, against PyTorch, and our own choices
(the other layout, bfloat16, fewer clients at once), all of which compile side by side before the
first is timed; then stacks by width and by the lowering of convolutions, convolutions alone and the
decisions of a round. A round's time is that of one run: of a stack, its share. Nothing new is
begun when the time is nearly up. `--small` tries the script out where there is no accelerator;
`--only` takes the jobs with WORD in their names.
"""

import functools
import subprocess
import sys
import time

from benchmarks.gpu_cases import CHOICES, choices, make_cases, rivals
from benchmarks.parse_tables import run_script
from benchmarks.settings import make_parser, write_json
from benchmarks.timing import compete, environment

READY_SHARE = 2 / 3  # of the time, in which all contenders get ready side by side
NEARLY_S = 25  # less is left: nothing new is begun
LAST_S = 5  # kept to end what runs
PEAK_TFLOPS = {"H100": 67.0, "H200": 67.0}
"""Float32 outside tensor cores, from NVIDIA's data sheets of the SXM modules."""

SCRIPTS = {
    "widths": ("--widths=1,64", "--seconds=0.3", "--lowerings=xla,patches,tiles2"),
    "convolutions": ("--batches=10x20,64", "--seconds=0.05"),
    "decisions": ("--seconds=0.1",),
}
SMALL_SCRIPTS = {
    "widths": ("--widths=1,2", "--seconds=0.01"),
    "convolutions": ("--only=lenet5 c", "--batches=2x4", "--seconds=0.01"),
    "decisions": ("--seconds=0.02", "--only=match"),
}


def contest(contenders, options, until):
    """Returns a row for each contender that was timed, and why the others were not."""
    turns, rounds = (2, 2) if options.small else (6, 20)
    ready_s = 60.0 * options.minutes * READY_SHARE

    def tell(timings):
        print(table(make_rows(timings)) + "\n", file=sys.stderr, flush=True)

    timings, left_out = compete(contenders, turns, rounds, ready_s, until, tell)
    return make_rows(timings), left_out


def make_rows(timings):
    """Returns the rows of timings whose names are "CASE|PROGRAM"."""
    rows = []
    for timing in timings:
        case, program = timing.name.split("|")
        ready_s = timing.about["prepare_s"] + timing.about["first_round_s"]
        rows.append(timing.to_json() | {"case": case, "program": program, "ready_s": ready_s})
    return rows


def script(name, arguments, until):
    """Rows of another benchmark, as far as it came."""
    rows, why = run_script(name, arguments, max(1.0, until - time.monotonic()))
    return rows, {name: why} if why else {}


def table(rows):
    """Markdown of all rows; how many times faster than PyTorch's best variant each is."""
    best = {}
    for row in rows:
        if row["program"].startswith("PyTorch"):
            best[row["case"]] = min(best.get(row["case"], float("inf")), row["median_ms"])
    lines = [
        "| case | program | ms a run | quartiles | ready after, s | times as fast as PyTorch "
        "| TFLOP/s | of the peak |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        runs = row.get("runs", 1)
        median, low, high = (
            x / runs for x in (row["median_ms"], *row.get("quartiles_ms", (0.0, 0.0)))
        )
        cells = [
            f"{median:.3f}",
            f"{low:.2f} to {high:.2f}" if high else "",
            f"{row['ready_s']:.0f}" if "ready_s" in row else "",
            f"{best[row['case']] / median:.2f}" if row["case"] in best else "",
            *_rates(row),
        ]
        lines.append(f"| {row['case']} | {row['program']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rates(row):
    """Achieved TFLOP/s of a round, and their share of what the device can do, where known."""
    if "gflop" not in row:
        return "", ""
    rate = row["gflop"] / row["median_ms"]
    peak = next((peak for name, peak in PEAK_TFLOPS.items() if name in row["device"]), None)
    return f"{rate:.3g}", f"{rate / peak:.2%}" if peak else ""


def make_jobs(options, backend):
    """What is to be done, by name, what matters most first: functions of a time limit."""
    contenders = []
    for name, case in make_cases(options.small).items():
        contenders += rivals(name, case, backend)
        contenders += choices(name, case) if name in CHOICES else []
    scripts = SMALL_SCRIPTS if options.small else SCRIPTS
    jobs = {"rounds": functools.partial(contest, contenders, options)}
    jobs |= {name: functools.partial(script, name, words) for name, words in scripts.items()}
    return {title: job for title, job in jobs.items() if options.only in title}


def _backend():
    """Where JAX computes, asked of a process that does not keep the device."""
    ask = "import jax; print(jax.default_backend(), jax.devices()[0].device_kind, sep='\\n')"
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return asked.stdout.split("\n")[:2]


def main():
    """Does one job after another while there is time, then prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    until = began + 60.0 * options.minutes
    backend, device = _backend()
    facts = {"device": device, "backend": backend, "rows": [], "left_out": {}, "not_reached": []}
    facts["environment"] = environment("jax", "jaxlib", "flax", "optax", "numpy", "torch")
    for name, job in make_jobs(options, backend).items():
        if until - time.monotonic() < NEARLY_S:
            facts["not_reached"].append(name)
            continue
        start = time.monotonic()
        try:
            rows, left_out = job(until - LAST_S)
        except Exception as error:  # what the other jobs found is worth more
            rows, left_out = [], {name: f"{type(error).__name__}: {error}"}
        facts["rows"] += rows
        facts["left_out"] |= left_out
        facts["minutes"] = (time.monotonic() - began) / 60.0
        write_json(options.json, facts)
        took = time.monotonic() - start
        print(f"{name}: {len(rows)} rows in {took:.0f} s", file=sys.stderr, flush=True)
    print(f"{device} ({backend}), {facts.get('minutes', 0.0):.1f} minutes\n")
    print(table(facts["rows"]) + "\n")
    for name, why in facts["left_out"].items():
        print(f"Left out: {name}: {why}")
    print(f"Not reached: {', '.join(facts['not_reached']) or 'nothing'}")
    write_json(options.json, facts)


if __name__ == "__main__":
    main()
