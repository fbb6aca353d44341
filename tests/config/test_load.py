"""Settings: what is taken, and what each wrong one is told."""

import json
import pickle

import pytest

from cefl_jax import config
from cefl_jax.config import SettingError
from cefl_jax.config.fields import choices, defaults
from cefl_jax.methods import METHODS, default_spec


def spec_with(settings):
    """The Spec of the defaults with texts set on fields, as a command line does it."""
    chosen = config.default_config()
    for path, text in settings.items():
        config.set_field(chosen, path, text)
    return config.to_spec(chosen)


def refusal(settings):
    """The one line about such settings."""
    with pytest.raises(SettingError) as caught:
        spec_with(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def paths():
    """Dotted path and default of every field."""
    return defaults().items()


def test_defaults_are_those_of_the_spec():
    assert config.to_spec(config.default_config()) == default_spec()


def test_a_spec_survives_json():
    spec = spec_with(
        {
            "train.optimizer.clip_norm": "2.5",
            "train.local_steps": "None",
            "train.local_epochs": "9",
            "data.normalization.mean": "0.1,0.2,0.3",
            "data.normalization.std": "(0.5,)",
            "seed": "4294967295",
        }
    )
    assert config.to_spec(json.loads(json.dumps(config.to_dict(spec)))) == spec
    assert spec.data.normalization.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("train.rounds", "7", 7),
        ("train.optimizer.learning_rate", "1", 1.0),
        ("train.optimizer.learning_rate", "1e-3", 1e-3),
        ("run.deterministic", "false", False),
        ("run.deterministic", "1", True),
        ("data.normalization.std", "0.5", (0.5,)),
        ("data.normalization.std", "(0.5, 0.4)", (0.5, 0.4)),
        ("data.normalization.std", "(0.5,)", (0.5,)),
        ("data.path", "a=b.c", "a=b.c"),
        ("data.path", "None", None),
    ],
)
def test_a_text_becomes_a_value_of_the_type(path, text, value):
    chosen = config.default_config()
    config.set_field(chosen, path, text)
    got = chosen
    for name in path.split("."):
        got = got[name]
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(("path", "default"), list(paths()))
def test_none_is_for_optional_fields_alone(path, default):
    chosen = config.default_config()
    if default is None or path in ("train.local_steps", "run.checkpoint_every"):
        config.set_field(chosen, path, "None")
    else:
        with pytest.raises(SettingError, match=f"^{path}=None: needs "):
            config.set_field(chosen, path, "None")


