"""The CPU's devices, and its rounding after every operation."""

import os
import pathlib
import platform
import subprocess
import sys
import types

import jax
import jaxlib
import pytest

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


AVX2 = "--xla_cpu_max_isa=AVX2"
AVX, SHORT = cpu.ROUNDED, cpu.NOT_UNROLLED
OWN = "--xla_backend_extra_options=xla_cpu_x"
FORCED = "--xla_force_host_platform_device_count=4"


@pytest.mark.parametrize(
    ("machine", "chosen", "before", "after", "devices"),
    [
        ("AMD64", -1, "--xla_dump_to=x", f"--xla_dump_to=x {AVX} {SHORT}", 3),
        ("x86_64", -1, AVX2, f"{AVX2} {SHORT}", 3),
        ("aarch64", -1, "", SHORT, 3),
        ("x86_64", 5, "", f"{AVX} {SHORT}", 5),
        ("x86_64", -1, OWN, f"{OWN} {AVX}", 3),
        ("x86_64", -1, FORCED, f"{FORCED} {AVX} {SHORT}", -1),
    ],
)
def test_set_up_keeps_what_was_chosen(monkeypatch, machine, chosen, before, after, devices):
    values = pretend(monkeypatch, chosen, before, machine)
    monkeypatch.setattr(cpu, "_has_accelerators", lambda: True)
    cpu.set_up(3, pytest.fail, deterministic=False)
    assert os.environ["XLA_FLAGS"] == before
    monkeypatch.setattr(cpu, "_has_accelerators", lambda: False)
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


def test_machine_names_each_kind_of_cpu_and_compiler(monkeypatch):
    def named(flags, mhz):
        monkeypatch.setattr(pathlib.Path, "exists", lambda _: True)
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _: CPUINFO.format(flags, mhz))
        return cpu.machine()

    assert named("sse avx2", 2000) == named("sse avx2", 3000)
    assert named("sse avx2", 2000) != named("sse", 2000)
    assert named("sse", 2000).endswith(jaxlib.__version__)
