"""A trace file is read as it was written, or refused in one line that says what to do."""

import io
import os
import struct
import tracemalloc
import warnings
import zipfile

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cefl_jax.network.dynamics import Trace, record
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
drawn = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def saved(folder, **arrays):
    path = folder / "trace.npz"
    np.savez_compressed(path, **arrays)
    return path


def written(folder, text, name="trace.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def zipped(folder, data, name="available.npy", **words):
    path = folder / "trace.npz"
    with zipfile.ZipFile(path, "w", **words) as archive:
        archive.writestr(name, data)
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


class TestReads:
    def test_every_array(self, tmp_path):
        trace = read_trace(saved(tmp_path, **GOOD), *RUN)
        assert isinstance(trace, Trace)
        assert [rows.dtype for rows in trace] == [np.float32, np.float32, bool]
        for name, rows in trace._asdict().items():
            np.testing.assert_array_equal(rows, GOOD[name].astype(rows.dtype))

    @pytest.mark.parametrize("name", GOOD)
    def test_what_is_missing_is_nominal(self, tmp_path, name):
        trace = read_trace(saved(tmp_path, **{name: GOOD[name]}), *RUN)
        nominal = {"shadow_db": [[[0.0]]], "edge_load": [[0.0]], "available": [[True]]}
        for other, rows in trace._asdict().items():
            expected = GOOD[name] if other == name else nominal[other]
            np.testing.assert_array_equal(rows, np.asarray(expected, rows.dtype), strict=True)

    def test_fading_of_all_links_alike(self, tmp_path):
        trace = read_trace(saved(tmp_path, shadow_db=GOOD["shadow_db"][:, :, 1]), *RUN)
        np.testing.assert_array_equal(
            trace.shadow_db, GOOD["shadow_db"][:, :, 1:2].astype(np.float32)
        )

    @pytest.mark.parametrize(("rows", "kept"), [(R, R), (R + 1, R + 1), (R + 9, R + 1)])
    def test_rows_after_the_run_are_left_out(self, tmp_path, rows, kept):
        load = np.arange(rows * E).reshape(rows, E) / 100
        got = read_trace(saved(tmp_path, edge_load=load), *RUN).edge_load
        np.testing.assert_array_equal(got, load[:kept].astype(np.float32))

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, ">i4", np.float16, np.float64])
    def test_availability_of_any_kind_of_number(self, tmp_path, dtype):
        trace = read_trace(saved(tmp_path, available=GOOD["available"].astype(dtype)), *RUN)
        np.testing.assert_array_equal(trace.available, GOOD["available"])

    @pytest.mark.parametrize("dtype", [np.int8, ">f8", np.float16, np.uint32])
    def test_load_of_any_kind_of_number(self, tmp_path, dtype):
        load = np.arange(R * E).reshape(R, E).astype(dtype)
        trace = read_trace(saved(tmp_path, edge_load=load), *RUN)
        np.testing.assert_array_equal(trace.edge_load, np.arange(R * E).reshape(R, E))

    def test_columns_first(self, tmp_path):
        path = zipped(tmp_path, npy(np.asfortranarray(GOOD["available"])))
        np.testing.assert_array_equal(read_trace(path, *RUN).available, GOOD["available"])

    def test_a_header_of_python_2_without_a_warning(self, tmp_path):
        path = zipped(tmp_path, header(f"({R}L, {N}L)") + bytes(R * N))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not read_trace(path, *RUN).available.any()

    def test_bounds_are_included(self, tmp_path):
        shadow, load = np.full((R, N), -100.0), np.full((R, E), 10.0)
        shadow[0], load[0] = 100.0, -10.0
        trace = read_trace(saved(tmp_path, shadow_db=shadow, edge_load=load), *RUN)
        np.testing.assert_array_equal(trace.shadow_db[..., 0], shadow)
        np.testing.assert_array_equal(trace.edge_load, load)

    @pytest.mark.parametrize(
        "text",
        [
            "1,0\n0,0\n1,1\n",
            "1,0\r\n0,0\r\n1,1",
            "\ufeff1, 0\n\n0 ,0\n1,1\n\n",
            "1,0\n0,0\n1,1\n0,0",
        ],
    )
    def test_csv(self, tmp_path, text):
        trace = read_trace(written(tmp_path, text), 3, 2, E)
        np.testing.assert_array_equal(trace.available[:3], [[1, 0], [0, 0], [1, 1]])
        assert not trace.available[3:].any()
        assert trace.available.dtype == bool
        assert not trace.shadow_db.any()
        assert not trace.edge_load.any()

    def test_csv_in_capitals(self, tmp_path):
        path = written(tmp_path, "1\n", "TRACE.CSV")
        assert read_trace(path, 1, 1, 1).available.tolist() == [[True]]

    @pytest.mark.parametrize(("num_clients", "num_edges"), [(1, 1), (7, 4)])
    @pytest.mark.parametrize("dynamic", ["markov", "static"])
    def test_what_was_recorded_bit_for_bit(self, tmp_path, num_clients, num_edges, dynamic):
        network = Network(*[None] * 11)._replace(up_snr=np.ones((num_clients, num_edges + 1)))
        trace = record(jax.random.key(0), network, NetworkSpec(dynamics=dynamic), 5)
        again = read_trace(saved(tmp_path, **to_arrays(trace)), 5, num_clients, num_edges)
        for rows, read in zip(trace, again, strict=True):
            np.testing.assert_array_equal(rows, read, strict=True)


