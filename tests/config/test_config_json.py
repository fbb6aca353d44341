"""The config.json that a run left: it repeats the run, and what is no such file is told."""

import dataclasses
import functools
import json
import math
import typing

import pytest
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax import config
from cefl_jax.config import SettingError
from cefl_jax.config.fields import choices, defaults, flatten, without_unread
from cefl_jax.config.files import MAX_JSON_BYTES, NAMING
from cefl_jax.methods import default_spec

CHOICES, DEFAULTS = choices(), defaults()
SPEC = type(default_spec())
VALID = dataclasses.asdict(default_spec())
quick = settings(deadline=None, max_examples=100)


def write(folder, content, name="config.json"):
    """A file of bytes, of text, or of what JSON can hold."""
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def with_field(path, value):
    """VALID with a field changed; ... removes it."""
    made = json.loads(json.dumps(VALID))
    *groups, name = path.split(".")
    place = made
    for group in groups:
        place = place.setdefault(group, {})
    if value is ...:
        del place[name]
    else:
        place[name] = value
    return made


def refusal(location):
    """What is said about a file, without its name."""
    with pytest.raises(SettingError) as caught:
        config.load(location)
    line = str(caught.value)
    assert line.startswith(f"--config={location}: ")
    assert line.isprintable()
    assert len(line) < len(location) + 700
    return line.removeprefix(f"--config={location}: ")


texts = st.text(st.characters(codec="utf-8"), max_size=20)
floats = st.floats(-3.4e38, 3.4e38)


def values(hint, path):
    """Values of a field's type, whether or not they can be run."""
    if type(None) in typing.get_args(hint):
        return st.none() | values(typing.get_args(hint)[0], path)
    if typing.get_origin(hint) is tuple:
        return st.lists(floats, max_size=4).map(tuple)
    kinds = {int: st.integers(-(10**18), 10**18), float: floats, bool: st.booleans(), str: texts}
    return kinds[hint] | st.sampled_from(CHOICES[path]) if path in CHOICES else kinds[hint]


def specs(group=SPEC, prefix=""):
    """Groups of settings in which every field is drawn."""
    drawn = {}
    for name, hint in typing.get_type_hints(group).items():
        inner = dataclasses.is_dataclass(hint)
        drawn[name] = specs(hint, f"{prefix}{name}.") if inner else values(hint, prefix + name)
    return st.builds(group, **drawn)


# beartype draws which number of a tuple it looks at.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@quick
@given(specs())
def test_every_value_is_what_it_was_or_nothing_reads_it(tmp_path_factory, spec):
    noted = config.to_dict(spec)
    location = write(tmp_path_factory.getbasetemp(), noted, "drawn.json")
    loaded = traverse_util.flatten_dict(config.load(location).to_dict(), sep=".")
    expected = {
        path: value if path.split(".")[0] in noted else DEFAULTS[path]
        for path, value in without_unread(flatten(spec)).items()
    }
    assert loaded == expected


@pytest.mark.parametrize("method", ["fedavg", "splitfed_v2", "sequential_split", "centralized"])
def test_what_was_chosen_automatically_and_not_read_is_automatic_again(tmp_path, method):
    made = with_field("method.name", method)
    made["run"] |= {"client_chunk": 1, "devices": 1, "distill_parts": 2}
    run = config.to_spec(config.load(write(tmp_path, made))).run
    assert (run.client_chunk, run.devices, run.distill_parts) == (
        1 if method == "fedavg" else None,
        1,
        None,
    )


@pytest.mark.parametrize(
    ("chooser", "value", "unread", "noted"),
    [
        ("method.name", "fedavg", "model.cut", 3),
        ("data.partition.name", "iid", "data.partition.alpha", 0.1),
        ("cefl.distill.rule", "none", "cefl.distill.epochs", 5),
    ],
)
def test_a_run_of_a_version_that_noted_what_nothing_reads_is_repeated(
    tmp_path, chooser, value, unread, noted
):
    made = with_field(chooser, value)
    *groups, name = unread.split(".")
    functools.reduce(dict.__getitem__, groups, made)[name] = noted
    loaded = config.load(write(tmp_path, made))
    assert flatten(config.to_spec(loaded)) == DEFAULTS | {chooser: value}
    config.set_field(loaded, unread, str(noted))
    with pytest.raises(SettingError, match=f"^{unread}={noted}: not read with "):
        config.to_spec(loaded)


