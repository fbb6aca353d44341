"""Compiled programs are kept where the user keeps such things, and found again."""

import os
import pathlib

import jax
import jaxlib
import pytest
from jax.experimental.compilation_cache import compilation_cache

from cefl_jax.runtime import compile_cache

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
    compile_cache.keep()
    folder = tmp_path / "cefl_jax" / compile_cache.machine()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []
    for _ in range(2):
        jax.clear_caches()
        assert "/jax/compilation_cache/cache_hits" not in events
        jax.jit(lambda x: x * 7 - 5)(2)
    assert "/jax/compilation_cache/cache_hits" in events
    assert list(folder.glob("*-cache"))


@pytest.mark.usefixtures("_no_folder")
def test_a_folder_that_the_user_has_named_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "unused"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "named"))
    before = [getattr(jax.config, name) for name in SETTINGS]
    compile_cache.keep()
    assert [getattr(jax.config, name) for name in SETTINGS] == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_folder")
def test_where_nothing_can_be_written_jax_is_left_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    before = [getattr(jax.config, name) for name in SETTINGS]
    with pytest.raises(OSError, match="file"):
        compile_cache.keep()
    assert [getattr(jax.config, name) for name in SETTINGS] == before


@pytest.mark.parametrize(("variable", "base"), [
    (None, "home/.cache"),
    ("", "home/.cache"),
    ("not/absolute", "home/.cache"),  # is to be ignored, says the XDG specification
    ("{}/elsewhere", "elsewhere"),
])
def test_the_folder_is_the_users(tmp_path, monkeypatch, variable, base):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable is not None:
        monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", variable.format(tmp_path))
    assert compile_cache.user_folder() == tmp_path / base / "cefl_jax"


def test_each_kind_of_cpu_and_compiler_has_a_name(monkeypatch):
    def named(flags, mhz):
        monkeypatch.setattr(pathlib.Path, "exists", lambda _: True)
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _: CPU.format(flags, mhz))
        return compile_cache.machine()

    assert named("sse avx2", 2000) == named("sse avx2", 3000)
    assert named("sse avx2", 2000) != named("sse", 2000)
    assert named("sse", 2000).endswith(jaxlib.__version__)
