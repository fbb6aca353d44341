"""Kills two workers of a sweep at random moments, and starts them again, until all runs are made.

    python -m tests.survival.sweep_kills --runs=200 --workdir=DIR

Every run has to be finished exactly once, and its metrics and parameters have to be those of a
sweep that one worker made in peace, bit for bit. Exits with 1 when one is not.
"""

import collections
import random
import re
import subprocess
import sys
import time

from tests.survival import small

RATES = 8
DEFINITION = """
from cefl_jax.sweeps import Sweep

EXPERIMENT = Sweep(
    common={settings} | {{"data.name": "fashion_mnist_12k", "method.name": "fedavg"}},
    grid={{"train.optimizer.learning_rate": {rates}}},
    seeds={seeds},
    target=0.1,
)
"""


def define(folder, runs):
    """The file of a sweep of so many short runs."""
    settings = {
        path: value
        for path, value in small.SETTINGS.items()
        if not path.startswith(("cefl.", "network."))
    } | {"train.rounds": 6, "run.checkpoint_every": 2}
    rates = [0.02 * (1 + i) for i in range(RATES)]
    text = DEFINITION.format(settings=settings, rates=rates, seeds=-(-runs // RATES))
    file = folder / "kills.py"
    file.write_text(text)
    return file


def start(definition, workdir, log, shard="0/1"):
    """A worker in a process of its own, which adds its output to a file."""
    command = [sys.executable, "-m", "cefl_jax.sweep", f"--experiment={definition}"]
    command += [f"--workdir={workdir}", f"--shard={shard}", "--nopictures"]
    with open(log, "ab") as file:
        return subprocess.Popen(command, cwd=small.ROOT, stdout=file, stderr=file)


def make_in_peace(definition, workdir, log):
    """One worker makes all; the seconds after which its first run was finished."""
    began, first_s = time.monotonic(), None
    worker = start(definition, workdir, log)
    while worker.poll() is None:
        time.sleep(0.1)
        if first_s is None and finished(log):
            first_s = time.monotonic() - began
    assert worker.returncode == 0, log.read_text()
    return first_s


def make_with_kills(definition, workdir, draw, log, longest_s):
    """Kills and starts two workers until both leave by themselves; how many were killed."""
    killed, workers = 0, [start(definition, workdir, log, f"{i}/2") for i in range(2)]
    while any(worker.poll() != 0 for worker in workers):
        time.sleep(draw.uniform(0.5, longest_s))
        i = draw.randrange(2)
        if workers[i].poll() is None:
            workers[i].kill()
            killed += 1
        if workers[i].wait() != 0:
            workers[i] = start(definition, workdir, log, f"{i}/2")
    return killed


def results(folder):
    """What each run of a sweep came to, by the name of its folder."""
    return {place.parent.name: small.result(place.parent) for place in folder.rglob("summary.json")}


def finished(log):
    """How often a log says of each run that it is finished."""
    return collections.Counter(re.findall(r"finished (.*)", log.read_text()))


def compare(workdir, runs, seed):
    """Makes the sweep twice; what is wrong, as lines, and how many workers were killed."""
    definition, draw = define(workdir, runs), random.Random(seed)
    first_s = make_in_peace(definition, workdir / "peace", workdir / "peace.log")
    longest_s = 1.5 * first_s  # before the first run is finished, or after several
    killed = make_with_kills(
        definition, workdir / "killed", draw, workdir / "killed.log", longest_s
    )
    peace, after = (results(workdir / name) for name in ("peace", "killed"))
    faults = [f"{name}: not the same" for name in peace if peace[name] != after.get(name)]
    faults += [f"{len(after)} runs, and not {len(peace)}"] * (len(after) != len(peace))
    twice = [title for title, count in finished(workdir / "killed.log").items() if count > 1]
    return faults + [f"{title}: finished twice" for title in twice], killed, len(peace)


def main():
    """Makes the sweep in peace and with kills, and compares."""
    options = small.parse(__doc__, runs=200, seed=0)
    faults, killed, count = compare(options.workdir, options.runs, options.seed)
    print(*faults, sep="\n")
    print(f"{count} runs, {killed} workers killed, {len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
