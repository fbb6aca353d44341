"""What a run computes, seen in its traced program: the settings that are read, and their metrics.

Nothing is compiled. Programs are compared as text, without what none of their results needs.
"""

import functools
import hashlib

import jax
import numpy as np
import pytest
from jax.interpreters import partial_eval

from cefl_jax import build, program, rounds
from cefl_jax.config.fields import find_unread, flatten
from tests import world
from tests.config.test_fields import DEFAULTS, READ_WITH, another, choices_for
from tests.runtime.examples import METHODS, make_record, without

slow = functools.partial(pytest.param, marks=pytest.mark.slow)
SPLIT = ("cefl", "splitfed_v1", "splitfed_v2")
PARTLY = {  # what is refused though the program would change: of these methods
    # Where nobody leaves, who finished all is who made any step: two ways to say the same.
    "network.late": tuple(method for method in METHODS if method != "centralized"),
    # Their schedules could keep one; what the round then costs, nothing says.
    "network.deadline_s": ("hierfavg", "fedgkt"),
    # Arrays of no rows have a dtype.
    "run.archive_dtype": SPLIT,
    # Bytes and leakage would follow, and what is learned would not.
    **dict.fromkeys(
        (
            "cefl.compression.smashed",
            "cefl.compression.gradient",
            "cefl.compression.topk_share",
            "cefl.privacy.noise_std",
        ),
        ("sequential_split",),
    ),
}
OF_METHODS = {method: {"method.name": method} for method in METHODS} | {  # as each is traced
    "cefl": {
        "cefl.clustering.rule": "astraea",
        "cefl.distill.rule": "edge_to_cloud",
        "cefl.distill.temperature_cloud": 1.5,
    },
    "centralized": {"method.name": "centralized", "train.optimizer.name": "adam"},
    "fedavg": {"method.name": "fedavg", "network.dynamics": "markov"},
    "fedopt": {"method.name": "fedopt", "fedopt.optimizer": "sgd"},
}
ALONE = {"cefl.clustering.rule": "single", "cefl.distill.rule": "none"}
MORE = [
    *(
        case
        for method, case in OF_METHODS.items()
        if method not in ("cefl", "fedavg", "splitfed_v2", "fedgkt")
    ),
    {"cefl.clustering.rule": "patent", "cefl.distill.rule": "cloud_to_edge"},
    {"cefl.distill.rule": "hard_labels", "cefl.compression.gradient": "int8"},
    {"cefl.clustering.rule": "random"},
    {"cefl.clustering.rule": "singleton", "cefl.offload.edge_capacity": 2},
    {"cefl.distill.cloud_hard_labels": False, "cefl.compression.smashed": "topk"},
    *({"method.name": "fedopt", "fedopt.optimizer": rule} for rule in ("adam", "yogi", "adagrad")),
]
NOT_IN_THE_PROGRAM = {
    "data.path",
    "data.partition.path",
    "network.path",
    "network.trace",
    "model.cloud",
}
"""Fields that are files, or have one value."""

FITTING = {
    "cefl.clustering.num_clusters": 2,
    "cefl.clustering.max_size": 4,
    "run.client_chunk": 3,
    "cefl.privacy.probe_size": 9,
}
"""Values, where the small federation needs another than any."""


@functools.cache
def trace(spec):
    """The traced `advance` of a run on the small federation, what is fixed in it, and its Setup."""
    setup = build.build(spec, world.make_dataset(), world.make_parts())
    start, advance = program.make_program(setup)
    # As constants, so that they are in the text where they are used.
    hparams = jax.tree.map(np.float32, program.make_hparams(spec))
    arrays = setup.data, setup.network
    started = jax.jit(start).trace(jax.random.key(0), *arrays)
    state = jax.tree.unflatten(jax.tree.structure(started.out_info), started.jaxpr.out_avals)
    traced = jax.jit(lambda state, data, network: advance(state, hparams, data, network))
    return traced.trace(state, *arrays), setup


