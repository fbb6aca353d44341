"""What nothing would read is refused, and nothing that something reads."""

import ast
import itertools

import pytest

from cefl_jax.config.fields import (
    SettingError,
    all_fields,
    choices,
    defaults,
    find_unread,
    without_unread,
)
from cefl_jax.config.validate import MAX_NAMED, check_combinations, check_unread
from cefl_jax.methods import METHODS, default_spec
from cefl_jax.specs import A_VALUE
from cefl_jax.stages import clustering
from tests.config.refusals import refusal

CHOICES, DEFAULTS = choices(), defaults()
READ_WITH = {path: field.clauses for path, field in all_fields().items()}
PROBE = "cefl.privacy.probe_size"
AT_THE_CUT = ("cefl.compression.", "cefl.privacy.noise_std", PROBE, "model.cut")
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
    "sequential_split": (PROBE, "model.cut", "run.on_nonfinite", "network.late"),
    "fedgkt": ("fedgkt.", *TAUGHT, *WITH_CLIENTS),
}
OWN = tuple(f"{name}." for name, info in METHODS.items() if info.settings)
NOT_OF_ALL = ("cefl.", *OWN, "model.cut", *TAUGHT[:2], *ALONE)
DISTILL = [path for path in DEFAULTS if path.startswith("cefl.distill.") and "rule" not in path]
CLOUD = [f"cefl.distill.{of}" for of in ("lambda_cloud", "temperature_cloud", "cloud_hard_labels")]
EDGE = ["cefl.distill.lambda_edge", "cefl.distill.lambda_warmup_rounds"]
PARTITION, RULE, CUT = "data.partition.name", "cefl.clustering.rule", "cefl.compression"
UNREAD = [  # what decides, and what is not read with it
    (f"{PARTITION}='iid'", ["data.partition.alpha", "data.partition.min_size"]),
    (f"{PARTITION}='shards'", ["data.partition.alpha", "data.partition.min_size"]),
    (f"{PARTITION}='file'", ["data.partition.alpha"]),
    (f"{PARTITION}='dirichlet'", ["data.partition.labels_per_client", "data.partition.path"]),
    ("data.name='fashion_mnist_12k'", ["data.path"]),
    (f"{RULE}='balanced'", ["cefl.clustering.min_size", "cefl.clustering.max_size"]),
    (f"{RULE}='astraea'", ["cefl.clustering.min_size", "cefl.clustering.network_weight"]),
    (f"{RULE}='random'", ["cefl.clustering.max_size", "cefl.clustering.network_weight"]),
    (f"{RULE}='single'", ["cefl.clustering.num_clusters", "cefl.clustering.network_weight"]),
    (f"{RULE}='patent'", ["cefl.clustering.network_weight"]),
    (f"{CUT}.smashed='none' and {CUT}.gradient='none'", [f"{CUT}.topk_share"]),
    ("cefl.distill.rule='none'", [*DISTILL, "run.archive_dtype", "run.distill_parts"]),
    ("cefl.distill.rule='hard_labels'", [*CLOUD, *EDGE, "cefl.distill.temperature"]),
    ("cefl.distill.rule='cloud_to_edge'", CLOUD),
    ("cefl.distill.rule='edge_to_cloud'", EDGE),
    ("cefl.distill.cloud_hard_labels=False", ["cefl.distill.lambda_cloud"]),
    ("fedopt.optimizer='adagrad'", ["fedopt.beta1", "fedopt.beta2"]),
    ("fedopt.optimizer='sgd'", ["fedopt.beta2", "fedopt.tau"]),
    ("train.optimizer.name='adam'", ["train.optimizer.momentum"]),
    ("network.preset='cellular'", ["network.path"]),
    ("network.dynamics='markov'", ["network.trace"]),
    *(
        (f"network.dynamics={name!r}", [path for path in DEFAULTS if path.startswith(moving)])
        for moving in [("network.load_", "network.shadow_", "network.leave", "network.return")]
        for name in ("static", "trace")
    ),
    ("network.dynamics='static' and network.deadline_s=None", ["network.late"]),
]
READ = [  # what decides, and what is read with it
    ({PARTITION: "extended_dirichlet"}, "data.partition.alpha"),
    ({PARTITION: "shards"}, "data.partition.labels_per_client"),
    ({PARTITION: "quantity_skew"}, "data.partition.min_size"),
    ({"data.name": "mnist"}, "data.path"),
    ({RULE: "patent"}, "cefl.clustering.min_size"),
    ({RULE: "astraea"}, "cefl.clustering.max_size"),
    ({RULE: "random"}, "cefl.clustering.target"),  # cluster/kl_mean
    ({"cefl.offload.rule": "nearest"}, "cefl.offload.objective"),  # offload/cost
    ({f"{CUT}.gradient": "topk"}, f"{CUT}.topk_share"),
    ({"cefl.distill.rule": "edge_to_cloud"}, "cefl.distill.temperature"),
    ({"cefl.distill.rule": "edge_to_cloud"}, "cefl.distill.cloud_hard_labels"),
    ({"cefl.distill.rule": "hard_labels"}, "cefl.distill.epochs"),
    ({"method.name": "fedopt", "fedopt.optimizer": "sgd"}, "fedopt.beta1"),
    ({"method.name": "fedopt", "fedopt.optimizer": "adagrad"}, "fedopt.tau"),
    ({"network.dynamics": "trace"}, "network.late"),
    ({"method.name": "sequential_split", "network.dynamics": "markov"}, "network.late"),
]