def test_a_field_takes_ints_for_floats_and_lists_for_tuples():
    values = config.to_dict(default_spec())
    values["train"]["optimizer"]["learning_rate"] = 1
    values["data"]["normalization"]["mean"] = [0, 0.5]
    spec = config.to_spec(values)
    assert repr(spec.train.optimizer.learning_rate) == "1.0"
    assert repr(spec.data.normalization.mean) == "(0.0, 0.5)"
    hash(spec)


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("train.roundz", "3", ["train.roundz is not a field", "did you mean train.rounds?"]),
        ("trian.rounds", "3", ["trian is not a field", "did you mean train?"]),
        ("xyz", "3", ["xyz is not a field", "known here: seed, method,"]),
        (
            "train.momentum",
            "0",
            ["did you mean", "train.optimizer.momentum", "cefl.distill.momentum"],
        ),
        ("train.rounds.much", "3", ["train.rounds.much is not a field", "known here: nothing"]),
        ("train..rounds", "3", ["train. is not a field", "known here: rounds,"]),
        ("train", "3", ["train is a group of fields", "set one of them: rounds,"]),
        ("train.rounds", "abc", ["train.rounds='abc'", "a whole number"]),
        ("train.rounds", "3.5", ["train.rounds='3.5'", "a whole number"]),
        ("train.rounds", "", ["train.rounds=''", "a whole number"]),
        ("train.local_steps", "x", ["train.local_steps='x'", "a whole number or None"]),
        ("run.deterministic", "maybe", ["run.deterministic='maybe'", "True or False"]),
        ("train.optimizer.learning_rate", "fast", ["learning_rate='fast'", "a finite number"]),
        ("data.normalization.mean", "0.1,a", ["data.normalization.mean='0.1,a'", "such as 0.5 or"]),
        ("data.normalization.mean", "()", ["data.normalization.mean='()'", "such as 0.5 or"]),
        ("data.normalization.mean", "nan", ["data.normalization.mean=nan", "a finite number"]),
        ("data.normalization.std", "0.5,0", ["data.normalization.std=(0.5, 0.0)", "more than 0"]),
        ("train.rounds", "0", ["train.rounds=0", "from 1 to 2147483647"]),
        ("train.rounds", "2147483648", ["train.rounds=2147483648", "from 1 to 2147483647"]),
        ("seed", "-1", ["seed=-1", "from 0 to 4294967295"]),
        ("cefl.distill.lambda_edge", "1.5", ["cefl.distill.lambda_edge=1.5", "from 0 to 1"]),
        ("cefl.distill.temperature", "0", ["cefl.distill.temperature=0.0", "more than 0"]),
        ("data.partition.alpha", "0", ["data.partition.alpha=0.0", "more than 0"]),
        ("train.optimizer.weight_decay", "-1", ["weight_decay=-1.0", "at least 0"]),
        (
            "train.clients_per_round",
            "101",
            ["train.clients_per_round=101", "only 100 clients", "raise data.partition.num_clients"],
        ),
        (
            "train.local_epochs",
            "2",
            ["train.local_steps=10, train.local_epochs=2", "one of the two"],
        ),
        ("train.local_steps", "None", ["local_steps=None, train.local_epochs=None", "set one of"]),
        ("data.partition.name", "file", ["data.partition.path=None", "JSON file"]),
        ("data.partition.path", "p.json", ["data.partition.path='p.json'", "set that to 'file'"]),
        (
            "network.preset",
            "file",
            ["network.path=None", "network.preset='file'", "path of a file"],
        ),
        (
            "network.path",
            "n.yaml",
            ["network.path='n.yaml'", "network.preset='cellular'", "set that to 'file'"],
        ),
        (
            "network.dynamics",
            "trace",
            ["network.trace=None", "network.dynamics='trace'", "path of"],
        ),
        (
            "network.trace",
            "t.npz",
            ["network.trace='t.npz'", "network.dynamics='static'", "set that to 'trace'"],
        ),
        ("network.deadline_s", "0", ["network.deadline_s=0.0", "more than 0"]),
        ("network.deadline_s", "-1", ["network.deadline_s=-1.0", "more than 0"]),
        ("network.leave_probability", "1.01", ["network.leave_probability=1.01", "from 0 to 1"]),
        ("network.return_probability", "-0.1", ["network.return_probability=-0.1", "from 0 to 1"]),
        ("network.shadow_correlation", "1.5", ["network.shadow_correlation=1.5", "from 0 to 1"]),
        ("network.load_correlation", "1.5", ["network.load_correlation=1.5", "from 0 to 1"]),
        ("network.load_mean", "0.99", ["network.load_mean=0.99", "from 0 to 0.95"]),
        ("cefl.compression.topk_share", "0", ["compression.topk_share=0.0", "more than 0"]),
        ("cefl.compression.topk_share", "1.5", ["compression.topk_share=1.5", "from 0 to 1"]),
        ("cefl.privacy.noise_std", "-0.1", ["cefl.privacy.noise_std=-0.1", "from 0 to"]),
        ("cefl.privacy.probe_size", "5000", ["cefl.privacy.probe_size=5000", "from 0 to 4096"]),
        ("cefl.offload.time_weight", "-1", ["cefl.offload.time_weight=-1.0", "from 0 to"]),
        (
            "cefl.offload.time_weight",
            "0",
            ["time_weight=0, cefl.offload.energy_weight=0", "set one of the two above 0"],
        ),
        ("cefl.clustering.network_weight", "-1", ["clustering.network_weight=-1.0", "from 0 to"]),
    ],
)
def test_one_wrong_setting_is_named_with_its_value_and_the_remedy(path, text, words):
    line = refusal({path: text})
    assert [word for word in words if word not in line] == [], line


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e39", "-0.1", "0"])
@pytest.mark.parametrize("group", ["train.optimizer", "cefl.distill"])
def test_a_learning_rate_is_a_finite_number_above_zero(group, text):
    line = refusal({f"{group}.learning_rate": text})
    assert line.startswith(f"{group}.learning_rate={float(text)}: needs ")


