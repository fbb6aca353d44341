"""A long run watched from outside: does it grow?

    python -m tests.survival.soak --rounds=2000 --workdir=DIR

Runs the quickstart for so many rounds and reads its memory, open files and threads as it goes, and
how many programs it compiles, then compares the first hundred rounds with the last: the median of
the memory, and the most files and threads, which a save at work has for a moment. What is read
after the last round counts not: by then the process is ending. Exits
with 1 where memory has grown by more than a twentieth, or anything else at all.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
READINGS = (  # name, what is compared, by what factor it may grow
    ("MB resident", statistics.median, 1.05),
    ("open files", max, 1.0),
    ("threads", max, 1.0),
)
COMPILING = "Finished XLA compilation"  # as JAX_LOG_COMPILES says it


def read(pid):
    """Resident memory in MB, open files and threads of a process; None when it has ended."""
    folder = pathlib.Path("/proc") / str(pid)
    try:
        lines = (folder / "status").read_text().splitlines()
        files = len(list((folder / "fd").iterdir()))
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    if "VmRSS" not in values:
        return None
    return int(values["VmRSS"].split()[0]) / 1024, files, int(values["Threads"])


def watch(process, workdir, every_s=1.0):
    """[(round, MB, open files, threads)] of a run until it ends."""
    seen = []
    while process.poll() is None:
        time.sleep(every_s)
        now = read(process.pid)
        try:
            status = json.loads((workdir / "status.json").read_text())
        except OSError:
            continue
        if now is not None:
            seen.append((status["round"], *now))
    return seen


def main():
    """Runs, and says what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--workdir", type=pathlib.Path, default=None)
    options = parser.parse_args()
    workdir = options.workdir or pathlib.Path(tempfile.mkdtemp()) / "soak"
    log = workdir.with_suffix(".log")
    command = [sys.executable, "-m", "cefl_jax.main", f"--workdir={workdir}"]
    command += [f"--config={ROOT / 'configs' / 'quickstart.py'}"]
    command += [f"--config.train.rounds={options.rounds}"]
    with open(log, "w") as output:
        process = subprocess.Popen(
            ["env", "JAX_LOG_COMPILES=1", *command],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        seen = watch(process, workdir)
    lines = log.read_text().splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("round ")]
    late = sum(COMPILING in line for line in lines[starts[0] : starts[-1]])
    first = [row for row in seen if 0 < row[0] <= 100]
    last = [row for row in seen if options.rounds - 100 < row[0] < options.rounds]
    grown = process.returncode != 0 or late > 0
    for at, (name, measure, allowed) in enumerate(READINGS, 1):
        before, after = (measure(row[at] for row in rows) for rows in (first, last))
        grown |= after > before * allowed
        print(f"{name}: {before:.0f} in the first 100 rounds, {after:.0f} in the last 100")
    print(f"programs compiled between the first line and the last: {late}")
    print(f"exit status {process.returncode}; {'GROWN' if grown else 'flat'}")
    sys.exit(grown)


if __name__ == "__main__":
    main()