def essence(spec):
    """What two runs have in common that compute the same: text of the program, and arrays."""
    traced, setup = trace(spec)
    jaxpr = traced.jaxpr.jaxpr
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    # With a number of clients that the small data set has the examples for.
    few = spec.replace({"data.partition.num_clients": 8})
    parts = build.make_partition(few, setup.data.labels)
    arrays = *traced.jaxpr.consts, *jax.tree.leaves((setup.data, setup.network)), *parts
    digest = hashlib.sha256(str(needed).encode())
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()


def make_spec(case):
    """The small Spec of a case, in which what nothing reads is at its default."""
    spec = world.make_spec(case)
    for path in find_unread(flatten(spec)):
        spec = spec.replace({path: DEFAULTS[path]})
    return spec


@pytest.mark.parametrize(
    "case",
    [
        ALONE,
        *(OF_METHODS[method] for method in ("cefl", "fedavg", "splitfed_v2", "fedgkt")),
        *(slow(case) for case in MORE),
    ],
    ids=str,
)
def test_settings_refused_as_not_read_change_no_program(case):
    spec = other = make_spec(case)
    unread = [
        path for path in find_unread(flatten(spec)) if spec.method.name not in PARTLY.get(path, ())
    ]
    for path in unread:
        other = other.replace({path: another(path)})
    assert len(unread) > 20
    assert essence(other) == essence(spec)


@pytest.mark.parametrize(
    "path",
    [
        "fedprox.mu",
        *(
            slow(path)
            for path, clauses in READ_WITH.items()
            if clauses and path not in {"fedprox.mu", *NOT_IN_THE_PROGRAM}
        ),
    ],
)
def test_settings_that_are_read_change_the_program(path):
    spec = make_spec({"data.partition.min_size": 10, "train.local_steps": 9} | choices_for(path))
    assert path not in find_unread(flatten(spec))
    other = spec.replace({path: FITTING.get(path, another(path))})
    assert essence(other) != essence(spec)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        *(("clustering.target", rule) for rule in ("random", "single", "singleton")),
        *(("offload.objective", rule) for rule in ("random", "nearest")),
        *(("offload.time_weight", rule) for rule in ("random", "nearest")),
    ],
)
@pytest.mark.slow
def test_settings_that_a_rule_ignores_are_read_by_a_metric(path, rule):
    path, of_rule = f"cefl.{path}", f"cefl.{path.split('.')[0]}.rule"
    spec = make_spec({of_rule: rule, "cefl.offload.edge_capacity": 2})
    assert essence(spec.replace({path: another(path)})) != essence(spec)


@pytest.mark.parametrize("method", METHODS)
def test_made_up_records_have_the_keys_of_real_ones(method):
    assert list(record_of(OF_METHODS[method])) == list(make_record(5, method))


def test_settings_take_keys_from_a_record_and_add_some():
    assert list(record_of(ALONE)) == list(without(make_record(5), "test/cloud_"))
    changes = {
        "method.name": "splitfed_v1",
        "cefl.privacy.probe_size": 0,
        "run.on_nonfinite": "skip_client",
    }
    record = without(make_record(5, "splitfed_v1", **{"clients/skipped": 1}), "privacy/")
    assert list(record_of(changes)) == list(record)


@pytest.mark.parametrize(
    ("losses", "mean"), [([np.nan, 2], 2), ([3, 2], 2.5), ([np.nan, np.nan], np.nan)]
)
def test_make_record_averages_the_losses_of_rounds_with_clients(losses, mean):
    """Two rounds in one evaluation, of which nobody trained in one, or in both."""
    np.testing.assert_equal(record_of(ALONE, train_loss=np.float32(losses))["train/loss"], mean)


def record_of(case, **metrics):
    """The record of a run whose numbers are 0, but for some of its two rounds' metrics."""
    _, chunk = trace(make_spec(case))[0].out_info
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), chunk)
    chunk = zeros._replace(metrics=zeros.metrics._replace(**metrics))
    return rounds.make_record(chunk, 2, 2, 1.0)
