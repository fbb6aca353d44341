"""Times programs against each other within a time limit; who fails or is late is left out.

As `benchmarks.alternate`, but that all get ready at the same time, which spares minutes where there
are many cores, and that one that fails does not end the others.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from concurrent import futures

from benchmarks.alternate import PAUSE_S, Timing, worker_environment

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
        running = {c.name: stack.enter_context(_started(c)) for c in contenders}
        answers = {
            name: threads.submit(process.stdout.readline)
            for name, (process, _) in running.items()
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
def _started(contender):
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
