"""Kills runs at random moments, goes on with each, and compares them with one left in peace.

    python -m tests.survival.kills --trials=50 --workdir=DIR

Half of them save in the background. The final metrics and parameters have to be the same, bit for
bit, but for wall-clock times. Exits with 1 when one is not.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time

from tests.survival import small


def kill(workdir, after_s, **changes):
    """Starts or goes on with a run and kills it after so many seconds, if it lasts that long."""
    process = small.start(workdir, **changes)
    deadline = time.monotonic() + after_s
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate()


def trial(workdir, after_s, background):
    """The result of a run that was killed once, and the round that was then in its status."""
    changes = {"run__checkpoint_async": background}
    kill(workdir, after_s, **changes)
    file = workdir / "status.json"
    done = small.status(workdir)["round"] if file.exists() else None
    code, output = small.finish(small.start(workdir, **changes))
    if code or small.status(workdir)["state"] != "finished":
        print(output)
        return None, done
    return small.result(workdir), done


def main():
    """Runs the trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path(tempfile.mkdtemp()))
    options = parser.parse_args()
    options.workdir.mkdir(exist_ok=True)
    draw, same = random.Random(options.seed), 0
    small.finish(small.start(options.workdir / "warm"))  # compiles for all
    began = time.monotonic()
    small.finish(small.start(options.workdir / "peace"))
    length_s = time.monotonic() - began
    peace = small.result(options.workdir / "peace")
    print(f"left in peace: {length_s:.1f} s, {len(peace[0])} lines, {len(peace[1])} leaves")
    for number in range(options.trials):
        background, after_s = number % 2 == 0, draw.uniform(0, length_s)
        result, done = trial(options.workdir / f"run{number}", after_s, background)
        same += result == peace
        kind = "background" if background else "waiting"
        print(
            f"{number}: killed after {after_s:.2f} s (round {done}, {kind} saves): "
            f"{'same' if result == peace else 'DIFFERENT'}",
            flush=True,
        )
    print(f"{same} of {options.trials} the same, bit for bit")
    sys.exit(same < options.trials)


if __name__ == "__main__":
    main()
