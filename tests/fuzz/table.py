"""The readers by name, with valid inputs to start from and the tokens of their languages."""

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

from cefl_jax.config.fields import defaults
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


def metrics_text(num):
    """Lines of metrics."""
    lines = [{**record, "test/loss": None} for record in make_records(num)]
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def words(text):
    """Tokens, between spaces."""
    return [word.encode() for word in text.split(" ")]


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


OVERRIDES = [
    b"train.rounds=7",
    b"data.normalization.std=(0.5, 0.4)\nseed=1",
    b"run.deterministic=false",
    b"train.local_steps=None\ntrain.local_epochs=2",
    b"data.path=a=b.c",
    b"method.name=fedavg\ntrain.optimizer.learning_rate=1e-3",
    b"network.dynamics=markov\nnetwork.deadline_s=0.5\nnetwork.late=keep",
]
PATHS = words(" ".join(defaults()))
VALUES = words("= None True false 1 0 -1 0.5 (0.5,0.4) 1e999 nan 1_0 \u0661 file trace markov \0")
VALUES += [b"9" * 400, b"9" * 4400]
OLD = {"method": {"name": "fedavg"}, "data": {"name": "digits"}, "model": {"name": "mlp"}}
CONFIGS = [CONFIG, json.dumps({"seed": 1} | OLD).encode()]
PARTITIONS = [b"[[0,1],[2]]", b" [[4, 2],\n [7]] ", b"[[9]]", b'{"0":[0,1],"7":[9]}']
TABLES = [b"1,0,1,1\n0,0,0,0\n1,1,1,1\n", b"1, 0,1 ,1\r\n0,0,0,0\r\n\n1,1,1,1\r\n0,0,0,1"]
ARRAY = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
PACKED = [ARRAY, gzip.compress(ARRAY), gzip.compress(ARRAY[:20]) + gzip.compress(ARRAY[20:])]
IMAGES = [b"\1" + ARRAY, *(b"\0" + content for content in PACKED)]
HEADERS = [b"\0\0\x08\x03", b"\0\0\x08\x01", b"\x1f\x8b\x08\0", bytes(4), b"\xff" * 4]
HEADERS += [b"\x10\0\0\0", b"\0\0\0\x01"]
CLOUDY = {"in_cloud": (0,), "dropped": (1,), "deadline_s": 6.5}
TIMELINES = [make_timeline(3, 2, 1), make_timeline(2, 1, 1, **CLOUDY)]
STATUS = json.dumps({"state": "finished", "round": 30, "error": None}).encode()
SEALED = json.dumps({"facts": {"score": 0.5}, "files": {"leaf": digest(b"1").decode()}}).encode()
SEAL = SEALED + b"\n" + digest(SEALED) + b"\n"
JSON = words('{ } [ ] , : " null true false NaN Infinity -1 1e999 1e-9 0.5 1.0 \ufeff')
JSON += words(r"\u0000 \ud800 \n 18446744073709551616")
JSON += [b"9" * 400, b"9" * 4400, b"[" * 60, b'{"a":' * 60]
YAML = words("&a *a <<: 1:30:30 .inf .nan 0xff 1e9 \t ' ~ on 2020-01-01")
YAML += [b"- ", b": ", b"? ", b"# ", b"|\n", b">-\n", b"---\n", b"...\n", b"%YAML 1.1\n"]
YAML += [b"!!%s " % tag for tag in words("int float python/name:os.system binary set timestamp")]
NETWORK_WORDS = words("links up_bps down_bps noise_w_per_hz count device position_km backhaul_bps")
NETWORK_WORDS += words(" ".join(["phone", *VALID, *VALID["devices"]["camera"]]))
NPZ = words(" ".join(traces()) + " .npy descr fortran_order shape '<f8' '|b1' '|O' [[[[ True -1")
NPZ += [b"(4, 4)", b"(3L, 4L)", b"9" * 30, b"\x93NUMPY"]
NPZ += [b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", MARK]
CSV = [b"1,", b"0,", b"1,0,1,1\n", b"\r", b"\n", b"\x0b", "\u2028".encode(), b"\xef\xbb\xbf", b"\0"]
LINES = [*JSON, b"\n", b'"round"', b'{"round":1}\n']
BARS = words("compute send bars node clients position_km")
STATES = words("running preempted finished state round error")


def make_readers():
    """{name: Reader}."""
    change, by_lines, by_parts = (
        functools.partial(change_json, mark=mark) for mark in (None, b"\n", MARK)
    )
    set_fields = change_settings(PATHS, VALUES)
    jsons, both = as_texts(json.dumps), as_texts(yaml.safe_dump, json.dumps)
    read_json, read_yaml = map(readers.read_network, ("json", "yaml"))
    timelines = [json.dumps(timeline).encode() for timeline in TIMELINES]
    failed, folders = STATUS.replace(b"finished", b"failed"), [STATUS + MARK + CONFIG]
    one, two, three = map(metrics_text, (1, 2, 3))
    table = {
        "overrides": (readers.read_overrides, OVERRIDES, [*VALUES, *PATHS], 0.5, set_fields),
        "config_json": (readers.read_config_json, CONFIGS, [*JSON, *PATHS], 0.5, change),
        "partition": (readers.read_partition, PARTITIONS, JSON, 1.0, change),
        "network_json": (read_json, jsons, [*JSON, *NETWORK_WORDS], 1.0, change),
        "network_yaml": (read_yaml, both, [*YAML, *NETWORK_WORDS], 0.4, change),
        "trace_npz": (readers.read_trace_npz, npz_seeds(), NPZ),
        "trace_csv": (readers.read_trace_csv, TABLES, CSV),
        "idx": (readers.read_idx, IMAGES, HEADERS),
        "records": (readers.read_records, [three, b""], LINES, 1.0, by_lines),
        "metrics": (readers.read_metrics, [one, two], LINES, 0.1, by_lines),
        "timeline": (readers.read_timeline, timelines, [*JSON, *BARS], 0.5, change),
        "status": (readers.read_status, [STATUS, failed], [*JSON, *STATES], 0.4, change),
        "run_folder": (readers.read_run_folder, folders, [*JSON, MARK, *PATHS], 0.2, by_parts),
        "seal": (readers.read_seal, [SEAL], [*JSON, *words("facts files leaf")], 0.2),
    }
    return {name: Reader(*row) for name, row in table.items()}


def make_ready(name):
    """Lets a reader be quick: databases of one process, and metrics that are read once."""
    if name == "metrics":
        database = duckdb.connect()
        duckdb.connect = database.cursor
    elif name in ("status", "run_folder"):
        records = make_records(3)
        values = {key: np.array([one[key] for one in records], float) for key in records[0]}
        read = metrics.Metrics(values, {})
        metrics.read_metrics = lambda files: (dict.fromkeys(files, read), {})
