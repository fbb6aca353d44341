"""The number of devices changes no bit; the fast mode changes only the rounding."""

import functools

import jax
import numpy as np
import pytest

from cefl_jax import parallel, program
from tests import world
from tests.compare import assert_close
from tests.quick import once_jit, quick_jit, run_jit

RULES = {
    "balanced": {"cefl.clustering.rule": "balanced", "cefl.clustering.num_clusters": 4},
    "patent, epochs": {
        "cefl.clustering.rule": "patent",
        "train.local_steps": None,
        "train.local_epochs": 1,
        "train.optimizer.momentum": 0.9,
    },
    "convolutions": {"model.name": "lenet5", "cefl.clustering.num_clusters": 2},
    "moving network": {
        "network.dynamics": "markov",
        "network.deadline_s": 0.02,
        "network.late": "keep",
        "cefl.clustering.rule": "random",
        "cefl.offload.rule": "greedy",
        "cefl.compression.smashed": "int8",
        "cefl.compression.gradient": "int8",
        "cefl.privacy.noise_std": 0.1,
        "cefl.privacy.probe_size": 0,
        "cefl.distill.rule": "none",
    },
}


def outcome(rule, devices, deterministic=True):
    """Everything that two rounds and an evaluation lead to, as NumPy arrays."""
    side = 16 if rule == "convolutions" else 8
    changes = RULES[rule] | {"run.devices": devices, "run.deterministic": deterministic}
    # Four batches of test images: sums over items, too, keep their order.
    setup = world.make_setup(changes, side=side, num_test=1_700)
    start, advance = program.make_program(setup)
    everywhere = setup.mesh.everywhere
    arrays = (program.make_hparams(setup.spec), setup.data, setup.network)
    arrays = jax.device_put(arrays, everywhere)
    state = once_jit(start, out_shardings=everywhere)(jax.random.key(0), *arrays[1:])
    state, chunk = run_jit(advance, out_shardings=everywhere)(state, *arrays)
    state = state._replace(key=jax.random.key_data(state.key))
    return jax.device_get((state, chunk))


@functools.cache
def on_one_device(rule):
    return outcome(rule, 1)


QUICK = [("balanced", 4)]
LONG = [
    ("balanced", 2),
    ("balanced", 8),
    ("convolutions", 2),
    ("convolutions", 8),
    ("patent, epochs", 8),
    ("moving network", 8),
]


@pytest.mark.parametrize(
    ("rule", "devices"), QUICK + [pytest.param(*case, marks=pytest.mark.slow) for case in LONG]
)
def test_any_number_of_devices_gives_the_same_bits(rule, devices):
    jax.tree.map(np.testing.assert_array_equal, outcome(rule, devices), on_one_device(rule))


@pytest.mark.slow
def test_the_deadline_on_the_moving_network_is_missed_and_met():
    """Or its case above would say nothing of them."""
    _, chunk = on_one_device("moving network")
    sampled, finished = (
        np.asarray(x).sum() for x in (chunk.metrics.sampled, chunk.metrics.finished)
    )
    assert 0 < finished < sampled


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_fast_mode_differs_by_rounding_only(devices):
    rule = "balanced"
    fast = outcome(rule, devices, deterministic=False)
    assert_close(fast, on_one_device(rule), 1e-4)


def test_map_keeps_the_order_of_items_whatever_the_devices():
    for devices in (1, 2, 8):
        mesh = parallel.make_mesh(devices)
        squares = quick_jit(lambda x, mesh=mesh: mesh.map(lambda i, x: x * i**2, 5, x))(2.0)
        np.testing.assert_array_equal(squares, 2.0 * np.arange(5) ** 2)


def test_too_many_devices_are_refused_by_name():
    with pytest.raises(ValueError, match=r"run\.devices=9: this machine has 8 cpu"):
        parallel.make_mesh(9)
