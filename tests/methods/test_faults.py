"""A run whose numbers stop being finite says in which round, stage and leaf; every method does."""

import functools

import jax
import numpy as np
import pytest

from cefl_jax import program
from cefl_jax.methods import METHODS
from cefl_jax.runtime.nonfinite import Fault, find_fault
from tests import world
from tests.quick import quick_jit

FRONT, BACK = "halves.front[0]['Dense_0']['bias']", "halves.back[0]['Dense_0']['bias']"


@functools.cache
def compiled(method="cefl"):
    """A run of five rounds of one local step, three and two to an evaluation."""
    changes = {"train.rounds": 5, "run.eval_every": 3, "train.local_steps": 1}
    setup = world.make_setup(changes | {"method.name": method})
    setup = setup._replace(data=setup.data._replace(images=np.float32(setup.data.images) / 255))
    start, advance = program.make_program(setup)
    arrays = program.make_hparams(setup.spec), setup.data, setup.network
    # As it comes back, or the program for the first state would be another one.
    jit = functools.partial(quick_jit, out_shardings=setup.mesh.everywhere)
    return setup, jit(start)(jax.random.key(0), *arrays[1:]), jit(advance), arrays


def chunks(method="cefl", data=None, **hparams):
    """Number of rounds and the Chunk of each evaluation."""
    _, state, advance, (values, own, network) = compiled(method)
    values = world.change_hparams(values, hparams)
    for rounds in (3, 2):
        state, chunk = advance(state, values, own if data is None else data, network)
        yield rounds, jax.device_get(chunk)


def fault_of(chunk, rounds):
    return find_fault(chunk.metrics.finite, chunk.scores, rounds)


def test_a_run_that_is_sound_has_no_fault_though_its_last_chunk_is_shorter():
    for rounds, chunk in chunks():
        assert fault_of(chunk, rounds) is None
        assert chunk.metrics.skipped is None
    assert not any(leaf[2] for leaf in jax.tree.leaves(chunk.metrics.finite))
    stages = list(chunk.metrics.finite)
    assert stages == ["split training", "aggregation", "distillation"]  # as they run


@pytest.mark.parametrize(
    ("rates", "fault"),
    [
        # The loss is taken before the one step of the round.
        ({"learning_rate": np.inf}, Fault(0, "aggregation", FRONT)),
        ({"distill_learning_rate": np.inf}, Fault(0, "distillation", "back[0]['Dense_0']['bias']")),
        ({"temperature_cloud": 0.0}, Fault(0, "distillation", "cloud[0]['Dense_0']['bias']")),
        ({"learning_rate": 1e15}, Fault(1, "split training", "loss")),
    ],
)
def test_a_run_that_diverges_says_where(rates, fault):
    (rounds, chunk), _ = chunks(**rates)
    assert fault_of(chunk, rounds) == fault


def test_the_round_is_that_in_which_a_broken_example_is_first_seen():
    setup, *_ = compiled()
    clients = world.decide_rounds(setup)[0].plan.clients
    first = {n: np.flatnonzero((clients == n).any(1)).min(initial=9) for n in range(11)}
    client, index = max(first.items(), key=lambda item: item[1] * (item[1] < 5))
    assert index > 0
    images = setup.data.images.copy()
    images[setup.partition[client]] = np.nan
    faults = [fault_of(chunk, n) for n, chunk in chunks(data=setup.data._replace(images=images))]
    done, fault = (0, faults[0]) if faults[0] is not None else (3, faults[1])
    assert (done + fault.offset, *fault[1:]) == (index, "split training", "loss")


STAGES = {
    "centralized": ["training"],
    "fedavg": ["local training", "aggregation"],
    "fedprox": ["local training", "aggregation"],
    "scaffold": ["local training", "aggregation", "server step"],
    "fedopt": ["local training", "aggregation", "server step"],
    "fednova": ["local training", "aggregation", "server step"],
    "hierfavg": ["local training", "aggregation"],
    "splitfed_v1": ["split training", "aggregation"],
    "splitfed_v2": ["split training", "aggregation"],
    "sequential_split": ["split training"],
    "fedgkt": ["local training", "distillation"],
}


@pytest.mark.parametrize(
    "method",
    [name if name == "fedopt" else pytest.param(name, marks=pytest.mark.slow) for name in STAGES],
)
def test_every_method_says_of_its_stages_whether_they_are_sound(method):
    """And finds a label that is none in the loss, and an infinite rate in what it moves."""
    setup, *_ = compiled(method)
    for rounds, chunk in chunks(method):
        assert fault_of(chunk, rounds) is None
        assert list(chunk.metrics.finite) == STAGES[method]
    labels = np.full_like(setup.data.labels, 99)
    rounds, chunk = next(chunks(method, setup.data._replace(labels=labels)))
    assert fault_of(chunk, rounds) == Fault(0, STAGES[method][0], "loss")
    rounds, chunk = next(chunks(method, learning_rate=np.inf))
    assert fault_of(chunk, rounds).offset == 0
    if STAGES[method][-1] in ("server step", "distillation"):
        server = dict.fromkeys(METHODS[method].traced, np.inf)
        rounds, chunk = next(chunks(method, **server))
        assert fault_of(chunk, rounds)[:2] == (0, STAGES[method][-1])
