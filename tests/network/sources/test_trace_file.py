"""A trace file is read as it was written, or refused in one line that says what to do."""

import io
import struct
import tracemalloc
import warnings
import zipfile

import jax
import numpy as np
import pytest

from cefl_jax.network.dynamics import record
from cefl_jax.network.sources import trace_file
from cefl_jax.network.sources.trace_file import read_trace, to_arrays
from cefl_jax.network.topology import Network
from cefl_jax.specs import NetworkSpec

R, N, E = 3, 4, 2
RUN = (R, N, E)
RNG = np.random.default_rng(0)
GOOD = {
    "shadow_db": RNG.normal(0, 8, (R + 1, N, E + 1)),
    "edge_load": RNG.normal(0.3, 0.2, (R + 1, E)),
    "available": RNG.random((R + 1, N)) < 0.5,
}
NOMINAL = {"shadow_db": [[[0.0]]], "edge_load": [[0.0]], "available": [[True]]}


def saved(folder, **arrays):
    path = folder / "trace.npz"
    np.savez_compressed(path, **arrays)
    return path


def written(folder, text, name="trace.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def zipped(folder, *members, **words):
    """An npz file of (name, bytes), as an attacker would make it."""
    path = folder / "trace.npz"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **words) as archive:
        warnings.simplefilter("ignore")  # of a name that is given twice
        for name, data in members:
            archive.writestr(f"{name}.npy", data)
    return path


def npy(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def header(shape, descr="'|b1'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def refusal(path, run=RUN):
    """The one line that a file is refused with, without its beginning."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at all of it
        read_trace(path, *run)
    beginning, line = f"network.trace={path}: ", str(caught.value)
    assert line.startswith(beginning)
    assert line.isprintable()
    return line.removeprefix(beginning)


def edited(name, where, value):
    """An array of GOOD with one value changed; it is of the value's type where that is no float."""
    array = GOOD[name][:R].astype(type(value))
    array[where] = value
    return {name: array}


LOAD, HERE = GOOD["edge_load"], GOOD["available"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (GOOD, GOOD),
        *(({name: array}, {name: array}) for name, array in GOOD.items()),
        ({"shadow_db": GOOD["shadow_db"][:, :, 1]}, {"shadow_db": GOOD["shadow_db"][:, :, 1:2]}),
        ({"edge_load": LOAD[:R]}, {"edge_load": LOAD[:R]}),  # the last round's row is needed
        ({"edge_load": np.tile(LOAD, (3, 1))}, {"edge_load": LOAD}),  # and one more, if there
        ({"edge_load": np.full((R, E), -10)}, {"edge_load": np.full((R, E), -10.0)}),
        ({"shadow_db": np.full((R, N), 100)}, {"shadow_db": np.full((R, N, 1), 100.0)}),
        *(({"available": HERE.astype(kind)}, {"available": HERE}) for kind in ("u1", ">i4", "f2")),
        ({"available": np.asfortranarray(HERE)}, {"available": HERE}),
    ],
)
def test_read_trace_reads_arrays_and_completes_them(tmp_path, given, wanted):
    trace = read_trace(saved(tmp_path, **given), *RUN)
    assert [rows.dtype for rows in trace] == [np.float32, np.float32, bool]
    for name, rows in trace._asdict().items():
        expected = np.asarray(wanted.get(name, NOMINAL[name]), rows.dtype)
        np.testing.assert_array_equal(rows, expected, strict=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trace.csv", "1,0\n0,0\n1,1\n"),
        ("TRACE.CSV", "1,0\r\n0,0\r\n1,1"),
        ("trace.csv", "\ufeff1, 0\n\n0 ,0\n1,1\n\n"),
        ("trace.csv", "1,0\n0,0\n1,1\n0,0"),
    ],
)
def test_read_trace_reads_a_csv_of_availability(tmp_path, name, text):
    trace = read_trace(written(tmp_path, text, name), 3, 2, E)
    np.testing.assert_array_equal(trace.available[:3], [[1, 0], [0, 0], [1, 1]])
    assert not trace.available[3:].any()
    assert trace.available.dtype == bool
    np.testing.assert_array_equal(trace.shadow_db, NOMINAL["shadow_db"])
    np.testing.assert_array_equal(trace.edge_load, NOMINAL["edge_load"])


def test_to_arrays_are_read_back_bit_for_bit(tmp_path):
    network = Network(*[None] * 11)._replace(up_snr=np.ones((7, 5)))
    trace = record(jax.random.key(0), network, NetworkSpec(dynamics="markov"), 5)
    again = read_trace(saved(tmp_path, **to_arrays(trace)), 5, 7, 4)
    for rows, read in zip(trace, again, strict=True):
        np.testing.assert_array_equal(rows, read, strict=True)


