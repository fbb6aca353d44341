"""Config files, texts and values of any kind are settings, or are refused in one line."""

import dataclasses
import json
import os
import pickle
import typing

import pytest
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax import config
from cefl_jax.config.fields import choices, defaults, flatten, without_unread
from cefl_jax.config.files import MAX_JSON_BYTES, NAMING
from cefl_jax.methods import METHODS, default_spec
from tests.config.refusals import check_words, refusal, spec_with

CHOICES, DEFAULTS = choices(), defaults()
SPEC = type(default_spec())
VALID = dataclasses.asdict(default_spec())


def write(folder, content, name="config.json"):
    """A file of bytes, of text, or of what JSON can hold."""
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def write_python(folder, body):
    """A config file with a get_config that starts from the defaults."""
    return write(
        folder,
        "from ml_collections import config_dict\n"
        "from cefl_jax.config import default_config\n"
        f"def get_config():\n    config = default_config()\n    {body}\n    return config\n",
        "made.py",
    )


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


def to_spec(location):
    return config.to_spec(config.load(location))


def test_to_spec_of_the_defaults():
    assert config.to_spec(config.default_config()) == default_spec()
    with pytest.raises(TypeError):  # a placeholder keeps its type
        config.default_config().cefl.clustering.max_size = "large"


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("train.rounds", "7", 7),
        ("train.optimizer.learning_rate", "1", 1.0),
        ("run.deterministic", "false", False),
        ("run.deterministic", "1", True),
        ("data.normalization.std", "0.5", (0.5,)),
        ("data.normalization.std", "(0.5, 0.4)", (0.5, 0.4)),
        ("data.path", "a=b.c", "a=b.c"),
        ("data.path", "None", None),
    ],
)
def test_set_field_makes_a_value_of_the_type(path, text, value):
    chosen = config.default_config()
    config.set_field(chosen, path, text)
    got = traverse_util.flatten_dict(chosen.to_dict(), sep=".")[path]
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("train.roundz", "3", "train.roundz is not a field; did you mean train.rounds?"),
        ("trian.rounds", "3", "trian is not a field; did you mean train?"),
        ("xyz", "3", "xyz is not a field; known here: seed, method,"),
        ("train.momentum", "0", "train.momentum ... train.optimizer.momentum ... distill.momentum"),
        ("train.rounds.much", "3", "train.rounds.much is not a field; known here: nothing"),
        ("train", "3", "train is a group of fields; set one of them: rounds,"),
        ("train.rounds", "3.5", "train.rounds='3.5': needs a whole number"),
        ("train.local_steps", "x", "train.local_steps='x': needs a whole number or None"),
        ("run.deterministic", "maybe", "run.deterministic='maybe': needs True or False"),
        ("data.normalization.mean", "0.1,a", "data.normalization.mean='0.1,a': ... such as 0.5 or"),
        ("data.normalization.mean", "nan", "data.normalization.mean=nan: needs a finite number"),
        ("data.normalization.mean", "-1e39", "data.normalization.mean=-1e+39: needs a finite"),
        ("data.normalization.mean", "1," * 2000, "data.normalization.mean has 2000 numbers, and"),
        ("train.rounds", "9" * 5000, "train.rounds='9999"),
        ("cefl.distill.temperature", "9" * 5000, "cefl.distill.temperature=inf: needs a finite"),
        ("data.path", "x" * 5000, "data.path has 5000 characters, and 4096 is the most"),
    ],
)
def test_set_field_refuses_what_is_no_field_or_no_value(path, text, words):
    def set_it():
        chosen = config.default_config()
        config.set_field(chosen, path, text)
        config.to_spec(chosen)

    line = refusal(set_it)
    check_words(line, words)
    assert len(line) < 250


@pytest.mark.parametrize(("path", "default"), list(DEFAULTS.items()))
def test_set_field_takes_none_for_optional_fields_alone(path, default):
    chosen = config.default_config()
    if default is None or path in ("train.local_steps", "run.checkpoint_every"):
        config.set_field(chosen, path, "None")
    else:
        line = refusal(config.set_field, chosen, path, "None")
        assert line.startswith(f"{path}=None: needs ")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("train.rounds", 3.0, "train.rounds=3.0: needs a whole number"),
        ("train.rounds", True, "train.rounds=True: needs a whole number"),
        ("train.rounds", 10**4000, "train.rounds=1000"),
        ("cefl.distill.temperature", 10**400, "cefl.distill.temperature=1000"),
        ("cefl.distill.temperature", True, "cefl.distill.temperature=True: needs a finite"),
        ("run.deterministic", 1, "run.deterministic=1: needs True or False"),
        ("data.normalization.mean", [["0.5"]], "data.normalization.mean=['0.5']: needs a finite"),
        ("seed", {"a": 1}, "seed={'a': 1}: needs a whole number"),
        ("train", [1, [2, [3, [4]]]], "train=[1, [2, [...]]]: needs to be a group of fields"),
        ("a\nb", 1, r"'a\nb' is not a field; known here: seed, method, "),
        ("x" * 10_000, 1, "'xxx"),
    ],
)
def test_values_of_a_wrong_type_are_refused(tmp_path, path, value, words):
    made = with_field(path, value)
    location = write(tmp_path, made)
    line = refusal(config.load, location)
    check_words(line.removeprefix(f"--config={location}: "), words)
    assert refusal(config.to_spec, made) == line.removeprefix(f"--config={location}: ")