class TestRefuses:
    @pytest.mark.parametrize("name", ["absent.npz", "absent.csv", ".", "x" * 300, "a\0b", "a\nb"])
    def test_what_is_no_file(self, tmp_path, name):
        refused = r"^network\.trace=.*(no such file|is a folder|cannot be read)"
        with pytest.raises(ValueError, match=refused) as caught:
            read_trace(f"{tmp_path}/{name}", *RUN)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("path", [None, ""])
    def test_no_name(self, path):
        assert "no such file; record one with run.save_trace=True" in refusal(path)

    @pytest.mark.parametrize("data", [b"", b"1,0,1,1\n", npy(GOOD["available"]), b"PK\x03\x04"])
    def test_what_is_not_an_npz_file(self, tmp_path, data):
        line = refusal(written(tmp_path, data, "trace.npz"))
        assert line.startswith("is not a whole npz file")
        assert "numpy.savez_compressed" in line

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("avialable", "did you mean available? "),
            ("shadow", "did you mean shadow_db? "),
            ("zzz", ""),
            ("a\nb", ""),
        ],
    )
    def test_unknown_arrays(self, tmp_path, name, hint):
        line = refusal(zipped(tmp_path, npy(np.ones(1)), f"{name}.npy"))
        assert line == f"array {name!r} is unknown; {hint}known: shadow_db, edge_load, available"

    def test_a_name_in_no_alphabet(self, tmp_path):
        path = zipped(tmp_path, b"", "\u00e9.npy")
        path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
        assert refusal(path).startswith("is not a whole npz file: 'utf-8' codec can't decode")

    def test_no_arrays(self, tmp_path):
        line = refusal(saved(tmp_path))
        assert line == "has no arrays; save at least one of shadow_db, edge_load, available"

    @pytest.mark.parametrize(
        ("name", "shape", "said"),
        [
            ("available", (R,), "available has 1 axes, and needs to be [round, client]; "),
            ("available", (R, N, 1), "available has 3 axes, and needs to be [round, client]; "),
            ("edge_load", (), "edge_load has 0 axes, and needs to be [round, edge node]; "),
            ("edge_load", (R, E, E), "edge_load has 3 axes, and needs "),
            ("shadow_db", (R,), "shadow_db has 1 axes, and needs to be [round, client] or [round,"),
            ("shadow_db", (R, N, E, 1), "shadow_db has 4 axes, and needs "),
            ("available", (R, 80), "available has 80 clients, and the run has 4; "),
            ("shadow_db", (R, 80), "shadow_db has 80 clients, and the run has 4; "),
            ("shadow_db", (R, 1, E + 1), "shadow_db has 1 clients, and the run has 4; "),
            ("shadow_db", (R, N, E), "shadow_db has 2 links a client, and the run has 3; "),
            ("edge_load", (R, E + 1), "edge_load has 3 edge nodes, and the run has 2; "),
            ("edge_load", (R, 0), "edge_load has 0 edge nodes, and the run has 2; "),
        ],
    )
    def test_shapes(self, tmp_path, name, shape, said):
        assert refusal(saved(tmp_path, **{name: np.zeros(shape)})).startswith(said)

    @pytest.mark.parametrize("name", GOOD)
    @pytest.mark.parametrize("rows", [0, 1, R - 1])
    def test_too_few_rounds_in_any_array(self, tmp_path, name, rows):
        line = refusal(saved(tmp_path, **{**GOOD, name: GOOD[name][:rows]}))
        assert line == (
            f"{name} has {rows} rounds, and train.rounds=3; record a longer one or "
            "lower train.rounds"
        )

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 100.1, -100.1])
    @pytest.mark.parametrize("where", [(0, 0, 0), (R - 1, N - 1, E)])
    def test_shadows_that_are_no_shadows(self, tmp_path, value, where):
        shadow = GOOD["shadow_db"].copy()
        shadow[where] = value
        line = refusal(saved(tmp_path, shadow_db=shadow))
        assert line == (
            f"shadow_db{list(where)} is {value}, and needs to be a number from -100 to "
            "100; correct the file"
        )

    @pytest.mark.parametrize("value", [np.nan, np.inf, 10.1, -10.1, np.iinfo(np.int64).min])
    def test_loads_that_are_no_loads(self, tmp_path, value):
        load = np.zeros((R, E), np.int64 if isinstance(value, int) else float)
        load[1, 1] = value
        line = refusal(saved(tmp_path, edge_load=load))
        assert line.startswith(f"edge_load[1, 1] is {value}, and needs to be a number from -10 to ")

    @pytest.mark.parametrize("value", [2, -1, 0.5, np.nan])
    def test_availability_other_than_0_and_1(self, tmp_path, value):
        available = np.ones((R, N), type(value))
        available[2, 3] = value
        line = refusal(saved(tmp_path, available=available))
        assert line == f"available[2, 3] is {value}, and needs to be 0 or 1; correct the file"

    def test_booleans_that_are_neither(self, tmp_path):
        path = zipped(tmp_path, header((R, N)) + bytes([1] * 11 + [7]))
        assert refusal(path).startswith("available[2, 3] is 7, and needs to be 0 or 1")

    @pytest.mark.parametrize("dtype", [complex, "U1", "S1", "S0", "M8[s]", [("a", "f4")]])
    @pytest.mark.parametrize("name", GOOD)
    def test_what_are_no_numbers(self, tmp_path, name, dtype):
        line = refusal(saved(tmp_path, **{name: np.zeros((R, N), dtype)}))
        assert line.startswith(f"{name} has values of type ")

    def test_booleans_where_numbers_belong(self, tmp_path):
        line = refusal(saved(tmp_path, edge_load=np.zeros((R, E), bool)))
        assert line == "edge_load has values of type 'bool', and needs numbers; save it as such"

    def test_objects_are_never_unpickled(self, tmp_path):
        path = saved(tmp_path, available=np.array([[Loud()] * N] * R))
        assert refusal(path).startswith("available has values of type 'object', and needs booleans")

    def test_nothing_is_unpacked_of_an_array_that_does_not_fit(self, tmp_path, monkeypatch):
        path = saved(tmp_path, available=np.ones((R, N + 1), bool))
        monkeypatch.setattr(np.lib.format, "read_array", pytest.fail)
        assert refusal(path).startswith(f"available has {N + 1} clients, and the run has {N}")

    def test_a_file_that_unpacks_to_too_much(self, tmp_path, monkeypatch):
        monkeypatch.setattr(trace_file, "MAX_BYTES", 2**20)
        path = zipped(tmp_path, bytes(2**22), compression=zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 2**16
        assert refusal(path) == (
            "would take 4194304 bytes, and a trace may take 1048576; record one of fewer rounds"
        )
        assert "would take 4194304" not in refusal(path, (400, 200, 10))  # such a run needs more

    @pytest.mark.parametrize("name", ["trace.npz", "trace.csv"])
    def test_a_file_that_is_too_much(self, tmp_path, monkeypatch, name):
        monkeypatch.setattr(trace_file, "MAX_BYTES", 2**20)
        monkeypatch.setattr(trace_file, "MAX_CSV_BYTES", 2**20)
        line = refusal(written(tmp_path, bytes(2**20 + 1), name))
        assert line == "has 1048577 bytes, and 1048576 is the most; name a smaller one"

    @pytest.mark.parametrize("shape", [(2**40, N), (R + 1, N), (2**40, 2**20), (-R, -N), (-1, N)])
    def test_a_header_that_promises_what_there_is_not(self, tmp_path, shape):
        path = zipped(tmp_path, header(shape) + bytes(R * N))
        assert refusal(path).startswith(("is not a whole npz file: ", "available has "))

    def test_an_array_that_is_there_twice(self, tmp_path):
        path = tmp_path / "trace.npz"
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.simplefilter("ignore")
            for _ in range(2):
                archive.writestr("available.npy", npy(GOOD["available"]))
        assert refusal(path) == "has an array twice; save it once"

    @pytest.mark.parametrize("name", ["pipe.npz", "pipe.csv"])
    def test_a_pipe_that_would_never_end(self, tmp_path, name):
        os.mkfifo(tmp_path / name)
        assert refusal(tmp_path / name) == "is a pipe or a device; name a regular file"

    def test_a_directory_that_understates_a_member(self, tmp_path):
        """It would unpack to 16 MB where the directory of the file says 20 kB."""
        data = header((5000, N)) + bytes(5000 * N)
        path = zipped(tmp_path, data + bytes(2**24), compression=zipfile.ZIP_DEFLATED)
        true, false = (struct.pack("<I", size) for size in (len(data) + 2**24, len(data)))
        assert path.read_bytes().count(true) == 2
        path.write_bytes(path.read_bytes().replace(true, false))
        tracemalloc.start()
        assert refusal(path).startswith("is not a whole npz file: Bad CRC-32")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 2**22

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x93NUMPY",
            header("(3, 4"),
            header("[[[["),
            header((R, 4), "'nonsense'"),
            header("(3L, 4L)") + bytes(5),
            header("(" * 3000),
        ],
    )
    def test_a_broken_header(self, tmp_path, data):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert refusal(zipped(tmp_path, data)).startswith("is not a whole npz file: ")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "available has 0 rounds, and train.rounds=3; "),
            ("1,0,1,1\n" * 2, "available has 2 rounds, and train.rounds=3; "),
            ("1,0,1,1\n1,0,1\n", "available has 3 clients in line 2, and 4 in the first; "),
            ("1,0,1,1,\n", "available is '' in line 1, column 5; write 1 for available, "),
            ("\n1;0;1;1\n", "available is '1;0;1;1' in line 2, column 1; "),
            ("1,0,1\n" * 3, "available has 3 clients, and the run has 4; "),
            ("1,0,1,1\n1,0,,1\n", "available is '' in line 2, column 3; write 1 for available, "),
            ("a,b,c,d\n", "available is 'a' in line 1, column 1; write 1 for available, 0 for "),
            ("1,0,1,1.0\n", "available is '1.0' in line 1, column 4; "),
            (b"\xff\xfe1,0", "is not UTF-8 text at byte 0; save it as such"),
        ],
    )
    def test_csv(self, tmp_path, text, said):
        assert refusal(written(tmp_path, text)).startswith(said)


