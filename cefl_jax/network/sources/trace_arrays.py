"""Reads the arrays in a trace file, without trust in what the file says about them."""

import difflib
import math
import warnings
import zipfile
from pathlib import Path

import numpy as np

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_arrays(path, known, most_bytes):
    """The arrays of a trace file by name, of whatever shapes, kinds and values.

    Args:
      path: network.trace, a file that is named *.csv or else is npz; a csv file is `available`.
      known: names that an array can have.
      most_bytes: that the file, and what it unpacks to, may take.
    Returns:
      dict of NumPy arrays, at least one; that of Python objects is empty, as they stay unread.
    Raises:
      ValueError: for a file that cannot be read, is too large, or has other arrays; one line.
    """
    _check_file(path, most_bytes)
    if str(path).lower().endswith(".csv"):
        return {"available": _read_csv(path)}
    return _read_npz(path, known, most_bytes)


def refusal(path, what):
    """ValueError of one line about the file, whatever the file has said."""
    line = f"network.trace={path}: {what}"
    return ValueError("".join(c if c.isprintable() else "?" for c in line))


def _check_file(path, most_bytes):
    try:
        size = Path(path).stat().st_size if path and Path(path).is_file() else None
    except (OSError, ValueError) as error:
        raise _unreadable(path, "the file", error) from error
    if size is None:
        raise refusal(path, "there is no such file; record one with run.save_trace=True, or name "
                      "another")
    if size > most_bytes:
        raise _too_large(path, size, most_bytes)


def _read_csv(path):
    """bool[rows, columns] of lines of 0 and 1; empty lines are skipped."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:                 # as spreadsheets write
            lines = [line for line in enumerate(file, 1) if line[1].strip()]
    except (OSError, ValueError) as error:
        raise _unreadable(path, "the file", error) from error
    rows = []
    for number, line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        other = next((column for column, cell in enumerate(cells) if cell not in ("0", "1")), None)
        if other is not None:
            raise refusal(path, f"available is {cells[other]!r:.40} in line {number}, column "
                          f"{other + 1}; write 1 for available, 0 for away, and no header")
        rows.append(np.array([cell == "1" for cell in cells]))
        if len(cells) != len(rows[0]):
            raise refusal(path, f"available has {len(cells)} clients in line {number}, and "
                          f"{len(rows[0])} in the first; give each line a column for each")
    return np.stack(rows) if rows else np.empty((0, 0), bool)


def _read_npz(path, known, most_bytes):
    """The arrays of an npz file by name."""
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile has a dozen kinds for files that are not, or are damaged
        raise refusal(path, f"is not an npz file: {error!s:.200}; write it with "
                      "numpy.savez_compressed, or name a *.csv") from error
    with archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        _check_names(path, members, known)
        size = sum(info.file_size for info in archive.infolist())
        if size > most_bytes:
            raise _too_large(path, size, most_bytes)
        arrays = {}
        for name, info in members.items():
            try:
                arrays[name] = _read_array(archive, info)
            except Exception as error:  # likewise zlib and numpy
                raise _unreadable(path, name, error) from error
    return arrays


def _read_array(archive, info):
    """One array of an npz file, of the shape and length that its header promises."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("packed in a way that NumPy does not write")
    with archive.open(info) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")                  # a damaged header may parse as Python 2's
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the npy format")
        shape, in_columns, dtype = _HEADERS[version](stream)
        if dtype.hasobject:
            return np.empty(0, dtype)                    # reading them would run the file's code
        size = math.prod(shape) * dtype.itemsize
        held = info.file_size - stream.tell()
        if size != held:
            raise ValueError(f"its header promises {size} bytes, and it has {held}")
        data = stream.read(size)                         # no more, whatever it would unpack to
    return np.frombuffer(data, dtype).reshape(shape, order="F" if in_columns else "C")


def _check_names(path, names, known):
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise refusal(path, f"array {name!r:.40} is unknown; {hint}known: {', '.join(known)}")
    if not names:
        raise refusal(path, f"has no arrays; save at least one of {', '.join(known)}")


def _unreadable(path, what, error):
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return refusal(path, f"{what} cannot be read: {said:.200}; replace it by a whole copy")


def _too_large(path, size, most_bytes):
    return refusal(path, f"would take {size} bytes, and a trace may take {most_bytes}; record one "
                   "of fewer rounds")
