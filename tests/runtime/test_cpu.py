"""The CPU's devices, and its rounding after every operation."""

import os
import platform
import types

import numpy as np
import pytest

from cefl_jax.runtime import cpu
from tests.quick import run_jit

ON_X86 = pytest.mark.skipif(platform.machine() not in cpu.X86, reason="elsewhere it may fuse")


@ON_X86
def test_products_are_rounded_before_they_are_added():
    rng = np.random.default_rng(3)
    a, b, c, d = rng.normal(size=(4, 1000)).astype(np.float32)
    sums = run_jit(lambda a, b, c, d: a * b + c * d)(a, b, c, d)
    np.testing.assert_array_equal(sums, a * b + c * d)
    fused = (np.float64(a) * b + c * d).astype(np.float32)
    assert (fused != sums).any(), "fused, they would be as well, and this says nothing"


@pytest.mark.parametrize(
    ("machine", "before", "after"),
    [
        ("x86_64", None, "--xla_cpu_max_isa=AVX"),
        ("AMD64", "--xla_dump_to=x", "--xla_dump_to=x --xla_cpu_max_isa=AVX"),
        ("x86_64", "--xla_cpu_max_isa=AVX2", "--xla_cpu_max_isa=AVX2"),
        ("aarch64", None, None),
    ],
)
def test_the_flags_of_xla_are_added_to_and_never_changed(monkeypatch, machine, before, after):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.delenv("XLA_FLAGS")
    if before:
        monkeypatch.setenv("XLA_FLAGS", before)
    cpu.set_up()
    assert os.environ.get("XLA_FLAGS") == after


@pytest.mark.parametrize(
    ("chosen", "flags", "after"),
    [(-1, "", 3), (5, "", 5), (-1, "--xla_force_host_platform_device_count=4", -1)],
)
def test_the_number_of_devices_stays_where_it_was_chosen(monkeypatch, chosen, flags, after):
    values = {"jax_num_cpu_devices": chosen}
    config = types.SimpleNamespace(values=values, update=values.__setitem__)
    monkeypatch.setattr(cpu, "jax", types.SimpleNamespace(config=config))
    monkeypatch.setenv("XLA_FLAGS", flags)
    cpu.set_up(3)
    assert values["jax_num_cpu_devices"] == after
