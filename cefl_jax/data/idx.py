"""Reads IDX files, the format of MNIST and Fashion-MNIST, and believes none of their fields."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cefl_jax.data.dataset import DataError
from cefl_jax.safe_read import InputFileError, check_file

MAX_BYTES = 2**30
"""Largest array that a header may promise; EMNIST's largest file holds 547 MB, MNIST's 47 MB."""

MAX_FILE_BYTES = MAX_BYTES + 2**20
"""Largest file: what cannot be compressed grows by less."""

_CHUNK_BYTES = 2**20
_GZIP_MAGIC = b"\x1f\x8b"
_UINT8 = 0x08


def read_idx(path: str | Path, num_axes: int) -> UInt8[np.ndarray, "..."]:
    """Returns the array of unsigned bytes in an IDX file, plain or gzipped.

    It must be a regular file of at most `MAX_FILE_BYTES`; a pipe might never end. The first bytes
    tell gzip, not the name. Before the data is read, the header must be whole, of unsigned bytes,
    of `num_axes` axes, none of them empty, and promise at most `MAX_BYTES`. The data must then be
    exactly as long as promised, and a gzip file's own checksum must hold. Memory grows with the
    bytes that arrive and ends one byte after the promise, so that neither a false header nor a
    small file that expands without end can exhaust it.

    Args:
      path: the file.
      num_axes: 3 for images, 1 for labels.
    Returns:
      u8[d_1, ..., d_num_axes].
    Raises:
      DataError: the file cannot be read, or a field is not as above.
    Reference: LeCun, Cortes and Burges, The MNIST Database, "The IDX file format".
    """
    path = Path(path)
    try:
        check_file(path, MAX_FILE_BYTES)
        with path.open("rb") as file:
            is_gzip = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        with (gzip.open if is_gzip else open)(path, "rb") as stream:
            shape = _read_shape(path, stream, num_axes)
            data = _read_at_most(stream, math.prod(shape) + 1)
    except InputFileError as error:
        raise DataError(f"data.path: {path} {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _corrupt(path, f"cannot be read: {error}") from error
    if len(data) != math.prod(shape):
        found = "more" if len(data) > math.prod(shape) else f"only {len(data)}"
        raise _corrupt(path, f"promises {_words(shape)} = {math.prod(shape)} bytes, holds {found}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_shape(path, stream, num_axes):
    """The lengths of the axes, as Python integers, from a header that is as it should be."""
    expected = bytes([0, 0, _UINT8, num_axes])
    magic = stream.read(len(expected))
    if magic != expected:
        raise _corrupt(
            path,
            f"starts with {magic.hex(' ') or 'nothing'} and not with "
            f"{expected.hex(' ')}, unsigned bytes in {num_axes} axes",
        )
    lengths = stream.read(4 * num_axes)
    if len(lengths) != 4 * num_axes:
        raise _corrupt(path, "ends within its header")
    shape = tuple(int(length) for length in np.frombuffer(lengths, ">u4"))
    if not 0 < math.prod(shape) <= MAX_BYTES:
        raise _corrupt(path, f"promises {_words(shape)} bytes, not between 1 and {MAX_BYTES}")
    return shape


def _read_at_most(stream, limit):
    """The rest of a stream, or its first `limit` bytes."""
    data = bytearray()
    while len(data) < limit and (chunk := stream.read(min(_CHUNK_BYTES, limit - len(data)))):
        data += chunk
    return data


def _words(shape):
    return " x ".join(str(length) for length in shape)


def _corrupt(path, what):
    return DataError(f"data.path: {path} {what}; replace the file by a whole copy")