def test_a_run_on_a_partition_that_was_handed_in_needs_its_file_to_be_repeated(tmp_path):
    location = write(tmp_path, with_field("data.partition.name", "file"))
    with pytest.raises(SettingError, match=r"^data\.partition\.path=None: .*the partition\.json"):
        config.to_spec(config.load(location))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method.name": "fedavg", "model.name": "mlp", "seed": "4294967295"},
        {"method.name": "fedopt", "fedopt.optimizer": "sgd", "fedopt.beta1": "0.5"},
        {"method.name": "hierfavg", "hierfavg.edge_rounds": "3"},
        {"method.name": "fedgkt", "fedgkt.server_epochs": "2", "run.archive_dtype": "bfloat16"},
        {"cefl.clustering.rule": "patent", "cefl.clustering.max_size": "9"},
        {"cefl.compression.smashed": "int8", "cefl.privacy.noise_std": "0.1"},
        {"network.dynamics": "markov", "network.deadline_s": "0.3", "network.late": "keep"},
        {"data.partition.name": "file", "data.partition.path": "a b/\u00fc:1.json"},
        {"data.normalization.mean": "0.1,0.2,0.3", "data.normalization.std": "0.5"},
        {
            "train.local_steps": "None",
            "train.local_epochs": "2",
            "train.optimizer.clip_norm": "2.5",
        },
        {"run.client_chunk": "5", "run.devices": "2", "run.deterministic": "False"},
    ],
)
def test_a_run_is_repeated(tmp_path, changes):
    chosen = config.default_config()
    for path, text in changes.items():
        config.set_field(chosen, path, text)
    spec = config.to_spec(chosen)
    location = write(tmp_path, config.to_dict(spec))
    assert config.to_spec(config.load(location)) == spec


def test_fields_are_set_beside_it(tmp_path):
    loaded = config.load(write(tmp_path, VALID))
    config.set_field(loaded, "train.local_steps", "None")
    config.set_field(loaded, "train.local_epochs", "2")
    assert config.to_spec(loaded).train.local_epochs == 2


def test_what_is_newer_than_the_file_has_its_default(tmp_path):
    old = {
        "seed": 5,
        "method": {"name": "fedavg"},
        "data": {"name": "digits"},
        "model": {"name": "mlp"},
    }
    spec = config.to_spec(config.load(write(tmp_path, old)))
    assert (spec.seed, spec.data.name, spec.train) == (5, "digits", default_spec().train)


