"""Times several programs against each other: each in a process of its own, in turns.

While one works the others wait for a line on their standard input, so nothing of theirs, no thread
that spins and no compiler, is on the cores that are measured. Taking turns, a slow minute of the
machine falls on all of them.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time

PAUSE_S = 0.3  # before a turn: threads of the one before stop spinning


@dataclasses.dataclass(frozen=True)
class Contender:
    """A program to be timed; it calls `benchmarks.worker.serve`."""

    name: str
    arguments: tuple[str, ...]  # after the interpreter
    python: str = sys.executable


@dataclasses.dataclass
class Timing:
    """What was measured of one contender."""

    name: str
    about: dict  # what it said of itself, with `prepare_s` and `first_round_s`
    rounds_ms: list  # of every timed round

    @property
    def median_ms(self):
        """Milliseconds of the median round."""
        return statistics.median(self.rounds_ms)

    @property
    def spread_ms(self):
        """Milliseconds of the first and the third quartile."""
        if len(self.rounds_ms) < 2:
            return self.rounds_ms[0], self.rounds_ms[0]
        first, _, third = statistics.quantiles(self.rounds_ms, n=4, method="inclusive")
        return first, third

    def to_json(self):
        """As plain values."""
        return {
            "name": self.name,
            "median_ms": self.median_ms,
            "quartiles_ms": self.spread_ms,
            "rounds_ms": self.rounds_ms,
            **self.about,
        }


def alternate(contenders, turns, rounds):
    """Timings of the contenders, `turns` turns of `rounds` rounds each, one after another.

    Args:
      contenders: list of Contender.
      turns: how often each has its turn; the first round of every turn is not counted.
      rounds: counted rounds of a turn.
    Returns:
      list of Timing.
    Raises:
      RuntimeError: when a contender ends early; its own words are on standard error.
    """
    with contextlib.ExitStack() as stack:
        running, timings = [], []
        for contender in contenders:                # each ready before the next one starts
            running.append(stack.enter_context(_started(contender)))
            timings.append(Timing(contender.name, _answer(contender, running[-1]), []))
        for _ in range(turns):
            for contender, process, timing in zip(contenders, running, timings, strict=True):
                time.sleep(PAUSE_S)
                process.stdin.write(json.dumps({"rounds": rounds + 1}) + "\n")
                process.stdin.flush()
                timing.rounds_ms += _answer(contender, process)[1:]
        return timings


def worker_environment():
    """Returns the variables of a worker, which imports from this folder before any other."""
    folders = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}


@contextlib.contextmanager
def _started(contender):
    process = subprocess.Popen(
        [contender.python, *contender.arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=worker_environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _answer(contender, process):
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{contender.name} ended with status {process.wait()}")
    return json.loads(line)


def table(timings, reference=None):
    """Markdown: medians, quartiles, and how many times faster than it the reference is.

    Args:
      timings: list of Timing.
      reference: name of the one that the others are compared with; None for the first.
    """
    of = {timing.name: timing for timing in timings}
    against = of[reference or timings[0].name].median_ms
    lines = [
        f"| program | round, median ms | quartiles | rounds | until the first round is done, s "
        f"| its time / {reference or timings[0].name} |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for timing in timings:
        low, high = timing.spread_ms
        until = timing.about["prepare_s"] + timing.about["first_round_s"]
        lines.append(
            f"| {timing.name} | {timing.median_ms:.1f} | {low:.1f} to {high:.1f} "
            f"| {len(timing.rounds_ms)} | {until:.1f} | {timing.median_ms / against:.2f} |"
        )
    return "\n".join(lines)


def environment(*packages):
    """The machine and the versions of what is installed here."""
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "machine": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
        "load_before": os.getloadavg()[0],
    }


def _processor():
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
