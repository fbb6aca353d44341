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

FRONT, BACK = "halves.front[0]['Dense_0']['bias']", "back[0]['Dense_0']['bias']"
WHOLE = ["local training", "aggregation"]
STAGES = {  # of each method, as they run
    "cefl": ["split training", "aggregation", "distillation"],
    "centralized": ["training"],
    "fedavg": WHOLE,
    "fedprox": WHOLE,
    "scaffold": [*WHOLE, "server step"],
    "fedopt": [*WHOLE, "server step"],
    "fednova": [*WHOLE, "server step"],
    "hierfavg": WHOLE,
    "splitfed_v1": ["split training", "aggregation"],
    "splitfed_v2": ["split training", "aggregation"],
    "sequential_split": ["split training"],
    "fedgkt": ["local training", "distillation"],
}
DEFAULT = ("cefl", "fedopt")


@functools.cache
def compiled(method):
    """A run of five rounds of one local step, three and two to an evaluation."""
    changes = {"train.rounds": 5, "run.eval_every": 3, "train.local_steps": 1}
    setup = world.make_setup(changes | {"method.name": method})
    setup = setup._replace(data=setup.data._replace(images=np.float32(setup.data.images) / 255))
    start, advance = program.make_program(setup)
    arrays = program.make_hparams(setup.spec), setup.data, setup.network
    # As it comes back, or the program for the first state would be another one.
    jit = functools.partial(quick_jit, out_shardings=setup.mesh.everywhere)
    return setup, jit(start)(jax.random.key(0), *arrays[1:]), jit(advance), arrays


def run(method, data=None, **hparams):
    """The Chunks of both evaluations, and the round and Fault of the first that has one."""
    _, state, advance, (values, own, network) = compiled(method)
    values, chunks, found = world.change_hparams(values, hparams), [], None
    for done, count in ((0, 3), (3, 2)):
        state, chunk = advance(state, values, own if data is None else data, network)
        chunks.append(jax.device_get(chunk))
        fault = find_fault(chunks[-1].metrics.finite, chunks[-1].scores, count)
        if found is None and fault is not None:
            found = fault._replace(offset=done + fault.offset)
    return chunks, found


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[pytest.mark.slow] * (m not in DEFAULT)) for m in STAGES]
)
def test_every_method_says_of_its_stages_whether_they_are_finite(method):
    """And finds a label that is none in the loss, and an infinite rate in what it moves."""
    chunks, fault = run(method)
    assert fault is None  # though the last chunk is shorter
    for chunk in chunks:
        assert list(chunk.metrics.finite) == STAGES[method]
        assert chunk.metrics.skipped is None
    assert not any(check.first[2] for check in chunks[1].metrics.finite.values())  # no round
    setup, *_ = compiled(method)
    labels = np.full_like(setup.data.labels, 99)
    _, fault = run(method, setup.data._replace(labels=labels))
    assert fault == Fault(0, STAGES[method][0], "loss")
    assert run(method, learning_rate=np.inf)[1].offset == 0
    if own := METHODS[method].traced:
        in_the_end = STAGES[method][-1] in ("server step", "distillation")
        _, fault = run(method, **dict.fromkeys(own, np.inf))
        assert fault[:2] == (0, STAGES[method][-1]) or not in_the_end


@pytest.mark.parametrize(
    ("rates", "fault"),
    [
        # The loss is taken before the one step of the round.
        ({"learning_rate": np.inf}, Fault(0, "aggregation", FRONT)),
        ({"distill_learning_rate": np.inf}, Fault(0, "distillation", BACK)),
        ({"temperature_cloud": 0.0}, Fault(0, "distillation", "cloud[0]['Dense_0']['bias']")),
        ({"learning_rate": 1e15}, Fault(1, "split training", "loss")),
    ],
)
def test_a_run_that_diverges_says_where(rates, fault):
    assert run("cefl", **rates)[1] == fault


def test_the_round_is_that_in_which_a_broken_example_is_first_seen():
    setup, *_ = compiled("cefl")
    clients = world.decide_rounds(setup)[0].plan.clients
    seen = {n: np.flatnonzero((clients == n).any(1)) for n in range(11)}
    client, index = max(((n, min(at, default=0)) for n, at in seen.items()), key=lambda x: x[1])
    assert index > 0
    images = setup.data.images.copy()
    images[setup.partition[client]] = np.nan
    _, fault = run("cefl", setup.data._replace(images=images))
    assert fault == Fault(index, "split training", "loss")
