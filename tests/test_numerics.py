"""Elements at pairs of indices, and what a round reads without chains of them."""

import jax
import jax.extend.core as core
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax import program
from cefl_jax.data.federated import permute
from cefl_jax.numerics import at_pairs
from tests import world


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (3, 4), (2, 4, 3), (2, 1, 5, 3)])
def test_at_pairs_reads_what_two_indices_read(shape):
    values = np.arange(np.prod(shape)).reshape(shape)
    rng = np.random.default_rng(0)
    row, column = rng.integers(shape[-2], size=(6, 1)), rng.integers(shape[-1], size=(6, 2))
    np.testing.assert_array_equal(at_pairs(values, row, column), values[..., row, column])
    one = at_pairs(values, np.asarray(row[0, 0]), np.asarray(column[0, 0]))
    np.testing.assert_array_equal(one, values[..., row[0, 0], column[0, 0]])


def gathers(jaxpr):
    """Every gather of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "gather":
            yield equation
    for inner in core.subjaxprs(jaxpr):
        yield from gathers(inner)


def trace_round(setup):
    def advance(key, hparams, data, network):
        method = program.make_method(setup, data, network)
        return method.round(method.init(key), hparams)

    return advance, (program.make_hparams(setup.spec), setup.data, setup.network)


def trace_decision(setup):
    """Everything of a round but training."""
    planner = setup.planner

    def decide(key, data, network):
        start = planner.start(key, network)
        decision = planner.decide(key, jnp.int32(0), start, data, network)
        return planner.cost(decision, len(setup.device_names))

    return decide, (setup.data, setup.network)


@pytest.mark.parametrize(
    ("trace", "changes"),
    [
        (trace_round, world.RULES["joint"]),
        (trace_decision, {"cefl.offload.objective": "bottleneck", "network.dynamics": "markov"}),
        (trace_decision, world.RULES["patent"] | {"cefl.offload.rule": "greedy"}),
        (trace_decision, {"method.name": "hierfavg"}),
        (trace_decision, {"method.name": "splitfed_v1"}),
    ],
)
def test_a_round_has_no_gather_of_two_indices(trace, changes):
    """Chained, such gathers take the compiler exponentially long.

    `sequential_split` and `fedgkt` have some, where they read a client's own row or step under
    vmap; none of these elements is an index.
    """
    function, arrays = trace(world.make_setup(changes))
    found = list(gathers(jax.make_jaxpr(function)(jax.random.key(0), *arrays).jaxpr))
    assert len(found) > 20
    indices = [equation.params["dimension_numbers"].start_index_map for equation in found]
    assert max(map(len, indices)) == 1


def test_permute_makes_its_rounds_in_a_loop():
    """Unrolled, a gather by 24 of them takes some compilers for CPUs minutes."""
    made = jax.jit(permute).lower(jax.random.key(0), jnp.arange(4), 100).as_text()
    assert made.count("stablehlo.while") == 2  # one is of the random bits
    assert made.count("stablehlo.xor") < 24  # a round has two
