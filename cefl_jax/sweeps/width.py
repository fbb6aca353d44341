"""How many runs side by side fit on the devices."""

import math
import os
from collections.abc import Sequence

import jax

from cefl_jax import parallel, stack
from cefl_jax.build import Setup
from cefl_jax.runtime.units import format_bytes
from cefl_jax.sweeps.progress import SweepDisplay

MAX_WIDTH = 256  # of a stack whose width is chosen here


class TooWide(ValueError):
    """So many runs side by side do not fit."""


def choose_width(
    setups: Sequence[Setup],
    compiler: stack.Compiler,
    display: SweepDisplay,
    asked: int | None,
    share: int,
) -> int:
    """Returns how many runs are to be side by side, by what the compiled program needs.

    It is a multiple of the devices along the mesh axis `run`; the runs make equally wide stacks.

    Args:
      setups: of all runs of one program, joined.
      compiler: keeps what is compiled here.
      display: SweepDisplay.
      asked: runs side by side that a person asked for; None for as many as fit.
      share: of the runs that is this worker's, if other workers have theirs.
    Raises:
      TooWide: what was asked for does not fit, or not even one run on each device.
    """
    mesh = setups[0].mesh.mesh
    devices, limit = mesh.shape[parallel.RUNS], device_bytes(mesh.devices.flat[0])
    most = min(share, asked or MAX_WIDTH)
    width = _equal(share, -(-most // devices) * devices, devices)
    while True:
        needed = _count_bytes(setups, width, compiler, display)
        if needed <= limit:
            return width
        if asked is not None or width == devices:
            held = f"need {format_bytes(needed)} on each device, which has {format_bytes(limit)}"
            if asked is not None:
                raise TooWide(
                    f"--width={asked}: so many runs side by side {held}; lower it, or leave it out"
                )
            raise TooWide(f"{width} runs side by side {held}; lower run.client_chunk or the model")
        fitting = width // 2 if needed == math.inf else int(width * limit / needed)
        fitting = max(devices, min(fitting, width - devices) // devices * devices)
        width = _equal(share, fitting, devices)


def _equal(count, width, devices):
    """The least width that needs as few stacks as this one, a multiple of the devices."""
    stacks = -(-count // width)
    return -(-count // (stacks * devices)) * devices


def _count_bytes(setups, width, compiler, display):
    """Bytes of so many runs side by side on each device; infinite where compiling has none."""
    try:
        return compiler.bytes(stack.pad(setups, width), display)
    except jax.errors.JaxRuntimeError as error:
        if is_out_of_memory(error):
            return math.inf
        raise


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error says that the memory of a device was not enough."""
    return "RESOURCE_EXHAUSTED" in str(error)


def device_bytes(device: jax.Device) -> int:
    """Returns the bytes of memory that a program may have on a device: of a CPU, its share."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
