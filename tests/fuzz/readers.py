"""What is demanded of each reader: a function of an input and a folder, whether it was taken.

It raises what a reader must not, and Failure for a result that is not what the reader promises.
"""

import contextlib
import gzip
import io
import json
import math
import re
import warnings
import zipfile

import numpy as np

from cefl_jax import config
from cefl_jax.config.fields import SettingError
from cefl_jax.data import idx, partition_file
from cefl_jax.data.dataset import DataError
from cefl_jax.methods import default_spec
from cefl_jax.network.sources import network_file, trace_file
from cefl_jax.plots import timeline
from cefl_jax.reports import formats, groups, metrics, runs, tables
from cefl_jax.runtime import checkpoint, summary
from tests.network.sources.test_network_file import check_network

MARK = b"|||"  # between the parts of an input that is several files
MAX_LINE = 5000  # characters of a refusal
ROUNDS, CLIENTS, EDGES = 3, 4, 2
DEFAULTS = config.default_config()
CONFIG = json.dumps(config.to_dict(default_spec())).encode()


class Failure(Exception):
    """A reader has broken its promise."""


def refuses(call, kind, pattern):
    """The value of a call, or None where it raised its own error.

    Args:
      call: of no arguments.
      kind: the type of the error, exactly: a UnicodeDecodeError is a ValueError too.
      pattern: of the beginning of its line.
    """
    try:
        return call()
    except kind as error:
        line = str(error)
        is_ours = type(error) is kind and re.match(pattern, line)
        if not is_ours or not line.isprintable() or len(line) > MAX_LINE:
            raise
        return None


def demand(holds, promise):
    """Raises Failure unless the promise holds."""
    if not holds:
        raise Failure(promise)


def put(folder, name, content):
    """Writes a file, and is its path."""
    path = folder / name
    path.write_bytes(content)
    return str(path)


# Settings.


def read_overrides(data, folder):
    """Lines of FIELD=TEXT, as on a command line."""
    texts = [line.partition("=")[::2] for line in data.decode(errors="surrogateescape").split("\n")]

    def read():
        chosen = DEFAULTS.copy_and_resolve_references()
        for path, text in texts:
            config.set_field(chosen, path, text)
        return config.to_spec(chosen)

    return check_spec(refuses(read, SettingError, ""))


def read_config_json(data, folder):
    """A config.json."""
    location = put(folder, "config.json", data)
    loaded = refuses(lambda: config.load(location), SettingError, re.escape(f"--config={location}"))
    if loaded is None:
        return False
    return check_spec(refuses(lambda: config.to_spec(loaded), SettingError, ""))


def check_spec(spec):
    """Whether there is a spec, which then survives JSON."""
    if spec is None:
        return False
    again = config.to_spec(json.loads(json.dumps(config.to_dict(spec), allow_nan=False)))
    demand(again == spec, "the settings survive JSON")
    return True


# Files that a run takes.


def read_partition(data, folder):
    """A partition of 10 examples."""
    path = put(folder, "partition.json", data)
    refusal = r"data\.partition\.path: "
    found = refuses(lambda: partition_file.from_file(path, 10), ValueError, refusal)
    if found is None:
        return False
    together = np.concatenate(found)
    demand(all(part.size for part in found), "nobody has no examples")
    demand(len({*together.tolist()} & {*range(10)}) == together.size, "each example is one's own")
    return True


def read_network(suffix):
    """A function that reads a network of 3 clients and 2 edge nodes."""
    refusal = r"network\.path|network\.num_edges|data\.partition\.num_clients"

    def read(data, folder):
        path = put(folder, f"network.{suffix}", data)
        found = refuses(lambda: network_file.read_network(path, 3, 2), ValueError, refusal)
        if found is None:
            return False
        check_network(*found)
        return True

    return read


def read_trace(path):
    """Whether a file is a trace."""
    trace = refuses(
        lambda: trace_file.read_trace(path, ROUNDS, CLIENTS, EDGES), ValueError, r"network\.trace="
    )
    if trace is None:
        return False
    demand(trace.shadow_db.shape[1:] in ((1, 1), (CLIENTS, 1), (CLIENTS, EDGES + 1)), "shadows fit")
    demand(trace.edge_load.shape[1:] in ((1,), (EDGES,)), "loads fit")
    demand(trace.available.shape[1:] in ((1,), (CLIENTS,)), "clients fit")
    demand(all(len(rows) in (1, ROUNDS, ROUNDS + 1) for rows in trace), "rounds fit")
    demand((np.abs(trace.shadow_db) <= 100).all(), "shadows are shadows")
    demand((np.abs(trace.edge_load) <= 10).all(), "loads are loads")
    demand((trace.available.view(np.uint8) <= 1).all(), "one is available or not")
    return True


