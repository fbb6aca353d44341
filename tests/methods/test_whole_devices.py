"""FedAvg and SCAFFOLD: the number of devices changes no bit; the fast mode the rounding alone."""

import functools

import jax
import numpy as np
import pytest

from tests import world
from tests.compare import assert_close
from tests.quick import once_jit

CHANGES = {
    "train.local_steps": None,
    "train.local_epochs": 1,
    "train.optimizer.momentum": 0.9,
}


@functools.cache
def outcome(method, devices, deterministic=True, chunk=3):
    """Everything that two rounds lead to, as NumPy arrays.

    In chunks of 3 there are three, the last of one client: no number of devices fits.
    """
    settings = {
        "run.devices": devices,
        "run.deterministic": deterministic,
        "run.client_chunk": chunk,
    }
    setup = world.make_setup(CHANGES | settings | {"method.name": method})
    state, step, arrays = world.compile_round(setup, once_jit)
    for _ in range(2):
        state, metrics = step(state, *arrays)
    return jax.device_get((state._replace(key=jax.random.key_data(state.key)), metrics))


QUICK = {("scaffold", 4, True)}  # the others are slow


def cases(counts, deterministic):
    """Method and number of devices."""
    every = [(method, count) for method in ("fedavg", "scaffold") for count in counts]
    slow = pytest.mark.slow
    return [
        case if (*case, deterministic) in QUICK else pytest.param(*case, marks=slow)
        for case in every
    ]


@pytest.mark.parametrize(("method", "devices"), cases((2, 4), True))
def test_any_number_of_devices_gives_the_same_bits(method, devices):
    jax.tree.map(np.testing.assert_array_equal, outcome(method, devices), outcome(method, 1))


@pytest.mark.slow
def test_a_chunk_for_every_device_gives_the_same_bits():
    """A reduction over what is gathered then came in another order."""
    jax.tree.map(
        np.testing.assert_array_equal,
        outcome("fedavg", 4, chunk=2),
        outcome("fedavg", 1, chunk=2),
    )


@pytest.mark.parametrize(("method", "devices"), cases((1, 2, 4), False))
def test_fast_mode_differs_by_rounding_only(method, devices):
    assert_close(outcome(method, devices, deterministic=False), outcome(method, 1), 1e-4)
