"""Rounds computed in bfloat16, and features that wait in it, against float32."""

import jax
import numpy as np
import pytest

from tests import world
from tests.compare import assert_close
from tests.quick import quick_jit

HALF = {"run.compute_dtype": "bfloat16"}
WAITING = {"run.archive_dtype": "bfloat16"}


@pytest.fixture(scope="module")
def whole():
    return world.run_rounds(world.make_setup(), 2, quick_jit)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [HALF, WAITING], ids=["compute", "archive"])
def test_rounds_in_bfloat16_come_near_and_keep_float32_parameters(whole, changes):
    state, metrics = world.run_rounds(world.make_setup(changes), 2, quick_jit)
    wanted, was = whole
    trees = (state.halves, state.cloud), (wanted.halves, wanted.cloud)
    near = [
        np.linalg.norm(np.subtract(a, b)) / np.linalg.norm(b)
        for a, b in zip(*map(jax.tree.leaves, trees), strict=True)
        if np.ndim(a) > 1  # a bias is a sum of small terms of both signs
    ]
    assert {leaf.dtype for leaf in jax.tree.leaves(trees)} == {np.dtype("float32")}
    assert 0 < max(near) < 0.02
    assert_close(metrics.train_loss, was.train_loss, 0.02)


@pytest.mark.slow
def test_features_that_are_bfloat16_already_wait_in_it_unchanged():
    """What the wire rounds to bfloat16 loses nothing in the archive, on any number of devices."""
    sent = {"cefl.compression.smashed": "bf16"}
    states = [
        world.run_rounds(world.make_setup(sent | changes), 1)[0]
        for changes in ({}, WAITING, WAITING | {"run.devices": 3})
    ]
    for state in states[1:]:
        parts = (state.halves, state.cloud), (states[0].halves, states[0].cloud)
        jax.tree.map(np.testing.assert_array_equal, *parts)
