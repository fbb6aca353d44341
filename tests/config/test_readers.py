"""What nothing would read is refused, and nothing that something reads."""

import itertools

import pytest

from cefl_jax.config.fields import (
    SettingError,
    all_fields,
    choices,
    defaults,
    find_unread,
    flatten,
)
from cefl_jax.config.fields import without_unread as at_defaults
from cefl_jax.config.validate import MAX_NAMED, check_combinations, check_unread
from cefl_jax.methods import default_spec
from cefl_jax.specs import A_VALUE

CHOICES, DEFAULTS = choices(), defaults()
READ_WITH = {path: field.clauses for path, field in all_fields().items()}
AT_THE_CUT = ("cefl.compression.", "cefl.privacy.", "model.cut")
WITH_CLIENTS = ("run.on_nonfinite", "run.client_chunk")
LATE = ("network.deadline_s", "network.late")
ALONE = (*WITH_CLIENTS, *LATE)
TAUGHT = ("run.archive_dtype", "run.distill_parts", "model.")
OF_METHOD = {  # what a method reads of the settings that not every method reads
    "cefl": ("cefl.", *TAUGHT, *ALONE),
    "centralized": (),
    "fedavg": ALONE,
    "fedprox": ("fedprox.", *ALONE),
    "scaffold": ("scaffold.", *ALONE),
    "fedopt": ("fedopt.", *ALONE),
    "fednova": ("fednova.", *ALONE),
    "hierfavg": ("hierfavg.", *WITH_CLIENTS),
    "splitfed_v1": (*AT_THE_CUT, *ALONE),
    "splitfed_v2": (*AT_THE_CUT, "run.on_nonfinite", *LATE),
    "sequential_split": (
        "cefl.privacy.probe_size",
        "model.cut",
        "run.on_nonfinite",
        "network.late",
    ),
    "fedgkt": ("fedgkt.", *TAUGHT, *WITH_CLIENTS),
}
NOT_OF_ALL = (
    "cefl.",
    "fedprox.",
    "scaffold.",
    "fedopt.",
    "fednova.",
    "hierfavg.",
    "fedgkt.",
    "model.cut",
    *TAUGHT[:2],
    *ALONE,
)
UNREAD = [  # changed field, what it goes with, and what would have to be another
    ("data.partition.alpha", {"data.partition.name": "iid"}, "data.partition.name='iid'"),
    ("data.partition.alpha", {"data.partition.name": "shards"}, "data.partition.name='shards'"),
    ("data.partition.alpha", {"data.partition.name": "file"}, "data.partition.name='file'"),
    ("data.partition.min_size", {"data.partition.name": "iid"}, "data.partition.name='iid'"),
    ("data.partition.min_size", {"data.partition.name": "shards"}, "data.partition.name='shards'"),
    ("data.partition.labels_per_client", {}, "data.partition.name='dirichlet'"),
    (
        "data.partition.labels_per_client",
        {"data.partition.name": "quantity_skew"},
        "data.partition.name='quantity_skew'",
    ),
    ("data.partition.path", {}, "data.partition.name='dirichlet'"),
    ("data.path", {}, "data.name='fashion_mnist_12k'"),
    ("data.path", {"data.name": "digits"}, "data.name='digits'"),
    ("cefl.clustering.min_size", {}, "cefl.clustering.rule='balanced'"),
    (
        "cefl.clustering.min_size",
        {"cefl.clustering.rule": "astraea"},
        "cefl.clustering.rule='astraea'",
    ),
    ("cefl.clustering.max_size", {}, "cefl.clustering.rule='balanced'"),
    (
        "cefl.clustering.max_size",
        {"cefl.clustering.rule": "random"},
        "cefl.clustering.rule='random'",
    ),
    (
        "cefl.clustering.num_clusters",
        {"cefl.clustering.rule": "single"},
        "cefl.clustering.rule='single'",
    ),
    (
        "cefl.clustering.num_clusters",
        {"cefl.clustering.rule": "singleton"},
        "cefl.clustering.rule='singleton'",
    ),
    (
        "cefl.clustering.network_weight",
        {"cefl.clustering.rule": "patent"},
        "cefl.clustering.rule='patent'",
    ),
    (
        "cefl.compression.topk_share",
        {},
        "cefl.compression.smashed='none' and cefl.compression.gradient='none'",
    ),
    (
        "cefl.compression.topk_share",
        {"cefl.compression.smashed": "int8"},
        "cefl.compression.smashed='int8' and cefl.compression.gradient='none'",
    ),
    *(
        (f"cefl.distill.{name}", {"cefl.distill.rule": "none"}, "cefl.distill.rule='none'")
        for name in (
            "lambda_edge",
            "lambda_cloud",
            "lambda_warmup_rounds",
            "temperature",
            "temperature_cloud",
            "cloud_hard_labels",
            "epochs",
            "batch_size",
            "learning_rate",
            "momentum",
            "upload_steps",
        )
    ),
    *(
        (
            f"cefl.distill.{name}",
            {"cefl.distill.rule": "hard_labels"},
            "cefl.distill.rule='hard_labels'",
        )
        for name in (
            "lambda_edge",
            "lambda_cloud",
            "lambda_warmup_rounds",
            "temperature",
            "temperature_cloud",
            "cloud_hard_labels",
        )
    ),
    *(
        (
            f"cefl.distill.{name}",
            {"cefl.distill.rule": "cloud_to_edge"},
            "cefl.distill.rule='cloud_to_edge'",
        )
        for name in ("lambda_cloud", "temperature_cloud", "cloud_hard_labels")
    ),
    *(
        (
            f"cefl.distill.{name}",
            {"cefl.distill.rule": "edge_to_cloud"},
            "cefl.distill.rule='edge_to_cloud'",
        )
        for name in ("lambda_edge", "lambda_warmup_rounds")
    ),
    (
        "cefl.distill.temperature",
        {"cefl.distill.rule": "edge_to_cloud", "cefl.distill.temperature_cloud": 1.5},
        "cefl.distill.rule='edge_to_cloud' and cefl.distill.temperature_cloud=1.5",
    ),
    (
        "cefl.distill.lambda_cloud",
        {"cefl.distill.cloud_hard_labels": False},
        "cefl.distill.cloud_hard_labels=False",
    ),
    ("run.archive_dtype", {"cefl.distill.rule": "none"}, "cefl.distill.rule='none'"),
    ("run.distill_parts", {"cefl.distill.rule": "none"}, "cefl.distill.rule='none'"),
    (
        "fedopt.beta1",
        {"method.name": "fedopt", "fedopt.optimizer": "adagrad"},
        "fedopt.optimizer='adagrad'",
    ),
    (
        "fedopt.beta2",
        {"method.name": "fedopt", "fedopt.optimizer": "adagrad"},
        "fedopt.optimizer='adagrad'",
    ),
    (
        "fedopt.beta2",
        {"method.name": "fedopt", "fedopt.optimizer": "sgd"},
        "fedopt.optimizer='sgd'",
    ),
    ("fedopt.tau", {"method.name": "fedopt", "fedopt.optimizer": "sgd"}, "fedopt.optimizer='sgd'"),
    ("train.optimizer.momentum", {"train.optimizer.name": "adam"}, "train.optimizer.name='adam'"),
    ("network.path", {}, "network.preset='cellular'"),
    ("network.trace", {"network.dynamics": "markov"}, "network.dynamics='markov'"),
    ("network.load_mean", {"network.dynamics": "trace"}, "network.dynamics='trace'"),
    ("network.late", {}, "network.dynamics='static' and network.deadline_s=None"),
]
READ = [  # changed field, and one setting with which it is read
    ("data.partition.alpha", {"data.partition.name": "extended_dirichlet"}),
    ("data.partition.labels_per_client", {"data.partition.name": "shards"}),
    ("data.partition.min_size", {"data.partition.name": "quantity_skew"}),
    ("data.partition.num_clients", {"data.partition.name": "iid"}),
    ("data.path", {"data.name": "mnist"}),
    ("cefl.clustering.min_size", {"cefl.clustering.rule": "patent"}),
    ("cefl.clustering.max_size", {"cefl.clustering.rule": "astraea"}),
    ("cefl.clustering.target", {"cefl.clustering.rule": "random"}),  # cluster/kl_mean
    ("cefl.clustering.target", {"cefl.clustering.rule": "single"}),
    ("cefl.offload.objective", {"cefl.offload.rule": "nearest"}),  # offload/cost
    ("cefl.offload.time_weight", {"cefl.offload.rule": "random"}),
    ("cefl.compression.topk_share", {"cefl.compression.gradient": "topk"}),
    ("cefl.distill.temperature", {"cefl.distill.rule": "edge_to_cloud"}),
    ("cefl.distill.temperature_cloud", {"cefl.distill.rule": "edge_to_cloud"}),
    ("cefl.distill.cloud_hard_labels", {"cefl.distill.rule": "edge_to_cloud"}),
    ("cefl.distill.epochs", {"cefl.distill.rule": "hard_labels"}),
    ("fedopt.beta1", {"method.name": "fedopt", "fedopt.optimizer": "sgd"}),
    ("fedopt.tau", {"method.name": "fedopt", "fedopt.optimizer": "adagrad"}),
    ("network.late", {"network.dynamics": "trace"}),
    ("network.late", {"method.name": "sequential_split", "network.dynamics": "markov"}),
    ("network.late", {"network.deadline_s": 0.5}),
    ("model.cut", {"method.name": "fedgkt"}),
    ("run.distill_parts", {"method.name": "fedgkt"}),
]