def another(path):
    """A value of the kind of a field's default; the default itself where there is but one."""
    if path in CHOICES:
        return next(
            (choice for choice in CHOICES[path] if choice != DEFAULTS[path]), CHOICES[path][0]
        )
    match DEFAULTS[path]:
        case bool(default):
            return not default
        case float(default):
            return default / 2 or 0.5
        case tuple():
            return (0.25,)
        case None if path.endswith((".path", ".trace")):
            return "somewhere"
        case default:
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


def test_all_fields_stand_after_those_that_their_clauses_name():
    assert set(OF_METHOD) == set(CHOICES["method.name"])
    order = list(READ_WITH)
    for path, clauses in READ_WITH.items():
        for clause in clauses:
            for chooser, values in clause.items():
                assert order.index(chooser) < order.index(path), (chooser, path)
                assert values
                if values is not A_VALUE and chooser in CHOICES:
                    assert set(values) < set(CHOICES[chooser])


@pytest.mark.parametrize(
    ("table", "name", "words"),
    [(METHODS, "METHODS", "MethodInfo"), (clustering.RULES, "RULES", "clustering.Rule that reads")],
)
def test_all_fields_refuses_what_a_script_has_added_and_is_none(monkeypatch, table, name, words):
    monkeypatch.setitem(table, "mine", print)
    with pytest.raises(ValueError, match=rf"{name}\['mine'\] needs to be a .*{words}"):
        all_fields()


@pytest.mark.parametrize("method", OF_METHOD)
def test_check_unread_refuses_what_a_method_does_not_read_and_nothing_else(method):
    for path, default in DEFAULTS.items():
        value, is_read = another(path), path.startswith(OF_METHOD[method])
        if path == "method.name" or value == default:
            continue
        changes = choices_for(path) | {"method.name": method}
        if not is_read:  # or what decides of it would be refused
            changes = {name: it for name, it in changes.items() if not name.startswith(NOT_OF_ALL)}
        spec = spec_of(changes | {path: value})
        if is_read or not path.startswith(NOT_OF_ALL):
            check_unread(spec)
            continue
        line = refusal(check_unread, spec)
        assert line.startswith(f"{path}={value!r}: not read with method.name={method!r}; set that")
        assert line.endswith(f", or {path} to {default!r}")
        readers = [name for name, paths in OF_METHOD.items() if path.startswith(paths)]
        named = [name for name in OF_METHOD if f" {name!r}" in line.split(";")[1]]
        assert len(named) == min(len(readers), MAX_NAMED)
        assert set(named) <= set(readers)
        assert (" or ...," in line) == (len(readers) > MAX_NAMED)


@pytest.mark.parametrize(("held", "paths"), UNREAD)
def test_check_unread_refuses_what_other_settings_leave_unread(held, paths):
    pairs = [part.split("=") for part in held.split(" and ")]
    others = {chooser: ast.literal_eval(value) for chooser, value in pairs}
    if "fedopt.optimizer" in others:
        others["method.name"] = "fedopt"
    check_unread(spec_of(others))
    for path in paths:
        line = refusal(check_unread, spec_of(others | {path: another(path)}))
        assert line.startswith(f"{path}={another(path)!r}: not read with {held}; set ")
        assert line.endswith(f", or {path} to {DEFAULTS[path]!r}")


@pytest.mark.parametrize(("others", "path"), READ)
def test_check_unread_takes_what_other_settings_read(others, path):
    check_unread(spec_of(others | {path: another(path)}))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"cefl.compression.topk_share": 0.2},
            "cefl.compression.topk_share=0.2: not read with cefl.compression.smashed='none' and "
            "cefl.compression.gradient='none'; set cefl.compression.smashed to 'topk', or "
            "cefl.compression.gradient to 'topk', or cefl.compression.topk_share to 0.1",
        ),
        (
            {"network.late": "keep"},
            "network.late='keep': not read with network.dynamics='static' and "
            "network.deadline_s=None; set network.dynamics to 'markov' or 'trace', or "
            "network.deadline_s to a value, or network.late to 'drop'",
        ),
    ],
)
def test_check_unread_names_every_field_that_would_do(changes, line):
    assert refusal(check_unread, spec_of(changes)) == line


def test_without_unread_puts_at_its_default_what_nothing_reads():
    settings = DEFAULTS | {PARTITION: "iid", "train.rounds": 7, "newer.field": 3}
    unread = {"data.partition.alpha": 0.1}
    assert without_unread(settings | unread) == settings | {"data.partition.alpha": 0.3}


def test_find_unread_takes_what_decides_and_is_not_read_to_be_its_default():
    """fedgkt has no cefl.distill.rule, whatever is said of it."""
    unread = find_unread(DEFAULTS | {"method.name": "fedgkt", "cefl.distill.rule": "none"})
    assert "cefl.distill.rule" in unread
    assert "run.distill_parts" not in unread


def test_find_unread_takes_a_value_of_a_newer_version_to_read_anything():
    unread = find_unread(DEFAULTS | {"method.name": "newer"})
    assert not {"model.cut", "cefl.clustering.num_clusters"} & {*unread}
    assert "data.partition.alpha" not in find_unread({PARTITION: "newer"})


@pytest.mark.parametrize("method", [name for name in OF_METHOD if name != "cefl"])
def test_check_combinations_asks_other_methods_for_no_room_for_clusters(method):
    """The defaults of `cefl` may not be set with them, so that they cannot be held against them."""
    few = {"train.clients_per_round": 1, "network.num_edges": 1, "method.name": method}
    check_combinations(spec_of(few))
    with pytest.raises(SettingError, match=r"^cefl\.clustering\.num_clusters=4: needs to be"):
        check_combinations(spec_of(few | {"method.name": "cefl"}))
