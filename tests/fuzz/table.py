"""The readers by name, with valid inputs to start from and the tokens of their languages."""

import dataclasses
import functools
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from typing import NamedTuple

import duckdb
import numpy as np
import yaml

from cefl_jax.methods import default_spec
from cefl_jax.reports import metrics
from tests.data.examples import idx_bytes
from tests.fuzz import readers
from tests.fuzz.mutations import change_json, change_settings
from tests.fuzz.readers import CLIENTS, CONFIG, EDGES, MARK, ROUNDS
from tests.network.sources.test_network_file import LINKS, VALID
from tests.plots.timelines import make_timeline
from tests.runtime.examples import make_records


class Reader(NamedTuple):
    """One reader."""

    read: Callable  # (input, folder): whether it was taken; raises what a reader must not
    seeds: list  # valid inputs, or almost
    tokens: list  # of the inputs' language
    share: float = 1.0  # of all inputs, for slow ones less
    change: Callable | None = None  # (input, random.Random): another, or None


def fields(group, prefix=""):
    """Dotted paths of all fields of a group of settings."""
    for item in dataclasses.fields(group):
        inner = dataclasses.is_dataclass(item.default)
        yield from fields(item.default, f"{prefix}{item.name}.") if inner else [prefix + item.name]


def npy(array):
    """An array as an npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def traces():
    """Arrays of a trace."""
    rng = np.random.default_rng(0)
    return {
        "shadow_db": rng.normal(0, 8, (ROUNDS + 1, CLIENTS, EDGES + 1)).astype(np.float32),
        "edge_load": rng.normal(0.3, 0.2, (ROUNDS + 1, EDGES)),
        "available": rng.random((ROUNDS + 1, CLIENTS)) < 0.5,
    }


def npz_seeds():
    """Whole files, and arrays to be packed, all and one by one."""
    whole, packed = [], []
    arrays = traces()
    for chosen in (arrays, *({name: array} for name, array in arrays.items())):
        for save in (np.savez, np.savez_compressed):
            stream = io.BytesIO()
            save(stream, **chosen)
            whole.append(b"\0" + stream.getvalue())
        parts = [
            part for name, array in chosen.items() for part in (f"{name}.npy".encode(), npy(array))
        ]
        packed += [kind + MARK.join(parts) for kind in (b"\1", b"\2")]
    return packed + whole


def metrics_text(num=3):
    """Lines of metrics."""
    lines = [{**record, "test/loss": None} for record in make_records(num)]
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def words(*texts):
    """Tokens of texts."""
    return [text.encode() for text in texts]


def as_texts(*writers):
    """Networks as texts."""
    small = {
        "clients": [{"device": "phone", "position_km": [0.1, 0.2], "count": 3}],
        "edges": [{"device": "edge_server", "position_km": [0, 0], "backhaul_bps": 1e9}] * 2,
        "front": VALID["front"],
        "cloud": VALID["cloud"],
    }
    networks = [VALID, VALID | {"noise_w_per_hz": 4e-21}, VALID | {"links": LINKS}, small]
    return [write(network).encode() for network in networks for write in writers]


def digest(data):
    """SHA-256 of bytes as text."""
    return hashlib.sha256(data).hexdigest().encode()


OVERRIDES = words(
    "train.rounds=7",
    "data.normalization.std=(0.5, 0.4)\nseed=1",
    "run.deterministic=false",
    "train.local_steps=None\ntrain.local_epochs=2",
    "data.path=a=b.c",
    "method.name=fedavg\ntrain.optimizer.learning_rate=1e-3",
    "network.dynamics=markov\nnetwork.deadline_s=0.5\nnetwork.late=keep",
)
PATHS = words(*fields(default_spec()))
VALUES = words(
    "=",
    "None",
    "True",
    "false",
    "1",
    "0",
    "-1",
    "0.5",
    "(0.5, 0.4)",
    "1e999",
    "nan",
    "9" * 400,
    "9" * 4400,
    "1_0",
    "\u0661",
    "file",
    "trace",
    "markov",
    "\x00",
)
OLD_CONFIG = json.dumps(
    {"seed": 1, "method": {"name": "fedavg"}, "data": {"name": "digits"}, "model": {"name": "mlp"}}
).encode()
PARTITIONS = words("[[0,1],[2]]", " [[4, 2],\n [7]] ", "[[9]]", '{"0":[0,1],"7":[9]}')
TABLES = words("1,0,1,1\n0,0,0,0\n1,1,1,1\n", "1, 0,1 ,1\r\n0,0,0,0\r\n\n1,1,1,1\r\n0,0,0,1")
ARRAY = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
IMAGES = [
    b"\0" + ARRAY,
    b"\1" + ARRAY,
    b"\0" + gzip.compress(ARRAY),
    b"\0" + gzip.compress(ARRAY[:20]) + gzip.compress(ARRAY[20:]),
]
HEADERS = [
    b"\x00\x00\x08\x03",
    b"\x00\x00\x08\x01",
    b"\x1f\x8b\x08\x00",
    bytes(4),
    b"\xff\xff\xff\xff",
    b"\x10\x00\x00\x00",
    b"\x00\x00\x00\x01",
]
TIMELINES = [
    json.dumps(one).encode()
    for one in (
        make_timeline(3, 2, 1),
        make_timeline(2, 1, 1, in_cloud=(0,), dropped=(1,), deadline_s=6.5),
    )
]
STATUS = json.dumps({"state": "finished", "round": 30, "error": None}).encode()
SEALED = json.dumps({"facts": {"score": 0.5}, "files": {"leaf": digest(b"1").decode()}}).encode()
SEALS = [SEALED + b"\n" + digest(SEALED) + b"\n"]
JSON = words(
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "null",
    "true",
    "false",
    "NaN",
    "Infinity",
    "-1",
    "1e999",
    "1e-9",
    "9" * 400,
    "9" * 4400,
    "\\u0000",
    "\\ud800",
    "\\n",
    "[" * 60,
    '{"a":' * 60,
    "18446744073709551616",
    "0.5",
    "1.0",
    "\ufeff",
)
YAML = words(
    "&a",
    "*a",
    "<<:",
    "- ",
    ": ",
    "? ",
    "!!int ",
    "!!float ",
    "!!python/name:os.system",
    "!!binary ",
    "!!set ",
    "!!timestamp ",
    "1:30:30",
    ".inf",
    ".nan",
    "0xff",
    "1e9",
    "|\n",
    ">-\n",
    "# ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "\t",
    "'",
    "~",
    "on",
    "2020-01-01",
)
NETWORK_WORDS = words(
    *VALID,
    "links",
    "up_bps",
    "down_bps",
    "noise_w_per_hz",
    "count",
    "device",
    "position_km",
    "backhaul_bps",
    "phone",
    *VALID["devices"]["camera"],
)
NPZ = [
    *words(
        *traces(),
        ".npy",
        "descr",
        "fortran_order",
        "shape",
        "'<f8'",
        "'|b1'",
        "'|O'",
        "(4, 4)",
        "(3L, 4L)",
        "[[[[",
        "True",
        "-1",
        "9" * 30,
    ),
    b"\x93NUMPY",
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x06\x07",
]


def make_readers():
    """{name: Reader}."""
    by_lines = functools.partial(change_json, mark=b"\n")
    by_parts = functools.partial(change_json, mark=MARK)
    return {
        "overrides": Reader(
            readers.read_overrides,
            OVERRIDES,
            [*VALUES, *PATHS],
            0.5,
            change_settings(PATHS, VALUES),
        ),
        "config_json": Reader(
            readers.read_config_json, [CONFIG, OLD_CONFIG], [*JSON, *PATHS], 0.5, change_json
        ),
        "partition": Reader(readers.read_partition, PARTITIONS, JSON, 1.0, change_json),
        "network_json": Reader(
            readers.read_network("json"),
            as_texts(json.dumps),
            [*JSON, *NETWORK_WORDS],
            1.0,
            change_json,
        ),
        "network_yaml": Reader(
            readers.read_network("yaml"),
            as_texts(yaml.safe_dump, json.dumps),
            [*YAML, *NETWORK_WORDS],
            0.4,
            change_json,
        ),
        "trace_npz": Reader(readers.read_trace_npz, npz_seeds(), [*NPZ, MARK]),
        "trace_csv": Reader(
            readers.read_trace_csv,
            TABLES,
            words("1,", "0,", "1,0,1,1\n", "\r", "\n", "\x0b", "\u2028", "\ufeff", "\x00"),
        ),
        "idx": Reader(readers.read_idx, IMAGES, HEADERS),
        "records": Reader(
            readers.read_records, [metrics_text(), b""], [*JSON, b"\n", b'"round"'], 1.0, by_lines
        ),
        "metrics": Reader(
            readers.read_metrics,
            [metrics_text(1), metrics_text(2)],
            [*JSON, b"\n", b'"round"', b'{"round":1}\n'],
            0.1,
            by_lines,
        ),
        "timeline": Reader(
            readers.read_timeline,
            TIMELINES,
            [*JSON, *words("compute", "send", "bars", "node", "clients", "position_km")],
            0.5,
            change_json,
        ),
        "status": Reader(
            readers.read_status,
            [STATUS, STATUS.replace(b"finished", b"failed")],
            [*JSON, *words("running", "preempted", "finished", "state", "round", "error")],
            0.4,
            change_json,
        ),
        "run_folder": Reader(
            readers.read_run_folder, [STATUS + MARK + CONFIG], [*JSON, MARK, *PATHS], 0.2, by_parts
        ),
        "seal": Reader(
            readers.read_seal,
            SEALS,
            [*JSON, *words("facts", "files", "leaf")],
            0.2,
        ),
    }


def make_ready(name):
    """Lets a reader be quick: databases of one process, and metrics that are read once."""
    if name == "metrics":
        database = duckdb.connect()
        duckdb.connect = database.cursor
    elif name in ("status", "run_folder"):
        values = {
            key: np.array([record[key] for record in make_records(3)], float)
            for key in make_records(3)[0]
        }
        metrics.read_metrics = lambda files: (
            {file: metrics.Metrics(values, {}) for file in files},
            {},
        )
