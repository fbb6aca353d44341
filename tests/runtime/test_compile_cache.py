"""Compiled programs are kept where the user keeps such things, and found again."""

import os
import pathlib

import jax
import jaxlib
import pytest
from jax._src.lru_cache import LRUCache  # for its lock, which has no other name
from jax.experimental.compilation_cache import compilation_cache

from cefl_jax.runtime import cpu

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)
CPU = "processor : 0\nmodel name : Abacus\nflags : fpu {}\ncpu MHz : {}\n"


@pytest.fixture
def _no_folder():
    """JAX as it is where nobody has told it of a cache."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def events():
    """Names of what JAX does from here on."""
    seen = []

    def listen(event, **_):
        seen.append(event)

    jax.monitoring.register_event_listener(listen)
    yield seen
    jax.monitoring.unregister_event_listener(listen)


@pytest.mark.usefixtures("_no_folder")
def test_what_is_compiled_is_kept_and_found(tmp_path, monkeypatch, events):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu.use_compile_cache()
    folder = tmp_path / "cefl_jax" / cpu.machine()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.glob("*-cache")) == []
    for _ in range(2):
        jax.clear_caches()
        assert "/jax/compilation_cache/cache_hits" not in events
        jax.jit(lambda x: x * 7 - 5)(2)
    assert "/jax/compilation_cache/cache_hits" in events
    assert list(folder.glob("*-cache"))


def compile_one(constant):
    """Compiles a program that only this constant makes different."""
    jax.clear_caches()
    jax.jit(lambda x: x * constant)(2)


@pytest.mark.usefixtures("_no_folder")
@pytest.mark.parametrize("damage", ["without its stamp", "half, without its stamp", "empty"])
def test_an_unfinished_program_is_removed_and_does_not_end_the_writing(
    tmp_path, monkeypatch, events, damage
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu.use_compile_cache()
    folder = tmp_path / "cefl_jax" / cpu.machine()
    compile_one(7)
    (program,) = folder.glob("jit__lambda*-cache")
    content, stamp = program.read_bytes(), program.with_name(program.name[:-5] + "atime")
    if damage == "empty":
        program.write_bytes(b"")
    else:
        program.write_bytes(content[: len(content) // 2] if "half" in damage else content)
        stamp.unlink()
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    cpu.use_compile_cache()
    events.clear()
    compile_one(7)
    compile_one(8)
    assert "/jax/compilation_cache/cache_hits" not in events
    assert len(list(folder.glob("jit__lambda*-cache"))) == 2
    assert stamp.exists()
    assert program.stat().st_size > 0
    compile_one(7)
    assert "/jax/compilation_cache/cache_hits" in events


@pytest.mark.usefixtures("_no_folder")
def test_what_another_process_is_writing_is_left_alone(tmp_path, monkeypatch):
    """Nothing is removed while somebody has the lock that JAX writes under."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu.use_compile_cache()
    folder = tmp_path / "cefl_jax" / cpu.machine()
    monkeypatch.setattr(cpu, "CACHE_LOCK_S", 0.0)
    (folder / "key-cache").write_bytes(b"")
    with LRUCache(str(folder), max_size=1).lock, pytest.raises(OSError, match="lock"):
        cpu.remove_unfinished(folder)
    assert (folder / "key-cache").exists()
    cpu.remove_unfinished(folder)
    assert not (folder / "key-cache").exists()


@pytest.mark.usefixtures("_no_folder")
def test_a_folder_that_the_user_has_named_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "unused"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "named"))
    before = [getattr(jax.config, name) for name in SETTINGS]
    cpu.use_compile_cache()
    assert [getattr(jax.config, name) for name in SETTINGS] == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_folder")
def test_where_nothing_can_be_written_jax_is_left_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    before = [getattr(jax.config, name) for name in SETTINGS]
    warned = []
    cpu.use_compile_cache(warned.append)
    (line,) = warned
    assert line.startswith("compiled programs cannot be kept for later runs: ")
    assert str(tmp_path / "file") in line
    assert [getattr(jax.config, name) for name in SETTINGS] == before


@pytest.mark.parametrize(
    ("variable", "base"),
    [
        (None, "home/.cache"),
        ("", "home/.cache"),
        ("not/absolute", "home/.cache"),  # is to be ignored, says the XDG specification
        ("{}/elsewhere", "elsewhere"),
    ],
)
def test_the_folder_is_the_users(tmp_path, monkeypatch, variable, base):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable is not None:
        monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", variable.format(tmp_path))
    assert cpu.cache_folder() == tmp_path / base / "cefl_jax"


def test_each_kind_of_cpu_and_compiler_has_a_name(monkeypatch):
    def named(flags, mhz):
        monkeypatch.setattr(pathlib.Path, "exists", lambda _: True)
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _: CPU.format(flags, mhz))
        return cpu.machine()

    assert named("sse avx2", 2000) == named("sse avx2", 3000)
    assert named("sse avx2", 2000) != named("sse", 2000)
    assert named("sse", 2000).endswith(jaxlib.__version__)
