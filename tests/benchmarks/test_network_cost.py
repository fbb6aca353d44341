"""The benchmark of the network's cost follows the program that it measures."""

import jax
import pytest

from benchmarks.network_cost import make_decision, without_network
from cefl_jax import program
from tests import world


@pytest.mark.parametrize("train", [True, False])
def test_a_round_without_a_network_has_the_shapes_of_one_with_it(train):
    shapes = []
    whole = world.make_setup({"network.dynamics": "static"})
    for setup in (whole, without_network(whole)):
        start, step = program.make_round(setup)
        step = step if train else make_decision(setup)
        arrays = setup.data, setup.network
        state = jax.eval_shape(start, jax.random.key(0), *arrays)
        hparams = program.make_hparams(setup.spec)
        after = jax.eval_shape(step, state, hparams, *arrays)
        shapes.append(jax.tree.map(lambda leaf: leaf.shape, after[0] if train else after))
    assert shapes[0] == shapes[1]
