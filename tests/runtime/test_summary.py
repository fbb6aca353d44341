"""The summary says what the records say."""

import math
import platform

import jax
import numpy as np
import pytest

from cefl_jax.runtime.summary import METRIC_KEYS, rounds_per_second, summarize
from tests.runtime.examples import make_record, without

FACTS = {"wall_s": 20.0, "compile_s": 5.0, "device_kind": "cpu", "device_count": 2}


def test_last_and_totals_share_the_last_record():
    last = make_record(20)
    summary = summarize([make_record(10), last], **FACTS)
    assert summary["rounds"] == 20
    assert summary["last"] | summary["totals"] == last
    assert set(summary["last"]) & set(summary["totals"]) == set()
    assert set(summary["totals"]) == {
        key for key in METRIC_KEYS if key.startswith(("sim/", "comm/"))
    }


def test_best_is_the_first_highest_finite_accuracy_of_each_model():
    accuracy = [0.25, 0.75, math.nan, 0.75, None, 0.5]
    cloud = [0.5, 0.25, 0.25, 0.25, math.inf, 0.625]
    records = [
        make_record(10 + i, **{"test/accuracy": a, "test/cloud_accuracy": c})
        for i, (a, c) in enumerate(zip(accuracy, cloud, strict=True))
    ]
    assert summarize(records, **FACTS)["best"] == {
        "test/accuracy": {"value": 0.75, "round": 11},
        "test/cloud_accuracy": {"value": 0.625, "round": 15},
    }


def test_what_a_method_does_not_have_is_absent():
    records = [without(make_record(10), "test/cloud", "sim/", "wall/")]
    summary = summarize(records, **FACTS)
    assert list(summary["best"]) == ["test/accuracy"]
    assert all(key.startswith("comm/") for key in summary["totals"])
    assert "rounds_per_s" not in summary
    assert "partition_sha256" not in summary
    assert summarize([], **FACTS)["rounds"] == 0


def test_facts_and_versions_are_told():
    summary = summarize([make_record(1)], **FACTS, partition_sha256="ab12", host_count=3)
    assert (summary["wall_s"], summary["compile_s"]) == (20.0, 5.0)
    assert summary["device"] == {"kind": "cpu", "count": 2}
    assert (summary["partition_sha256"], summary["host_count"]) == ("ab12", 3)
    versions = summary["versions"]
    assert versions["python"] == platform.python_version()
    assert versions["jax"] == jax.__version__
    assert versions["numpy"] == np.__version__
    assert {"jaxlib", "flax", "optax"} <= set(versions)


def test_speed_weights_each_evaluation_by_its_rounds():
    # 10 rounds of 100 ms and 30 of 20 ms are 40 rounds in 1.6 s; the untimed 5 do not count.
    records = [
        make_record(10, **{"wall/round_ms": 100.0}),
        without(make_record(15), "wall/"),
        make_record(45, **{"wall/round_ms": 20.0}),
    ]
    assert rounds_per_second(records) == pytest.approx(40 / 1.6)
    assert rounds_per_second([]) is None
