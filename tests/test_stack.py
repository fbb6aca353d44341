"""What runs may differ in, and still share a program."""

from unittest import mock

import jax
import pytest

from cefl_jax import program, stack
from cefl_jax.methods import METHODS
from tests import world

OTHER = {
    "train.optimizer.learning_rate": 0.3,
    "cefl.distill.learning_rate": 0.02,
    "cefl.distill.lambda_edge": 0.1,
    "cefl.distill.lambda_cloud": 0.2,
    "cefl.distill.temperature": 5.0,
    "cefl.distill.temperature_cloud": 6.0,
    "fedopt.server_learning_rate": 0.3,
    "fednova.server_momentum": 0.4,
    "fedprox.mu": 0.7,
    "fedgkt.server_learning_rate": 0.02,
    "scaffold.server_learning_rate": 0.5,
    "network.preset": "device_zoo",
    "seed": 3,
}
"""Another value of everything that a program takes in."""


def text_of(setup):
    """The traced program of a run."""
    start, advance = program.make_program(setup)

    def run(key, hparams, data, network):
        return advance(start(key, data, network), hparams, data, network)

    return str(jax.make_jaxpr(run)(jax.random.key(0), *program.put_inputs([setup])))


@pytest.mark.parametrize("method", ["cefl", "fedopt", "fednova", "fedprox", "scaffold", "fedgkt"])
def test_runs_of_one_key_have_the_same_program_whatever_is_put_in(method):
    """Down to the last constant; and what is left out of the key is all that is put in."""
    put_in = {*program.TRACED.values(), *stack.READ_AS_ARRAYS, "seed"}
    put_in |= {f"{name}.{own}" for name in METHODS for own in METHODS[name].traced}
    assert put_in - {"network.path", "network.trace"} == {*OTHER}  # those name files
    own = {path: value for path, value in OTHER.items() if path.partition(".")[0] not in METHODS}
    own |= {path: value for path, value in OTHER.items() if path.startswith(f"{method}.")}
    changes = {"method.name": method, "network.num_edges": 3}
    one, other = (world.make_setup(changes | more) for more in ({}, own))
    assert len(one.device_names) != len(other.device_names)  # of presets
    same = world.make_setup(changes | own | {"network.preset": one.spec.network.preset})
    assert stack.stack_key(one) == stack.stack_key(same) != stack.stack_key(other)
    assert text_of(one) == text_of(same)


@pytest.mark.parametrize(
    "changes",
    [
        {"train.optimizer.momentum": 0.5},
        {"train.rounds": 3},
        {"network.dynamics": "markov"},
        {"network.num_edges": 3},
        {"model.name": "lenet5"},
        {"data.normalization.mean": (0.5,)},
    ],
    ids=str,
)
def test_runs_of_other_programs_or_samples_have_another_key(changes):
    side = 16
    one, other = (world.make_setup(more, side=side) for more in ({}, changes))
    assert stack.stack_key(one) != stack.stack_key(other)
    assert stack.stack_key(one) != stack.stack_key(world.make_setup(side=side, seed=5))


def test_pad_fills_up_with_the_last_run():
    setups = [world.make_setup({"seed": seed}) for seed in range(3)]
    for width, seeds in ((2, [0, 1]), (5, [0, 1, 2, 2, 2])):
        assert [setup.spec.seed for setup in stack.pad(setups, width)] == seeds


def test_a_stack_counts_what_was_compiled_to_know_its_bytes(monkeypatch):
    """A clock that stands still but while the compiler works."""
    clock = [0.0]

    def compile_both(*_):
        clock[0] += 100
        return None, None

    monkeypatch.setattr(stack.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(program, "compile_both", compile_both)
    monkeypatch.setattr(program, "begin", lambda *_: None)
    monkeypatch.setattr(stack, "count_bytes", lambda _: 7)
    compiler, setups, display = stack.Compiler(), [world.make_setup()], mock.Mock()
    assert compiler.bytes(setups, display) == 7
    assert compiler(setups, display)[3] == 100
    assert compiler(setups, display)[3] == 0
