"""One evaluation as a record: a flat dict of the metric keys, and its line of JSON."""

import io
import math
from collections.abc import Mapping
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
MOST_BYTES = 2**28  # of a file of metrics
MOST_VALUE = 1e100  # of one in it
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
    """The same dicts and lists with null for each number that is not finite."""
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(file: str | Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`, [] where there is none.

    A last line without its line end was cut off with its run, and is left out.

    Returns:
      Of each, int, finite float or None by key, with a whole number `round`.
    Raises:
      ValueError: one line, the file, and which of its lines is no such record.
    """
    try:
        content = read_bytes(file, MOST_BYTES)
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
        if value is not None and (type(value) not in (int, float) or not abs(value) <= MOST_VALUE):
            raise ValueError(f"has {show(key)}: {show(value)}; it must be a finite number or null")
    return record