@pytest.mark.parametrize("path", list(choices()))
def test_an_unknown_name_is_answered_with_the_known_ones(path):
    line = refusal({path: "nonesuch"})
    assert line == f"{path}='nonesuch' is unknown; known: {', '.join(choices()[path])}"


def test_every_text_field_but_a_path_is_a_choice():
    texts = {path for path, default in paths() if isinstance(default, str)}
    assert texts == set(choices())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"num_clusters": "5"},
            [
                "cefl.clustering.num_clusters=5",
                "network.num_edges=4",
                "edge_capacity=1",
                "4 clusters",
            ],
        ),
        ({"rule": "singleton"}, ["train.clients_per_round=20", "places for 4 clusters"]),
        ({"rule": "patent", "num_clusters": "5"}, ["cefl.clustering.num_clusters=5", "4 clusters"]),
        (
            {"rule": "patent", "min_size": "21"},
            ["cefl.clustering.min_size=21", "at most train.clients_per_round=20"],
        ),
        (
            {"rule": "patent", "min_size": "6", "max_size": "5"},
            ["cefl.clustering.max_size=5", "at least cefl.clustering.min_size=6"],
        ),
        (
            {"rule": "astraea", "max_size": "4"},
            ["cefl.clustering.max_size=4", "4 clusters", "train.clients_per_round=20", "raise it"],
        ),
        ({"num_clusters": "21"}, ["cefl.clustering.num_clusters=21", "train.clients_per_round=20"]),
    ],
)
def test_clusters_that_cannot_hold(settings, words):
    line = refusal({f"cefl.clustering.{name}": text for name, text in settings.items()})
    assert [word for word in words if word not in line] == [], line


@pytest.mark.parametrize("rule", ["patent", "astraea", "random", "single", "singleton"])
def test_a_network_weight_is_for_one_rule_alone(rule):
    settings = {"cefl.clustering.network_weight": "0.5", "network.num_edges": "20"}
    line = refusal({"cefl.clustering.rule": rule} | settings)
    assert line.startswith("cefl.clustering.network_weight=0.5: not read with cefl.clustering.rul")
    assert line.endswith("; set that to 'balanced', or cefl.clustering.network_weight to 0.0")


@pytest.mark.parametrize(
    "field",
    [
        "shadow_std_db",
        "shadow_correlation",
        "load_mean",
        "load_std",
        "load_correlation",
        "leave_probability",
        "return_probability",
    ],
)
def test_what_moves_a_network_is_not_read_where_it_does_not_move(field):
    line = refusal({f"network.{field}": "0.25"})
    assert line.startswith(f"network.{field}=0.25: not read with network.dynamics='static'; set ")
    spec_with({f"network.{field}": "0.25", "network.dynamics": "markov"})


def test_a_population_that_would_go_and_never_come_back():
    settings = {"network.dynamics": "markov", "network.return_probability": "0"}
    line = refusal(settings)
    assert line.startswith("network.return_probability=0.0: ")
    assert "network.leave_probability=0.05" in line
    spec_with(settings | {"network.leave_probability": "0"})