def test_to_spec_takes_ints_for_floats_and_lists_for_tuples():
    values = config.to_dict(default_spec())
    values["train"]["optimizer"]["learning_rate"] = 1
    values["data"]["normalization"]["mean"] = [0, 0.5]
    spec = config.to_spec(values)
    assert repr(spec.train.optimizer.learning_rate) == "1.0"
    assert repr(spec.data.normalization.mean) == "(0.0, 0.5)"
    values["train"][3] = 3
    assert refusal(config.to_spec, values).startswith("train.3 is not a field")
    assert refusal(config.to_spec, 3).startswith("config=3: needs to be a group of fields")


def test_make_spec_can_be_hashed_and_pickled():
    spec = config.make_spec({"method.name": "fedprox", "fedprox.mu": 0.5})
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert hash(again) == hash(spec)
    assert refusal(config.make_spec, {"fedprox.nu": 1}).startswith("fedprox.nu is not a field")


@pytest.mark.parametrize("name", ["run", "my-method"])
def test_default_config_names_a_method_whose_settings_cannot_be_a_group(monkeypatch, name):
    monkeypatch.setitem(METHODS, name, METHODS["fedprox"])
    with pytest.raises(ValueError, match=rf"^methods\.METHODS\['{name}'\]: .* rename it$"):
        config.default_config()


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ("config.train.rounds = 6", ""),
        ("config.train.rounds = 6; config.lock()", ""),
        ("config = config_dict.FrozenConfigDict(config)", "train.rounds=6"),
        ("config = config.to_dict()", "train.rounds=6"),
        ("config.train.rounds = config.network.get_ref('num_edges')", "network.num_edges=6"),
    ],
)
def test_load_runs_a_python_file(tmp_path, body, changes):
    """Which may lock or freeze its config, return a dict, or let fields refer to others."""
    chosen = config.load(write_python(tmp_path, body))
    for change in changes.split():
        config.set_field(chosen, *change.split("="))
    config.set_field(chosen, "train.local_steps", "None")
    config.set_field(chosen, "train.local_epochs", "2")
    train = config.to_spec(chosen).train
    assert (train.rounds, train.local_steps, train.local_epochs) == (6, None, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["made.py"]  # no __pycache__


def test_load_hands_get_config_its_argument(tmp_path):
    path = write(
        tmp_path,
        "from cefl_jax.config import default_config\n"
        "def get_config(rounds='3'):\n"
        "    config = default_config()\n"
        "    config.train.rounds = int(rounds)\n"
        "    return config\n",
        "made.py",
    )
    assert config.load(path).train.rounds == 3
    assert config.load(f"{path}:8").train.rounds == 8
    plain = write_python(tmp_path, "pass")
    line = refusal(config.load, f"{plain}:big")
    check_words(line, f"--config={plain}:big: get_config: too many positional ... --config=FILE")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("del config.train", "train is missing"),
        ("del config.fedprox.mu", "fedprox.mu is missing"),
        ("config.train.epochs = 3", "train.epochs is not a field; did you mean train.local_epo"),
    ],
)
def test_load_refuses_a_python_file_with_other_fields(tmp_path, body, words):
    check_words(refusal(config.load, write_python(tmp_path, body)), words)


def test_to_spec_refuses_a_python_file_that_leaves_out_a_value(tmp_path):
    body = "config.train = {**config.train, 'rounds': config_dict.required_placeholder(int)}"
    assert refusal(to_spec, write_python(tmp_path, body)).startswith("train.rounds has no value (")