def another(path):
    """A value of the kind of a field's default; the default itself where there is but one."""
    default = DEFAULTS[path]
    if path in CHOICES:
        return next((choice for choice in CHOICES[path] if choice != default), default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, float):
        return default / 2 or 0.5
    if isinstance(default, tuple):
        return (0.25,)
    if default is None and path.endswith((".path", ".trace")):
        return "somewhere"
    return (default or 0) + 1


def spec_of(changes):
    """The default settings with dotted fields changed."""
    return default_spec().replace(changes)


def choices_for(path):
    """Changes with which a field is read: of every clause the first field, with its first value."""
    return {
        chooser: values[0]
        for clause in READ_WITH[path]
        for chooser, values in itertools.islice(clause.items(), 1)
    }


def refusal(changes):
    """The one line about such settings."""
    with pytest.raises(SettingError) as caught:
        check_unread(spec_of(changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_field_is_in_the_table_after_those_that_decide_whether_it_is_read():
    assert set(READ_WITH) == set(DEFAULTS)
    order = list(READ_WITH)
    for path, clauses in READ_WITH.items():
        for chooser in itertools.chain(*clauses):
            assert order.index(chooser) < order.index(path), (chooser, path)


def test_the_values_in_the_table_are_values_that_the_fields_can_have():
    for clause in itertools.chain(*READ_WITH.values()):
        for chooser, values in clause.items():
            assert values
            if values is not A_VALUE and chooser in CHOICES:
                assert set(values) < set(CHOICES[chooser])


def test_every_method_is_spoken_of():
    assert set(OF_METHOD) == set(CHOICES["method.name"])


@pytest.mark.parametrize("method", OF_METHOD)
def test_what_a_method_does_not_read_is_refused_and_nothing_else(method):
    for path, default in DEFAULTS.items():
        value = another(path)
        if path == "method.name" or value == default:
            continue
        changes = choices_for(path) | {"method.name": method}
        if not path.startswith(OF_METHOD[method]):  # or what decides of it would be refused
            changes = {
                name: chosen for name, chosen in changes.items() if not name.startswith(NOT_OF_ALL)
            }
        changes[path] = value
        if not path.startswith(NOT_OF_ALL) or path.startswith(OF_METHOD[method]):
            check_unread(spec_of(changes))
            continue
        line = refusal(changes)
        assert line.startswith(f"{path}={value!r}: not read with method.name={method!r}; set that")
        assert line.endswith(f", or {path} to {default!r}")
        readers = [name for name, paths in OF_METHOD.items() if path.startswith(paths)]
        remedies = line.split(";")[1]
        named = [name for name in OF_METHOD if f" {name!r}" in remedies]
        assert len(named) == min(len(readers), MAX_NAMED)
        assert set(named) <= set(readers)
        assert (" or ...," in remedies) == (len(readers) > MAX_NAMED)
        for name in readers:  # the other remedy
            check_unread(spec_of(choices_for(path) | {path: value, "method.name": name}))


@pytest.mark.parametrize(("path", "others", "said"), UNREAD)
def test_what_other_settings_leave_unread_is_refused(path, others, said):
    line = refusal(others | {path: another(path)})
    assert line.startswith(f"{path}={another(path)!r}: not read with {said}; set ")
    assert line.endswith(f", or {path} to {DEFAULTS[path]!r}")
    check_unread(spec_of(others))


@pytest.mark.parametrize(("path", "others"), READ)
def test_what_other_settings_read_is_taken(path, others):
    check_unread(spec_of(others | {path: another(path)}))


@pytest.mark.parametrize("path", [path for path, clauses in READ_WITH.items() if clauses])
def test_a_field_is_refused_where_one_of_its_clauses_does_not_hold(path):
    read = choices_for(path) | {path: another(path)}
    check_unread(spec_of(read))
    for clause in READ_WITH[path]:
        broken = {chooser: other_than(values, chooser) for chooser, values in clause.items()}
        assert path in find_unread(flatten(spec_of(read | broken)))


def other_than(values, path):
    """A value of a field that is none of some."""
    if values is A_VALUE:
        return None
    if values == (None,):
        return 1.5
    return next(value for value in CHOICES.get(path, (False,)) if value not in values)


def test_a_refusal_names_every_field_that_would_do():
    line = refusal({"cefl.compression.topk_share": 0.2})
    assert line == (
        "cefl.compression.topk_share=0.2: not read with cefl.compression.smashed='none' and "
        "cefl.compression.gradient='none'; set cefl.compression.smashed to 'topk', or "
        "cefl.compression.gradient to 'topk', or cefl.compression.topk_share to 0.1"
    )
    line = refusal({"network.late": "keep"})
    assert line == (
        "network.late='keep': not read with network.dynamics='static' and network.deadline_s=None; "
        "set network.dynamics to 'markov' or 'trace', or network.deadline_s to a value, or "
        "network.late to 'drop'"
    )
    line = refusal({"cefl.clustering.rule": "single", "cefl.clustering.num_clusters": 8})
    assert line == (
        "cefl.clustering.num_clusters=8: not read with cefl.clustering.rule='single'; set that to "
        "'patent' or 'balanced' or 'astraea' or 'random', or cefl.clustering.num_clusters to 4"
    )


def test_what_is_not_read_is_at_its_default_in_comparisons():
    settings = DEFAULTS | {
        "data.partition.name": "iid",
        "data.partition.alpha": 0.1,
        "train.rounds": 7,
        "newer.field": 3,
    }
    assert at_defaults(settings) == settings | {"data.partition.alpha": 0.3}


def test_a_field_that_decides_and_is_not_read_itself_counts_as_its_default():
    """fedgkt has no cefl.distill.rule, whatever is said of it."""
    settings = DEFAULTS | {"method.name": "fedgkt", "cefl.distill.rule": "none"}
    assert "cefl.distill.rule" in find_unread(settings)
    assert "run.distill_parts" not in find_unread(settings)


def test_a_value_of_a_newer_version_may_read_anything():
    unread = find_unread(DEFAULTS | {"method.name": "newer"})
    assert not [path for path in unread if path in ("model.cut", "cefl.clustering.num_clusters")]
    assert "data.partition.alpha" not in find_unread({"data.partition.name": "newer"})


@pytest.mark.parametrize("method", [name for name in OF_METHOD if name != "cefl"])
def test_other_methods_need_no_room_for_clusters(method):
    """The defaults of `cefl` may not be set with them, so that they cannot be held against them."""
    few = {"train.clients_per_round": 1, "network.num_edges": 1, "method.name": method}
    check_combinations(spec_of(few))
    with pytest.raises(SettingError, match=r"^cefl\.clustering\.num_clusters=4: needs to be"):
        check_combinations(spec_of(few | {"method.name": "cefl"}))
