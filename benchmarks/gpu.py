"""Ours and PyTorch on this machine's accelerator, within a time budget; one table at the end.

    python -m benchmarks.gpu [--minutes=8] [--only=WORD] [--json=FILE] [--small]

Needs jax, flax, optax, numpy and torch. What matters most comes first: whole rounds against
PyTorch, in deterministic and in fast mode; then the lowerings of convolutions and the decisions of
a round, each alone; then how many clients of a cluster are computed at once. Nothing new is begun
when the time is nearly up. `--small` tries the script out where there is no accelerator; `--only`
takes the cases with WORD in their names.
"""

import argparse
import functools
import json
import pathlib
import subprocess
import sys
import time

from benchmarks.alternate import environment
from benchmarks.contest import compete
from benchmarks.gpu_cases import chunked, make_cases, rivals

READY_S = 100  # of all contenders of a case, at the same time
NEARLY_S = 25  # less is left: nothing new is begun


def contest(name, contenders, options, until):
    """Rows of one case, and who was left out."""
    turns, rounds = (2, 2) if options.small else (5, 10)
    timings, left_out = compete(contenders, turns, rounds, READY_S, until)
    rows = [
        {
            "case": name,
            "program": timing.name,
            "ready_s": timing.about["prepare_s"] + timing.about["first_round_s"],
            **timing.to_json(),
        }
        for timing in timings
    ]
    return rows, {f"{name}, {program}": why for program, why in left_out.items()}


def run_script(name, arguments, until):
    """Rows of another benchmark, read from the table that it prints line by line."""
    seconds = max(1.0, until - time.monotonic())
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        text, why = done.stdout, done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired as late:
        text, why = (late.stdout or b"").decode(), ["not done in time"]
    rows, heads = [], None
    for line in text.splitlines():
        if not line.startswith("| "):
            continue
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if heads is None:
            heads = cells
            continue
        at = next(i for i, head in enumerate(heads) if "median ms" in head)
        known = " ".join(cells[:at])
        rows.append({"case": name, "program": known, "median_ms": float(cells[at])})
    return rows, {name: why[0]} if why else {}


def table(rows):
    """Markdown of all rows; how many times faster than PyTorch's best variant each is."""
    best = {}
    for row in rows:
        if row["program"].startswith("PyTorch"):
            best[row["case"]] = min(best.get(row["case"], float("inf")), row["median_ms"])
    lines = [
        "| case | program | median ms | quartiles | ready after, s | times as fast as PyTorch |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        low, high = row.get("quartiles_ms", (None, None))
        spread = "" if low is None else f"{low:.2f} to {high:.2f}"
        ready = f"{row['ready_s']:.0f}" if "ready_s" in row else ""
        ratio = f"{best[row['case']] / row['median_ms']:.2f}" if row["case"] in best else ""
        lines.append(
            f"| {row['case']} | {row['program']} | {row['median_ms']:.3f} | {spread} | {ready} "
            f"| {ratio} |"
        )
    return "\n".join(lines)


def make_jobs(options, backend):
    """What is to be done, by name, what matters most first: functions of a time limit."""
    cases = make_cases(options.small)
    contests = {name: (name, rivals(case, backend)) for name, case in cases.items()}
    more = {f"{name}, chunks": (name, chunked(case)) for name, case in cases.items()}
    scripts = {"convolutions": (), "decisions": ("--seconds=0.2",)}
    if options.small:
        scripts["decisions"] = ("--seconds=0.02", "--only=match")
    jobs = {
        title: functools.partial(contest, name, contenders, options)
        for title, (name, contenders) in contests.items()
    }
    jobs |= {name: functools.partial(run_script, name, words) for name, words in scripts.items()}
    jobs |= {
        title: functools.partial(contest, name, contenders, options)
        for title, (name, contenders) in more.items()
        if contenders
    }
    return {title: job for title, job in jobs.items() if options.only in title}


def _backend():
    """Where JAX computes, asked of a process that does not keep the device."""
    ask = "import jax; print(jax.default_backend(), jax.devices()[0].device_kind, sep='\\n')"
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return asked.stdout.split("\n")[:2]


def main():
    """Does one job after another while there is time, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    began = time.monotonic()
    until = began + 60.0 * options.minutes
    backend, device = _backend()
    rows, left_out, not_reached = [], {}, []
    for name, job in make_jobs(options, backend).items():
        if until - time.monotonic() < NEARLY_S:
            not_reached.append(name)
            continue
        start = time.monotonic()
        more, without = job(until - 5.0)
        rows += more
        left_out |= without
        took = time.monotonic() - start
        print(f"{name}: {len(more)} rows in {took:.0f} s", file=sys.stderr, flush=True)
    minutes = (time.monotonic() - began) / 60.0
    print(f"{device} ({backend}), {minutes:.1f} minutes\n\n{table(rows)}\n")
    for name, why in left_out.items():
        print(f"Left out: {name}: {why}")
    print(f"Not reached: {', '.join(not_reached) or 'nothing'}")
    if options.json:
        facts = {
            "device": device,
            "backend": backend,
            "minutes": minutes,
            "rows": rows,
            "left_out": left_out,
            "not_reached": not_reached,
            "environment": environment("jax", "jaxlib", "flax", "optax", "numpy", "torch"),
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
