"""Kills runs at random moments, goes on with each, and compares them with one left in peace.

    python -m tests.survival.kills --trials=50 --workdir=DIR

Half of them save in the background. The final metrics and parameters have to be the same, bit for
bit, but for wall-clock times. Exits with 1 when one is not.
"""

import random
import sys
import time

from tests.survival import small


def trial(workdir, after_s, background):
    """The result of a run that was killed after so many seconds, and the round that it said."""
    changes = {"run__checkpoint_async": background}
    process = small.start(workdir, **changes)
    deadline = time.monotonic() + after_s
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    done = (small.status(workdir) or {}).get("round")
    return small.run(workdir, **changes), done


def main():
    """Runs the trials."""
    options = small.parse(__doc__, trials=50, seed=0)
    draw, same = random.Random(options.seed), 0
    small.run(options.workdir / "warm")  # compiles for all
    began = time.monotonic()
    peace = small.run(options.workdir / "peace")
    length_s = time.monotonic() - began
    print(f"left in peace: {length_s:.1f} s, {len(peace[0])} lines, {len(peace[1])} leaves")
    for number in range(options.trials):
        background, after_s = number % 2 == 0, draw.uniform(0, length_s)
        result, done = trial(options.workdir / f"run{number}", after_s, background)
        same += result == peace
        kind = "background" if background else "waiting"
        verdict = "same" if result == peace else "DIFFERENT"
        print(f"{number}: killed after {after_s:.2f} s (round {done}, {kind} saves): {verdict}")
    print(f"{same} of {options.trials} the same, bit for bit")
    sys.exit(same < options.trials)


if __name__ == "__main__":
    main()
