"""A run that replays a recorded network is the run that it was recorded from, bit for bit."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from cefl_jax import build, experiment
from tests import world
from tests.quick import once_jit


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The setup of a run on a moving network, what it led to, and the file of its network."""
    setup = world.moving_setup()
    file = tmp_path_factory.mktemp("recorded") / "network.npz"
    np.savez(file, **experiment.record_trace(setup))
    return setup, world.moving_run(), file


def test_a_replay_gives_the_same_bits(recorded):
    setup, original, file = recorded
    network = dataclasses.replace(setup.spec.network, dynamics="trace", trace=str(file))
    spec = dataclasses.replace(setup.spec, network=network)
    replaying = build.build(spec, world.make_dataset(), world.make_parts())
    replayed = world.run_whole(replaying, once_jit)
    jax.tree.map(np.testing.assert_array_equal, replayed, original)


def test_the_trace_is_that_of_the_run(recorded):
    """The conditions after each evaluation are in the file; and the network does move."""
    _, original, file = recorded
    with np.load(file) as arrays:
        trace = dict(arrays)
    for state, _ in original:
        for name, rows in trace.items():
            np.testing.assert_array_equal(rows[int(state.round)], getattr(state.conditions, name))
    for rows in trace.values():
        assert len(rows) == 6
        assert all(not np.array_equal(*pair) for pair in itertools.pairwise(rows))
    assert trace["available"].any()
    assert not trace["available"].all()
