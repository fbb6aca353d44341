"""Recorded conditions of a network: read from a file and checked against the run."""

import difflib
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cefl_jax.network.dynamics import Trace
from cefl_jax.safe_read import (
    InputFileError,
    MissingError,
    check_file,
    decode,
    expand_user,
    one_line,
    read_bytes,
)

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
_MAX = {"shadow_db": 100.0, "edge_load": 10.0}  # either way; beyond it a unit must be wrong
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
    place = str(path or "/nonesuch")
    cells = (rounds + 1) * (num_clients + 1)
    clients = ("clients", num_clients)
    sides = {
        "shadow_db": (clients, ("links a client", num_edges + 1)),
        "edge_load": (("edge nodes", num_edges),),
        "available": (clients,),
    }

    def check(name, dtype, shape):
        _check_kind(name, dtype)
        _check_shape(name, shape, rounds, sides[name])

    try:
        if place.lower().endswith(".csv"):
            content = read_bytes(place, max(MAX_CSV_BYTES, 8 * cells))
            arrays = {"available": _parse_csv(decode(content))}
        else:
            most = max(MAX_BYTES, 8 * cells * (num_edges + 2))
            arrays = _read_npz(place, most, check)
        for name, array in arrays.items():
            check(name, array.dtype, array.shape)
            _check_values(name, array)
    except MissingError as error:
        remedy = "there is no such file; record one with run.save_trace=True, or name another"
        raise ValueError(one_line(f"network.trace={path}: {remedy}")) from error
    except InputFileError as error:
        raise ValueError(one_line(f"network.trace={path}: {error}")) from error
    used = {name: array[: rounds + 1] for name, array in arrays.items()}
    if "shadow_db" in used and used["shadow_db"].ndim == 2:
        used["shadow_db"] = used["shadow_db"][:, :, None]
    whole: dict[str, Any] = {
        name: np.ascontiguousarray(used.get(name, nominal), nominal.dtype)
        for name, nominal in _NOMINAL.items()
    }
    return Trace(**whole)


def to_arrays(trace: Trace) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file that `read_trace` reads back, by name.

    Args:
      trace: Trace of `dynamics.record`, no axis of which is shortened.
    Returns:
      As np.savez_compressed takes them.
    """
    return {name: np.asarray(array) for name, array in trace._asdict().items()}


def _parse_csv(text):
    """bool[rows, columns] of lines of 0 and 1; empty lines are skipped."""
    rows: list[bytes] = []
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split(",")]
        other = next((column for column, cell in enumerate(cells) if cell not in ("0", "1")), None)
        if other is not None:
            raise InputFileError(
                f"available is {cells[other]!r:.40} in line {number}, column {other + 1}; write 1 "
                "for available, 0 for away, and no header"
            )
        if rows and len(cells) != len(rows[0]):
            raise InputFileError(
                f"available has {len(cells)} clients in line {number}, and {len(rows[0])} in the "
                "first; give each line a column for each"
            )
        rows.append(bytes(cell == "1" for cell in cells))
    return np.frombuffer(b"".join(rows), bool).reshape(len(rows), -1 if rows else 0)


def _read_npz(path, max_bytes, check):
    """The arrays of an npz file by name, which together unpack to no more than `max_bytes`.

    `check` is called with name, dtype and shape of an array before its values are unpacked.
    """
    check_file(path, max_bytes)
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged header may parse as Python 2's
            infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            _check_names([*infos], len(archive.infolist()))
            size = sum(info.file_size for info in infos.values())
            if size > max_bytes:
                raise InputFileError(
                    f"would take {size} bytes, and a trace may take {max_bytes}; record one of "
                    "fewer rounds"
                )
            return {name: _read_array(archive, name, info, check) for name, info in infos.items()}
    except InputFileError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy have a dozen kinds for damaged files
        raise InputFileError(
            f"is not a whole npz file: {error!s:.200}; write it with numpy.savez_compressed, or name a "
            "*.csv"
        ) from error


def _read_array(archive, name, info, check):
    """One array, of no more bytes than the table of the file says, whose checksum has to hold."""
    with archive.open(info) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise InputFileError(f"{name} is not of version 1.0 of the npy format; save it as such")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    check(name, dtype, shape)
    with archive.open(info) as stream:
        content = io.BytesIO(stream.read(info.file_size))
    return np.lib.format.read_array(content, allow_pickle=False)


def _check_names(names, count):
    for name in names:
        if name not in _AXES:
            close = difflib.get_close_matches(name, _AXES, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InputFileError(f"array {name!r:.40} is unknown; {hint}known: {', '.join(_AXES)}")
    if len(names) < count:
        raise InputFileError("has an array twice; save it once")
    if not names:
        raise InputFileError(f"has no arrays; save at least one of {', '.join(_AXES)}")


def _check_kind(name, dtype):
    kinds = _NUMBERS + "b" * (name == "available")
    if dtype.kind not in kinds:
        wanted = "booleans, or 0 and 1" if name == "available" else "numbers"
        raise InputFileError(
            f"{name} has values of type {str(dtype)!r:.40}, and needs {wanted}; save it as such"
        )


def _check_shape(name, shape, rounds, sides):
    if not 2 <= len(shape) <= 1 + len(sides):
        raise InputFileError(
            f"{name} has {len(shape)} axes, and needs to be {_AXES[name]}; save it as such"
        )
    if shape[0] < max(rounds, 1):
        raise InputFileError(
            f"{name} has {shape[0]} rounds, and train.rounds={rounds}; record a "
            "longer one or lower train.rounds"
        )
    for found, (what, needed) in zip(shape[1:], sides, strict=False):
        if found != needed:
            raise InputFileError(
                f"{name} has {found} {what}, and the run has {needed}; record one "
                "of this network, or change the network to fit"
            )


def _check_values(name, array):
    if name == "available":
        plain = array.view(np.uint8) if array.dtype == bool else array  # any byte can be there
        bad, wanted = (plain != 0) & (plain != 1), "0 or 1"
    else:
        plain, most = array, _MAX[name]
        with np.errstate(invalid="ignore"):
            bad = ~((array >= -most) & (array <= most))
        wanted = f"a number from {-most:g} to {most:g}"
    if bad.any():
        place = tuple(int(i) for i in np.unravel_index(bad.argmax(), bad.shape))
        raise InputFileError(
            f"{name}{list(place)} is {plain[place]}, and needs to be {wanted}; correct the file"
        )
