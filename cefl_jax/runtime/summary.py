"""What one run came to, from its records: the content of `summary.json`."""

import contextlib
import importlib.metadata
import math
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from cefl_jax.runtime.records import CUMULATIVE_KEYS

ACCURACY_KEYS = ("test/accuracy", "test/cloud_accuracy")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint", "cefl_jax")


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
    """What `summary.json` holds.

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


ROOT = pathlib.Path(__file__).parents[2]


def read_revision() -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it; None where there is no checkout or no git.

    Returns:
      `commit`, 40 hexadecimal digits, and `dirty`.
    """
    if not (ROOT / ".git").exists():
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    if commit is None or changed is None:
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(*words):
    # Within a hook of git, these name the checkout that the hook is of.
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
    environment = {name: text for name, text in os.environ.items() if name not in elsewhere}
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words],
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
