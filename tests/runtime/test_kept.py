"""What processes keep on disk for the next: keys, damage, room, and compiled programs."""

import importlib
import os
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from cefl_jax import parallel
from cefl_jax.runtime import cpu, kept


@pytest.fixture
def folder(tmp_path):
    """A folder that is not there yet."""
    return tmp_path / "kept"


@pytest.fixture
def no_cache():
    """JAX as it is where nobody has named a folder for its own cache."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def recall(folder, key, value, warn=pytest.fail):
    """What a new process gets under a key, where it would make a value."""
    return kept.Kept(folder, warn).recall(key, lambda: value)


def test_recall_makes_a_thing_once_for_each_key(folder):
    assert recall(folder, ("a", 1), "first") == "first"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert recall(folder, ("a", 1), "second") == "first"
    assert recall(folder, ("a", 2), "other") == "other"
    assert recall(folder, ("a", 2), "second") == "other"
    assert {path.suffix for path in folder.iterdir()} == {".kept"}


def test_recall_makes_it_anew_where_a_loaded_file_or_a_setting_has_changed(
    folder, tmp_path, monkeypatch
):
    module = tmp_path / "my_model_of_this_test.py"
    module.write_text("WIDTH = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    recall(folder, "key", "before")
    importlib.import_module(module.stem)
    assert recall(folder, "key", "loaded") == "loaded"
    module.write_text("WIDTH = 2\n")
    assert recall(folder, "key", "of WIDTH = 1 still") == "loaded"
    kept._hash_file.cache_clear()  # as in a process that loads it now
    assert recall(folder, "key", "changed") == "changed"
    assert recall(folder, "key", "again") == "changed"
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"] + " --xla_cpu_enable_fast_math=true")
    assert recall(folder, "key", "flags") == "flags"
    monkeypatch.undo()
    assert recall(folder, "key", "as it was") == "before"


def test_recall_makes_it_anew_where_a_file_that_was_run_has_changed(folder):
    """It is not among the loaded modules: a config, with a person's model in it."""
    for text, made in (("a", "first"), ("b", "second"), ("a", "third")):
        got = kept.Kept(folder, pytest.fail, {"config.py": text}).recall(
            "key", lambda made=made: made
        )
        assert got == ("first" if text == "a" else "second")


def test_recall_keeps_nothing_where_code_cannot_be_read(folder, monkeypatch):
    module = types.ModuleType("zipped_of_this_test")
    module.__file__ = "/nowhere/models.zip/zipped_of_this_test.py"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert [recall(folder, "key", value) for value in "ab"] == ["a", "b"]
    assert not folder.exists()


def test_recall_goes_on_where_a_thing_cannot_be_pickled(folder):
    warned = []
    for _ in range(2):
        assert recall(folder, "key", lambda: 7, warned.append)() == 7
    assert [line.split(":")[0] for line in warned] == [kept.NOT_KEPT.split(":")[0]] * 2
    assert not list(folder.glob("*"))


@pytest.mark.parametrize("damage", [lambda x: b"", lambda x: x[:-1], lambda x: x[:-1] + b"\xff"])
def test_recall_says_what_is_damaged_and_makes_it_anew(folder, damage):
    recall(folder, "key", "good")
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    warned = []
    assert recall(folder, "key", "anew", warned.append) == "anew"
    (line,) = warned
    assert line == f"{path} cannot be used, and is made anew: it is damaged"
    assert recall(folder, "key", "later") == "anew"


def test_recall_goes_on_where_nothing_can_be_written(tmp_path):
    (tmp_path / "kept").touch()
    warned = []
    assert recall(tmp_path / "kept", "key", "made", warned.append) == "made"
    assert warned[-1].startswith("compiled programs cannot be kept for later runs: ")
    assert str(tmp_path / "kept") in warned[-1]


def test_recall_keeps_what_was_used_last(folder, monkeypatch):
    for at, key in enumerate("abc"):
        recall(folder, key, key * 1000)
        (path,) = (each for each in folder.iterdir() if each.stat().st_mtime > 10)
        os.utime(path, (at, at))
    recall(folder, "a", "lost")  # used now
    monkeypatch.setattr(kept, "MAX_BYTES", 3500)
    recall(folder, "d", "d" * 1000)
    assert [recall(folder, key, "lost")[0] for key in "acd"] == ["a", "c", "d"]
    monkeypatch.setattr(kept, "MAX_BYTES", 10**6)
    assert recall(folder, "b", "lost") == "lost"


def test_remember_recalls_by_arguments(folder):
    calls = []

    def add(a, b):
        calls.append((a, b))
        return a + b

    for _ in range(2):
        add_kept = kept.Kept(folder, pytest.fail).remember(add)
        assert [add_kept(1, 2), add_kept(2, 2)] == [3, 4]
    assert calls == [(1, 2), (2, 2)]


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("num_devices", [1, 2])
def test_programs_come_back_as_they_were(folder, num_devices):
    """With their trees, where they put things, and the same bits."""
    mesh = parallel.make_mesh(num_devices)
    devices = list(mesh.mesh.devices.flat)

    def f(state, x):
        each = mesh.map(lambda i, x: jnp.sin(x + i) @ x, 3, x)
        return {"sum": state["sum"] + each.sum(0), "key": state["key"]}, each.max()

    state = {"sum": jnp.ones((5, 5)), "key": jax.random.key(3)}
    arguments = jax.device_put((state, jnp.eye(5)), mesh.everywhere)

    def compile():
        jitted = jax.jit(f, in_shardings=mesh.everywhere, out_shardings=mesh.everywhere)
        return (jitted.lower(*arguments).compile(),)

    def run():
        (program,) = kept.Kept(folder, pytest.fail).recall(
            "f", made.pop, kept.pack_programs, lambda packed: kept.unpack_programs(devices, packed)
        )
        return program(*arguments)

    made = [compile()]
    first, again = run(), run()
    assert not made
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        assert one.sharding == other.sharding
        assert one.dtype == other.dtype
    assert (jax.random.key_data(first[0]["key"]) == jax.random.key_data(again[0]["key"])).all()
    np.testing.assert_array_equal(first[0]["sum"], again[0]["sum"])
    assert first[1] == again[1]


@pytest.mark.usefixtures("no_cache")
def test_open_kept_is_below_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert kept.cache_folder() == tmp_path / ".cache" / "cefl_jax"
    for given in ("", "not/absolute"):  # is to be ignored, says the XDG specification
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert kept.cache_folder() == tmp_path / ".cache" / "cefl_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert kept.open_kept().folder == tmp_path / "elsewhere" / "cefl_jax" / cpu.machine()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "named"))
    assert kept.open_kept() is None
