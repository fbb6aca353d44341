"""One IDX file: read exactly as written, or refused at little cost."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cefl_jax.data import idx
from cefl_jax.data.dataset import DataError
from tests.data.examples import idx_bytes, quick

WHOLE = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


def with_lengths(*lengths):
    return WHOLE[:4] + struct.pack(f">{len(lengths)}I", *lengths) + WHOLE[16:]


@quick
@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=3)), st.booleans())
def test_read_idx_reads_what_was_written(tmp_path_factory, array, zipped):
    file = tmp_path_factory.mktemp("idx") / "file"
    file.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    np.testing.assert_array_equal(idx.read_idx(file, array.ndim), array, strict=True)


DAMAGED = [
    (b"", "starts with nothing"),
    (b"\x01" + WHOLE[1:], "starts with 01 00 08 03"),
    (b"\x00\x00\x09" + WHOLE[3:], "starts with 00 00 09 03"),  # signed bytes
    (idx_bytes(np.zeros(24, np.uint8)), "starts with 00 00 08 01"),  # labels for images
    (WHOLE[:15], "ends within its header"),
    (WHOLE[:-1], "promises 2 x 3 x 4 = 24 bytes, holds only 23"),
    (WHOLE + b"\0", "promises 2 x 3 x 4 = 24 bytes, holds more"),
    (with_lengths(2, 0, 4), "promises 2 x 0 x 4 bytes"),
    (with_lengths(2**30, 1, 2), "promises 1073741824 x 1 x 2 bytes"),
    (with_lengths(2**16, 2**16, 1), "promises 65536 x 65536 x 1 bytes"),  # 0 in 32 bits
    (with_lengths(2**29 + 1, 8, 3), "promises 536870913 x 8 x 3 bytes"),  # 24 in 32 bits
]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(("content", "match"), DAMAGED, ids=[case[1] for case in DAMAGED])
def test_read_idx_names_a_damaged_file_with_its_fault(tmp_path, pack, content, match):
    file = tmp_path / "images"
    file.write_bytes(pack(content))
    with pytest.raises(DataError, match=f"images {match}.*; replace") as error:
        idx.read_idx(file, 3)
    assert str(error.value).startswith(f"data.path: {file} ")
    assert "\n" not in str(error.value)


def test_read_idx_refuses_a_gzip_file_cut_anywhere_or_with_any_bit_flipped_that_matters(tmp_path):
    file, whole = tmp_path / "damaged.gz", gzip.compress(WHOLE, mtime=0)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError):
            idx.read_idx(file, 3)
    refused = 0
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        try:
            np.testing.assert_array_equal(idx.read_idx(file, 3).ravel(), np.arange(24))
        except DataError:
            refused += 1
    # The rest are bits of time, system and hints in the gzip header, and padding after the data.
    assert refused > 6 * len(whole)


@pytest.mark.parametrize(
    "content",
    [WHOLE + bytes(100_000_000), with_lengths(2**15, 2**15, 1)],
    ids=["a small promise, a flood of zeros", "the largest promise, 24 bytes"],
)
def test_read_idx_takes_memory_for_neither_a_false_header_nor_a_flood(tmp_path, content):
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(content, compresslevel=1))
    del content
    assert file.stat().st_size < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="promises"):
            idx.read_idx(file, 3)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4_000_000