def read_trace_csv(data, folder):
    """Who is available."""
    return read_trace(put(folder, "trace.csv", data))


def read_trace_npz(data, folder):
    """An npz file: its bytes after a 0, or else its arrays, which are packed here.

    So that there is more to try than whether a checksum holds.
    """
    if data[:1] > b"\0":
        stream = io.BytesIO()
        packing = zipfile.ZIP_DEFLATED if data[0] % 2 else zipfile.ZIP_STORED
        parts = data[1:].split(MARK)
        with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", packing) as archive:
            warnings.simplefilter("ignore")  # of a name that is given twice
            for name, content in zip(parts[::2], parts[1::2], strict=False):
                with contextlib.suppress(ValueError):  # no name for zipfile
                    archive.writestr(zipfile.ZipInfo(name.decode("latin-1")), content)
        data = b"\0" + stream.getvalue()
    return read_trace(put(folder, "trace.npz", data[1:]))


def read_idx(data, folder):
    """Images: a file's bytes after a 0, or those that are packed in it."""
    content = data[1:] if data[:1] <= b"\0" else gzip.compress(data[1:], 1)
    path = put(folder, "images", content)
    images = refuses(lambda: idx.read_idx(path, 3), DataError, r"data\.path: ")
    if images is None:
        return False
    demand(images.dtype == np.uint8 and images.ndim == 3 and images.size, "images are images")
    return True


# Files that a run leaves.


def read_records(data, folder):
    """The metrics of a run, as it reads them itself."""
    path = put(folder, "metrics.jsonl", data)
    found = refuses(lambda: summary.read_metrics(path), ValueError, re.escape(f"{path}: "))
    if found is None:
        return False
    values = [value for record in found for value in record.values() if value is not None]
    demand(all(map(math.isfinite, values)), "every value is finite")
    return True


def read_metrics(data, folder):
    """The metrics of a run, as a report reads them."""
    path = put(folder, "metrics.jsonl", data)
    whole, faults = metrics.read_metrics([path])
    demand({*whole, *faults} == {path} and len(whole) + len(faults) == 1, "a file is whole or not")
    demand(
        all(fault.isprintable() and len(fault) < MAX_LINE for fault in faults.values()),
        "a fault is one line",
    )
    for found in whole.values():
        demand((np.diff(found.values["round"]) > 0).all(), "rounds ascend")
        demand(len({values.shape for values in found.values.values()}) == 1, "metrics are aligned")
    return bool(whole)


def read_timeline(data, folder):
    """The course of a round."""
    path = put(folder, "timeline.json", data)
    found = refuses(lambda: timeline.read_timeline(path), ValueError, re.escape(f"{path}: "))
    return found is not None


def read_run_folder(data, folder):
    """A run's status and config, and all that a report says of them."""
    parts = [*data.split(MARK), b"", b""]
    place = folder / "run"
    place.mkdir(exist_ok=True)
    for name, content in zip(("status.json", "config.json"), parts, strict=False):
        put(place, name, content)
    found, left_out = runs.read_runs([folder])
    demand(len(found) + len(left_out) == 1, "a run is counted or left out")
    for section in groups.by_section(found):
        made = tables.summarize(section, 0.8), tables.clustering_table(section)
        for table in filter(None, made):
            for write in (formats.to_csv, formats.to_markdown, formats.to_latex):
                write(table)
    for run in found:
        groups.command(run.config, "again")
    demand(all(reason == str(reason) for _, _, reason in left_out), "a reason is a text")
    return bool(found)


def read_status(data, folder):
    """A status.json beside a whole config.json."""
    return read_run_folder(data.replace(MARK, b"") + MARK + CONFIG, folder)


def read_seal(data, folder):
    """A seal, which is trusted where its own digest is right."""
    put(folder, "leaf", b"1")
    put(folder, checkpoint.SEAL, data)
    read = (checkpoint.read_facts, checkpoint.verify)
    facts = [
        refuses(lambda call=call: call(folder), checkpoint.CorruptCheckpoint, "") for call in read
    ]
    demand(facts[1] is None or facts[0] == facts[1], "what is verified is read")
    return facts[1] is not None
