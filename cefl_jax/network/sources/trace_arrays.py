"""Reads the arrays in a trace file, without trust in what the file says about them."""

import difflib
import io
import math
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cefl_jax.safe_read import (
    InputFileError,
    MissingError,
    check_file,
    decode,
    one_line,
    read_bytes,
)

MOST_DIRECTORY_BYTES = 2**17  # of an npz file's table of its arrays


def read_arrays(
    path: str | Path | None,
    known: Sequence[str],
    most_bytes: int,
    most_csv_bytes: int,
    check: Callable[[str, np.dtype, tuple[int, ...]], None],
) -> dict[str, np.ndarray]:
    """The arrays of a trace file by name, of whatever values.

    Args:
      path: network.trace, a file that is named *.csv or else is npz; a csv file is `available`.
      known: names that an array can have.
      most_bytes: that an npz file, and what it unpacks to, may take.
      most_csv_bytes: that a csv file may take.
      check: called with name, dtype and shape of an array of an npz file before it is read;
        raises what it likes.
    Returns:
      At least one.
    Raises:
      ValueError: for a file that cannot be read, is too large, or has other arrays; one line.
    """
    is_csv, place = str(path).lower().endswith(".csv"), path or "/nonesuch"
    try:
        check_file(place, most_csv_bytes if is_csv else most_bytes)
        if is_csv:
            return {"available": _read_csv(path, decode(read_bytes(place, most_csv_bytes)))}
    except MissingError as error:
        raise refusal(
            path, "there is no such file; record one with run.save_trace=True, or name another"
        ) from error
    except InputFileError as error:
        raise refusal(path, error) from error
    return _read_npz(path, known, most_bytes, check)


def refusal(path: str | Path | None, what: object) -> ValueError:
    """ValueError of one line about the file, whatever the file has said."""
    return ValueError(one_line(f"network.trace={path}: {what}"))


def _read_csv(path, text):
    """bool[rows, columns] of lines of 0 and 1; empty lines are skipped."""
    found, rows, columns = bytearray(), 0, 0
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split(",")]
        other = next((column for column, cell in enumerate(cells) if cell not in ("0", "1")), None)
        if other is not None:
            raise refusal(
                path,
                f"available is {cells[other]!r:.40} in line {number}, column "
                f"{other + 1}; write 1 for available, 0 for away, and no header",
            )
        columns = columns or len(cells)
        if len(cells) != columns:
            raise refusal(
                path,
                f"available has {len(cells)} clients in line {number}, and "
                f"{columns} in the first; give each line a column for each",
            )
        found += bytes(cell == "1" for cell in cells)
        rows += 1
    return np.frombuffer(found, bool).reshape(rows, columns)


class _ZipFile(io.FileIO):
    """A file of which a zipfile.ZipFile can be made whatever length it gives its table."""

    most = MOST_DIRECTORY_BYTES

    def read(self, size=-1):
        """As in FileIO, but no more than `most` at once."""
        data = super().read(size if 0 <= size <= self.most else self.most + 1)
        if len(data) > self.most:
            raise ValueError("its table of arrays is too large")
        return data


def _read_npz(path, known, most_bytes, check):
    """The arrays of an npz file by name."""
    with _ZipFile(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile has a dozen kinds for damaged files
            raise refusal(
                path,
                f"is not an npz file: {error!s:.200}; write it with "
                "numpy.savez_compressed, or name a *.csv",
            ) from error
        file.most = sys.maxsize - 1
        infos = archive.infolist()
        names = [info.filename.removesuffix(".npy") for info in infos]
        _check_names(path, names, known)
        size = sum(info.file_size for info in infos)
        if size > most_bytes:
            raise refusal(
                path,
                f"would take {size} bytes, and a trace may take {most_bytes}; "
                "record one of fewer rounds",
            )
        return {
            name: _read_array(path, archive, name, info, check)
            for name, info in zip(names, infos, strict=True)
        }


def _read_array(path, archive, name, info, check):
    """One array of an npz file, of the shape and length that its header promises."""
    try:
        stream, (shape, in_columns, dtype) = _open_array(archive, info)
    except Exception as error:  # zipfile, zlib and NumPy likewise
        raise _unreadable(path, name, error) from error
    with stream:
        check(name, dtype, shape)  # objects end here, never unpickled
        try:
            size = math.prod(shape) * dtype.itemsize
            held = info.file_size - stream.tell()
            if size != held:
                raise ValueError(f"its header promises {size} bytes, and it has {held}")
            data = stream.read(size)  # no more, whatever it would unpack to
            return np.frombuffer(data, dtype).reshape(shape, order="F" if in_columns else "C")
        except Exception as error:
            raise _unreadable(path, name, error) from error


def _open_array(archive, info):
    """The stream of an array's values, and its shape, whether it is in columns, and its dtype."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("packed in a way that NumPy does not write")
    stream = archive.open(info)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged header may parse as Python 2's
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):  # all that NumPy writes of such arrays
            raise ValueError(f"version {version} of the npy format")
        return stream, np.lib.format.read_array_header_1_0(stream)


def _check_names(path, names, known):
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise refusal(path, f"array {name!r:.40} is unknown; {hint}known: {', '.join(known)}")
        if names.count(name) > 1:
            raise refusal(path, f"has {name} twice; save it once")
    if not names:
        raise refusal(path, f"has no arrays; save at least one of {', '.join(known)}")


def _unreadable(path, what, error):
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return refusal(path, f"{what} cannot be read: {said:.200}; replace it by a whole copy")
