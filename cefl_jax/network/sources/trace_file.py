"""Recorded conditions of a network: read from a file and checked against the run."""

from pathlib import Path
from typing import Any

import numpy as np

from cefl_jax.network.dynamics import Trace
from cefl_jax.network.sources.trace_arrays import read_arrays, refusal
from cefl_jax.safe_read import expand_user

MAX_BYTES = 2**30
"""Most that an npz file may unpack to, unless the run needs more."""

MAX_CSV_BYTES = 2**24
"""Most that a csv file may have, unless the run needs more."""

_NOMINAL = {
    "shadow_db": np.zeros((1, 1, 1), np.float32),
    "edge_load": np.zeros((1, 1), np.float32),
    "available": np.ones((1, 1), bool),
}
_AXES = {
    "shadow_db": "[round, client] or [round, client, link]",
    "edge_load": "[round, edge node]",
    "available": "[round, client]",
}
_MOST = {"shadow_db": 100.0, "edge_load": 10.0}  # either way; beyond it a unit must be wrong
_NUMBERS = "iuf"  # kinds of NumPy dtypes


def read_trace(path: str | Path | None, rounds: int, num_clients: int, num_edges: int) -> Trace:
    """Reads a trace for a run, and checks all of it.

    An npz file has any of the arrays `shadow_db` [rows, N], alike on all links of a client, or
    [rows, N, E + 1], the last link being that to the front aggregation server; `edge_load`
    [rows, E]; and `available` [rows, N]. What it lacks is nominal: no fading, no load, everybody
    available. A csv file has only the availability: a line a round, a column a client, 0 or 1,
    without a header; empty lines are skipped. A row is needed for every round; one more tells
    who leaves in the last round, and those after it are checked and not used.

    Args:
      path: network.trace, a file that is named *.csv or else is npz.
      rounds: R, of the run.
      num_clients: N.
      num_edges: E.
    Returns:
      Trace of NumPy arrays, of 1 row and column where nominal, at most R + 1 rows.
    Raises:
      ValueError: for anything else; one line that begins with `network.trace=`.
    """
    path = expand_user(path) if path else path
    cells = (rounds + 1) * (num_clients + 1)
    clients = ("clients", num_clients)
    sides = {
        "shadow_db": (clients, ("links a client", num_edges + 1)),
        "edge_load": (("edge nodes", num_edges),),
        "available": (clients,),
    }

    def check(name, dtype, shape):
        _check_kind(path, name, dtype)
        _check_shape(path, name, shape, rounds, sides[name])

    arrays = read_arrays(
        path,
        tuple(_AXES),
        max(MAX_BYTES, 8 * cells * (num_edges + 2)),
        max(MAX_CSV_BYTES, 8 * cells),
        check,
    )
    for name, array in arrays.items():
        check(name, array.dtype, array.shape)
        _check_values(path, name, array)
    used = {name: array[: rounds + 1] for name, array in arrays.items()}
    if "shadow_db" in used and used["shadow_db"].ndim == 2:
        used["shadow_db"] = used["shadow_db"][:, :, None]
    whole: dict[str, Any] = {
        name: np.ascontiguousarray(used.get(name, nominal), nominal.dtype)
        for name, nominal in _NOMINAL.items()
    }
    return Trace(**whole)


def to_arrays(trace: Trace) -> dict[str, np.ndarray]:
    """The arrays of an npz file that `read_trace` reads back, by name.

    Args:
      trace: Trace of `dynamics.record`, no axis of which is shortened.
    Returns:
      As np.savez_compressed takes them.
    """
    return {name: np.asarray(array) for name, array in trace._asdict().items()}


def _check_kind(path, name, dtype):
    kinds = _NUMBERS + "b" * (name == "available")
    if dtype.kind not in kinds:
        wanted = "booleans, or 0 and 1" if name == "available" else "numbers"
        raise refusal(
            path,
            f"{name} has values of type {str(dtype)!r:.40}, and needs {wanted}; save it as such",
        )


def _check_shape(path, name, shape, rounds, sides):
    if not 2 <= len(shape) <= 1 + len(sides):
        raise refusal(
            path, f"{name} has {len(shape)} axes, and needs to be {_AXES[name]}; save it as such"
        )
    if shape[0] < max(rounds, 1):
        raise refusal(
            path,
            f"{name} has {shape[0]} rounds, and train.rounds={rounds}; record a "
            "longer one or lower train.rounds",
        )
    for found, (what, needed) in zip(shape[1:], sides, strict=False):
        if found != needed:
            raise refusal(
                path,
                f"{name} has {found} {what}, and the run has {needed}; record one "
                "of this network, or change the network to fit",
            )


def _check_values(path, name, array):
    if name == "available":
        plain = array.view(np.uint8) if array.dtype == bool else array  # any byte can be there
        bad, wanted = (plain != 0) & (plain != 1), "0 or 1"
    else:
        plain, most = array, _MOST[name]
        with np.errstate(invalid="ignore"):
            bad = ~((array >= -most) & (array <= most))
        wanted = f"a number from {-most:g} to {most:g}"
    if bad.any():
        place = tuple(int(i) for i in np.unravel_index(bad.argmax(), bad.shape))
        raise refusal(
            path,
            f"{name}{list(place)} is {plain[place]}, and needs to be {wanted}; correct the file",
        )
