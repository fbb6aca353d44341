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
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent import futures

PAUSE_S = 0.3  # before a turn: threads of the one before stop spinning
END_S = 20.0  # that a contender has to end by itself


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
    about: dict  # what it said of itself, and from `alternate` its `start_s`
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

    Each starts without compiled programs of earlier runs. Its `start_s` are the seconds from the
    start of its process, imports included, until its first round is done.

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
        caches = stack.enter_context(tempfile.TemporaryDirectory())
        running, timings = [], []
        for contender in contenders:  # each ready before the next one starts
            began = time.perf_counter()
            running.append(stack.enter_context(_started(contender, caches)))
            about = _answer(contender, running[-1])
            about["start_s"] = time.perf_counter() - began
            timings.append(Timing(contender.name, about, []))
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
def _started(contender, caches):
    """The process; programs that it compiles are kept in a new folder of `caches`, or nowhere."""
    variables = {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TORCHINDUCTOR_CACHE_DIR": tempfile.mkdtemp(dir=caches),
    }
    with subprocess.Popen(
        [contender.python, *contender.arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=worker_environment() | variables,
    ) as process:
        try:
            yield process
        finally:
            process.stdin.close()  # it ends by itself, and what it has started with it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=END_S)
            process.kill()


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
        f"| program | round, median ms | quartiles | rounds | start to first round, s "
        f"| its time / {reference or timings[0].name} |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for timing in timings:
        low, high = timing.spread_ms
        lines.append(
            f"| {timing.name} | {timing.median_ms:.1f} | {low:.1f} to {high:.1f} "
            f"| {len(timing.rounds_ms)} | {timing.about['start_s']:.1f} "
            f"| {timing.median_ms / against:.2f} |"
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


TURN_S = 1.0  # of each contender, once its pace is known


def compete(contenders, turns, rounds, ready_s, until, tell=lambda timings: None):
    """Returns the timings of those contenders that are ready in time, which take turns.

    The first turn has one counted round; later ones as many as fit into `TURN_S`, at most `rounds`.

    Args:
      contenders: list of alternate.Contender.
      turns: most turns of each; some have had one less when the time is up.
      rounds: most counted rounds of a turn; the first round of every turn is not counted.
      ready_s: seconds that all have to get ready.
      until: time.monotonic() after which nobody's turn is begun.
      tell: called with the timings so far after each turn, since what is not told may be lost.
    Returns:
      list of Timing, and {name: why} of those left out, or out of later turns alone.
    """
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(futures.ThreadPoolExecutor(len(contenders)))
        running = {c.name: stack.enter_context(_started_apart(c)) for c in contenders}
        answers = {
            name: threads.submit(process.stdout.readline) for name, (process, _) in running.items()
        }
        futures.wait(answers.values(), timeout=min(ready_s, until - time.monotonic()))
        timings, left_out = [], {}
        for name, answer in answers.items():
            if answer.done() and answer.result():
                timings.append(Timing(name, json.loads(answer.result()), []))
                continue
            left_out[name] = _last_words(running[name]) if answer.done() else "not ready in time"
            _end(running[name][0])
        answering = list(timings)
        for _ in range(turns):
            for timing in list(answering):
                if time.monotonic() > until:
                    break
                time.sleep(PAUSE_S)
                fitting = int(1000 * TURN_S / timing.median_ms) if timing.rounds_ms else 1
                asked = 1 + min(rounds, max(1, fitting))
                taken = _ask(running[timing.name][0], asked, threads, until)
                if taken:
                    timing.rounds_ms += taken[1:]
                else:
                    # What it has done in earlier turns stays.
                    left_out[timing.name] = _last_words(running[timing.name])
                    answering.remove(timing)
            tell([timing for timing in timings if timing.rounds_ms])
        for timing in timings:
            if not timing.rounds_ms:
                left_out.setdefault(timing.name, "no time left")
        return [timing for timing in timings if timing.rounds_ms], left_out


@contextlib.contextmanager
def _started_apart(contender):
    """The process, and the file that takes its standard error."""
    # Several of them share one accelerator.
    variables = worker_environment() | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [contender.python, *contender.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=variables,
            process_group=0,
        )
        try:
            yield process, errors
        finally:
            _end(process)
            process.wait()


def _end(process):
    """Ends the process and those that it started, which would hold on to its standard output."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ask(process, rounds, threads, until):
    """Returns the milliseconds of so many rounds; None where the process ends or is too slow."""
    try:
        process.stdin.write(json.dumps({"rounds": rounds}) + "\n")
        process.stdin.flush()
        line = threads.submit(process.stdout.readline).result(until - time.monotonic())
    except (BrokenPipeError, TimeoutError):
        _end(process)
        return None
    return json.loads(line) if line else None


def _last_words(started):
    """The last line on standard error, and how the process ended."""
    process, errors = started
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    errors.seek(0)
    lines = [line.strip() for line in errors if line.strip()] or ["nothing said"]
    return f"status {process.poll()}: {lines[-1][:200]}"