@pytest.mark.parametrize("folder", ["a:b", "CAPITALS", "a b"])
def test_it_may_be_anywhere_and_be_named_anyhow(tmp_path, folder):
    (tmp_path / folder).mkdir()
    name = "x.JSON" if folder.isupper() else "config.json"
    assert config.load(write(tmp_path / folder, VALID, name)).to_dict() == VALID


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read as JSON: Expecting value: line 1 column 1"),
        ("{", "cannot be read as JSON: "),
        (b"\xff\xfe{}", "is not UTF-8 text at byte 0"),
        (json.dumps(VALID).encode("utf-16"), "is not UTF-8 text at byte 0"),
        ("[" * 100_000, "is nested too deeply; write it flatter"),
        ('{"a":' * 100 + "1" + "}" * 100, "is nested too deeply; write it flatter"),
        (
            '{"seed": 1, "seed": 2}',
            "cannot be read as JSON: the key 'seed' is given twice; correct",
        ),
        ('{"seed": NaN}', "cannot be read as JSON: NaN is no number in JSON; correct it"),
        ('{"seed": -Infinity}', "cannot be read as JSON: -Infinity is no number in JSON"),
        (f'{{"seed": {"9" * 5000}}}', "cannot be read as JSON: Exceeds the limit"),
        ('{"seed": "\\ud800"}', "has text that is not Unicode, half of a surrogate pair"),
        (" " * (MAX_JSON_BYTES + 1), f"has {MAX_JSON_BYTES + 1} bytes, and {MAX_JSON_BYTES} is"),
        ("null", "has no seed; name the config.json that a run left"),
        ("[]", "has no seed; name the config.json that a run left"),
        ('"seed"', "has no seed; name the config.json that a run left"),
        (
            '{"seed": 1, "method": "name"}',
            "has no method.name; name the config.json that a run left",
        ),
    ],
)
def test_what_is_no_config_is_told(tmp_path, content, said):
    assert refusal(write(tmp_path, content)).startswith(said)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        *((path, ..., f"has no {path}; name the config.json that a run left") for path in NAMING),
        ("train.roundz", 1, "train.roundz is not a field; did you mean train.rounds?"),
        ("a\nb", 1, r"'a\nb' is not a field; known here: seed, method, "),
        ("x" * 10_000, 1, "'xxx"),
        ("train", 3, "train=3: needs to be a group of fields, not a value"),
        ("train", [1, [2, [3, [4]]]], "train=[1, [2, [...]]]: needs to be a group of fields"),
        ("seed", {"a": 1}, "seed={'a': 1}: needs a whole number"),
        ("train.rounds", "3", "train.rounds='3': needs a whole number"),
        ("train.rounds", 3.0, "train.rounds=3.0: needs a whole number"),
        ("train.rounds", True, "train.rounds=True: needs a whole number"),
        ("train.rounds", 10**4000, "train.rounds=1000"),
        ("train.optimizer.learning_rate", 10**400, "train.optimizer.learning_rate=1000"),
        (
            "train.optimizer.learning_rate",
            True,
            "train.optimizer.learning_rate=True: needs a finite",
        ),
        ("run.deterministic", 1, "run.deterministic=1: needs True or False"),
        ("data.path", "x" * 5000, "data.path has 5000 characters, and 4096 is the most"),
        ("data.path", "a\nb", None),
        ("data.normalization.mean", [0.5] * 2000, "data.normalization.mean has 2000 numbers, and "),
        (
            "data.normalization.mean",
            [["0.5"]],
            "data.normalization.mean=['0.5']: needs a finite num",
        ),
    ],
)
def test_what_is_wrong_in_it_is_named(tmp_path, path, value, said):
    location = write(tmp_path, with_field(path, value))
    if said is None:
        config.load(location)
    else:
        assert refusal(location).startswith(said)


def test_a_number_without_end_is_none(tmp_path):
    text = json.dumps(with_field("fedprox.mu", 0.123)).replace("0.123", "1e999")
    assert refusal(write(tmp_path, text)).startswith("fedprox.mu=inf: needs a finite number")


def test_it_takes_no_argument(tmp_path):
    location = write(tmp_path, VALID)
    assert refusal(f"{location}:big") == f"a JSON file takes no text; write --config={location}"


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(10**400),
    lambda tree: st.lists(tree, max_size=3) | st.dictionaries(texts, tree, max_size=3),
    max_leaves=8,
)


def paths(tree, prefix=""):
    """Dotted paths of all groups and fields."""
    for name, inner in tree.items():
        yield prefix + name
        if isinstance(inner, dict):
            yield from paths(inner, f"{prefix}{name}.")


@quick
@given(st.lists(st.tuples(st.sampled_from([*paths(VALID), "new", "train.new"]), trees), max_size=3))
def test_any_values_are_settings_or_are_refused_in_one_line(tmp_path_factory, changes):
    made = json.loads(json.dumps(VALID))
    for path, value in changes:
        *groups, name = path.split(".")
        place = made
        for group in groups:
            place = place[group] if isinstance(place.get(group), dict) else {}
        place[name] = value
    location = write(tmp_path_factory.getbasetemp(), made, "changed.json")
    check_reading(location)


@quick
@given(st.data())
def test_any_text_is_settings_or_is_refused_in_one_line(tmp_path_factory, data):
    text = json.dumps(VALID)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 10)))
    patch = data.draw(
        st.binary(max_size=6) | st.text('{}[]:,"\\u \n 19eNaN', max_size=6).map(str.encode)
    )
    content = text[:start].encode() + patch + text[end:].encode()
    check_reading(write(tmp_path_factory.getbasetemp(), content, "patched.json"))


def check_reading(location):
    """It is a config whose spec survives JSON, or one line says what is wrong."""
    try:
        spec = config.to_spec(config.load(location))
    except SettingError as error:
        line = str(error)
        assert line.isprintable()
        assert len(line) < len(location) + 700
    else:
        assert config.to_spec(json.loads(json.dumps(config.to_dict(spec)))) == spec
        assert all(map(math.isfinite, spec.data.normalization.mean))