NAMED = "name the config.json that a run left"
NO_CONFIG = {  # content of a file, and what is said of it
    "made.py": [
        ("this is not python at all", "SyntaxError"),
        ("get_config = 3", "the file needs a function get_config"),
        ("import nonesuch", "ModuleNotFoundError in line 1: No module named 'nonesuch'; correct"),
        ("raise SystemExit(0)", "SystemExit in line 1"),
        ("def get_config():\n    raise KeyError('k')", "KeyError in line 2: 'k'; correct"),
        ("def get_config(): return 3", "get_config returns 3 and needs to return a ConfigDict"),
        ("def get_config(size): return 3", "get_config: missing a required argument: 'size'"),
        ("def get_config(): return {'a.b': 3}", "ValueError"),
        ("raise ValueError('a\\nb')", "ValueError in line 1: a?b; correct"),
        (b"\x00\xff", ""),
    ],
    "config.json": [
        ("{", "cannot be read as JSON: "),
        ('{"seed": NaN}', "cannot be read as JSON: NaN is no number in JSON; correct it"),
        (" " * (MAX_JSON_BYTES + 1), f"has {MAX_JSON_BYTES + 1} bytes, and {MAX_JSON_BYTES} is"),
        ("null", f"has no seed; {NAMED}"),
        ('{"seed": 1, "method": "name"}', f"has no method.name; {NAMED}"),
        *((with_field(path, ...), f"has no {path}; {NAMED}") for path in NAMING),
        (json.dumps(with_field("seed", 0.5)).replace("0.5", "1e999"), "seed=inf: needs a whole"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [(name, content, words) for name, rows in NO_CONFIG.items() for content, words in rows],
)
def test_load_refuses_what_makes_no_config(tmp_path, name, content, words):
    location = write(tmp_path, content, name)
    check_words(refusal(config.load, location), f"--config={location}: {words}")


def test_load_refuses_what_is_no_regular_file(tmp_path):
    (tmp_path / "run.json").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    os.mkfifo(tmp_path / "pipe.json")
    for name, words in {
        "": "is a folder; to repeat the run in it, add /config.json",
        "run.json": "is a folder; to repeat the run in it, add /config.json",
        "pipe.py": "is a pipe or a device; name a regular file",
        "pipe.json": "is a pipe or a device; name a regular file",
        "absent.json": "there is no such file; name the config.json of a run",
        "absent.py": "there is no such file; configs/ has some to copy",
    }.items():
        location = str(tmp_path / name)
        check_words(refusal(config.load, location), f"--config={location}: {words}")


def test_load_takes_a_config_json_anywhere(tmp_path):
    for folder, name in (("a:b", "config.json"), ("CAPITALS", "x.JSON"), ("a b", "config.json")):
        (tmp_path / folder).mkdir()
        location = write(tmp_path / folder, with_field("seed", 7), name)
        assert config.load(location).seed == 7
    line = refusal(config.load, f"{location}:big")
    assert line == f"--config={location}:big: a JSON file takes no text; write --config={location}"


@pytest.mark.parametrize(
    "changes",
    [
        "method.name=fedavg model.name=mlp seed=4294967295",
        "method.name=fedgkt fedgkt.server_epochs=2 run.archive_dtype=bfloat16",
        "data.partition.name=file data.partition.path=ab/\u00fc:1.json",
        "data.normalization.mean=0.1,0.2,0.3 data.normalization.std=0.5",
        "train.local_steps=None train.local_epochs=2 train.optimizer.clip_norm=2.5",
        "run.client_chunk=5 run.devices=2 run.deterministic=False",
    ],
)
def test_load_repeats_a_run(tmp_path, changes):
    spec = spec_with(changes)
    assert to_spec(write(tmp_path, config.to_dict(spec))) == spec


def test_load_gives_what_is_newer_than_the_file_its_default(tmp_path):
    names = {"method": "fedavg", "data": "digits", "model": "mlp"}
    old = {"seed": 5} | {group: {"name": name} for group, name in names.items()}
    spec = to_spec(write(tmp_path, old))
    assert (spec.seed, spec.data.name, spec.train) == (5, "digits", default_spec().train)


@pytest.mark.parametrize("method", ["fedavg", "splitfed_v2", "sequential_split", "centralized"])
def test_load_leaves_automatic_what_was_chosen_and_not_read(tmp_path, method):
    made = with_field("method.name", method)
    made["run"] |= {"client_chunk": 1, "devices": 1, "distill_parts": 2}
    run = to_spec(write(tmp_path, made)).run
    chunk = 1 if method == "fedavg" else None
    assert (run.client_chunk, run.devices, run.distill_parts) == (chunk, 1, None)


def test_load_drops_what_an_earlier_version_noted_and_nothing_reads(tmp_path):
    made = with_field("method.name", "fedavg")
    made["model"]["cut"] = 3
    loaded = config.load(write(tmp_path, made))
    assert flatten(config.to_spec(loaded)) == DEFAULTS | {"method.name": "fedavg"}
    config.set_field(loaded, "model.cut", "3")
    assert refusal(config.to_spec, loaded).startswith("model.cut=3: not read with ")


words = st.text(st.characters(codec="utf-8"), max_size=20)
floats = st.floats(-3.4e38, 3.4e38)


def values(hint, path):
    """Values of a field's type, whether or not they can be run."""
    if type(None) in typing.get_args(hint):
        return st.none() | values(typing.get_args(hint)[0], path)
    if typing.get_origin(hint) is tuple:
        return st.lists(floats, max_size=4).map(tuple)
    kinds = {int: st.integers(-(10**18), 10**18), float: floats, bool: st.booleans(), str: words}
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
@settings(deadline=None, max_examples=60)
@given(specs())
def test_load_keeps_every_value_that_something_reads(tmp_path_factory, spec):
    noted = config.to_dict(spec)
    location = write(tmp_path_factory.getbasetemp(), noted, "drawn.json")
    loaded = traverse_util.flatten_dict(config.load(location).to_dict(), sep=".")
    assert loaded == {
        path: value if path.split(".")[0] in noted else DEFAULTS[path]
        for path, value in without_unread(flatten(spec)).items()
    }
