"""Config files: what they may do, and what is said of those that make no config."""

import os

import pytest

from cefl_jax import config
from cefl_jax.config import SettingError


def file_of(folder, body):
    """A config file with a get_config that starts from the defaults."""
    path = folder / "made.py"
    path.write_text(
        "from ml_collections import config_dict\n"
        "from cefl_jax.config import default_config\n"
        f"def get_config():\n    config = default_config()\n    {body}\n    return config\n"
    )
    return str(path)


def test_a_file_makes_a_config(tmp_path):
    loaded = config.load(file_of(tmp_path, "config.train.rounds = 3"))
    assert config.to_spec(loaded).train.rounds == 3
    assert [path.name for path in tmp_path.iterdir()] == ["made.py"]  # no __pycache__


def test_a_file_may_lock_freeze_or_return_a_dict(tmp_path):
    for body in (
        "config.lock()",
        "config = config_dict.FrozenConfigDict(config)",
        "config = config.to_dict()",
    ):
        loaded = config.load(file_of(tmp_path, body))
        config.set_field(loaded, "train.rounds", "3")
        assert config.to_spec(loaded).train.rounds == 3


def test_a_file_may_take_an_argument(tmp_path):
    path = tmp_path / "made.py"
    path.write_text(
        "from cefl_jax.config import default_config\n"
        "def get_config(rounds='3'):\n"
        "    config = default_config()\n"
        "    config.train.rounds = int(rounds)\n"
        "    return config\n"
    )
    assert config.load(str(path)).train.rounds == 3
    assert config.load(f"{path}:8").train.rounds == 8


def test_a_field_may_refer_to_another(tmp_path):
    body = "config.train.rounds = config.network.get_ref('num_edges') * 10"
    loaded = config.load(file_of(tmp_path, body))
    config.set_field(loaded, "network.num_edges", "6")
    assert config.to_spec(loaded).train.rounds == 60


def test_a_field_without_its_value(tmp_path):
    body = (
        "config.train = config_dict.ConfigDict({**config.train.to_dict(), 'rounds': "
        "config_dict.required_placeholder(int)})"
    )
    loaded = config.load(file_of(tmp_path, body))
    with pytest.raises(SettingError, match=r"^train\.rounds has no value .*set --config\."):
        config.to_spec(loaded)
    config.set_field(loaded, "train.rounds", "5")
    assert config.to_spec(loaded).train.rounds == 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        ("this is not python at all", "SyntaxError"),
        ("x = 1", "needs a function get_config"),
        ("get_config = 3", "needs a function get_config"),
        ("import nonesuch", "ModuleNotFoundError in line 1: No module named 'nonesuch'; correct"),
        ("raise SystemExit(0)", "SystemExit in line 1"),
        ("def get_config():\n    raise KeyError('k')", "KeyError in line 2: 'k'; correct"),
        ("def get_config(): return 3", "get_config returns 3 and needs to return a ConfigDict"),
        ("def get_config(): return None", "get_config returns None"),
        ("def get_config(size): return 3", "get_config: missing a required argument: 'size'"),
        ("def get_config(): return {'a.b': 3}", "ValueError"),
        ("raise ValueError('a\\nb')", "ValueError in line 1: a?b; correct"),
        (b"\x00\xff", "Error"),
    ],
)
def test_a_file_that_makes_no_config(tmp_path, content, words):
    path = tmp_path / "made.py"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingError) as caught:
        config.load(str(path))
    assert str(caught.value).startswith(f"--config={path}: ")
    assert str(caught.value).isprintable()
    assert words in str(caught.value)


def test_an_argument_that_get_config_does_not_take(tmp_path):
    path = file_of(tmp_path, "pass")
    with pytest.raises(SettingError) as caught:
        config.load(f"{path}:big")
    assert str(caught.value).startswith(f"--config={path}:big: get_config: too many positional")
    assert "write --config=FILE where it takes no argument" in str(caught.value)


def test_what_is_no_regular_file_is_refused(tmp_path):
    (tmp_path / "run.json").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    os.mkfifo(tmp_path / "pipe.json")
    for name, told in (
        ("", "is a folder; to repeat the run in it, add /config.json"),
        ("run.json", "is a folder; to repeat the run in it, add /config.json"),
        ("pipe.py", "is a pipe or a device; name a regular file"),
        ("pipe.json", "is a pipe or a device; name a regular file"),
        ("absent.json", "there is no such file; name the config.json of a run"),
    ):
        with pytest.raises(SettingError) as caught:
            config.load(str(tmp_path / name))
        assert str(caught.value) == f"--config={tmp_path / name}: {told}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("del config.train.rounds", "train.rounds is missing"),
        ("del config.train", "train is missing"),
        (
            "config.train.epochs = 3",
            "train.epochs is not a field; did you mean train.local_epochs?",
        ),
        ("config = {**config.to_dict(), 'train': 3}", "train=3: needs to be a group of fields"),
        ("config = {**config.to_dict(), 'seed': {'a': 1}}", "seed=a: 1"),
        (
            "config = {**config.to_dict(), 'seed': 10**5000}",
            "seed=a number of thousands of digits: ",
        ),
        ("config = {**config.to_dict(), 'a\\nb': 1}", r"'a\nb' is not a field; known here: seed, "),
    ],
)
def test_a_file_with_other_fields(tmp_path, body, words):
    with pytest.raises(SettingError) as caught:
        config.to_spec(config.load(file_of(tmp_path, body)))
    assert str(caught.value).startswith(words)
    assert str(caught.value).isprintable()


def test_texts_are_set_whatever_type_the_file_gave(tmp_path):
    loaded = config.load(file_of(tmp_path, "config = config.to_dict()"))
    config.set_field(loaded, "train.local_steps", "None")
    config.set_field(loaded, "train.local_epochs", "2")
    config.set_field(loaded, "cefl.distill.temperature_cloud", "3")
    spec = config.to_spec(loaded)
    assert (spec.train.local_steps, spec.train.local_epochs) == (None, 2)
    assert spec.cefl.distill.temperature_cloud == 3.0
