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
KEPT = "jax_compilation_cache_dir"
SETTINGS = (KEPT, "jax_compilation_cache_max_size", "jax_persistent_cache_min_compile_time_secs")
HIT = "/jax/compilation_cache/cache_hits"
CPUINFO = "processor : 0\nmodel name : Abacus\nflags : fpu {}\ncpu MHz : {}\n"


def share_rounded(made_ready):
    """Of sums of products in a process of its own, how many are those of rounded products."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", SUMS.format(made_ready=made_ready)]
    options = {"cwd": ROOT, "env": environment, "text": True, "check": True}
    return float(subprocess.run(command, capture_output=True, **options).stdout)


@pytest.mark.skipif(platform.machine() not in cpu.X86, reason="elsewhere it may fuse")
def test_set_up_has_products_rounded_before_they_are_added():
    assert share_rounded(True) == 1
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists() and " fma " in cpuinfo.read_text():
        assert share_rounded(False) < 1, "it is so without that as well"


def pretend(monkeypatch, devices, flags="", machine="x86_64", update=None):
    """Settings of JAX on some machine; those of one that nobody has used yet can be updated."""
    values = {"jax_num_cpu_devices": devices}
    config = types.SimpleNamespace(values=values, update=update or values.__setitem__)
    monkeypatch.setattr(cpu, "jax", types.SimpleNamespace(config=config))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setenv("XLA_FLAGS", flags)
    return values


AVX, AVX2 = "--xla_cpu_max_isa=AVX", "--xla_cpu_max_isa=AVX2"
FORCED = "--xla_force_host_platform_device_count=4"


@pytest.mark.parametrize(
    ("machine", "chosen", "before", "after", "devices"),
    [
        ("AMD64", -1, "--xla_dump_to=x", f"--xla_dump_to=x {AVX}", 3),
        ("x86_64", -1, AVX2, AVX2, 3),
        ("aarch64", -1, "", "", 3),
        ("x86_64", 5, "", AVX, 5),
        ("x86_64", -1, FORCED, f"{FORCED} {AVX}", -1),
    ],
)
def test_set_up_keeps_what_was_chosen(monkeypatch, machine, chosen, before, after, devices):
    values = pretend(monkeypatch, chosen, before, machine)
    cpu.set_up(3, pytest.fail, deterministic=False)
    assert os.environ["XLA_FLAGS"] == before
    cpu.set_up(3, pytest.fail)
    assert os.environ["XLA_FLAGS"] == after
    assert values["jax_num_cpu_devices"] == devices


@pytest.mark.parametrize(
    ("machine", "devices", "flags", "words"),
    [
        ("x86_64", -1, "", ["not split", "the same bits"]),
        ("x86_64", 8, "", ["the same bits"]),
        ("aarch64", -1, "", ["not split"]),
        ("x86_64", -1, AVX, ["not split"]),
        ("x86_64", 8, AVX, []),
    ],
)
def test_set_up_says_what_does_not_hold_where_jax_is_in_use(
    monkeypatch, machine, devices, flags, words
):
    jax.devices()
    warned = []
    pretend(monkeypatch, devices, flags, machine, jax.config.update)
    cpu.set_up(3, warned.append)
    assert os.environ["XLA_FLAGS"] == flags
    assert len(warned) == bool(words)
    said = "".join(warned)
    assert [phrase for phrase in ("not split", "the same bits") if phrase in said] == words
    assert "\n" not in said


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a cache, with JAX as it is where nobody has named one."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    compilation_cache.reset_cache()
    jax.config.update(KEPT, None)
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


def compile_one(constant):
    """Compiles a program that only this constant makes different."""
    jax.clear_caches()
    jax.jit(lambda x: x * constant)(2)


@pytest.mark.parametrize(("share", "stamped"), [(1.0, False), (0.5, False), (0.0, True)])
def test_use_compile_cache_keeps_programs_and_removes_an_unfinished_one(
    folder, events, share, stamped
):
    cpu.use_compile_cache()
    assert folder.stat().st_mode & 0o777 == 0o700
    compile_one(7)
    assert HIT not in events
    compile_one(7)
    assert HIT in events
    (program,) = folder.glob("jit__lambda*-cache")
    stamp = program.with_name(program.name[:-5] + "atime")
    program.write_bytes(program.read_bytes()[: int(program.stat().st_size * share)])
    if not stamped:
        stamp.unlink()
    compilation_cache.reset_cache()
    jax.config.update(KEPT, None)
    cpu.use_compile_cache()
    events.clear()
    compile_one(7)
    compile_one(8)
    assert HIT not in events
    assert len(list(folder.glob("jit__lambda*-cache"))) == 2
    assert stamp.exists()
    assert program.stat().st_size > 0


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


def test_use_compile_cache_leaves_jax_as_it_was(folder, tmp_path, monkeypatch):
    """Where nothing can be written, which is said, and where the user has named a folder."""
    warned = []
    for named, home in ((None, tmp_path / "file"), (str(tmp_path / "named"), tmp_path)):
        (tmp_path / "file").touch()
        jax.config.update(KEPT, named)
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        before = [getattr(jax.config, name) for name in SETTINGS]
        cpu.use_compile_cache(warned.append)
        assert [getattr(jax.config, name) for name in SETTINGS] == before
    (line,) = warned
    assert line.startswith("compiled programs cannot be kept for later runs: ")
    assert str(tmp_path / "file") in line
    assert not folder.exists()


def test_cache_folder_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cpu.cache_folder() == tmp_path / ".cache" / "cefl_jax"
    for given in ("", "not/absolute"):  # is to be ignored, says the XDG specification
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cpu.cache_folder() == tmp_path / ".cache" / "cefl_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cpu.cache_folder() == tmp_path / "elsewhere" / "cefl_jax"


def test_machine_names_each_kind_of_cpu_and_compiler(monkeypatch):
    def named(flags, mhz):
        monkeypatch.setattr(pathlib.Path, "exists", lambda _: True)
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _: CPUINFO.format(flags, mhz))
        return cpu.machine()

    assert named("sse avx2", 2000) == named("sse avx2", 3000)
    assert named("sse avx2", 2000) != named("sse", 2000)
    assert named("sse", 2000).endswith(jaxlib.__version__)
