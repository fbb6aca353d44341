"""Sends SIGTERM to runs at every stage of their lives, and goes on with each.

    python -m tests.survival.signals --workdir=DIR

In the first second, while compiling, in the middle of a chunk, and during a save: each time the
process has to leave with 75 and a run that goes on to what the one in peace came to, or, before
anything began, to leave nothing behind. Exits with 1 otherwise.
"""

import argparse
import pathlib
import signal
import sys
import tempfile
import time

from tests.survival import small

LONG = {"train__rounds": 60, "run__eval_every": 10, "run__checkpoint_every": 10}


def wait_for(process, there):
    """Waits until something is there, or the process has ended."""
    while process.poll() is None and not there():
        time.sleep(0.001)


def interrupt(workdir, name, process):
    """Sends SIGTERM at one moment of a run's life; its exit status, output and last words."""
    status, saves = workdir / "status.json", workdir / "checkpoints"
    if name == "in the first second":
        time.sleep(0.9)
    elif name == "when its folder is there":
        wait_for(process, status.exists)
    elif name == "while compiling":
        wait_for(process, (workdir / "partition.png").exists)  # drawn meanwhile
    elif name == "in the middle of a chunk":
        wait_for(process, lambda: status.exists() and small.status(workdir)["round"] == 20)
        time.sleep(0.02)
    elif name == "during a save":
        wait_for(process, lambda: any(saves.glob("*.orbax-checkpoint-tmp*")))
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    code, output = small.finish(process)
    return code, output, time.monotonic() - began


MOMENTS = (
    "in the first second",
    "when its folder is there",
    "while compiling",
    "in the middle of a chunk",
    "during a save",
)


def main():
    """Interrupts, goes on, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path(tempfile.mkdtemp()))
    folder = parser.parse_args().workdir
    folder.mkdir(exist_ok=True)
    small.finish(small.start(folder / "peace", **LONG))
    peace, fine = small.result(folder / "peace"), True
    for number, name in enumerate(MOMENTS):
        workdir = folder / f"run{number}"
        code, output, took_s = interrupt(workdir, name, small.start(workdir, **LONG))
        began = (workdir / "config.json").exists()
        last = small.status(workdir) if (workdir / "status.json").exists() else None
        clean = code == 75 and last["state"] == "preempted" if began else code in (75, -15)
        again, text = small.finish(small.start(workdir, **LONG))
        same = again == 0 and small.result(workdir) == peace
        fine &= clean and same
        print(
            f"SIGTERM {name}: exit status {code} after {took_s:.2f} s, {last or 'nothing there'}; "
            f"gone on with: {'same' if same else 'DIFFERENT'}",
            flush=True,
        )
        if not (clean and same):
            print(output, text)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