@pytest.mark.parametrize(
    "settings",
    [
        {
            "network.preset": "file",
            "network.path": "n.yaml",
            "network.dynamics": "trace",
            "network.trace": "t.csv",
        },
        {
            "network.leave_probability": "1",
            "network.return_probability": "1",
            "network.dynamics": "markov",
            "network.deadline_s": "1e-9",
            "network.late": "keep",
        },
        {"cefl.offload.time_weight": "0", "cefl.offload.energy_weight": "1e-3"},
        {"cefl.compression.smashed": "topk", "cefl.compression.topk_share": "1"},
        {"cefl.clustering.num_clusters": "5", "cefl.offload.include_cloud": "True"},
        {"cefl.clustering.network_weight": "100", "cefl.privacy.probe_size": "0"},
        {"cefl.clustering.num_clusters": "5", "cefl.offload.edge_capacity": "2"},
        {"cefl.clustering.rule": "single", "network.num_edges": "1"},
        {"cefl.clustering.rule": "singleton", "network.num_edges": "20"},
        {"cefl.clustering.rule": "astraea", "cefl.clustering.max_size": "5"},
        {"cefl.clustering.rule": "patent", "cefl.clustering.min_size": "20"},
        {"train.clients_per_round": "100"},
        {"train.local_steps": "None", "train.local_epochs": "1"},
        {
            "data.partition.name": "file",
            "data.partition.path": "p.json",
            "data.partition.num_clients": "1",
        },
    ],
)
def test_what_just_holds_is_taken(settings):
    spec_with(settings)


def test_values_of_a_file_are_checked_like_texts():
    for path, value, words in [
        (("train", "rounds"), "10", "train.rounds='10': needs a whole number"),
        (("train", "rounds"), True, "train.rounds=True: needs a whole number"),
        (("train", "rounds"), 3.0, "train.rounds=3.0: needs a whole number"),
        (("train", "batch_size"), None, "train.batch_size=None: needs a whole number"),
        (("run", "deterministic"), 1, "run.deterministic=1: needs True or False"),
        (("cefl", "distill", "temperature"), 10**400, "cefl.distill.temperature=1000"),
        (("data", "normalization", "mean"), ("x",), "data.normalization.mean='x': needs a"),
        (("model",), "lenet5", "model='lenet5': needs to be a group of fields, not a value"),
        (("train", 3), 3, "train.3 is not a field"),
    ]:
        values = config.to_dict(default_spec())
        group = values
        for name in path[:-1]:
            group = group[name]
        group[path[-1]] = value
        with pytest.raises(SettingError) as caught:
            config.to_spec(values)
        assert str(caught.value).startswith(words)


def test_something_else_than_settings():
    with pytest.raises(SettingError, match=r"^config=3: needs to be a group of fields"):
        config.to_spec(3)


def test_a_round_of_more_clients_than_a_partition_file_has():
    spec = spec_with({"data.partition.name": "file", "data.partition.path": "few.json"})
    with pytest.raises(SettingError, match=r"clients_per_round=20: .* only 3 .*few\.json"):
        config.check_population(spec, 3)
    config.check_population(spec, 20)


def test_a_number_of_clients_that_is_not_that_of_the_partition_file():
    settings = {"data.partition.name": "file", "data.partition.path": "p.json"}
    for right in ("500", "100"):  # that of the file, and what stands for none
        spec = spec_with(settings | {"data.partition.num_clients": right})
        config.check_file_clients(spec, 500)
    spec = spec_with(settings | {"data.partition.num_clients": "300"})
    with pytest.raises(SettingError) as caught:
        config.check_file_clients(spec, 500)
    assert str(caught.value) == (
        "data.partition.num_clients=300: data.partition.path=p.json lists 500 clients; set it to "
        "500, or to its default 100"
    )


def test_a_normalisation_of_other_channels():
    spec = spec_with({"data.normalization.mean": "0.1,0.2"})
    with pytest.raises(SettingError, match=r"^data\.normalization\.mean=\(0\.1, 0\.2\): 2 values"):
        config.check_channels(spec, 3)
    config.check_channels(spec, 2)


def test_a_placeholder_keeps_its_type():
    with pytest.raises(TypeError):
        config.default_config().cefl.clustering.max_size = "large"


def test_settings_can_be_pickled():
    spec = config.make_spec({"method.name": "fedprox", "fedprox.mu": 0.5})
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize("name", ["run", "my-method"])
def test_a_method_whose_settings_cannot_be_a_group_is_named(monkeypatch, name):
    monkeypatch.setitem(METHODS, name, METHODS["fedprox"])
    with pytest.raises(ValueError, match=rf"^methods\.METHODS\['{name}'\]: .* rename it$"):
        config.default_config()
