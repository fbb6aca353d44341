"""The CPU's devices, and its rounding after every operation."""

import os
import pathlib
import platform
import subprocess
import sys
import types

import jax
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
def test_products_are_rounded_before_they_are_added():
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
def test_the_flags_of_xla_are_added_to_and_never_changed(
    monkeypatch, unused, machine, before, after
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
def test_the_number_of_devices_stays_where_it_was_chosen(monkeypatch, unused, chosen, flags, after):
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
def test_where_jax_is_in_use_one_line_says_what_does_not_hold(
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
