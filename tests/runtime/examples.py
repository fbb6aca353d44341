"""What runs leave: files, and records of runs that never were, with the keys of those that were.

`test_effects` checks these keys.
"""

import json

from cefl_jax.config.fields import choices
from cefl_jax.runtime.workdir import LOCK

METHODS = choices()["method.name"]
MORE_KEYS = (
    "clients/sampled",
    "clients/finished",
    "clients/counted",
    "clients/empty_rounds",
    "privacy/distance_correlation",
)
"""Keys of `cefl` after METRIC_KEYS, in their order."""

OF_METHODS = {  # beginning of keys: the methods that have them; others all have
    "test/cloud_": ("cefl",),
    "test/client_": ("fedgkt",),
    "cluster/": ("cefl",),
    "offload/": ("cefl",),
    "clients/": tuple(method for method in METHODS if method != "centralized"),
    "privacy/": ("cefl", "splitfed_v1", "splitfed_v2", "sequential_split"),
}
OPTIONAL = ("test/cloud_", "privacy/")  # beginnings of keys that settings take away


def make_record(round, method="cefl", **changes):
    """One evaluation with every key of a method; values differ and grow with the round."""
    record = {
        "round": round,
        "train/loss": 2.0 / (1.0 + round),
        "test/accuracy": 0.8 * round / (5.0 + round),
        "test/loss": 1.5 / (1.0 + round),
        "test/cloud_accuracy": 0.9 * round / (5.0 + round),
        "test/cloud_loss": 1.4 / (1.0 + round),
        "test/client_accuracy": 0.7 * round / (5.0 + round),
        "test/client_loss": 1.7 / (1.0 + round),
        "cluster/count": 4,
        "cluster/kl_mean": 0.07,
        "cluster/kl_max": 0.15,
        "cluster/size_min": 5,
        "cluster/size_max": 6,
        "offload/cost": 1.25,
        "sim/time_s": 60.0 * round,
        "sim/energy_j": 300.0 * round,
        "comm/client_up_bytes": 3_000_000 * round,
        "comm/client_down_bytes": 2_000_000 * round,
        "comm/edge_cloud_bytes": 90_000 * round,
        "wall/round_ms": 8.0,
        "clients/sampled": 20,
        "clients/finished": 19,
        "clients/counted": 18,
        "clients/empty_rounds": 0,
        "privacy/distance_correlation": 0.6,
    }
    absent = [start for start, methods in OF_METHODS.items() if method not in methods]
    return {**without(record, *absent), **changes}


def without(record, *prefixes):
    """The record less the keys with these beginnings."""
    return {key: value for key, value in record.items() if not key.startswith(prefixes)}


def make_records(num=5, step=10):
    """Evaluations after every `step` rounds."""
    return [make_record(step * (index + 1)) for index in range(num)]


def contents(folder):
    """Bytes of every file under a folder but locks, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def timeless_records(folder):
    """The lines of a run's metrics but for wall-clock times; every line is whole."""
    text = (folder / "metrics.jsonl").read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) | {"wall/round_ms": None} for line in text.splitlines()]