class Loud:
    """Unpickling it would fail the test."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


class TestBelievesNothing:
    """CorruptCheckpoint files are refused in one line, or what is left of them is a valid trace."""

    def check(self, path, run=RUN):
        trace, said = None, ""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                trace = read_trace(path, *run)
            except ValueError as error:
                said = str(error)
        if trace is None:
            assert said.startswith(f"network.trace={path}: ")
            assert said.isprintable()
            return
        rounds, num_clients, num_edges = run
        assert trace.shadow_db.shape[1:] in ((1, 1), (num_clients, 1), (num_clients, num_edges + 1))
        assert trace.edge_load.shape[1:] in ((1,), (num_edges,))
        assert trace.available.shape[1:] in ((1,), (num_clients,))
        assert all(len(rows) in (1, rounds, rounds + 1) for rows in trace)
        assert (np.abs(trace.shadow_db) <= 100).all()
        assert (np.abs(trace.edge_load) <= 10).all()
        assert (trace.available.view(np.uint8) <= 1).all()

    @drawn
    @given(st.binary(max_size=200), st.sampled_from(["t.npz", "t.csv"]))
    def test_any_bytes(self, tmp_path, data, name):
        self.check(written(tmp_path, data, name))

    @drawn
    @given(st.text("01, \n\r\x0b\u2028", max_size=40), st.integers(1, 2), st.integers(1, 2))
    def test_any_csv(self, tmp_path, text, rounds, num_clients):
        self.check(written(tmp_path, text), (rounds, num_clients, 1))

    @drawn
    @given(st.data(), st.booleans())
    def test_a_damaged_file(self, tmp_path, data, packed):
        stream = io.BytesIO()
        (np.savez_compressed if packed else np.savez)(stream, **GOOD)
        content = bytearray(stream.getvalue())
        for _ in range(data.draw(st.integers(0, 4))):
            bit = data.draw(st.integers(0, 8 * len(content) - 1))
            content[bit // 8] ^= 1 << bit % 8
        whole = data.draw(st.booleans())
        end = len(content) if whole else data.draw(st.integers(0, len(content)))
        self.check(written(tmp_path, bytes(content[:end]), "t.npz"))

    @drawn
    @given(st.data())
    def test_a_damaged_array_in_a_whole_file(self, tmp_path, data):
        """Its checksum is right, so that the array's own header is what is looked at."""
        name = data.draw(st.sampled_from(sorted(GOOD)))
        content = bytearray(npy(GOOD[name]))
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
        self.check(zipped(tmp_path, bytes(content), f"{name}.npy"))
