"""A long run watched from outside: does it grow?

    python -m tests.survival.soak --rounds=2000 --workdir=DIR

Reads memory, open files and threads of the quickstart as it goes, and counts its compilations, then
compares the first hundred rounds with the last: the median of the memory, and the most files and
threads, which a save at work has for a moment. Exits with 1 where memory has grown by more than a
twentieth, or anything else at all.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import time

from tests.survival import small

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
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(values["VmRSS"].split()[0]) / 1024, files, int(values["Threads"])
    except (OSError, KeyError):
        return None


def main():
    """Runs, and says what was seen."""
    options = small.parse(__doc__, rounds=2000)
    workdir, log = options.workdir / "soak", options.workdir / "soak.log"
    command = [sys.executable, "-m", "cefl_jax.main", f"--workdir={workdir}", small.QUICKSTART]
    command += [f"--config.train.rounds={options.rounds}"]
    seen, environment = [], os.environ | {"JAX_LOG_COMPILES": "1"}
    with open(log, "w") as output:
        pipes = {"stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, cwd=small.ROOT, env=environment, **pipes)
        while process.poll() is None:
            time.sleep(1.0)
            now, status = read(process.pid), small.status(workdir)
            if now and status and 0 < status["round"] < options.rounds:  # later it is ending
                seen.append((status["round"], *now))
    lines = log.read_text().splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("round ")]
    late = sum(COMPILING in line for line in lines[starts[0] : starts[-1]])
    first = [row for row in seen if row[0] <= 100]
    last = [row for row in seen if row[0] > options.rounds - 100]
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
