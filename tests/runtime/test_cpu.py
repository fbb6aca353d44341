"""The CPU's devices, its rounding after every operation, and compiled programs kept on disk."""

import os
import pathlib
import platform
import subprocess
import sys
import types

import jax
import jaxlib
import pytest
from jax._src.lru_cache import LRUCache  # for its lock, which has no other name
from jax.experimental.compilation_cache import compilation_cache

from cefl_jax.runtime import cpu

ROOT = pathlib.Path(__file__).parents[2]
SUMS = """
import jax
import numpy as np

from cefl_jax import compiler
from cefl_jax.runtime import cpu

if {made_ready}:
    cpu.set_up()
a, b, c, d = np.random.default_rng(3).normal(size=(4, 1000)).astype(np.float32)
add = jax.jit(lambda a, b, c, d: a * b + c * d).lower(a, b, c, d)
print((np.asarray(compiler.compile_lowered(add)(a, b, c, d)) == a * b + c * d).mean())
"""


@pytest.fixture
def unused(monkeypatch):
    """The settings of a JAX that nobody has used yet."""
    values = {"jax_num_cpu_devices": -1}
    config = types.SimpleNamespace(values=values, update=values.__setitem__)
    monkeypatch.setattr(cpu, "jax", types.SimpleNamespace(config=config))
    return values


def share_rounded(made_ready):
    """Of sums of products in a process of its own, how many are those of rounded products."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    script = SUMS.format(made_ready=made_ready)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.skipif(platform.machine() not in cpu.X86, reason="elsewhere it may fuse")
def test_set_up_has_products_rounded_before_they_are_added():
    assert share_rounded(True) == 1
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists() and " fma " in cpuinfo.read_text():
        assert share_rounded(False) < 1, "it is so without that as well"


@pytest.mark.parametrize(
    ("machine", "before", "after"),
    [
        ("x86_64", "", "--xla_cpu_max_isa=AVX"),
        ("AMD64", "--xla_dump_to=x", "--xla_dump_to=x --xla_cpu_max_isa=AVX"),
        ("x86_64", "--xla_cpu_max_isa=AVX2", "--xla_cpu_max_isa=AVX2"),
        ("aarch64", "", ""),
    ],
)
@pytest.mark.usefixtures("unused")
def test_set_up_adds_to_the_flags_of_xla_and_never_changes_them(
    monkeypatch, machine, before, after
):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setenv("XLA_FLAGS", before)
    cpu.set_up(deterministic=False)
    assert os.environ["XLA_FLAGS"] == before
    cpu.set_up()
    assert os.environ["XLA_FLAGS"] == after


@pytest.mark.parametrize(
    ("chosen", "flags", "after"),
    [(-1, "", 3), (5, "", 5), (-1, "--xla_force_host_platform_device_count=4", -1)],
)
def test_set_up_keeps_a_chosen_number_of_devices(monkeypatch, unused, chosen, flags, after):
    unused["jax_num_cpu_devices"] = chosen
    monkeypatch.setenv("XLA_FLAGS", flags)
    cpu.set_up(3, pytest.fail)
    assert unused["jax_num_cpu_devices"] == after


@pytest.mark.parametrize(
    ("machine", "devices", "flags", "words"),
    [
        ("x86_64", -1, "", ["not split", "the same bits"]),
        ("x86_64", 8, "", ["the same bits"]),
        ("aarch64", -1, "", ["not split"]),
        ("x86_64", -1, "--xla_cpu_max_isa=AVX", ["not split"]),
        ("x86_64", 8, "--xla_cpu_max_isa=AVX", []),
    ],
)
def test_set_up_says_what_does_not_hold_where_jax_is_in_use(
    monkeypatch, machine, devices, flags, words
):
    jax.devices()
    values, warned = {"jax_num_cpu_devices": devices}, []
    config = types.SimpleNamespace(values=values, update=jax.config.update)
    monkeypatch.setattr(cpu, "jax", types.SimpleNamespace(config=config))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setenv("XLA_FLAGS", flags)
    cpu.set_up(3, warned.append)
    assert os.environ["XLA_FLAGS"] == flags
    assert len(warned) == bool(words)
    for phrase in ("not split", "the same bits"):
        assert (phrase in "".join(warned)) == (phrase in words)
    assert "\n" not in "".join(warned)


SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)
CPU = "processor : 0\nmodel name : Abacus\nflags : fpu {}\ncpu MHz : {}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a cache, with JAX as it is where nobody has named one."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path / "cefl_jax" / cpu.machine()
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


def test_use_compile_cache_keeps_and_finds_programs(folder, events):
    cpu.use_compile_cache()
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


@pytest.mark.parametrize("damage", ["without its stamp", "half, without its stamp", "empty"])
def test_use_compile_cache_removes_an_unfinished_program(folder, events, damage):
    cpu.use_compile_cache()
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


def test_remove_unfinished_leaves_what_another_process_is_writing(folder, monkeypatch):
    """Nothing is removed while somebody has the lock that JAX writes under."""
    cpu.use_compile_cache()
    monkeypatch.setattr(cpu, "CACHE_LOCK_S", 0.0)
    (folder / "key-cache").write_bytes(b"")
    with LRUCache(str(folder), max_size=1).lock, pytest.raises(OSError, match="lock"):
        cpu.remove_unfinished(folder)
    assert (folder / "key-cache").exists()
    cpu.remove_unfinished(folder)
    assert not (folder / "key-cache").exists()


def test_use_compile_cache_leaves_a_folder_that_the_user_has_named(folder, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "named"))
    before = [getattr(jax.config, name) for name in SETTINGS]
    cpu.use_compile_cache()
    assert [getattr(jax.config, name) for name in SETTINGS] == before
    assert not folder.exists()


def test_use_compile_cache_leaves_jax_as_it_was_where_nothing_can_be_written(
    folder, tmp_path, monkeypatch
):
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
def test_cache_folder_is_the_users(tmp_path, monkeypatch, variable, base):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable is not None:
        monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", variable.format(tmp_path))
    assert cpu.cache_folder() == tmp_path / base / "cefl_jax"


def test_machine_names_each_kind_of_cpu_and_compiler(monkeypatch):
    def named(flags, mhz):
        monkeypatch.setattr(pathlib.Path, "exists", lambda _: True)
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _: CPU.format(flags, mhz))
        return cpu.machine()

    assert named("sse avx2", 2000) == named("sse avx2", 3000)
    assert named("sse avx2", 2000) != named("sse", 2000)
    assert named("sse", 2000).endswith(jaxlib.__version__)