class Loud:
    """Unpickling it would fail the test."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


KNOWN = "known: shadow_db, edge_load, available"
LOWEST = np.iinfo(np.int64).min  # whose size is no number of 64 bits
WRONG = [
    ({}, "has no arrays; save at least one of shadow_db, edge_load, available"),
    ({"avialable": 1}, f"array 'avialable' is unknown; did you mean available? {KNOWN}"),
    # Axes.
    ({"available": HERE[0]}, "available has 1 axes, and needs to be [round, client]; save it as"),
    ({"shadow_db": np.zeros(R)}, "shadow_db has 1 axes, and needs to be [round, client] or ["),
    ({"available": np.ones((R, 80))}, "available has 80 clients, and the run has 4; record one of"),
    ({"shadow_db": np.zeros((R, 1, E + 1))}, "shadow_db has 1 clients, and the run has 4; "),
    ({"shadow_db": np.zeros((R, N, E))}, "shadow_db has 2 links a client, and the run has 3; "),
    *(
        (GOOD | {name: array[: R - 1]}, f"{name} has 2 rounds, and train.rounds=3; record a longer")
        for name, array in GOOD.items()
    ),
    # Values.
    (edited("shadow_db", (2, 3, 2), np.nan), "shadow_db[2, 3, 2] is nan, and needs to be a number"),
    (edited("shadow_db", (0, 0, 0), 100.1), "shadow_db[0, 0, 0] is 100.1, and needs to be a numbe"),
    (edited("edge_load", (1, 1), -10.1), "edge_load[1, 1] is -10.1, and needs to be a number from"),
    (edited("edge_load", (1, 1), LOWEST), "edge_load[1, 1] is -9223372036854775808, and needs to"),
    (edited("available", (2, 3), 2), "available[2, 3] is 2, and needs to be 0 or 1; correct the f"),
    # Types.
    ({"edge_load": np.zeros((R, E), bool)}, "edge_load has values of type 'bool', and needs num"),
    ({"shadow_db": np.zeros((R, N), complex)}, "shadow_db has values of type 'complex128', and ne"),
    *(
        ({"available": np.zeros((R, N), kind)}, "available has values of type ")
        for kind in ("U1", "S0", "M8[s]", [("a", "f4")])
    ),
    ({"available": np.array([[Loud()] * N] * R)}, "available has values of type 'object', and ne"),
]


@pytest.mark.parametrize(("arrays", "message"), WRONG)
def test_read_trace_names_the_array_that_is_wrong(tmp_path, arrays, message):
    assert refusal(saved(tmp_path, **arrays)).startswith(message)


NO_NPZ = "is not a whole npz file: "


@pytest.mark.parametrize("data", [b"", b"1,0,1,1\n", npy(HERE), b"PK\x03\x04"])
def test_read_trace_needs_a_zip_file(tmp_path, data):
    line = refusal(written(tmp_path, data, "trace.npz"))
    assert line.startswith(NO_NPZ)
    assert "numpy.savez_compressed" in line


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("available", npy(HERE))] * 2, "has an array twice; save it once"),
        ([("available", b"\x93NUMPY")], NO_NPZ),
        ([("available", b"\x93NUMPY\x02\x00")], "available is not of version 1.0 of the npy f"),
        ([("available", header("(3, 4"))], NO_NPZ),
        ([("available", header("(" * 3000))], NO_NPZ),
        ([("available", header("(3L, 4L)") + bytes(5))], NO_NPZ),
        ([("available", header((2**40, N)) + bytes(R * N))], NO_NPZ),
        ([("available", header((-R, -N)) + bytes(R * N))], "available has -3 rounds"),
        ([("available", header((R, N)) + bytes([1] * 11 + [7]))], "available[2, 3] is 7, and nee"),
    ],
)
def test_read_trace_believes_no_header(tmp_path, members, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refusal(zipped(tmp_path, *members)).startswith(message)


def test_read_trace_unpacks_nothing_of_an_array_that_does_not_fit(tmp_path, monkeypatch):
    path = saved(tmp_path, available=np.ones((R, N + 1), bool))
    monkeypatch.setattr(np.lib.format, "read_array", pytest.fail)
    assert refusal(path).startswith(f"available has {N + 1} clients, and the run has {N}")


def test_read_trace_unpacks_no_more_than_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_file, "MAX_BYTES", 2**20)
    path = zipped(tmp_path, ("available", bytes(2**22)), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    assert refusal(path) == (
        "would take 4194304 bytes, and a trace may take 1048576; record one of fewer rounds"
    )
    assert "would take 4194304" not in refusal(path, (400, 200, 10))  # such a run needs more


def test_read_trace_takes_no_more_memory_than_the_zip_directory_says(tmp_path):
    """The member would unpack to 16 MB where the directory of the file says 20 kB."""
    data = header((5000, N)) + bytes(5000 * N)
    member = "available", data + bytes(2**24)
    path = zipped(tmp_path, member, compression=zipfile.ZIP_DEFLATED)
    true, false = (struct.pack("<I", size) for size in (len(data) + 2**24, len(data)))
    assert path.read_bytes().count(true) == 2
    path.write_bytes(path.read_bytes().replace(true, false))
    tracemalloc.start()
    assert refusal(path).startswith(f"{NO_NPZ}Bad CRC-32")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**22


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "available has 0 rounds, and train.rounds=3; "),
        ("1,0,1,1\n" * 2, "available has 2 rounds, and train.rounds=3; "),
        ("1,0,1,1\n1,0,1\n", "available has 3 clients in line 2, and 4 in the first; "),
        ("1,0,1\n" * 3, "available has 3 clients, and the run has 4; "),
        ("1,0,1,1\n1,0,,1\n", "available is '' in line 2, column 3; write 1 for available, "),
        ("a,b,c,d\n", "available is 'a' in line 1, column 1; write 1 for available, 0 for "),
        (b"\xff\xfe1,0", "is not UTF-8 text at byte 0; save it as such"),
    ],
)
def test_read_trace_names_what_is_wrong_in_a_csv(tmp_path, text, message):
    assert refusal(written(tmp_path, text)).startswith(message)
