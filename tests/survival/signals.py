"""Sends SIGTERM to runs at every stage of their lives, and goes on with each.

    python -m tests.survival.signals --workdir=DIR

Each time the process has to leave with 75 and a run that goes on to what the one in peace came to,
or, before anything began, to leave nothing behind. Exits with 1 otherwise.
"""

import signal
import sys
import time

from tests.survival import small

LONG = {
    "train__rounds": 60,
    "run__eval_every": 10,
    "run__checkpoint_every": 10,
    "run__compile_cache": False,
}
MOMENTS = {  # of a run in a folder, and whether it has come
    "in the first second": lambda folder: time.sleep(0.9) is None,
    "when its folder is there": lambda folder: small.status(folder),
    "while compiling": lambda folder: small.status(folder) and time.sleep(2) is None,
    "in the middle of a chunk": lambda folder: (small.status(folder) or {}).get("round") == 20,
    "during a save": lambda folder: any(folder.glob("checkpoints/*.orbax-checkpoint-tmp*")),
}


def interrupt(workdir, moment):
    """Sends SIGTERM at one moment of a run's life; whether it left as it has to, and how."""
    process = small.start(workdir, **LONG)
    while process.poll() is None and not MOMENTS[moment](workdir):
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    code, output = small.finish(process)
    last = small.status(workdir)
    began_to_write = (workdir / "config.json").exists()
    clean = code == 75 and last["state"] == "preempted" if began_to_write else code in (75, -15)
    took_s = time.monotonic() - began
    return clean, f"exit status {code} after {took_s:.2f} s, {last}" + ("" if clean else output)


def main():
    """Interrupts, goes on, and compares."""
    folder, fine = small.parse(__doc__).workdir, True
    peace = small.run(folder / "peace", **LONG)
    for number, moment in enumerate(MOMENTS):
        workdir = folder / f"run{number}"
        clean, how = interrupt(workdir, moment)
        same = small.run(workdir, **LONG) == peace
        fine &= clean and same
        print(f"SIGTERM {moment}: {how}; resumed: {'same' if same else 'DIFFERENT'}", flush=True)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
