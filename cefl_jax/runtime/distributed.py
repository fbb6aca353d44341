"""Several processes that compute one run together: who writes, and what they agree on."""

import re

import jax
import numpy as np
from jax.experimental import multihost_utils

from cefl_jax.safe_read import one_line

MAX_REASON = 200  # characters of what JAX says


def join(coordinator: str, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the processes of a run; to be called before JAX is used.

    Args:
      coordinator: `HOST:PORT` of the first process, the same for all; "auto" where the cluster is
        one that JAX knows, such as SLURM.
      num_processes, process_id: how many, and which one this is, from 0; None where known.
    Raises:
      ValueError: one line, when they cannot be found, or do not fit each other.
    """
    address = None if coordinator == "auto" else coordinator
    if address is not None:
        port = re.fullmatch(r"(?:[^:\s]+|\[[^\s]+\]):([0-9]{1,5})", address)
        if port is None or not 0 < int(port[1]) < 2**16:  # of which JAX would crash or wait
            raise ValueError(
                f"--coordinator={coordinator}: needs to be HOST:PORT of the first process, with a "
                "port from 1 to 65535, or auto"
            )
    # Its own handling of SIGTERM would come before ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(address, num_processes, process_id)
    except Exception as error:  # whatever JAX meets in the variables of a cluster
        reason = f"{type(error).__name__}: {one_line(error):.{MAX_REASON}}"
        raise ValueError(
            f"--coordinator={coordinator}: the processes of the run cannot be joined "
            f"({reason}); pass --coordinator=HOST:PORT of the first one, "
            "--processes, how many they are, and --process, which one this is, from 0"
        ) from error


def is_first() -> bool:
    """Returns whether this process is the one that writes."""
    return jax.process_index() == 0


def are_one() -> bool:
    """Returns whether this process computes alone."""
    return jax.process_count() == 1


def agree(number: int) -> int:
    """Returns the number of the first process, on all of them; of 32 bits."""
    if are_one():
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def any_of(flag: object) -> bool:
    """Returns whether a flag is set on any process."""
    if are_one():
        return bool(flag)
    return bool(multihost_utils.process_allgather(np.int32(bool(flag))).any())
