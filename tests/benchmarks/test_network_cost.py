"""The benchmark of the network's cost follows the program that it measures."""

import jax
import pytest

from benchmarks.network_cost import BareCefl, make_round
from cefl_jax import program
from cefl_jax.methods.cefl import Cefl
from tests import world


@pytest.mark.parametrize("train", [True, False])
def test_a_round_without_a_network_has_the_shapes_of_one_with_it(train):
    shapes = []
    for method in (Cefl, BareCefl):
        setup = world.make_setup({"network.dynamics": "static"})
        start, step = make_round(setup, method, train)
        arrays = setup.data, setup.network
        state = jax.eval_shape(start, jax.random.key(0), *arrays)
        hparams = program.make_hparams(setup.spec)
        after = jax.eval_shape(step, state, hparams, *arrays)
        shapes.append(jax.tree.map(lambda leaf: leaf.shape, after))
    assert shapes[0] == shapes[1]
