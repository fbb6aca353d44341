"""Reads other benchmarks' tables as they are printed; one that is cut off has the rows so far."""

import subprocess
import sys


def run_script(name, arguments, seconds):
    """Rows of `benchmarks.NAME`, whose rows are printed one by one.

    Args:
      name: "convolutions", "decisions" or "widths".
      arguments: of its command line.
      seconds: after which it is stopped.
    Returns:
      list of dicts with `case`, `program` and `median_ms`, and None or why not all rows are there.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as late:
        return _rows(name, (late.stdout or b"").decode()), "not done in time"
    rows = _rows(name, done.stdout)
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["nothing said"]
        return rows, f"status {done.returncode}: {words[-1][:200]}"
    return rows, None


def _rows(name, text):
    """Rows of a script's output."""
    read = {"convolutions": _convolution, "decisions": _decision, "widths": _width}[name]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    table = [[cell.strip() for cell in line[1:].split("|")[:-1]] for line in lines]
    return [{"case": name} | read(dict(zip(table[0], row, strict=True))) for row in table[1:]]


def _decision(cells):
    sizes = " ".join(f"{axis}={cells[axis]}" for axis in "KME")
    return {"program": f"{cells['program']}, {sizes}", "median_ms": float(cells["median ms"])}


def _width(cells):
    program = f"{cells['runs']} runs side by side, convolutions {cells['convolutions']}"
    median_ms = float(cells["median ms"])
    return {"program": program, "median_ms": median_ms, "runs": int(cells["runs"]), "cells": cells}


def _convolution(cells):
    """The best lowering, in bold, with what was chosen and how much longer that takes."""
    best, cell = next(item for item in cells.items() if item[1].startswith("**"))
    microseconds = float(cell.strip("*").split()[0])
    program = f"{cells['convolution']}, batch {cells['batch']}: {best} (chosen: {cells['chosen']})"
    return {"program": program, "median_ms": 1e-3 * microseconds, "cells": cells}
