"""Records of a run, a flat dict of metrics each, and their summary: the content of its files."""

import contextlib
import importlib.metadata
import io
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cefl_jax.safe_read import InputFileError, MissingError, one_line, parse_json, read_bytes, show

CUMULATIVE_KEYS = (
    "sim/time_s",
    "sim/energy_j",
    "comm/client_up_bytes",
    "comm/client_down_bytes",
    "comm/edge_cloud_bytes",
)
MAX_METRICS_BYTES = 2**28  # of a file of metrics
MAX_METRIC = 1e100  # of one in it
METRIC_KEYS = (
    "round",
    "train/loss",
    "test/accuracy",
    "test/loss",
    "test/cloud_accuracy",
    "test/cloud_loss",
    "cluster/count",
    "cluster/kl_mean",
    "cluster/kl_max",
    "cluster/size_min",
    "cluster/size_max",
    "offload/cost",
    *CUMULATIVE_KEYS,
    "wall/round_ms",
)
ACCURACY_KEYS = ("test/accuracy", "test/cloud_accuracy")
ROOT = Path(__file__).parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint", "cefl_jax")


def ordered(record: Mapping[str, Any]) -> dict[str, float]:
    """A record with its keys in the order of `METRIC_KEYS`; further keys follow in their own order.

    Raises:
      ValueError: `round` is missing, or a value is not a Python number.
    """
    if "round" not in record:
        raise ValueError(f"a record of metrics needs 'round'; it has {sorted(record)}")
    for key, value in record.items():
        if not isinstance(value, (int, float)):
            raise ValueError(
                f"metric {key} is a {type(value).__name__}; convert it to a Python number"
            )
    known = [key for key in METRIC_KEYS if key in record]
    return {key: record[key] for key in dict.fromkeys([*known, *record])}


def json_safe(value: Any) -> Any:
    """Returns the same dicts and lists with null for each number that is not finite."""
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(file: str | Path) -> list[dict[str, Any]]:
    """Returns the records of a `metrics.jsonl`, [] where there is none.

    A last line without its line end was cut off with its run, and is left out.

    Returns:
      Of each, int, finite float or None by key, with a whole number `round`.
    Raises:
      ValueError: one line, the file, and which of its lines is no such record.
    """
    try:
        content = read_bytes(file, MAX_METRICS_BYTES)
    except MissingError:
        return []
    except InputFileError as error:
        raise ValueError(one_line(f"{file}: {error}")) from error
    records = []
    for number, line in enumerate(io.BytesIO(content), 1):
        if not line.endswith(b"\n"):
            break
        try:
            records.append(_checked(parse_json(line, finite=True)))
        except ValueError as error:
            raise ValueError(one_line(f"{file}: line {number} {error}")) from error
    return records


def _checked(record):
    if not isinstance(record, dict) or type(record.get("round")) is not int:
        raise ValueError(f"is {show(record)}; it must be an object with its round")
    for key, value in record.items():
        if value is not None and (type(value) not in (int, float) or not abs(value) <= MAX_METRIC):
            raise ValueError(f"has {show(key)}: {show(value)}; it must be a finite number or null")
    return record


def summarize(
    records: Sequence[Mapping[str, Any]],
    *,
    wall_s: float,
    compile_s: float,
    device_kind: str,
    device_count: int,
    partition_sha256: str | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Returns what `summary.json` holds.

    `last` and `totals` share the last record: `totals` are the cumulative values. `best` has the
    highest accuracy of each model and the first round that reached it. What no record has is
    absent, and so is the partition hash of a run without a partition. `revision` is that of the
    checkout which the program is run from, where it is.

    Args:
      records: one an evaluation, in order.
      wall_s: whole run, compilation included, s.
      compile_s: compilation alone, s.
      device_kind, device_count: what the run used.
      partition_sha256: hash of the partition.
      **facts: whatever else the summary should say.
    Returns:
      For `Workdir.write_summary`.
    """
    last = records[-1] if records else {}
    if partition_sha256 is not None:
        facts["partition_sha256"] = partition_sha256
    speed = rounds_per_second(records)
    if speed is not None:
        facts["rounds_per_s"] = speed
    revision = read_revision()
    if revision is not None:
        facts["revision"] = revision
    return {
        "rounds": last.get("round", 0),
        "last": {key: value for key, value in last.items() if key not in CUMULATIVE_KEYS},
        "best": _best(records),
        "totals": {key: last[key] for key in CUMULATIVE_KEYS if key in last},
        "wall_s": wall_s,
        "compile_s": compile_s,
        "device": {"kind": device_kind, "count": device_count},
        "versions": _versions(),
        **facts,
    }


def rounds_per_second(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Speed over all timed rounds from `wall/round_ms`; None when no record has it."""
    rounds, time_ms, previous = 0, 0.0, 0
    for record in records:
        if record.get("wall/round_ms"):
            rounds += record["round"] - previous
            time_ms += (record["round"] - previous) * record["wall/round_ms"]
        previous = record["round"]
    return 1000.0 * rounds / time_ms if time_ms else None


def _best(records):
    best = {}
    for key in ACCURACY_KEYS:
        values = [
            (record[key], record["round"]) for record in records if _is_finite(record.get(key))
        ]
        if values:
            value, round = max(values, key=lambda pair: (pair[0], -pair[1]))
            best[key] = {"value": value, "round": round}
    return best


def _versions():
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        # What is run from a checkout, not installed, has no version: absent, not invented.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _is_finite(value):
    return value is not None and math.isfinite(value)


def read_revision() -> dict[str, Any] | None:
    """Returns the commit, and whether tracked files differ from it; None without checkout or git.

    Returns:
      `commit`, 40 hexadecimal digits, and `dirty`.
    """
    if not (ROOT / ".git").exists():
        return None
    # Within a hook of git, these name the checkout that the hook is of.
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
    environment = {name: text for name, text in os.environ.items() if name not in elsewhere}
    describe = ["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *describe],
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    commit, _, dirty = done.stdout.strip().partition("-")
    return {"commit": commit, "dirty": bool(dirty)}
